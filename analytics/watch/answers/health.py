"""`health` and `config`: whether everything arrives, how full the disk gets, and with what settings."""

from __future__ import annotations

import tomllib
from typing import Any, Final

from analytics.watch import capture_state
from analytics.watch.context import Context
from analytics.watch.disk import disk
from analytics.watch.fleet import fleet
from analytics.watch.registry import question
from analytics.watch.statement import Statement
from analytics.watch.timerange import US
from engine.config import EngineConfig
from engine.tables import CAPTURE_STATS
from engine.usage import CPU, PEAKS

SHOWN: Final = (
    "received", "rows", "wire_bytes", "flows", "flows_evicted", "flows_not_written", "messages", "messages_missed",
    "messages_bad", "frames_stored", "frames_not_stored", "scored", "scores_shed", "candidates_missed", "undecodable",
    *capture_state.CAUSES, *CPU, *PEAKS,
)  # fmt: skip
SOURCES: Final = 16  # with a line of their own; the rest are in the sums
OF_A_SOURCE: Final = ("received", "wire_bytes", "ring_frames", *capture_state.CAUSES)
# What to do about each loss; docs/operations.md says the same at more length.
REMEDIES: Final = {
    "kernel_drops": "Give the ring more memory (--buffer), capture less (--filter) or less of each (--snaplen)",
    "interface_drops": "Enlarge the network card's own ring: ethtool -G",
    "drop_rows_shed": "--frames off, a narrower --filter, --no-applications, or more cores",
    "drop_not_written": "Free space on the lake's disk, or see why it cannot be written",
    "drop_unread_at_stop": "None needed: it was still in the ring when the capture was stopped",
    "frames_not_stored": "A faster disk, a smaller --snaplen, or --frames off",
    "messages_missed": "A larger [applications] budget in the configuration, or more cores",
    "candidates_missed": "Fewer signatures, or more cores",
    "scores_shed": "More cores; packets are scored again when the pressure is gone",
    "flows_evicted": "Raise --max-flows, or shorten --idle",
    "flows_not_written": "Free space on the lake's disk, or see why it cannot be written",
    "messages_bad": "None needed: malformed, or of another protocol on that port",
    "undecodable": "None needed: damaged, cut short by --snaplen, or of an unknown kind; they are rows all the same",
}


def statements(ctx: Context) -> dict[str, Statement]:
    lost = " + ".join(f"coalesce({name}, 0)" for name in capture_state.CAUSES)
    cpu = ", ".join(f"sum({name})::BIGINT AS {name}" for name in CPU)
    peaks = ", ".join(f"max({name}) AS {name}" for name in PEAKS)
    drops = ", ".join(f"sum({name})::BIGINT AS {name}" for name in capture_state.CAUSES)
    where = f"WHERE {ctx.of_sensor('capture_stats')}"
    return {
        "counters": Statement(f"SELECT * FROM {{capture_stats}} {where} ORDER BY ts, source"),
        "drops": Statement(
            f"SELECT source, sum(received)::BIGINT AS received, {drops} FROM {{capture_stats}} {where} GROUP BY source"
        ),
        "usage": Statement(
            f"SELECT date_trunc('second', ts) AS second, {cpu}, {peaks} FROM {{capture_stats}} {where} "
            "GROUP BY ALL ORDER BY ALL"
        ),
        "sources": Statement(
            f"SELECT source, sensor, sum(received)::BIGINT AS received, sum(wire_bytes)::BIGINT AS wire_bytes, "
            f"sum({lost})::BIGINT AS lost, max(ring_frames) AS ring_frames, max(ts) AS last FROM {{capture_stats}} "
            f"{where} GROUP BY ALL ORDER BY received DESC"
        ),
    }


