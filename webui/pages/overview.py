"""The Overview: what is on the wire now, what it is made of, who talks, and whether anything was lost."""

from __future__ import annotations

from typing import Any

from dash import html

from webui import parts
from webui.pages import Context, Page, find

KPIS = (  # and the page that says more
    ("overview-pps", "Packets per second", "/packets"),
    ("overview-bps", "Throughput", "/flows"),
    ("overview-packets", "Packets in range", "/packets"),
    ("overview-bytes", "Volume in range", "/hosts"),
    ("overview-drops", "Capture drops", "/health"),
    ("overview-alerts", "Alerts in range", "/alerts"),
)
FILES = ("csv", "parquet", "arrow")
TALKERS = {"sources": "Sources", "destinations": "Destinations", "conversations": "Pairs", "ports": "Ports"}


def layout(_context: Context) -> list[Any]:
    """The page's elements; `assets/60-overview.js` fills them."""
    return [
        html.Section(
            [parts.kpi(identity, title, href if find(href) else "") for identity, title, href in KPIS],
            className="kpis card",
            **{"aria-label": "Key figures"},
        ),
        parts.card(
            "Traffic",
            parts.graph("overview-timeline"),
            extra=html.Div(
                [
                    html.Div(id="overview-legend", className="legend"),
                    html.Span("Drag to zoom", className="note overview-hint"),
                    parts.tabs("overview-unit", "Unit", {"pps": "Packets/s", "bps": "Bits/s"}),
                ],
                className="card-side",
            ),
            question="overview",
            exports=(*FILES, "pcap"),
            table="timeline",
        ),
        html.Div(className="row overview-row", children=[_mix(), _talkers(), _map()]),
        parts.card(
            "Recent packets",
            html.Div(id="overview-recent", className="scroll", tabIndex="0", **{"aria-label": "Newest first"}),
            kind="overview-recent-card",
            extra=html.Div(
                [
                    html.Div(id="overview-recent-note", className="note"),
                    parts.icon_button(
                        "freeze", "Hold the list still", id="overview-freeze", **{"aria-pressed": "false"}
                    ),
                    *([html.A("Open in Packets", href="/packets", className="link")] if find("/packets") else []),
                ],
                className="card-side",
            ),
            question="overview",
            exports=(*FILES, "pcap"),
            table="recent",
        ),
    ]


def _mix() -> html.Section:
    measure = parts.tabs("overview-mix", "Measure", {"bytes": "Bytes", "packets": "Packets"})
    return parts.card("Protocol mix", html.Div(id="overview-mix"), extra=measure, question="overview", exports=FILES,
                      table="mix")  # fmt: skip


def _talkers() -> html.Section:
    of_what = parts.tabs("overview-talkers", "Of what", TALKERS)
    box = html.Div(id="overview-talkers", className="scroll")
    return parts.card("Top talkers", box, extra=of_what, identity="overview-talkers-card", question="overview",
                      exports=FILES, table="sources")  # fmt: skip


def _map() -> html.Section:
    body = html.Div(
        [
            parts.graph("overview-map", 180),
            html.Div(id="overview-map-empty", hidden=True),
            html.Div(id="overview-map-foot", className="overview-map-foot"),
        ],
        className="overview-map",
    )
    return parts.card("Destinations", body, extra=html.Div(id="overview-map-note", className="note"),
                      question="overview", exports=FILES, table="countries")  # fmt: skip


PAGE = Page(path="/", title="Overview", icon="overview", key="o", order=10, layout=layout, feeds=("overview",))
