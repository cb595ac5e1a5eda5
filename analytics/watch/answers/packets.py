"""`packets`, `packet_count` and `packet`: the list and the inspector."""

from __future__ import annotations

from dataclasses import replace
from typing import Any, Final

from analytics.layers import layers
from analytics.watch.answers import packet_counts, packet_frames, packet_pages, packet_rows, traffic
from analytics.watch.context import Context
from analytics.watch.registry import NotFound, Param, question
from analytics.watch.statement import Statement
from engine.constants import LINK_TYPE_NAMES
from engine.errors import StoreError

BLOCK: Final = 200
_EXPORTED: Final = (
    "ts, ts_nanos, sensor, source, frame_no, src_ip, dst_ip, src_port, dst_port, proto, app, server_name, wirelen, "
    "payload_len, tcp_flags, ttl, vlan, src_mac, dst_mac, status, flow_id, anomaly"
)


def statements(ctx: Context) -> dict[str, Statement]:
    where = ctx.where("packets")
    return {
        "packets": Statement(
            f"SELECT {_EXPORTED} FROM {{packets}} WHERE {where.sql} ORDER BY ts, ts_nanos, frame_no", where.values
        ),
        "timeline": packet_counts.statement(ctx),
    }  # fmt: skip


@question(
    "packets", "Packets, page by page",
    params=(
        Param("row", -1, "Number of the first row of the page, from 0 in the order asked for; -1 uses the cursor", low=-1),
        Param("cursor", "", "Where the page begins, as the answer before said"),
        Param("order", "desc", "newest first, or oldest first", choices=("desc", "asc")),
        Param("limit", BLOCK, "Rows of a page", low=1, high=1000),
        Param("payload", False, "operator: also the first bytes of each payload"),
    ),
    statements=statements, by_role=True,
)  # fmt: skip
def packets(ctx: Context) -> dict[str, Any]:
    """rows: {ts, src, dst, proto (name), app, sport, dport, len, info, flow, anomaly, sensor, source, frame, severity
    (of an alert that names the flow): []} and, with payload=true for operators, `payload` (hexadecimal, 32 bytes; null
    where there is none, or the frame is gone).

    Two ways to page, both in the order of time (by number without a filter: of capture). By number (`row`): any page of
    the range; the first one of a filter counts its packets, once. `total` says how many there are. By cursor: `next` is the cursor of the page that follows,
    null at the end; a page may hold fewer rows than asked for, even none, when matches are rare: go on with `next`.
    """
    newest_first = ctx.p.order == "desc"
    if ctx.p.row >= 0:
        rows, total = _numbered(ctx, newest_first=newest_first)
        answer = {"rows": packet_rows.shown(rows), "first": ctx.p.row, "total": total}
    else:
        rows, cursor, _ = packet_rows.search(ctx, ctx.p.limit, ctx.p.cursor or None, newest_first=newest_first)
        answer = {"rows": packet_rows.shown(rows), "next": cursor}
    alerts = packet_rows.severities(ctx)
    answer["rows"]["severity"] = [alerts.get(flow) for flow in answer["rows"]["flow"]]
    if ctx.p.payload and packet_rows.may_see_payload(ctx.role):
        answer["rows"]["payload"] = packet_frames.previews(ctx.lake.path, rows)
    return answer


def _numbered(ctx: Context, *, newest_first: bool) -> tuple[list[dict[str, Any]], int]:
    """The page, and how many rows there are."""
    if not ctx.filter:
        try:
            return packet_pages.page(ctx, ctx.p.row, ctx.p.limit, newest_first=newest_first)
        except packet_pages.Unordered:
            pass
    return packet_counts.page(ctx, ctx.p.row, ctx.p.limit, newest_first=newest_first), packet_counts.of(ctx).packets


@question("packet_count", "How many packets pass the filter, in all and over time", statements=statements)
def packet_count(ctx: Context) -> dict[str, Any]:
    """count: packets that pass the filter; all: packets of the range; timeline: {start_s, step_s, series: {class: []}},
    packets in each step. Without a filter the timeline is of whole seconds (of minutes in old ranges)."""
    every = packet_pages.total(ctx)
    if ctx.filter:
        counts = packet_counts.of(ctx)
        first, step, series, count = counts.start_s, counts.step_s, counts.line, counts.packets
    else:
        first, step, series = traffic.by_class(ctx)
        count = every
    return {"count": count, "all": every, "timeline": {"start_s": first, "step_s": step, "series": series}}


def packet_statements(ctx: Context) -> dict[str, Statement]:
    return {
        "packet": Statement(
            "SELECT * FROM {packets} WHERE sensor = $sensor AND source = $source AND frame_no = $frame",
            {"sensor": ctx.p.sensor, "source": ctx.p.source, "frame": ctx.p.frame},
        )
    }


@question(
    "packet", "One packet: its layers and bytes",
    params=(
        Param("sensor", None, "As in the row", required=True), Param("source", None, "As in the row", required=True),
        Param("frame", 0, "frame_no of the row", low=0, required=True),
        Param("ts", 0, "Time of the row, microseconds", low=-(1 << 60), required=True),
    ),
    filtered=False, ranged=False, by_role=True, refresh_s=30,
)  # fmt: skip
def packet(ctx: Context) -> dict[str, Any]:
    """row: every column of the packet by name; link_type; wirelen; captured: bytes at hand;
    layers: [{name, start, end, fields: [{name, value, start, end}]}], offsets into the bytes, end exclusive;
    bytes: hexadecimal, null when they are no longer there; missing: why.

    Viewers get headers only: layers that carry payload have no fields, and the bytes end where payload begins.
    """
    row = _row(ctx, ctx.p.sensor, ctx.p.source, ctx.p.frame, ctx.p.ts)
    try:
        frame = packet_frames.one(ctx.lake.path, row)
    except StoreError as error:
        return {"row": row, "layers": [], "bytes": None, "missing": str(error), "wirelen": row["wirelen"], "captured": 0,
                "link_type": None}  # fmt: skip
    tree = layers(frame.data, frame.link_type)
    shown = len(frame.data)
    if not packet_rows.may_see_payload(ctx.role):
        shown = next((layer.start for layer in tree if layer.name not in packet_frames.HEADERS), shown)
    return {
        "row": row, "wirelen": frame.wirelen, "captured": len(frame.data), "missing": None,
        "link_type": LINK_TYPE_NAMES.get(frame.link_type, str(frame.link_type)),
        "bytes": frame.data[:shown].hex(),
        "layers": [
            {"name": layer.name, "start": layer.start, "end": layer.end, "fields": [
                {"name": f.name, "value": f.value, "start": f.start, "end": f.end}
                for f in layer.fields if f.end <= shown
            ] if layer.start < shown or layer.start == layer.end else []}
            for layer in tree
        ],
    }  # fmt: skip


def _row(ctx: Context, sensor: str, source: str, frame_no: int, ts: int) -> dict[str, Any]:
    near = replace(ctx, span=replace(ctx.span, start_us=ts, end_us=ts + 1))
    found = near.columns(Statement(
        "SELECT * FROM {packets} WHERE sensor = $sensor AND source = $source AND frame_no = $frame LIMIT 1",
        {"sensor": sensor, "source": source, "frame": frame_no},
    ))  # fmt: skip
    if not found["ts"]:
        raise NotFound(f"frame {frame_no} of {source[:60]} is not in the lake at that time; it may have been retired")
    return {name: values[0] for name, values in found.items()}
