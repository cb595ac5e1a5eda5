"""Rules of the operator's own, from files of Python: classes as those of this package.

    from engine.detect.finding import Finding
    from engine.detect.rules.base import Parameters, Rule

They run inside the engine with all that it may do, so a file that others could have changed is refused.
"""

from __future__ import annotations

import os
import stat
import sys
import traceback
from collections.abc import Callable, Iterable
from types import ModuleType
from typing import TYPE_CHECKING, Any, Final

from engine.detect.finding import SEVERITIES, Finding
from engine.detect.rules.base import Parameters, Rule
from engine.errors import ConfigError

if TYPE_CHECKING:
    from engine.detect.tick import Tick

ERRORS: Final = 10  # after so many a rule is not asked any more
MOST: Final = 1_000  # findings of one look
_OTHERS: Final = stat.S_IWGRP | stat.S_IWOTH


def load(path: str) -> list[type[Rule[Any]]]:
    """The rules that a file defines. Raises ConfigError with file and line."""
    source = _read(path)
    name = f"packetlake_rules_{abs(hash(os.path.abspath(path)))}"
    module = ModuleType(name)
    module.__file__ = path
    sys.modules[name] = module  # dataclasses look there
    try:
        exec(compile(source, path, "exec", dont_inherit=True), module.__dict__)  # noqa: S102 — that is what it is for
    except SyntaxError as error:
        raise ConfigError(f"rule file {path}:{error.lineno or 0}: {error.msg}") from None
    except Exception as error:  # noqa: BLE001 — whatever its top level does
        raise ConfigError(f"rule file {path}:{_line(error, path)}: {_said(error)}") from None
    found = [v for v in vars(module).values() if isinstance(v, type) and issubclass(v, Rule) and v.__module__ == name]
    for rule in found:
        _check(path, rule)
    if not found:
        raise ConfigError(f"rule file {path} defines no rule; derive a class from engine.detect.rules.base.Rule")
    return found


def _read(path: str) -> bytes:
    """Its text, if nobody but root or ourselves can have written it."""
    try:
        with open(path, "rb") as file:
            about, folder = os.fstat(file.fileno()), os.stat(os.path.dirname(os.path.abspath(path)))
            source = file.read()
    except OSError as error:
        raise ConfigError(f"rule file {path}: {(error.strerror or str(error)).lower()}; name a readable file") from None
    if not stat.S_ISREG(about.st_mode):
        raise ConfigError(f"rule file {path} is no regular file; name one")
    if about.st_mode & _OTHERS:
        raise ConfigError(f"rule file {path} can be written by others than its owner; `chmod go-w` it")
    if about.st_uid not in (0, os.geteuid()):
        raise ConfigError(f"rule file {path} belongs to another user (uid {about.st_uid}); `chown` it to root")
    if folder.st_mode & _OTHERS and not folder.st_mode & stat.S_ISVTX:
        raise ConfigError(f"rule file {path}: others can replace it; `chmod go-w` its directory")
    return source


def _check(path: str, rule: type[Rule[Any]]) -> None:
    name, parameters = getattr(rule, "name", None), getattr(rule, "parameters", None)
    where = f"rule file {path}: class {rule.__name__}"
    if not isinstance(name, str) or not name.isidentifier():
        raise ConfigError(f"{where} needs a `name`, a word such as my_rule")
    if not isinstance(parameters, type) or not issubclass(parameters, Parameters):
        raise ConfigError(f"{where} needs `parameters`, a dataclass derived from Parameters")
    try:
        parameters()
    except TypeError as error:
        raise ConfigError(f"{where}: every parameter needs a default ({error})") from None


def _line(error: BaseException, path: str) -> int:
    """The line of the file in which it happened last."""
    return next((f.lineno or 0 for f in reversed(traceback.extract_tb(error.__traceback__)) if f.filename == path), 0)


def _said(error: BaseException) -> str:
    return " ".join(f"{type(error).__name__}: {error}".split())[:300]


class Guarded(Rule[Any]):
    """A rule of a file. When it fails, that is counted and said once; after ERRORS it is not asked any more."""

    def __init__(self, rule: Rule[Any], path: str, report: Callable[[str, str], None]) -> None:
        super().__init__(rule.p)
        self.name = rule.name  # type: ignore[misc]
        self.tables = rule.tables  # type: ignore[misc]
        self._rule, self._path, self._report = rule, path, report
        self.errors = 0

    def look(self, tick: Tick, second: bool) -> Iterable[Finding]:
        return self._ask(lambda: self._rule.look(tick, second))

    def row(self, table: str, row: dict[str, Any]) -> Iterable[Finding]:
        return self._ask(lambda: self._rule.row(table, row))

    def forget(self) -> None:
        self._ask(lambda: self._rule.forget() or ())  # type: ignore[func-returns-value]

    def _ask(self, ask: Callable[[], Iterable[Finding]]) -> list[Finding]:
        if self.errors >= ERRORS:
            return []
        found: list[Finding] = []
        try:
            for finding in ask():
                _check_finding(finding)
                found.append(finding)
                if len(found) >= MOST:
                    raise OverflowError(f"more than {MOST} findings at once")
        except Exception as error:  # noqa: BLE001 — whatever it does, the engine goes on
            self._fail(error)
        return found

    def _fail(self, error: Exception) -> None:
        self.errors += 1
        line = _line(error, self._path)
        where = f"rule {self.name} ({self._path}{f':{line}' if line else ''}): {_said(error)}"
        if self.errors == 1:
            self._report("warning", f"{where}; it goes on, until {ERRORS} errors")
        elif self.errors == ERRORS:
            self._report("error", f"{where}; after {ERRORS} errors it is not asked any more")


def _check_finding(finding: Any) -> None:
    if not isinstance(finding, Finding):
        raise TypeError(f"{type(finding).__name__} instead of a Finding")
    if finding.severity not in SEVERITIES or type(finding.ts) is not int or not isinstance(finding.why, str):
        raise TypeError("a Finding needs ts (int, microseconds), why, and a severity of low, medium, high, critical")
