"""SQL: ask the lake anything. What was saved, what ran and what there is to ask stand beside query and result."""

from __future__ import annotations

from typing import Any

from dash import html

from webui import parts
from webui.pages import Context, Page


def layout(_context: Context) -> list[Any]:
    """The page's elements; `assets/68-sql.js` fills them."""
    lists = {"schema": "Schema", "saved": "Saved", "history": "History"}
    head = [
        html.Span("Ctrl+Enter runs it · read-only", className="note"),
        parts.button("Save", "sql-save", icon="save"),
        parts.button("Cancel", "sql-cancel", hidden=True),
        parts.button("Run", "sql-run", icon="play", className="button primary"),
    ]
    result = [
        html.Span(id="sql-status", className="note", role="status"),
        parts.tabs("sql-view", "How the result is shown", {"table": "Table", "chart": "Chart"}),
        parts.icon_button("download", "Export the result", id="sql-export", disabled=True),
    ]
    return [
        html.Div(
            className="sql-page grow",
            children=[
                html.Section(
                    [
                        html.Div(
                            [html.H2("Queries and schema", className="hidden"), parts.tabs("sql-list", "List", lists)],
                            className="card-head",
                        ),
                        html.Div(id="sql-search", className="sql-search"),
                        html.Div(id="sql-list", className="scroll sql-list"),
                    ],
                    className="card sql-side",
                ),
                parts.card(
                    "Query",
                    html.Div(id="sql-editor", className="sql-editor"),
                    html.Div(id="sql-error", className="sql-error", role="alert", hidden=True),
                    kind="sql-query",
                    extra=html.Div(head, className="card-side"),
                ),
                parts.card(
                    "Result",
                    html.Div(id="sql-result", className="sql-result"),
                    html.Div(
                        [
                            html.Div(id="sql-axes", className="sql-axes"),
                            html.Div(id="sql-chart", className="chart sql-chart"),
                        ],
                        id="sql-chart-view",
                        className="sql-chart-view",
                        hidden=True,
                    ),
                    kind="sql-answer",
                    extra=html.Div(result, className="card-side"),
                ),
            ],
        )
    ]


PAGE = Page(path="/sql", title="SQL", icon="sql", key="s", order=80, layout=layout, role="operator", ranged=False)
