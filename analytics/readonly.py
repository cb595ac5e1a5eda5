"""Which SQL may run where a person, or a browser, types it: what reads, and what changes the session's own memory.

DuckDB can confine a session to directories, but in them it may write as well as read, and a file written into the
lake would become part of it. So the kind of each statement decides, as DuckDB's own parser sees it.
"""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Final

import duckdb

from engine.errors import ConfigError

if TYPE_CHECKING:
    from duckdb import DuckDBPyConnection, Statement

# COPY, EXPORT, ATTACH and some PRAGMAs write files; LOAD runs foreign code; SET and CALL change how the session is
# confined; PREPARE hides a statement of any kind. VARIABLE_SET is SET VARIABLE. MULTI is PIVOT.
ALLOWED: Final = frozenset({
    "SELECT", "EXPLAIN", "CREATE", "CREATE_FUNC", "INSERT", "UPDATE", "DELETE", "MERGE_INTO", "ALTER", "DROP",
    "TRANSACTION", "VARIABLE_SET", "ANALYZE", "RELATION", "LOGICAL_PLAN", "MULTI",
})  # fmt: skip
_SET_VARIABLE: Final = re.compile(r"\s*SET\s+VARIABLE\s", re.IGNORECASE)
_EXPLAIN: Final = re.compile(r"EXPLAIN\s*(?:\([^)]*\)|ANALYZE\b)?\s*", re.IGNORECASE)
# Spaces and comments in front of a statement; block comments in each other are left, and then refused.
_BEFORE: Final = re.compile(r"(?:\s|--[^\r\n]*(?:[\r\n]|$)|/\*(?:(?!/\*|\*/).)*\*/)*", re.DOTALL)
_NO_TEXT: Final = re.compile("[\ud800-\udfff]")
# A statement with a PIVOT inside is MULTI whatever it does, also COPY (PIVOT ...) TO 'file': its first word decides.
_PIVOTS: Final = frozenset({"PIVOT", "PIVOT_WIDER", "FROM", "SELECT", "WITH", "(", "CREATE", "INSERT"})


def check(con: DuckDBPyConnection, sql: str) -> list[Statement]:
    """The statements of the text, each of a kind that writes nothing but the session's memory.

    Raises ConfigError, one line: not SQL, or a statement that is refused.
    """
    if _NO_TEXT.search(sql):
        raise ConfigError("SQL: the text holds half a character (a lone surrogate); write it again")
    try:
        statements = con.extract_statements(sql)
    except duckdb.Error as error:
        raise ConfigError(one_line(error)) from None
    for statement in statements:
        kind = _kind(statement)
        if kind not in ALLOWED:
            word = (re.match(r"\W*(\w+)", statement.query[_body(statement) :]) or [kind, kind])[1].upper()
            raise ConfigError(
                f"SQL: {word} is refused, queries only read; "
                "to save a result use `engine sql --format csv|json|parquet --output FILE`"
            )
        if kind == "EXPLAIN":  # EXPLAIN ANALYZE runs what it explains
            explained = _EXPLAIN.match(statement.query, _body(statement))
            if explained is None:
                raise ConfigError("SQL: EXPLAIN stands behind what is no plain comment; put it first")
            check(con, statement.query[explained.end() :])
    return statements


def _kind(statement: Statement) -> str:
    try:
        kind = statement.type.name
    except ValueError:  # the Python binding has no name for some kinds
        return "UNKNOWN"
    if kind == "MULTI":
        word = re.compile(r"\w+|\(").match(statement.query, _body(statement))
        first = word[0].upper() if word else ""
        return kind if first in _PIVOTS else "EXPLAIN" if first == "EXPLAIN" else "UNKNOWN"
    return "VARIABLE_SET" if kind == "SET" and _SET_VARIABLE.match(statement.query) else kind


def _body(statement: Statement) -> int:
    """Where it begins, behind spaces and comments."""
    found = _BEFORE.match(statement.query)
    return found.end() if found else 0


def one_line(error: Exception) -> str:
    """DuckDB's message as one line: what is wrong, and the place as line and column with the text there."""
    head, _, place = str(error).partition("\n\nLINE ")
    first = head.strip().splitlines()
    message = first[0] if first else type(error).__name__
    if len(first) > 1 and first[1].startswith(("Candidate", "Did you mean")):
        message += f" ({first[1].strip()})"
    found = re.match(r"(\d+): (.*)\n( *)\^+", place)
    if found is not None:
        number, text, indent = found.groups()
        column = max(len(indent) - len(f"LINE {number}: "), 0)
        message += f" — line {number}, at: {text[column : column + 40].strip() or 'the end'}"
    return f"SQL: {message}"
