"""What `engine status` found, as text."""

from __future__ import annotations

import time
from typing import Any

Facts = dict[str, Any]


def lines(found: Facts) -> list[str]:
    """For people."""
    now, disk = found["now"], found["disk"]
    out = [f"lake {found['lake']}, format {found['format']}"]
    for engine in found["engines"]:
        where = f"process {engine['pid']}, {', '.join(engine['sources'])}"
        since = engine["since"] if engine["running"] else engine["ended"]
        state = "captures since" if engine["running"] else "stopped" if engine["ended"] else "died; it began"
        out.append(f"sensor {engine['sensor']}: {state} {_time(since or engine['since'])} ({where})")
    for s in found["sources"]:
        drops = ", ".join(f"{name} {n:,}" for name, n in (s["drops"] | s["missed"]).items()) or "none"
        heard = "none in a day" if s["last_packet_at"] is None else f"{max(0.0, now - s['last_packet_at']):.0f} s ago"
        out.append(
            f"  {s['source']}: {s['packets_per_s']:,.0f} packets/s, {s['bits_per_s'] / 1e6:,.1f} Mbit/s, last packet "
            f"{heard}; lost in the last minute: {drops}; {s['pool_fill']} % of the batches in use"
        )
    out.append("open alerts: " + ", ".join(f"{n:,} {severity}" for severity, n in found["open_alerts"].items()))
    for model in found["models"]:
        how = "chosen" if model["chosen"] else "the newest"
        out.append(f"model {model['kind']} of {model['sensor']}: {model['in_use']} ({how})")
    head = ("table", "files", "size", "rows", "oldest", "written", "a day")
    out += ["", f"{head[0]:<16}{head[1]:>8}{head[2]:>12}{head[3]:>16}  {head[4]:<20}{head[5]:<20}{head[6]:>12}"]
    for table, f in found["tables"].items():
        rows = "" if f.get("rows") is None else f"{f['rows']:,}"
        out.append(
            f"{table:<16}{f['files']:>8,}{size(f['bytes']):>12}{rows:>16}  {_time(f['oldest']):<20}"
            f"{_time(f['newest']):<20}{size(f['bytes_per_day']):>12}"
        )
    out.append("")
    for kind, limit in found["limits"].items():
        age = f"{limit['days']:g} days" if limit["days"] else "any age"
        most = size(limit["bytes"]) if limit["bytes"] else "any size"
        left = "" if limit["days_left"] is None else f", reached in {limit['days_left']:g} days"
        out.append(f"kept of {kind}: {age}, {most}{left}")
    left = "" if disk["days_left"] is None else f"; as it grows now, for {disk['days_left']:g} days"
    out.append(f"disk: {size(disk['free'])} of {size(disk['total'])} free, {size(disk['wanted_free'])} stay so{left}")
    upkeep = found["upkeep"]
    if upkeep["running"] is not None:
        alive = "runs" if upkeep["running"] else f"was last seen {_time(upkeep['at'])}"
        out.append(
            f"merging and retention: {alive}; {upkeep['merged_segments']:,} segments merged into "
            f"{upkeep['merged_into']:,}; last deleted: {upkeep['last_deleted'] or 'nothing'}"
        )
    if ship := found["ship"]:
        lost = f"{ship['lost_segments']:,} segments with {ship['lost_rows']:,} rows given up"
        out.append(
            f"shipping to {ship['url']}: {ship['shipped_rows']:,} rows, {size(ship['shipped_bytes'])}; waiting: "
            f"{ship['waiting_segments']:,} files, {size(ship['waiting_bytes'])}, for {ship['lag_s']:,.0f} s; {lost}"
        )
    return [*out, "", *(f"ATTENTION {text}" for text in found["problems"] or ["none needed"])]


def _time(at: float | None) -> str:
    return "-" if at is None else time.strftime("%Y-%m-%d %H:%M:%S", time.gmtime(at))


def size(value: float | None) -> str:
    """Bytes in words."""
    if value is None:
        return "-"
    for unit in ("B", "KiB", "MiB", "GiB"):
        if value < 1024:
            return f"{value:,.0f} {unit}" if unit == "B" else f"{value:,.1f} {unit}"
        value /= 1024
    return f"{value:,.1f} TiB"
