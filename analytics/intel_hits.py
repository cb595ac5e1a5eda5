"""`engine rules lists`: what each intel list of the configuration holds, and what it has found in the lake."""

from __future__ import annotations

from collections import Counter
from pathlib import Path
from typing import TYPE_CHECKING, Final

import duckdb

from analytics.readonly import one_line
from analytics.store import connect
from engine.detect.intel_lists import MAX_LIST, read_entries
from engine.errors import StoreError

if TYPE_CHECKING:
    from engine.config import IntelConfig

_HITS: Final = """
SELECT list, sum("count")::BIGINT, max(last_seen) FROM (
    SELECT evidence->>'list' AS list, "count", last_seen FROM alerts WHERE kind = 'intel')
WHERE list IS NOT NULL GROUP BY list
"""


def lines(lake: Path, config: IntelConfig) -> list[str]:
    """A line for each list, configured or in alerts: its entries by kind, its hits, the last of them."""
    with connect(lake) as con:
        try:
            hits = {name: (count, last) for name, count, last in con.execute(_HITS).fetchall()}
        except duckdb.Error as error:
            raise StoreError(f"alerts of lake {lake} cannot be read: {one_line(error)}") from None
    out = []
    for path in dict.fromkeys((*config.lists, *sorted(hits))):
        count, last = hits.get(path, (0, None))
        when = f", the last {last:%Y-%m-%d %H:%M:%S} UTC" if last is not None else ""
        holds = _holds(path) if path in config.lists else "not configured any more"
        out.append(f"{path}: {holds}; {count:,} hits in alerts{when}")
    return out or ["no intel list is configured: name some in [intel] lists"]


def _holds(path: str) -> str:
    if path.startswith(("http://", "https://")):
        return "a URL, fetched by the running engine"
    try:
        with open(path, "rb") as file:
            text = file.read(MAX_LIST + 1).decode("utf-8", "replace")
    except OSError as error:
        return f"cannot be read ({(error.strerror or str(error)).lower()})"
    kinds = Counter(entry.kind for entry in read_entries(text, path))
    return ", ".join(f"{n:,} {kind}" for kind, n in sorted(kinds.items())) or "nothing"
