"""Configuration: what the engine may be told, people, and what this program is. Operators read, admins change."""

from __future__ import annotations

from typing import Any

from dash import html

from webui import parts
from webui.pages import Context, Page

SECTIONS = (
    ("capture", "Capture"),
    ("storage", "Storage"),
    ("rules", "Rules"),
    ("alerts", "Alerts"),
    ("scoring", "Anomalies"),
    ("signatures", "Signatures and lists"),
    ("geoip", "GeoIP"),
    ("notifications", "Notifications"),
)
PEOPLE = (("users", "Users"), ("sessions", "Sessions"), ("tokens", "API tokens"), ("audit", "Audit log"))
ABOUT = (("about", "About"),)


def layout(context: Context) -> list[Any]:
    """The page's elements; `assets/69-configuration.js` fills them."""
    shown = (*SECTIONS, *(PEOPLE if context.may("admin") else ()), *ABOUT)
    links = [
        html.A(title, href=f"#configuration-{name}", className="conf-link", **{"data-section": name})
        for name, title in shown
    ]
    cards = [
        parts.card(
            title,
            html.Div(id=f"configuration-{name}-body", className="conf-body"),
            identity=f"configuration-{name}",
            extra=html.Div(id=f"configuration-{name}-side", className="card-side"),
        )
        for name, title in shown
    ]
    return [
        html.Div(
            className="conf grow",
            children=[
                html.Div(
                    [html.Nav(links, **{"aria-label": "Sections"}), html.Div(id="configuration-file")],
                    className="conf-side",
                ),
                html.Div(cards, id="configuration-cards", className="conf-cards", tabIndex="-1"),
            ],
        ),
        html.Div(id="configuration-bar", className="conf-bar", hidden=True, role="region", **{"aria-label": "Changes"}),
    ]


PAGE = Page(
    path="/configuration", title="Configuration", icon="configuration", key="c", order=90, layout=layout,
    role="operator", ranged=False,
)  # fmt: skip
