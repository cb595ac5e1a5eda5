"""How each sensor is, for a lake that has several: what it counted in the range, and what it says of its shipping."""

from __future__ import annotations

import json
from typing import Any, Final

from analytics.ship.fleet import of_directory
from analytics.watch import capture_state
from analytics.watch.context import Context
from analytics.watch.timerange import US

COUNTED: Final = ("sensor", "last", "pps", "received", "lost")
TOLD: Final = ("version", "last_seen", "lag_s", "clock_s", "waiting_bytes", "not_shipped", "problem")


def fleet(ctx: Context) -> dict[str, list[Any]]:
    """Columns COUNTED, `live` and TOLD, a row per sensor, as in the view `fleet` but for times, which are microseconds;
    no rows for a lake of one sensor. Of all sensors, whichever the filter names."""
    source, _ = capture_state.stats_source(ctx, every=True)
    counted = ctx.rows(
        "SELECT sensor, max(s), coalesce(sum(received) FILTER (s > newest - 60), 0) / 60, sum(received)::BIGINT, "
        "sum(received - rows + interface_drops)::BIGINT "
        f"FROM (SELECT *, max(s) OVER (PARTITION BY sensor) AS newest FROM {source}) GROUP BY sensor"
    )
    rows = {row[0]: dict(zip(COUNTED, row, strict=True)) for row in counted}
    for told in json.loads(of_directory(ctx.lake.path)):
        row = rows.setdefault(told["sensor"], {"sensor": told["sensor"], "last": None, "received": 0, "lost": 0})
        written, said = told["written"], told["said"]
        row["clock_s"] = None if written is None or said is None else round(said - written, 1) + 0.0
        row["last_seen"] = None if written is None else int(written * US)
        row["not_shipped"], row["problem"] = told["lost_rows"], told["problem"] or None
        row |= {name: told[name] for name in ("version", "lag_s", "waiting_bytes")}
    if len(rows) < 2:
        rows = {}
    for row in rows.values():
        row["live"] = row["last"] is not None and row["last"] >= int(ctx.now) - capture_state.LIVE_S
        row["last"] = None if row["last"] is None else row["last"] * US
        row["pps"] = None if row.get("pps") is None else round(row["pps"], 1)
    return {name: [rows[key].get(name) for key in sorted(rows)] for name in (*COUNTED, "live", *TOLD)}
