"""Hosts: who is on the wire as a table, a map and a graph; and a page for each of them, at /hosts/<address>."""

from __future__ import annotations

from typing import Any
from urllib.parse import unquote

from dash import html

from webui import parts
from webui.pages import Context, Page

FILES = ("csv", "parquet", "arrow")
KPIS = (
    ("hosts-sent", "Sent"),
    ("hosts-received", "Received"),
    ("hosts-packets", "Packets"),
    ("hosts-flows", "Connections"),
    ("hosts-peers", "Peers"),
    ("hosts-alerts", "Alerts in range"),
)


def layout(context: Context) -> list[Any]:
    """The page's elements; `assets/63-hosts.js` fills the list, `64-host.js` one host."""
    return _one(unquote(context.rest), context) if context.rest else _all()


def _all() -> list[Any]:
    views = parts.tabs("hosts-view", "View", {"table": "Table", "map": "Map", "graph": "Graph"})
    note = html.Div(id="hosts-note", className="note", role="status")
    resume = html.Button("Resume", id="hosts-resume", type="button", className="button", hidden=True)
    return [
        html.Div([views, resume, note], className="hosts-bar"),
        html.Div(
            parts.card("All hosts", html.Div(id="hosts-grid"), kind="fill", question="hosts", exports=FILES),
            className="grow hosts-view",
            **{"data-view": "table"},
        ),
        html.Div(
            [
                parts.card(
                    "Where hosts are",
                    parts.graph("hosts-map", 480),
                    html.Div(id="hosts-map-foot", className="hosts-foot"),
                    kind="fill",
                    extra=parts.tabs("hosts-measure", "Measure", {"bytes": "Bytes", "hosts": "Hosts"}),
                    question="places",
                    exports=FILES,
                    table="cities",
                ),
                *(
                    parts.card(
                        title,
                        html.Div(id=f"hosts-{name}", className="scroll"),
                        question="places",
                        exports=FILES,
                        table=name,
                    )
                    for title, name in (("Countries", "countries"), ("Cities", "cities"))
                ),
            ],
            className="grow row hosts-view hosts-map-row",
            hidden=True,
            **{"data-view": "map"},
        ),
        html.Div(
            [
                parts.card(
                    "Who talks to whom",
                    html.Div(id="hosts-graph", tabIndex="0"),
                    html.Div(id="hosts-graph-foot", className="hosts-foot"),
                    kind="fill",
                    extra=html.Div(
                        [
                            html.Button("Draw anew", id="hosts-redraw", type="button", className="button", hidden=True),
                            parts.icon_button("zoom-out", "Show the whole graph", id="hosts-fit"),
                        ],
                        className="card-side",
                    ),
                    question="graph",
                    exports=FILES,
                    table="edges",
                ),
                parts.card(
                    "Conversations",
                    html.Div(id="hosts-edges", className="scroll"),
                    kind="fill",
                    question="graph",
                    exports=FILES,
                    table="edges",
                ),
            ],
            className="grow row hosts-view hosts-graph-row",
            hidden=True,
            **{"data-view": "graph"},
        ),
    ]


def _list(title: str, identity: str, part: str, extra: Any = None) -> Any:
    return parts.card(
        title, html.Div(id=identity, className="scroll"), extra=extra, question="host", exports=FILES, table=part
    )


def _one(ip: str, context: Context) -> list[Any]:
    acts = [
        parts.button("Packets of this host", "hosts-to-packets", "packets"),
        parts.button("Its flows", "hosts-to-flows", "flows"),
        *([parts.button("Export pcap", "hosts-pcap", "download")] if context.may("operator") else []),
    ]
    names = parts.tabs("hosts-names", "Names", {"asked": "It asked for", "called": "It is called"})
    return [
        html.Section(
            [
                html.Div(
                    [
                        html.A("Hosts", href="/hosts", className="link hosts-back"),
                        html.H2(ip, className="hosts-ip"),
                        html.Div(acts, className="card-side"),
                    ],
                    className="hosts-title",
                ),
                html.P("…", id="hosts-verdict", className="hosts-verdict"),
                html.Div(id="hosts-about", className="hosts-about"),
            ],
            className="card hosts-head",
        ),
        html.Section(
            [parts.kpi(identity, title) for identity, title in KPIS],
            className="kpis card",
            **{"aria-label": "Key figures"},
        ),
        parts.card(
            "Bits per second",
            parts.graph("hosts-timeline", 150),
            extra=html.Div(id="hosts-legend", className="legend"),
            question="host",
            exports=FILES,
            table="timeline",
        ),
        html.Div(
            [
                _list("Peers", "hosts-peer-list", "peers"),
                _list("Ports it answers on", "hosts-serves", "serves"),
                _list("Ports it asks others on", "hosts-uses", "uses"),
            ],
            className="row hosts-row hosts-peers-row",
        ),
        html.Div(
            [
                _list("Protocols", "hosts-protocols", "protocols"),
                _list("Names", "hosts-name-list", "asked", names),
                _list("Alerts", "hosts-alert-list", "alerts"),
            ],
            className="row hosts-row hosts-names-row",
        ),
    ]


PAGE = Page(
    path="/hosts",
    title="Hosts",
    icon="hosts",
    key="h",
    order=40,
    layout=layout,
    feeds=("hosts",),
    every_s={"hosts": 3, "places": 10, "graph": 10, "host": 2},
)
