"""`dns`, `tls`, `http` and `quic`: what was asked, how it was answered, by which programs."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Final

from analytics.watch.answers.application_lists import APPLICATIONS, Counted
from analytics.watch.context import Context
from analytics.watch.registry import Param, question
from analytics.watch.statement import Statement

PARAMS: Final = (
    Param("limit", 100, "Newest rows to list", low=0, high=1000),
    Param("top", 15, "Rows of each list", low=1, high=100),
)
_ENDS: Final = "ts, src_ip, src_port, dst_ip, dst_port, flow_id"
_QUANTILES: Final = (50, 95, 99)
# Each list reads every row, 0.9 us of CPU for all of a page: half a second. Of more, the newest are shown, and since when.
MOST_ROWS: Final = 600_000


def statements(table: str) -> Callable[[Context], dict[str, Statement]]:
    """Rows, the line and each list as SQL, whole: what is shown is their beginning."""
    about = APPLICATIONS[table]

    def of(ctx: Context) -> dict[str, Statement]:
        lists = {name: _list(ctx, table, counted) for name, counted in about.lists.items()}
        return {"rows": _rows(ctx, table), "timeline": _line(ctx, table), **lists}

    return of


def _rows(ctx: Context, table: str) -> Statement:
    where = ctx.where(table)
    columns = APPLICATIONS[table].columns
    return Statement(f"SELECT {_ENDS}, {columns} FROM {{{table}}} WHERE {where.sql} ORDER BY ts DESC", where.values)


def _list(ctx: Context, table: str, counted: Counted) -> Statement:
    where = ctx.where(table)
    also = f" AND {counted.where}" if counted.where else ""
    return Statement(
        f"SELECT {counted.expression} AS {counted.name}, count(*) AS count{counted.more and ', ' + counted.more} "
        f"FROM {{{table}}} WHERE {counted.expression} IS NOT NULL AND {where.sql}{also} GROUP BY 1 "
        f"ORDER BY {counted.order}, 1", where.values,
    )  # fmt: skip


def _line(ctx: Context, table: str) -> Statement:
    """A row per step of the range: how many of each series, and quantiles of the latency."""
    about, where = APPLICATIONS[table], ctx.where(table)
    counts = [f'count(*) FILTER ({condition}) AS "{name}"' for name, condition in about.series.items()]
    times = [f"quantile_cont(latency_us, {p / 100})::BIGINT AS p{p}_us" for p in _QUANTILES if about.latency]
    return Statement(
        f"SELECT epoch_us(ts) // 1000000 // $step * $step AS bucket_s, {', '.join([*counts, *times])} "
        f"FROM {{{table}}} WHERE {where.sql} GROUP BY 1 ORDER BY 1", {"step": ctx.span.step_s, **where.values},
    )  # fmt: skip


def _answer(ctx: Context, table: str) -> dict[str, Any]:
    asked, ctx.span = ctx.span, ctx.lake.newest_rows(table, ctx.span, MOST_ROWS)
    about, where = APPLICATIONS[table], ctx.where(table)
    select = ", ".join(f"{sql} AS {name}" for name, sql in about.totals.items())
    totals = ctx.one(f"SELECT {select} FROM {{{table}}} WHERE {where.sql}", **where.values)
    lists = {
        name: ctx.columns(_limited(_list(ctx, table, counted), ctx.p.top)) for name, counted in about.lists.items()
    }
    return {
        "since_us": None if ctx.span == asked else ctx.span.start_us,
        "totals": dict(zip(about.totals, totals, strict=True)), "timeline": _timeline(ctx, table), **lists,
        "rows": ctx.columns(_limited(_rows(ctx, table), ctx.p.limit)),
    }  # fmt: skip


def _limited(statement: Statement, most: int) -> Statement:
    return Statement(f"{statement.sql} LIMIT {int(most)}", statement.values)


def _timeline(ctx: Context, table: str) -> dict[str, Any]:
    about, span = APPLICATIONS[table], ctx.span
    count, names = span.buckets(), list(about.series)
    series: dict[str, list[int]] = {name: [0] * count for name in names}
    latency: dict[str, list[int | None]] = {f"p{p}_us": [None] * count for p in _QUANTILES if about.latency}
    for bucket, *values in ctx.rows(_line(ctx, table)):
        at = (bucket - span.first_bucket_s) // span.step_s
        if 0 <= at < count:
            for name, value in zip([*names, *latency], values, strict=True):
                (series if name in series else latency)[name][at] = value
    line: dict[str, Any] = {"start_s": span.first_bucket_s, "step_s": span.step_s, "series": series}
    return line | ({"latency": latency} if about.latency else {})


@question("dns", "Names asked for", params=PARAMS, statements=statements("dns"))
def dns(ctx: Context) -> dict[str, Any]:
    """since_us: None, or when the newest 600,000 rows begin: the answer is about these; totals: {count, answered, unanswered, nxdomain, errors, names, clients, servers, latency_p50_us, latency_p95_us,
    latency_p99_us}; timeline: {start_s, step_s, series: {name: [] rows}, latency: {p50_us, p95_us, p99_us: []}};
    names: {name, count, clients: []}; failing: as names, with an error; rcodes: {rcode, count: []} (`none` without an
    answer); types: {qtype, count: []}; servers: {server, count, p50_us: []}; clients: {client, count, names: []};
    rows: {ts, src_ip, src_port, dst_ip, dst_port, flow_id, query, qtype, rcode, answers, latency_us: []}, newest first.
    """
    return _answer(ctx, "dns")


@question("tls", "TLS handshakes", params=PARAMS, statements=statements("tls"))
def tls(ctx: Context) -> dict[str, Any]:
    """since_us: as of `dns`; totals: {count, names, clients, servers, resumed, alerts, old (TLS 1.1 and before), certificates, self_signed,
    expired, ends_soon (within 30 days), questionable (either), fingerprints}; timeline: {start_s, step_s, series}; names: {name, count, clients};
    versions: {version, count}; ciphers: {cipher, count}; ja4, ja3: {ja4 | ja3, count, clients}; ja4s: {ja4s, count,
    servers}; alpn: {alpn, count}; servers: {server, count, clients}; certificates: {sha256, count, subject, issuer,
    not_before, not_after, self_signed, servers, clients, last_seen, ends_soon}, the questionable ones first;
    rows: {ts, src_ip, src_port, dst_ip, dst_port, flow_id, sni, version, cipher, alpn, ja3, ja4, ja4s, resumed, alert,
    cert_subject, cert_issuer, cert_not_after, cert_self_signed, cert_sha256}, newest first. All but totals are lists.
    """
    return _answer(ctx, "tls")


@question("http", "HTTP requests", params=PARAMS, statements=statements("http"))
def http(ctx: Context) -> dict[str, Any]:
    """since_us: as of `dns`; totals: {count, hosts, clients, servers, errors (400 and above), failed (500 and above), bytes, with_credentials,
    agents, latency_p50_us, latency_p95_us, latency_p99_us}; timeline: as of `dns`, by class of status; hosts: {host,
    count, clients, bytes}; paths: {path, count, clients}; statuses: {status, count}; methods: {method, count}; agents:
    {user_agent, count, clients}; software: {server, count, servers}; types: {content_type, count, bytes}; servers:
    {server, count, p50_us}; clients: {client, count, bytes}; rows: {ts, src_ip, src_port, dst_ip, dst_port, flow_id,
    method, host, path, status, content_type, content_length, user_agent, server, latency_us}, newest first.
    """
    return _answer(ctx, "http")


@question("quic", "QUIC connections", params=PARAMS, statements=statements("quic"))
def quic(ctx: Context) -> dict[str, Any]:
    """since_us: as of `dns`; totals: {count, names, clients, servers, resumed, early_data, unnamed, fingerprints}; timeline: {start_s, step_s,
    series}; names: {name, count, clients}; versions, ciphers, alpn: {version | cipher | alpn, count}; ja4, ja3, agents:
    {ja4 | ja3 | user_agent, count, clients}; servers: {server, count, clients}; rows: {ts, src_ip, src_port, dst_ip,
    dst_port, flow_id, sni, version, cipher, alpn, ja3, ja4, user_agent, resumed, early_data}, newest first.
    """
    return _answer(ctx, "quic")
