"""How unusual traffic was: scores over time, what a threshold would raise, what made windows and packets unusual."""

from __future__ import annotations

from typing import Any

from dash import html

from webui import parts
from webui.pages import Context, Page

FILES = ("csv", "parquet", "arrow")
KPIS = (
    ("anomalies-scored", "Packets scored"),
    ("anomalies-above", "At the threshold"),
    ("anomalies-highest", "Highest score"),
    ("anomalies-windows-above", "Unusual windows"),
    ("anomalies-drift", "Drift"),
    ("anomalies-model", "Model"),
)


def layout(_context: Context) -> list[Any]:
    """The page's elements; `assets/66-anomalies.js` fills them."""
    return [
        html.Section(
            [parts.kpi(identity, title) for identity, title in KPIS],
            className="kpis card",
            **{"aria-label": "Key figures"},
        ),
        parts.card(
            "Packet scores",
            parts.graph("anomalies-chart", 208),
            html.Div(id="anomalies-control", className="anomalies-control"),
            extra=html.Div(id="anomalies-legend", className="legend"),
            question="anomalies",
            exports=FILES,
            table="minutes",
        ),
        html.Div(
            className="row grow anomalies-row",
            children=[
                parts.card(
                    "Unusual windows of hosts",
                    html.Div(id="anomalies-windows", className="scroll"),
                    extra=html.Div(id="anomalies-windows-note", className="note"),
                    question="unusual_windows",
                    exports=FILES,
                ),
                parts.card(
                    "Most unusual packets",
                    html.Div(id="anomalies-packets", className="scroll"),
                    extra=html.Div(id="anomalies-packets-note", className="note"),
                    question="unusual_packets",
                    exports=FILES,
                ),
            ],
        ),
    ]


PAGE = Page(
    path="/anomalies",
    title="Anomalies",
    icon="anomalies",
    key="n",
    order=70,
    layout=layout,
    feeds=("anomalies", "anomaly_alerts", "unusual_windows", "unusual_packets"),
    every_s={"anomalies": 5, "anomaly_alerts": 10, "unusual_windows": 10, "unusual_packets": 10},
)
