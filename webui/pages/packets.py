"""Packets: an endless list, and of the chosen one its layers and bytes, which point at each other."""

from __future__ import annotations

from typing import Any

from dash import html

from webui import parts
from webui.pages import Context, Page


def layout(context: Context) -> list[Any]:
    """The page's elements; `assets/61-packets.js` fills them, `assets/42-inspector.js` the two below the list."""
    exports = ["csv", "parquet", "arrow"]
    side: list[Any] = [
        html.Div(id="packets-legend", className="legend"),
        html.Div(id="packets-note", className="note", role="status"),
        html.Button("Resume", id="packets-resume", type="button", className="button", hidden=True),
    ]
    if context.may("operator"):
        exports.append("pcap")
        side += [
            parts.button("Payload", "packets-payload", "eye", **{"aria-pressed": "false"}),
            parts.button("Export pcap", "packets-pcap", "download"),
        ]
    return [
        parts.card(
            "Packets",
            parts.graph("packets-timeline", 78),
            html.Div(id="packets-grid"),
            kind="grow list-card",
            extra=html.Div(side, className="card-side"),
            question="packets",
            exports=exports,
            table="packets",
        ),
        html.Div(
            className="row packets-inspector",
            children=[
                parts.card(
                    "Decoded layers",
                    html.Div(id="packets-layers", className="layers scroll"),
                    extra=html.Div(
                        [
                            parts.button("Follow flow", "packets-follow", "filter", disabled=True),
                            parts.button("Open flow", "packets-flow", "flows", disabled=True),
                        ],
                        className="card-side",
                    ),
                ),
                parts.card(
                    "Bytes",
                    html.Div(id="packets-bytes", className="bytes"),
                    extra=html.Div(
                        [
                            parts.button("Copy hex", "packets-hex", disabled=True),
                            parts.button("Copy as Python", "packets-python", disabled=True),
                            *([parts.button("Download", "packets-download", "download", disabled=True)]
                              if context.may("operator") else []),
                        ],
                        className="card-side",
                    ),
                ),
            ],
        ),
    ]  # fmt: skip


PAGE = Page(path="/packets", title="Packets", icon="packets", key="p", order=20, layout=layout, feeds=("packets",))
