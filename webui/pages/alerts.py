"""The inbox of alerts: what was noticed, why, and what somebody has done about it."""

from __future__ import annotations

from typing import Any

from dash import html

from webui import parts
from webui.pages import Context, Page

FILES = ("csv", "parquet", "arrow")


def layout(context: Context) -> list[Any]:
    """The page's elements; `assets/64-alerts.js` fills them, `65-alert.js` the drawer."""
    tools = [html.Div(id="alerts-count", className="note"), html.Div(id="alerts-kinds")]
    tools.append(parts.button("Muted", "alerts-muted", "mute", **{"aria-haspopup": "dialog"}))
    if context.may("operator"):
        tools.append(parts.button("New alert", "alerts-new", "plus", **{"aria-haspopup": "dialog"}))
    return [
        parts.card(
            "Alerts that began",
            parts.graph("alerts-timeline", 104),
            extra=html.Div(id="alerts-note", className="note"),
            question="alerts",
            exports=FILES,
            table="timeline",
        ),
        parts.card(
            "Inbox",
            html.Div(
                className="alerts-bar",
                children=[
                    parts.tabs("alerts-state", "State", {"open": "Open", "acknowledged": "Acknowledged", "all": "All"}),
                    html.Div(id="alerts-severities", className="chip-row", role="group", **{"aria-label": "Severity"}),
                ],
            ),
            html.Div(
                id="alerts-selected", className="alerts-bulk", role="region", hidden=True, **{"aria-label": "Selected"}
            ),
            html.Div(id="alerts-list", className="scroll"),
            kind="grow alerts-inbox",
            extra=html.Div(tools, className="card-side"),
            question="alerts",
            exports=FILES,
            table="alerts",
        ),
    ]


PAGE = Page(
    path="/alerts",
    title="Alerts",
    icon="alerts",
    key="a",
    order=60,
    layout=layout,
    feeds=("alerts", "mutes"),
    every_s={"alerts": 2, "mutes": 5},
)