@question("health", "Whether everything arrives", statements=statements)
def health(ctx: Context) -> dict[str, Any]:
    """capture: as of `state`; series: {start_s, step_s, all: {counter: [per bucket]}, received: {source: []}}: the
    counters of capture_stats that are not zero throughout, frames, bytes or us a bucket, and of PEAKS the highest;
    sources: {source, sensor, live, received, wire_bytes, lost, pct, ring_frames, last, and each cause}: columns;
    fleet: columns of analytics.watch.fleet, of all sensors, without rows when there is one;
    totals: {counter: n}; drops: {pct, lost, seen, by_cause}; meanings, remedies: {counter: text};
    disk: as of analytics.watch.disk; unreadable: {segment: why}, at most 20. Of a filter, what it says of sensors counts.
    """
    ctx.sensors_alone()
    source, loaded = capture_state.stats_source(ctx)
    names = [n for n in SHOWN if n in {c.name for c in CAPTURE_STATS}]
    sums = ", ".join(f"{'max' if name in PEAKS else 'sum'}({name})::BIGINT" for name in names)
    rows = ctx.rows(
        f"SELECT source, sensor, s // $step * $step, max(s), {sums} FROM {source} GROUP BY 1, 2, 3",
        step=ctx.span.step_s,
    )
    count, first, step = ctx.span.buckets(), ctx.span.first_bucket_s, ctx.span.step_s
    every = {name: [0] * count for name in names}
    totals = dict.fromkeys(names, 0)
    one: dict[tuple[str, str], dict[str, int]] = {}
    lines: dict[str, list[int]] = {}
    for name, sensor, bucket, last, *values in rows:
        at = (bucket - first) // step
        mine = one.setdefault((name, sensor), dict.fromkeys((*OF_A_SOURCE, "last"), 0))
        mine["last"] = max(mine["last"], last)
        for counter, value in zip(names, values, strict=True):
            joined = max if counter in PEAKS else int.__add__
            totals[counter] = joined(totals[counter], value)
            if counter in mine:
                mine[counter] = joined(mine[counter], value)
            if 0 <= at < count:
                every[counter][at] = joined(every[counter][at], value)
        if 0 <= at < count:
            lines.setdefault(name, [0] * count)[at] += values[names.index("received")]
    heaviest = sorted(lines, key=lambda n: -sum(lines[n]))[:SOURCES]
    return {
        "capture": capture_state.sources(ctx, source),
        "series": {
            "start_s": first, "step_s": step, "all": {n: v for n, v in every.items() if any(v)},
            "received": {name: lines[name] for name in heaviest},
        },
        "sources": _sources(one, int(ctx.now)),
        "fleet": fleet(ctx),
        "totals": totals,
        "drops": capture_state.drops(ctx, source),
        "meanings": {c.name: c.meaning for c in CAPTURE_STATS if c.name in names},
        "remedies": REMEDIES,
        "disk": disk(ctx.lake.path, ctx.now),
        "unreadable": ctx.lake.unreadable(),
        "loaded": round(loaded, 3),
    }  # fmt: skip


def _sources(one: dict[tuple[str, str], dict[str, int]], now: int) -> dict[str, list[Any]]:
    """A row for each source, the busiest first."""
    out: dict[str, list[Any]] = {name: [] for name in ("source", "sensor", "live", "lost", "pct", *OF_A_SOURCE, "last")}
    for (source, sensor), sums in sorted(one.items(), key=lambda item: (-item[1]["received"], item[0])):
        lost = sum(sums[name] for name in capture_state.CAUSES)
        seen = sums["received"] + sums["interface_drops"]
        row = {"source": source, "sensor": sensor, "live": sums["last"] >= now - capture_state.LIVE_S, "lost": lost,
               "pct": round(100 * lost / seen, 4) if seen else 0.0, **sums, "last": sums["last"] * US}  # fmt: skip
        for name, values in out.items():
            values.append(row[name])
    return out


@question(
    "config", "The configuration of the engine that runs", role="admin", ranged=False, filtered=False, refresh_s=2
)
def config(ctx: Context) -> dict[str, Any]:
    """sections: {section: {key: value}}, secrets masked; toml: the same as text; started: when the engine that left it
    started, null when none has: then these are the defaults."""
    path = ctx.lake.path / ".settings" / "running.toml"
    try:
        text, started = path.read_text(), int(path.stat().st_mtime * US)
        sections = tomllib.loads(text)
    except (OSError, ValueError):
        text, started = EngineConfig().to_toml(), None
        sections = tomllib.loads(text)
    return {"toml": text, "sections": _plain(sections), "started": started}


def _plain(value: Any) -> Any:
    if isinstance(value, dict):
        return {k: _plain(v) for k, v in value.items()}
    if isinstance(value, list):
        return [_plain(v) for v in value]
    return value if isinstance(value, str | int | float | bool) else str(value)
