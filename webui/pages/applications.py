"""Applications: what was asked and answered in DNS, TLS, HTTP and QUIC, by which programs, with which certificates."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any, Final

from dash import html

from webui import parts
from webui.pages import Context, Page

FILES: Final = ("csv", "parquet", "arrow")
LABELS: Final = {"dns": "DNS", "tls": "TLS", "http": "HTTP", "quic": "QUIC"}


@dataclass(frozen=True, slots=True)
class View:
    """Of one application: what its rows are called, its key figures, and its cards of lists."""

    rows: str
    figures: dict[str, str]
    cards: dict[str, dict[str, str]]
    beside: tuple[str, ...] = field(default=())  # the chart over time


VIEWS: Final = {
    "dns": View(
        "Queries",
        {"count": "Queries", "names": "Names", "answered": "Answered", "errors": "Errors", "latency": "Median latency",
         "clients": "Clients"},
        {"Names": {"names": "All", "failing": "Failing"}, "Answers": {"rcodes": "Codes", "types": "Types"},
         "Hosts": {"servers": "Servers", "clients": "Clients"}},
        ("latency",),
    ),
    "tls": View(
        "Handshakes",
        {"count": "Handshakes", "names": "Server names", "resumed": "Resumed", "old": "Old versions",
         "alerts": "Ended by an alert", "certificates": "Certificates to check"},
        {"Server names": {"names": "Names", "servers": "Servers"},
         "Fingerprints": {"ja4": "JA4", "ja3": "JA3", "ja4s": "JA4S"},
         "Protocol": {"versions": "Versions", "ciphers": "Ciphers", "alpn": "ALPN"}},
        ("certificates",),
    ),
    "http": View(
        "Requests",
        {"count": "Requests", "hosts": "Hosts", "errors": "Errors", "latency": "Median latency", "bytes": "Volume",
         "with_credentials": "Passwords in clear"},
        {"Targets": {"hosts": "Hosts", "paths": "Paths", "methods": "Methods"},
         "Responses": {"statuses": "Status", "types": "Types", "servers": "Servers"},
         "Programs": {"agents": "User agents", "software": "Software"}},
        ("latency",),
    ),
    "quic": View(
        "Connections",
        {"count": "Connections", "names": "Server names", "resumed": "Resumed", "early_data": "Early data",
         "fingerprints": "Fingerprints", "clients": "Clients"},
        {"Server names": {"names": "Names", "servers": "Servers"},
         "Fingerprints": {"ja4": "JA4", "ja3": "JA3", "agents": "Agents"},
         "Protocol": {"versions": "Versions", "alpn": "ALPN", "ciphers": "Ciphers"}},
    ),
}  # fmt: skip


def chosen(rest: str) -> str:
    """The application of an address below /applications."""
    return rest if rest in VIEWS else "dns"


def layout(context: Context) -> list[Any]:
    """The page's elements; `assets/65-applications.js` fills them."""
    name = chosen(context.rest)
    view = VIEWS[name]
    bar = [
        parts.tabs("applications-view", "Application", LABELS, name),
        html.Div(id="applications-note", className="note", role="status"),
    ]
    chart = parts.card(
        view.rows,
        parts.graph("applications-timeline", 160),
        extra=html.Div(
            [
                html.Div(id="applications-legend", className="legend"),
                html.Div(id="applications-step", className="note"),
            ],
            className="card-side",
        ),
        question=name,
        exports=FILES,
        table="timeline",
    )
    lists = [_card(name, at, title, tabs) for at, (title, tabs) in enumerate(view.cards.items())]
    return [
        html.Div(bar, className="applications-bar"),
        html.Section(
            [parts.kpi(f"applications-kpi-{figure}", title) for figure, title in view.figures.items()],
            className="kpis card",
            **{"aria-label": "Key figures"},
        ),
        html.Div([chart, *(_beside(name, what) for what in view.beside)], className="row applications-charts"),
        html.Div(lists, className="row applications-lists"),
        parts.card(
            f"Newest {view.rows.lower()}",
            html.Div(
                id="applications-rows",
                className="scroll",
                tabIndex="0",
                **{"aria-label": f"Newest {view.rows.lower()}"},
            ),
            kind="applications-rows-card",
            extra=html.Div(id="applications-rows-note", className="note"),
            question=name,
            exports=FILES,
            table="rows",
        ),
    ]


def _card(name: str, at: int, title: str, tabs: dict[str, str]) -> html.Section:
    return parts.card(
        title,
        html.Div(id=f"applications-list-{at}", className="scroll"),
        extra=parts.tabs(f"applications-list-{at}", title, tabs),
        question=name,
        exports=FILES,
        table=next(iter(tabs)),
    )


def _beside(name: str, what: str) -> html.Section:
    if what == "latency":
        return parts.card(
            "Latency",
            parts.graph("applications-latency", 160),
            extra=html.Div(id="applications-quantiles", className="legend"),
            question=name,
            exports=FILES,
            table="timeline",
        )
    return parts.card(
        "Certificates",
        html.Div(id="applications-certificates", className="scroll"),
        extra=html.Div("TLS 1.2 and before: later ones are encrypted", className="note"),
        question=name,
        exports=FILES,
        table="certificates",
    )


PAGE = Page(
    path="/applications",
    title="Applications",
    icon="applications",
    key="i",
    order=45,
    layout=layout,
    feeds=("dns",),
    every_s=dict.fromkeys(LABELS, 2),
)
