"""Capture health: whether everything arrives, what was lost and what to do about it, how busy the engine is."""

from __future__ import annotations

from typing import Any

from dash import html

from webui import parts
from webui.pages import Context, Page

KPIS = (
    ("health-state", "Capture"),
    ("health-rate", "Frames per second"),
    ("health-lost", "Lost in range"),
    ("health-fill", "Batches in use"),
    ("health-cpu", "CPU of the engine"),
    ("health-disk", "Room on the disk"),
)
FILES = ("csv", "parquet", "arrow")


def layout(_context: Context) -> list[Any]:
    """The page's elements; `assets/68-health.js` fills them."""
    return [
        html.Section(
            [parts.kpi(identity, title) for identity, title in KPIS],
            className="kpis card",
            **{"aria-label": "Key figures"},
        ),
        _card("Frames", parts.graph("health-frames"), "counters", _side(
            html.Div(id="health-legend", className="legend"),
            parts.tabs("health-frames", "Split by", {"fate": "What became of them", "source": "Sources"}),
        )),
        html.Div(className="row health-row", children=[
            _card("Losses, and what to do", _scrolled("health-losses"), "drops",
                  html.Div(id="health-books", className="note")),
            _card("Sources", _scrolled("health-sources"), "sources", None),
        ]),
        html.Div(id="health-fleet-card", hidden=True, children=[
            parts.card("Sensors", _scrolled("health-fleet"), listed=True)]),
        html.Div(className="row health-row thirds", children=[
            _card("CPU by stage", html.Div(className="legend-first", children=[
                html.Div(id="health-stages-legend", className="legend"), parts.graph("health-stages", 150),
            ]), "usage", None),
            _card("Pressure", parts.graph("health-pressure", 170), "usage", parts.tabs(
                "health-pressure", "Of what", {"pool_fill": "Batches", "ring_frames": "Ring"})),
            parts.card("Disk", _scrolled("health-tables"),
                       extra=html.Div(id="health-disk-note", className="note"), listed=True),
        ]),
        html.Div(id="health-unreadable", className="banner", hidden=True),
    ]  # fmt: skip


def _scrolled(identity: str) -> html.Div:
    return html.Div(id=identity, className="scroll", tabIndex="0")


def _side(*inside: Any) -> html.Div:
    return html.Div([*inside], className="card-side")


def _card(title: str, body: Any, table: str, extra: Any) -> html.Section:
    return parts.card(title, body, extra=extra, question="health", exports=FILES, table=table)


PAGE = Page(path="/health", title="Health", icon="health", key="e", order=85, layout=layout, feeds=("health",))
