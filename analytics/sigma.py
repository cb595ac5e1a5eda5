"""Sigma rules over the lake: each becomes one SELECT for `analytics.rule_runner`, or is refused with its reason.

    rules, refused = load(["rules/"])          # of files and directories; ConfigError if one is unreadable

A rule is used whole or not at all. https://sigmahq.io/sigma-specification/
"""

from __future__ import annotations

import os
import re
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import yaml
from sigma.collection import SigmaCollection
from sigma.exceptions import SigmaError
from sigma.policy import SigmaPolicy
from sigma.policy.regex_engine import PythonRegexEngine
from sigma.rule import SigmaRule

from analytics.rule_runner import LakeRule
from analytics.sigma_backend import LakeBackend
from analytics.sigma_fields import CONNECTIONS, Source, source_of
from engine.errors import ConfigError

SUFFIXES: Final = (".yml", ".yaml")
KIND: Final = "sigma"
MAX_FILE: Final = 1 << 20
MAX_FILES: Final = 20_000
_LEVELS: Final = {"informational": "low", "low": "low", "medium": "medium", "high": "high", "critical": "critical"}
_POLICY: Final = SigmaPolicy(regex_engine=PythonRegexEngine())  # RE2 decides in our backend, without logging to stderr
LATE_S: Final = 420.0  # a connection is in the lake when it has ended, or after `flows.active_s`


@dataclass(frozen=True, slots=True)
class Refusal:
    """A rule that is not used."""

    origin: str
    name: str
    reason: str

    def __str__(self) -> str:
        return f"{self.origin}: {self.name} refused: {self.reason}"


def load(
    paths: Sequence[str], *, every_s: float = 60.0, late_s: float = LATE_S
) -> tuple[list[LakeRule], list[Refusal]]:
    """The rules of files and directories, and those that are refused. Raises ConfigError for what cannot be read."""
    rules: list[LakeRule] = []
    refused: list[Refusal] = []
    names: Counter[str] = Counter()
    for path in _files(paths):
        for parsed in _parsed(path):
            if isinstance(parsed, Refusal):
                refused.append(parsed)
                continue
            try:
                rule = _rule(parsed, path, every_s, late_s)
            except Exception as error:  # noqa: BLE001 — beside SigmaError, whatever the library trips over
                refused.append(Refusal(path, _name(parsed), _reason(error)))
                continue
            names[rule.name] += 1
            if names[rule.name] > 1:
                refused.append(Refusal(path, _name(parsed), f"its id {rule.name} stands twice"))
                continue
            rules.append(rule)
    return rules, refused


def _files(paths: Sequence[str]) -> Iterator[str]:
    count = 0
    for path in paths:
        found = sorted(_below(path)) if os.path.isdir(path) else [path]
        if not found:
            raise ConfigError(f"Sigma rules {path}: no file ending in .yml or .yaml; name another directory")
        for file in found:
            count += 1
            if count > MAX_FILES:
                raise ConfigError(f"Sigma rules {path}: more than {MAX_FILES:,} files; name fewer")
            yield file


def _below(directory: str) -> Iterator[str]:
    for folder, _, names in os.walk(directory):
        yield from (os.path.join(folder, name) for name in names if name.endswith(SUFFIXES))


def _parsed(path: str) -> Iterable[SigmaRule | Refusal]:
    """The rules of a file; correlations and filters are refused, they have no meaning on their own."""
    try:
        if os.path.getsize(path) > MAX_FILE:
            raise ConfigError(f"Sigma rules {path}: larger than {MAX_FILE >> 20} MiB; split the file")
        text = Path(path).read_text(encoding="utf-8")
    except OSError as error:
        raise ConfigError(
            f"Sigma rules {path}: {(error.strerror or str(error)).lower()}; give a readable file"
        ) from None
    except UnicodeDecodeError:
        return [Refusal(path, "the file", "it is not UTF-8 text")]
    try:
        documents = [d for d in yaml.safe_load_all(text) if d is not None]
        if not documents or not all(isinstance(d, dict) for d in documents):
            return [Refusal(path, "the file", "it holds no Sigma rule")]
        collection = SigmaCollection.from_dicts(
            documents, collect_errors=True, resolve_references=False, policy=_POLICY
        )
    except yaml.YAMLError as error:
        mark = getattr(error, "problem_mark", None)
        where = f" in line {mark.line + 1}" if mark is not None else ""
        return [Refusal(path, "the file", f"it is not YAML{where}")]
    except Exception as error:  # noqa: BLE001 — beside SigmaError, whatever the library trips over
        return [Refusal(path, "the file", _reason(error))]
    found: list[SigmaRule | Refusal] = []
    for rule in collection.rules:
        errors = getattr(rule, "errors", [])
        if not isinstance(rule, SigmaRule):
            found.append(Refusal(path, _name(rule), f"{_article(rule)} rules are not supported"))
        elif errors:
            found.append(Refusal(path, _name(rule), _reason(errors[0])))
        else:
            found.append(rule)
    return found or [Refusal(path, "the file", "it holds no Sigma rule")]


def _article(rule: object) -> str:
    return re.sub(r"(?<!^)(?=[A-Z])", " ", type(rule).__name__.removeprefix("Sigma").removesuffix("Rule")).lower()


def _rule(rule: SigmaRule, path: str, every_s: float, late_s: float) -> LakeRule:
    """The rule as SQL. Raises an error of pySigma's for what it cannot say."""
    where = rule.logsource
    source = source_of(where.category, where.product, where.service)
    if source is None:
        named = ", ".join(f"{k} {v}" for k in ("category", "product", "service") if (v := getattr(where, k)))
        raise SigmaError(f"log source {named} is not in the lake")
    if "timeframe" in rule.detection.detections:
        raise SigmaError("timeframe needs a count over time, which is not supported")
    try:
        conditions = LakeBackend(source).convert_rule(rule)
    except RecursionError:
        raise SigmaError("its condition is nested too deeply") from None
    title = str(rule.title or Path(path).stem)
    name = str(rule.id or title)
    level = rule.level.name.lower() if rule.level else "medium"
    evidence: tuple[tuple[str, Any], ...] = (
        ("signature", title), ("sigma_id", str(rule.id or "")), ("level", level), ("rules", path),
        ("tags", [str(tag) for tag in rule.tags][:20]),
    )  # fmt: skip
    return LakeRule(
        name=name, kind=KIND, severity=_LEVELS.get(level, "medium"), sql=_sql(source, conditions), every_s=every_s,
        why=f"{title} (Sigma rule)", late_s=late_s, apart=True, evidence=tuple(e for e in evidence if e[1]),
    )  # fmt: skip


def _sql(source: Source, conditions: list[str]) -> str:
    condition = " OR ".join(f"({c})" for c in conditions)
    if source is CONNECTIONS:
        table, extra = "connections_between($since, $until)", ", flow_id || ' ' || sensor AS id"
    else:
        table, extra = f"table_between('{source.table}', $since, $until)", ""
    return f"SELECT ts, src_ip, dst_ip, dst_port, flow_id, {source.shown}{extra} FROM {table} WHERE {condition}"  # noqa: S608


def _name(rule: Any) -> str:
    title = " ".join(str(getattr(rule, "title", None) or "").split())[:80]
    return f"rule {title!r}" if title else f"rule {getattr(rule, 'id', None) or 'without a title'}"


def _reason(error: Exception) -> str:
    """What a library says, on one line."""
    text = " ".join(str(error).split()) or type(error).__name__
    return re.sub(r" (in file .*|\(while \w+ rule .*\))$", "", text)[:300]
