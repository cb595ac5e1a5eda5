"""Pieces of layout that pages share. `assets/*.js` fill and drive them; what they look like is in `assets/1*.css`."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from dash import dcc, html

from webui import figures


def card(
    title: str,
    *body: Any,
    identity: str = "",
    kind: str = "",
    extra: Any = None,
    question: str = "",
    exports: Sequence[str] = (),
    table: str = "",
    listed: bool = False,
) -> html.Section:
    """A titled box. With a question, its menu offers the exports (csv, parquet, arrow, pcap) and the SQL.

    What a chart in it shows is there as a table, too. `extra` stands at the right of the title: tabs, a note. `table`
    names the part of the question's answer that the card shows, where it has several. `listed`: a menu also without a
    question, with what the card shows as CSV.
    """
    more: dict[str, Any] = {"data-question": question, "data-exports": " ".join(exports), "data-part": table}
    menu = (
        icon_button("more", f"Export or explain {title}", className="card-menu", **more) if question or listed else None
    )
    side = [part for part in (extra, menu) if part is not None]
    head = html.Div([html.H2(title), html.Div(side, className="card-side")], className="card-head")
    named = {"id": identity} if identity else {}
    return html.Section([head, *body], className=f"card {kind}".strip(), **named)


def graph(identity: str, height: int = 162) -> html.Div:
    """A chart. `packetlake.chart.*` draws into it by this id."""
    drawn = dcc.Graph(id=identity, figure=figures.EMPTY, config=figures.CONFIG, className="graph")
    return html.Div(drawn, className="chart", style={"height": f"{height}px"}, **{"data-graph": identity})


def tabs(name: str, label: str, options: Mapping[str, str], chosen: str = "") -> html.Div:
    """Buttons of which one is pressed. Pressing calls `packetlake.onTab(name, value => ...)`."""
    first = chosen or next(iter(options))
    buttons = [
        html.Button(text, type="button", **{"data-tab": value, "aria-pressed": "true" if value == first else "false"})
        for value, text in options.items()
    ]
    return html.Div(buttons, role="group", className="segmented", **{"aria-label": label, "data-tabs": name})


def kpi(identity: str, title: str, href: str = "") -> Any:
    """A key figure: `packetlake.kpi(id, {value, unit, note, level, spark})`."""
    inside = [
        html.Div(title, className="kpi-title"),
        html.Div([html.Span("–", className="value"), html.Span(className="unit")], className="kpi-value"),
        html.Div(className="kpi-note"),
        html.Div(className="spark", **{"aria-hidden": "true"}),
    ]
    return (
        html.A(inside, id=identity, className="kpi", href=href)
        if href
        else html.Div(inside, id=identity, className="kpi")
    )


def button(text: str, identity: str, icon: str = "", **more: Any) -> html.Button:
    """A button with words."""
    inside = [icon_of(icon), text] if icon else text
    return html.Button(inside, id=identity, type="button", **{"className": "button", **more})


def icon_button(icon: str, label: str, **more: Any) -> html.Button:
    """A button with a picture only; the label is its name."""
    classes = f"icon-button {more.pop('className', '')}".strip()
    return html.Button(icon_of(icon), type="button", className=classes, title=label, **{"aria-label": label, **more})


def icon_of(name: str) -> html.Span:
    """A picture of assets/icons in the colour of the text."""
    return html.Span(className="icon", style={"--icon": f'url("/assets/icons/{name}.svg")'}, **{"aria-hidden": "true"})
