"""What the lake's GeoIP database says of its addresses, as a Parquet file: other engines cannot ask our reader."""

from __future__ import annotations

import os
import secrets
from pathlib import Path
from typing import Final

import duckdb

from analytics import connect
from engine.errors import StoreError

FILE: Final = "geo.parquet"
DIRECTORY: Final = ".geo"


def default_place(lake: Path) -> Path:
    """Beside the tables of the lake."""
    return lake / DIRECTORY / FILE


def write_geo(lake: str | Path, path: Path) -> int:
    """Write the view `geo` there, replacing what was, and return how many addresses it has. Raises StoreError."""
    unfinished = path.with_name(f".{path.name}.{secrets.token_hex(4)}")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        with connect(lake) as con:
            target = str(unfinished).replace("'", "''")
            found = con.execute(f"COPY (FROM geo) TO '{target}' (FORMAT parquet, COMPRESSION zstd)").fetchone()
        os.replace(unfinished, path)
    except OSError as error:
        raise StoreError(
            f"{path} cannot be written: {(error.strerror or str(error)).lower()}; name another with --geo"
        ) from None
    except duckdb.IOException as error:
        raise StoreError(f"{path} cannot be written: {str(error).splitlines()[0]}; name another with --geo") from None
    finally:
        unfinished.unlink(missing_ok=True)
    return int(found[0]) if found else 0
