"""The Overview: what is on the wire now, what it is made of, who talks, and whether anything was lost."""

from __future__ import annotations

from typing import Any

from dash import dcc, html

from webui import figures, ids

KPI_TITLES = (
    "Packets per second",
    "Throughput",
    "Packets in range",
    "Volume in range",
    "Capture drops",
    "Undecodable",
)


def layout() -> html.Main:
    """The page's elements; `assets/*.js` fill them from the snapshot."""
    return html.Main(
        id="main",
        tabIndex="-1",
        children=[
            html.Div(id=ids.BANNER, className="banner", role="status", hidden=True),
            html.Section(
                [_kpi(i, title) for i, title in zip(ids.KPIS, KPI_TITLES, strict=True)],
                className="kpis card",
                **{"aria-label": "Key figures"},
            ),
            _card(
                "Packets per second",
                _timeline(),
                "timeline-card",
                html.Div(id=ids.TIMELINE_LEGEND, className="legend"),
            ),
            html.Div(
                className="row",
                children=[
                    _card("Protocol mix", html.Div(id=ids.MIX, className="mix"), "", _tabs("mix", "bytes", "packets")),
                    _card(
                        "Top talkers",
                        html.Div(id=ids.TALKERS, className="scroll"),
                        "",
                        _tabs("talkers", "sources", "destinations", "ports"),
                    ),
                    _card(
                        "Destinations by country",
                        html.Div(id=ids.COUNTRIES, className="countries"),
                        "",
                        html.Div(id="countries-note", className="note"),
                    ),
                ],
            ),
            _card(
                "Recent packets",
                html.Div(id=ids.RECENT, className="recent", tabIndex="0", **{"aria-label": "Newest first"}),
                "recent-card",
                html.Div(id="recent-note", className="note"),
            ),
        ],
    )


def _kpi(name: str, title: str) -> html.Div:
    return html.Div(
        id=name,
        className="kpi",
        children=[
            html.Div(title, className="kpi-title"),
            html.Div([html.Span("–", className="value"), html.Span(className="unit")], className="kpi-value"),
            html.Div(className="kpi-note"),
            html.Div(className="spark", **{"aria-hidden": "true"}),
        ],
    )


def _timeline() -> html.Div:
    graph = dcc.Graph(id=ids.TIMELINE, figure=figures.EMPTY, config=figures.CONFIG, className="graph")
    return html.Div([graph, html.Div(id=ids.TIMELINE_EMPTY, className="empty over", hidden=True)], className="timeline")


def _card(title: str, body: Any, kind: str, extra: Any) -> html.Section:
    head = html.Div([html.H2(title), extra], className="card-head")
    return html.Section([head, body], className=f"card {kind}".strip())


def _tabs(name: str, *options: str) -> html.Div:
    return html.Div(
        role="group",
        className="segmented small",
        **{"aria-label": f"What to show in {name}"},
        children=[
            html.Button(
                option.capitalize(),
                type="button",
                **{"data-group": name, "data-value": option, "aria-pressed": "true" if i == 0 else "false"},
            )
            for i, option in enumerate(options)
        ],
    )
