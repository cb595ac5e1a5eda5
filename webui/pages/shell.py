"""The frame around every page: navigation, capture state, filter, range, and who is signed in."""

from __future__ import annotations

import json
from typing import Any

from dash import dcc, html

from webui import parts
from webui.pages import Context, Page, all_pages, find

RANGES = {"5m": "5 min", "15m": "15 min", "1h": "1 hour", "24h": "24 h"}


def layout(context: Context) -> html.Div:
    """The whole document but the page. Elements with an id and no children are filled by the scripts in assets/."""
    return html.Div(
        className="shell",
        children=[
            html.A("Skip to content", href="#main", className="skip"),
            _side(context),
            html.Div(className="body", children=[_top(context), html.Div(id="shell-page", className="page-slot")]),
            dcc.Location(id="shell-url", refresh=False),
        ],
    )


def page(path: str, context: Context) -> html.Main:
    """The page of an address as an element; its key makes React build it anew, so that nothing painted is left."""
    found = find(path)
    if found is None:
        return _notice(path, "There is no such page", "The address may be mistyped, or from another version.")
    at, rest = found
    if not context.may(at.role):
        return _notice(path, f"{at.title} needs the role {at.role}", f"You are signed in as {context.role}.")
    inside = Context(context.lake, context.user, context.role, rest)
    told = {"name": at.name, "path": at.path, "title": at.title, "feeds": at.feeds, "every_s": dict(at.every_s or {}),
            "ranged": at.ranged, "rest": rest}  # fmt: skip
    banner = html.Div(className="banner", role="status", hidden=True, **{"data-banner": ""})
    return html.Main(
        [html.H1(at.title, className="hidden"), banner, *at.layout(inside)],
        id="main",
        key=f"{at.name}/{rest}",
        tabIndex="-1",
        className=f"page page-{at.name}",
        **{"data-page": json.dumps(told)},
    )


def _notice(path: str, title: str, text: str) -> html.Main:
    box = html.Div([html.H1(title), html.P(text), html.A("Go to the Overview", href="/", className="link")])
    told = {"name": "", "path": path, "title": title, "feeds": [], "every_s": {}, "ranged": False, "rest": ""}
    return html.Main(
        box, id="main", key=path, tabIndex="-1", className="page notice", **{"data-page": json.dumps(told)}
    )


def _side(context: Context) -> html.Aside:
    links = [_link(at) for at in all_pages() if context.may(at.role)]
    line = html.Div(
        [html.Span(className="dot"), html.Span("Connecting …", className="label")], className="capture-line"
    )
    about = [line, html.Div(className="capture-detail")]
    health = find("/health")
    inside = (
        html.A(about, href=health[0].path, className="capture-link")
        if health
        else html.Div(about, className="capture-link")
    )
    state = html.Div(inside, id="shell-capture", className="capture", role="status")
    brand = html.Div([html.Span(className="mark"), html.Span("PacketLake", className="label")], className="brand")
    return html.Aside([brand, html.Nav(links, **{"aria-label": "Pages"}), state], className="side")


def _link(at: Page) -> html.A:
    inside: list[Any] = [parts.icon_of(at.icon), html.Span(at.title, className="label")]
    if at.name == "alerts":
        inside.append(html.Span(id="shell-alerts", className="badge", hidden=True))
    return html.A(
        inside, href=at.path, className="nav-link", title=at.title, **{"data-nav": at.name, "data-key": at.key}
    )


def _top(context: Context) -> html.Header:
    quick = [
        html.Button(text, type="button", **{"data-range": value, "aria-pressed": "false"})
        for value, text in RANGES.items()
    ]
    custom = html.Button(
        "Custom", type="button", id="shell-custom", **{"aria-pressed": "false", "aria-haspopup": "dialog"}
    )
    who = {"data-user": context.user, "data-role": context.role}
    return html.Header(
        className="top",
        children=[
            html.Div(id="shell-filter", className="filter", role="search", **{"aria-label": "Filter"}),
            html.Div(id="shell-sensor", className="sensor", hidden=True),
            html.Div(
                className="controls",
                children=[
                    html.Div([*quick, custom], className="segmented", role="group", **{"aria-label": "Time range"}),
                    html.Button(
                        [html.Span(className="dot"), html.Span("Live")],
                        id="shell-live",
                        type="button",
                        className="button live",
                        title="Stop or resume (L)",
                        **{"aria-pressed": "true"},
                    ),
                    html.Button("Local", id="shell-zone", type="button", className="button zone"),
                    html.Button(
                        html.Span(className="icon icon-theme"),
                        id="shell-theme",
                        type="button",
                        className="button square",
                        title="Light or dark",
                        **{"aria-label": "Light or dark theme"},
                    ),
                    html.Button(
                        [(context.user or "?")[:2].upper(), html.Span(": you", className="hidden")],
                        id="shell-user",
                        type="button",
                        className="avatar",
                        title="You",
                        **{"aria-haspopup": "menu", **who},
                    ),
                ],
            ),
        ],
    )
