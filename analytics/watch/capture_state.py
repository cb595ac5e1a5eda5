"""How the capture is doing, from the mirror of `capture_stats`: rates, losses by cause, and whether it still runs."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final

from analytics.watch.mirror import STATS
from analytics.watch.timerange import US
from engine.tables import OWN_DROPS

if TYPE_CHECKING:
    from analytics.watch.context import Context

LIVE_S: Final = 5  # a capture writes a row every second; silent for longer, it is not running
RATE_S: Final = 3
CAUSES: Final = ("kernel_drops", "interface_drops", *OWN_DROPS)
# received includes what the kernel dropped, and not what the interface lost before.
_LOST: Final = " + ".join(CAUSES)


def stats_source(ctx: Context, *, every: bool = False) -> tuple[str, float]:
    """A table expression of the range's counters with `s`, seconds since the epoch; and the share read so far. Those
    of the sensors that the filter lets through, or of `every` one."""
    of_sensor = "true" if every else ctx.of_sensor("capture_stats")
    found = ctx.lake.mirror(STATS, ctx.span)
    if found is not None:
        return (
            f"(SELECT * FROM {found[0]} WHERE s >= {ctx.span.start_us // US} AND s <= {-(-ctx.span.end_us // US)} "
            f"AND {of_sensor})",
            found[2],
        )
    sums = ", ".join(f"coalesce({name}, 0) AS {name}" for name, _ in STATS.sums[:-1])
    return (
        f"(SELECT epoch_us(ts) // 1000000 AS s, source, sensor, {sums}, (interval_s * 1000)::BIGINT AS interval_ms "
        f"FROM {{capture_stats}} WHERE {of_sensor})"
    ), 1.0


def drops(ctx: Context, source: str, since_s: int | None = None) -> dict[str, Any]:
    """Frames lost by cause. `pct` is of all frames that came by; None without any counters."""
    sums = ", ".join(f"coalesce(sum({name}), 0)::BIGINT" for name in ("received", *CAUSES))
    counts = ctx.one(f"SELECT count(*), {sums} FROM {source} WHERE s >= $from_s", from_s=since_s or -(1 << 40))
    rows, received, *lost = counts
    by_cause = dict(zip(CAUSES, lost, strict=True))
    seen = received + by_cause["interface_drops"]
    total = sum(lost)
    return {"pct": round(100 * total / seen, 4) if seen else (0.0 if rows else None), "lost": total, "seen": seen,
            "by_cause": {name: n for name, n in by_cause.items() if n}}  # fmt: skip


def sources(ctx: Context, source: str) -> dict[str, Any]:
    """Is it running, on what, and since when is it silent. `rate` is of the last seconds, None when it does not run."""
    # One row per second and source; the rates of the last RATE_S seconds are those of each source's newest rows.
    now = int(ctx.now)
    rows = ctx.rows(
        f"SELECT source, sensor, max(s), sum(received) FILTER (s >= $recent), sum(wire_bytes) FILTER (s >= $recent), "
        f"sum(interval_ms) FILTER (s >= $recent), max(pool_fill) FILTER (s >= $recent) FROM {source} GROUP BY ALL "
        "ORDER BY max(s) DESC, source",
        recent=now - LIVE_S - RATE_S,
    )
    if not rows:
        return _before(ctx)
    live = [row for row in rows if row[2] >= now - LIVE_S]
    last = max(row[2] for row in rows)
    shown = live or [row for row in rows if row[2] > last - LIVE_S]
    pps = sum(1000 * row[3] / row[5] for row in live if row[5])
    bps = sum(8000 * row[4] / row[5] for row in live if row[5])
    return {
        "state": "live" if live else "stopped",
        "sources": [row[0] for row in shown],
        "sensors": sorted({row[1] for row in shown}),
        "pps": round(pps, 1) if live else None,
        "bps": round(bps) if live else None,
        "fill": max((row[6] or 0 for row in live), default=None),
        "last": last * US,
        "age_s": round(max(0.0, ctx.now - last), 1),
    }


def _before(ctx: Context) -> dict[str, Any]:
    """Nothing was counted in the range: what was there last."""
    sources, sensor, last = ctx.lake.last_counted() or ([], "", None)
    if not ctx.one(f"SELECT {ctx.of_sensor('capture_stats')} FROM (SELECT $name AS sensor)", name=sensor)[0]:
        sources, sensor, last = [], "", None
    age_s = None if last is None else round(max(0.0, ctx.now - last / US), 1)
    state = "none" if age_s is None else "stopped" if age_s > LIVE_S else "live"
    return {"state": state, "sources": sources, "sensors": [sensor] if sensor else [], "pps": None, "bps": None,
            "fill": None, "last": last, "age_s": age_s}  # fmt: skip
