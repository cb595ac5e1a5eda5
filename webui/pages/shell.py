"""The frame around every page: navigation, capture state, and the controls that hold for all of it."""

from __future__ import annotations

from typing import Any

from dash import dcc, html

from analytics.queries import RANGES_S
from webui import ids
from webui.pages import overview

RANGE_LABELS = {300: "5 min", 900: "15 min", 3600: "1 hour"}


def layout() -> html.Div:
    """The whole document. Elements with an id and no children are filled by the scripts in assets/."""
    return html.Div(
        className="shell",
        children=[
            html.A("Skip to content", href="#main", className="skip"),
            _side(),
            html.Div(className="body", children=[_top(), overview.layout()]),
            dcc.Interval(id=ids.TICK, interval=1000),
            dcc.Store(id=ids.RANGE, data={"range_s": RANGES_S[0], "newest": False}),
            dcc.Store(id=ids.SNAPSHOT),
            dcc.Store(id=ids.PAINTED),
        ],
    )


def segmented(name: str, label: str, options: dict[Any, str], chosen: Any) -> html.Div:
    """A row of buttons of which one is pressed; `controls.js` handles it by `data-group`."""
    return html.Div(
        role="group",
        className="segmented",
        **{"aria-label": label},
        children=[
            html.Button(
                text,
                type="button",
                **{
                    "data-group": name,
                    "data-value": str(value),
                    "aria-pressed": "true" if value == chosen else "false",
                },
            )
            for value, text in options.items()
        ],
    )


def _side() -> html.Aside:
    nav = html.Nav(
        html.A(
            [html.Span(className="icon icon-overview"), html.Span("Overview", className="label")],
            href="/",
            className="nav-link",
            title="Overview",
            **{"aria-current": "page"},
        ),
        **{"aria-label": "Pages"},
    )
    state = html.Div(
        className="capture",
        children=[
            html.Div([html.Span(className="dot"), html.Span(id=ids.CAPTURE_STATE)], className="capture-line"),
            html.Div(id=ids.CAPTURE_DETAIL, className="capture-detail"),
        ],
    )
    brand = html.Div([html.Span(className="mark"), html.Span("PacketLake", className="label")], className="brand")
    return html.Aside([brand, nav, state], className="side")


def _top() -> html.Header:
    return html.Header(
        className="top",
        children=[
            html.H1("Overview"),
            html.Span(id="window", className="window"),
            html.Div(
                className="controls",
                children=[
                    segmented("range", "Time range", RANGE_LABELS, RANGES_S[0]),
                    html.Button(id=ids.ZONE, type="button", className="button", title="Times in local time or UTC"),
                    html.Button(
                        [html.Span(className="dot"), html.Span("Live", id="live-label")],
                        id=ids.LIVE,
                        type="button",
                        className="button live",
                        title="Stop or resume refreshing",
                        **{"aria-pressed": "true"},
                    ),
                    html.Button(
                        html.Span(className="icon icon-theme"),
                        id=ids.THEME,
                        type="button",
                        className="button square",
                        title="Light or dark",
                        **{"aria-label": "Light or dark theme"},
                    ),
                ],
            ),
        ],
    )
