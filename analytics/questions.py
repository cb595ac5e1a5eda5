"""Views that answer the questions people ask of a network: `hosts`, `beacons`, `new_services`...

Each is a table macro in a file of analytics/sql/, which says there what it means, and a view of the same name over
the whole lake:

    SELECT * FROM hosts WHERE scope = 'private'
    SELECT * FROM hosts_between('2026-11-24 12:00', '2026-11-24 13:00') WHERE scope = 'private'

`python -m analytics.questions` prints their columns, as docs/queries.md has them.
"""

from __future__ import annotations

from importlib.resources import files
from typing import TYPE_CHECKING, Final

from analytics.question_columns import COLUMNS, QUESTIONS

if TYPE_CHECKING:
    from duckdb import DuckDBPyConnection

FILES: Final = (
    "ranges", "connections", "services", "hosts", "beacons", "dns", "fingerprints", "alerts", "anomalies",
    "fleet", "table_between",
)  # fmt: skip
# DuckDB plans a view when it is created, with everything below it: 30 ms for these views, and a listing of all
# segments for each time that `flows` is named. So views are created over macros that have the columns and nothing
# else, and these then make way for the real ones. A macro is planned too when it is created, but only up to what
# depends on a parameter: in all of them that is first the table that this stand-in would read.
_NO_TABLE: Final = "CREATE OR REPLACE MACRO table_between(name, since, until) AS TABLE FROM query_table(until)"


def create(con: DuckDBPyConnection) -> None:
    """Create the macros and views. They read the views of the lake's tables, which need not exist yet."""
    con.execute(_NO_TABLE)
    for name, columns in COLUMNS.items():
        nulls = ", ".join(f'NULL::{c.type} AS "{c.name}"' for c in columns)
        con.execute(f"CREATE MACRO {name}_between(since := NULL, until := NULL) AS TABLE SELECT {nulls}")
        con.execute(f"CREATE OR REPLACE VIEW {name} AS FROM {name}_between()")
    for name in FILES:
        con.execute((files("analytics") / "sql" / f"{name}.sql").read_text())


def columns_text() -> str:
    """The columns of all views, as in docs/queries.md."""
    lines: list[str] = []
    for name, question in QUESTIONS.items():
        lines += [f"### {name}", "", f"{question}", "", "| column | SQL type | meaning |", "|---|---|---|"]
        lines += [f"| `{c.name}` | {c.type} | {c.meaning} |" for c in COLUMNS[name]]
        lines.append("")
    return "\n".join(lines)


if __name__ == "__main__":
    print(columns_text(), end="")  # noqa: T201 — this is the command's output
