"""Flows: connections with what they carried, how they ended, and of a chosen one its packets and messages."""

from __future__ import annotations

from typing import Any

from dash import html

from webui import parts
from webui.pages import Context, Page


def layout(context: Context) -> list[Any]:
    """The page's elements; `assets/62-flows.js` fills them."""
    exports = ["csv", "parquet", "arrow", *(["pcap"] if context.may("operator") else [])]
    side = [
        html.Div(id="flows-legend", className="legend"),
        html.Div(id="flows-note", className="note", role="status"),
        html.Button("Resume", id="flows-resume", type="button", className="button", hidden=True),
    ]
    return [
        parts.card(
            "Flows",
            parts.graph("flows-timeline", 78),
            html.Div(id="flows-grid"),
            kind="grow list-card",
            extra=html.Div(side, className="card-side"),
            question="flows",
            exports=exports,
            table="flows",
        ),
    ]


PAGE = Page(
    path="/flows",
    title="Flows",
    icon="flows",
    key="f",
    order=25,
    layout=layout,
    feeds=("flows",),
    every_s={"flows": 3},
)
