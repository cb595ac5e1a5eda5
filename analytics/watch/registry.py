"""The questions that pages and programs may ask: name, parameters, roles, the function that answers, and its SQL.

    @question("flows", "Connections of the range", params=(Param("limit", 100, "Rows", low=1, high=1000),))
    def flows(ctx: Context) -> dict[str, Any]: ...

Answers are dictionaries of numbers, texts and lists, ready for JSON; columns are lists of the same length. Every time
is a whole number of microseconds since the epoch, UTC, unless its name ends in `_s`. Numbers of flows are texts, since
JavaScript's numbers are exact up to 2^53 only.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final

from engine.errors import ConfigError

if TYPE_CHECKING:
    from analytics.watch.context import Context
    from analytics.watch.statement import Statement

ROLES: Final = ("viewer", "operator", "admin")
Answer = Callable[["Context"], dict[str, Any]]
Statements = Callable[["Context"], "dict[str, Statement]"]
MAX_TEXT: Final = 512  # characters of a parameter


class NotAllowed(ConfigError):  # noqa: N818 — names what happened, as the other errors do
    """The role may not ask this."""


class NotFound(ConfigError):  # noqa: N818
    """What is asked about is not in the lake."""


def may(role: str | None, needed: str) -> bool:
    """Whether a role is at least another. An unknown role may nothing."""
    return role in ROLES and ROLES.index(role) >= ROLES.index(needed)


@dataclass(frozen=True, slots=True)
class Param:
    """A parameter: its type is that of its default. None as default: it is a text that may be left out."""

    name: str
    default: Any
    meaning: str
    choices: tuple[str, ...] = ()
    low: float = 0
    high: float = 1 << 62
    required: bool = False

    def parse(self, given: Any) -> Any:
        """The value of a text from an address, or of one already of the type. Raises ConfigError."""
        if given is None or given == "":
            if self.required:
                raise ConfigError(f"parameter {self.name} is missing: {self.meaning.lower()}")
            return self.default
        text = str(given)
        if self.choices:
            if text not in self.choices:
                raise ConfigError(f"{self.name} {text[:40]!r} is unknown; use {', '.join(self.choices)}")
            return text
        if isinstance(self.default, bool):
            if text.lower() not in ("true", "false", "1", "0"):
                raise ConfigError(f"{self.name} {text[:40]!r} is neither true nor false")
            return text.lower() in ("true", "1")
        if isinstance(self.default, int | float):
            return self._number(text)
        if len(text) > MAX_TEXT or not text.isprintable():
            raise ConfigError(f"{self.name} is longer than {MAX_TEXT} characters, or not printable")
        return text

    def _number(self, text: str) -> Any:
        kind = type(self.default)
        try:
            value = kind(text) if len(text) <= 24 else None
        except ValueError:
            value = None
        if value is None or not self.low <= value <= self.high:
            low, high = (f"{n:g}" if kind is float else f"{int(n)}" for n in (self.low, self.high))
            raise ConfigError(f"{self.name} {text[:24]!r} is out of range: use {low} to {high}")
        return value

    def schema(self) -> dict[str, Any]:
        """As JSON Schema."""
        kind = {bool: "boolean", int: "integer", float: "number"}.get(type(self.default), "string")
        about: dict[str, Any] = {"type": kind}
        if self.choices:
            about["enum"] = list(self.choices)
        if kind in ("integer", "number"):
            about |= {"minimum": self.low} | ({"maximum": self.high} if self.high < 1 << 62 else {})
        if self.default is not None:
            about["default"] = self.default
        return about


@dataclass(frozen=True, slots=True)
class Question:
    """A question. `by_role`: the answer depends on who asks. `refresh_s`: how long an answer holds; 0 is the range's
    own pace."""

    name: str
    title: str
    answer: Answer
    params: tuple[Param, ...] = ()
    role: str = "viewer"
    statements: Statements | None = None
    by_role: bool = False
    refresh_s: float = 0
    ranged: bool = True
    filtered: bool = True

    def values(self, given: dict[str, Any]) -> dict[str, Any]:
        """The parameters' values. Raises ConfigError for one that is wrong or unknown."""
        known = {p.name for p in self.params}
        unknown = sorted(set(given) - known)
        if unknown:
            names = ", ".join(sorted(known)) or "none"
            raise ConfigError(f"{self.name} has no parameter {unknown[0][:40]!r}; it has {names}")
        return {p.name: p.parse(given.get(p.name)) for p in self.params}


QUESTIONS: Final[dict[str, Question]] = {}


def question(name: str, title: str, **about: Any) -> Callable[[Answer], Answer]:
    """Register the function as the answer of a question. The function's docstring says what the answer holds."""

    def register(answer: Answer) -> Answer:
        QUESTIONS[name] = Question(name, title, answer, **about)
        return answer

    return register


def find(name: str) -> Question:
    """Raises NotFound."""
    import analytics.watch.answers  # noqa: F401 — registers them

    found = QUESTIONS.get(name)
    if found is None:
        raise NotFound(f"question {name[:40]!r} is unknown; there are {', '.join(sorted(QUESTIONS))}")
    return found


def every() -> list[Question]:
    """All questions, by name."""
    import analytics.watch.answers  # noqa: F401 — registers them

    return [QUESTIONS[name] for name in sorted(QUESTIONS)]
