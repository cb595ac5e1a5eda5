"""Suggestions while a filter is typed: fields, then values that are frequent in the last hour."""

from __future__ import annotations

from dataclasses import replace
from typing import Any, Final

from analytics.watch.context import Context
from analytics.watch.fields import CLOSED_VALUES, FIELDS
from analytics.watch.filters import FilterError, parse, words
from analytics.watch.mirror import SECONDS, TALKERS
from analytics.watch.registry import Param, question
from analytics.watch.timerange import US

MOST: Final = 12
LOOKED_AT_S: Final = 3600
_DIMENSIONS: Final = {
    "src": ("src_ip",), "dst": ("dst_ip",), "host": ("src_ip", "dst_ip"), "port": ("port",), "dport": ("port",),
    "sport": ("port",),
}  # fmt: skip


@question(
    "complete", "Suggestions for a filter that is being typed",
    params=(
        Param("text", "", "The filter so far"),
        Param("cursor", -1, "Where the cursor is; -1: at the end", low=-1, high=2000),
    ),
    filtered=False, ranged=False,
)  # fmt: skip
def complete(ctx: Context) -> dict[str, Any]:
    """start, end: the part of the text that a suggestion replaces; suggestions: {text: [], about: []};
    error: why the whole text is no filter yet, or None; canonical: the text in its usual form if it is one.
    """
    text = ctx.p.text
    cursor = len(text) if ctx.p.cursor < 0 else min(ctx.p.cursor, len(text))
    start, word = next(((at, w) for at, w in words(text) if at <= cursor <= at + len(w)), (cursor, ""))
    end = start + len(word)
    negation = word[:1] if word[:1] in ("-", "!") else ""
    name, operator, value = _split(word[len(negation) :])
    if operator and name in FIELDS:
        typed = value.rpartition(",")[2]
        start = end - len(typed)
        found = [(v, "") for v in _values(ctx, name, typed.strip('"').lower())]
    else:
        found = [
            (f"{negation}{field}{about.operators[0]}", about.meaning)
            for field, about in FIELDS.items()
            if field.startswith(name.lower())
        ]
    error = canonical = None
    try:
        canonical = parse(text).text
    except FilterError as problem:
        error = str(problem)
    shown = found[:MOST]
    return {
        "start": start, "end": end, "error": error, "canonical": canonical,
        "suggestions": {"text": [t for t, _ in shown], "about": [a for _, a in shown]},
    }  # fmt: skip


def _split(word: str) -> tuple[str, str, str]:
    at = next((i for i, c in enumerate(word) if c in "=<>:!"), -1)
    if at < 0:
        return word, "", ""
    end = at
    while end < len(word) and word[end] in "=<>:!":
        end += 1
    return word[:at].lower(), word[at:end], word[end:]


def _values(ctx: Context, name: str, typed: str) -> list[str]:
    now = int(ctx.now)
    ctx = replace(ctx, span=replace(ctx.span, start_us=(now - LOOKED_AT_S) * US, end_us=(now + 1) * US, live=True))
    values = [v for v in CLOSED_VALUES.get(name, ()) if typed in v]
    if name in _DIMENSIONS:
        found = ctx.lake.mirror(TALKERS, ctx.span)
        if found is not None:
            names = list(_DIMENSIONS[name])
            key = "split_part(key, ' ', 1)" if name.endswith("port") else "key"
            values += [row[0] for row in ctx.rows(
                f"SELECT {key} FROM {found[0]} WHERE s >= $first AND list_contains($names, dimension) AND "
                f"contains(key, $typed) GROUP BY 1 ORDER BY sum(bytes) DESC LIMIT {MOST}",
                first=now - LOOKED_AT_S, names=names, typed=typed,
            )]  # fmt: skip
    elif name in ("app", "sensor"):
        found = ctx.lake.mirror(SECONDS, ctx.span)
        if found is not None:
            values += [row[0] for row in ctx.rows(
                f"SELECT {name} FROM {found[0]} WHERE s >= $first AND contains({name}, $typed) GROUP BY 1 "
                f"ORDER BY sum(packets) DESC LIMIT {MOST}", first=now - LOOKED_AT_S, typed=typed,
            )]  # fmt: skip
    return list(dict.fromkeys(f'"{v}"' if " " in v or "," in v else v for v in values))
