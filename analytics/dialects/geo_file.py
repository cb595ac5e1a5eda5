"""What the lake's GeoIP database says of its addresses, as a Parquet file: other engines cannot ask our reader."""

from __future__ import annotations

from pathlib import Path
from typing import Final

from analytics import connect
from analytics.shell import replaced
from analytics.ship.destination import Destination
from engine.errors import StoreError

PLACE: Final = ".geo/geo.parquet"  # below the lake


def write_geo(lake: str | Path, file: Path | None = None) -> str:
    """Write the view `geo` there, by default into the lake, replacing what was. Returns its path or URL.

    Raises StoreError, one line.
    """
    import pyarrow as pa
    import pyarrow.parquet as pq

    with connect(lake) as con:
        table = con.sql("FROM geo ORDER BY ip").to_arrow_table()
    data = pa.BufferOutputStream()
    pq.write_table(table, data, compression="zstd")
    content = data.getvalue().to_pybytes()
    if file is None:
        Destination(str(lake)).put(content, PLACE)
        return f"{str(lake).rstrip('/')}/{PLACE}"
    try:
        with replaced(file) as output:
            output.write(content)
    except OSError as error:
        raise StoreError(f"{file} cannot be written: {(error.strerror or str(error)).lower()}") from None
    return str(file.absolute())
