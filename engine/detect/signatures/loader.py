"""Rules from files: Suricata's syntax, or lines of `name<TAB>severity<TAB>regular expression`."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final

from engine.config import SignaturesConfig
from engine.detect.finding import SEVERITIES
from engine.detect.signatures.compiler import compile_rule
from engine.detect.signatures.networks import Addresses, Ports, parse_addresses
from engine.detect.signatures.regex import parse_regex
from engine.detect.signatures.rule import Pcre, Rule, fast_item, pattern_of
from engine.detect.signatures.scanner import refused_patterns
from engine.detect.signatures.syntax import Refused, parse_rule, rule_lines
from engine.errors import ConfigError

STARTER: Final = Path(__file__).with_name("starter.rules")
PATTERN_SUFFIXES: Final = (".patterns", ".tsv")
MAX_FILE: Final = 256 << 20
_ANYWHERE: Final = Addresses(True)
_ANY_PORT: Final = Ports(True)


@dataclass(frozen=True, slots=True)
class Refusal:
    """A rule that is not used."""

    origin: str
    line: int
    name: str
    reason: str

    def __str__(self) -> str:
        return f"{self.origin}:{self.line}: {self.name} refused: {self.reason}"


@dataclass(slots=True)
class RuleSet:
    """What was read."""

    rules: list[Rule] = field(default_factory=list)
    refused: list[Refusal] = field(default_factory=list)
    files: list[str] = field(default_factory=list)
    _sids: set[int] = field(default_factory=set)
    _lines: list[int] = field(default_factory=list)  # of each rule

    def read(self, path: Path | str, variables: Mapping[str, str]) -> None:
        """Add the rules of a file. Raises ConfigError when it cannot be read."""
        text = _text(Path(path))
        if str(path).endswith(PATTERN_SUFFIXES):
            self.add_patterns(text, str(path))
        else:
            self.add_rules(text, str(path), variables)
        self.files.append(str(path))

    def add_rules(self, text: str, origin: str, variables: Mapping[str, str], own: bool = False) -> None:
        """Rules in Suricata's syntax."""
        for number, line in rule_lines(text):
            try:
                rule = compile_rule(line, variables, origin, own)
                if rule.sid in self._sids:
                    raise Refused(f"sid {rule.sid} stands twice")
            except Refused as reason:
                self.refused.append(Refusal(origin, number, _name(line), str(reason)))
                continue
            self._sids.add(rule.sid)
            self._add(rule, number)

    def _add(self, rule: Rule, line: int) -> None:
        self.rules.append(rule)
        self._lines.append(line)

    def drop_refused_patterns(self, engine: str) -> None:
        """Give up rules whose pattern the engine cannot take (too large)."""
        items = [(n, fast_item(rule)) for n, rule in enumerate(self.rules)]
        patterns = [(n, pattern_of(item)) for n, item in items if item is not None]
        refused = refused_patterns([p for _, p in patterns], engine)
        for at, reason in sorted(refused.items(), reverse=True):
            n = patterns[at][0]
            rule, line = self.rules.pop(n), self._lines.pop(n)
            name = f"sid {rule.sid} ({rule.message})" if rule.sid else rule.message
            self.refused.append(Refusal(rule.origin, line, name, reason))

    def add_patterns(self, text: str, origin: str) -> None:
        """Plain regular expressions, one a line."""
        for number, raw in enumerate(text.split("\n"), 1):
            line = raw.rstrip("\r")
            if not line.strip() or line.startswith("#"):
                continue
            parts = line.split("\t", 2)
            name = parts[0].strip() or "a line without a name"
            try:
                if len(parts) != 3:
                    raise Refused("a line is name<TAB>severity<TAB>regular expression")
                self._add(pattern_rule(name, parts[1].strip(), parts[2], origin), number)
            except Refused as reason:
                self.refused.append(Refusal(origin, number, name[:60], str(reason)))


def pattern_rule(name: str, severity: str, regex: str, origin: str) -> Rule:
    """A rule that looks for a regular expression in every payload. Raises Refused."""
    if severity not in SEVERITIES:
        raise Refused(f"severity {severity!r} is none of {', '.join(SEVERITIES)}")
    compiled = parse_regex(regex)
    return Rule(
        sid=0, rev=0, message=name, kind="signature", severity=severity, origin=origin, src=_ANYWHERE,
        src_ports=_ANY_PORT, dst=_ANYWHERE, dst_ports=_ANY_PORT, items=(Pcre(regex=compiled),),
    )  # fmt: skip


def load(config: SignaturesConfig) -> RuleSet:
    """The rules that the configuration names, and the starter set."""
    found = RuleSet()
    variables = variables_of(config)
    if config.starter:
        found.add_rules(_text(STARTER), STARTER.name, variables, own=True)
        found.files.append(STARTER.name)
    for path in (*config.files, *config.patterns):
        found.read(path, variables)
    return found


def variables_of(config: SignaturesConfig) -> dict[str, str]:
    """HOME_NET and what the operator defines (`NAME=value`). Raises ConfigError for a home that is no network."""
    given = {}
    for text in config.variables:
        name, equals, value = text.partition("=")
        if not equals or not name.strip().isidentifier():
            raise ConfigError(f"signatures.variables holds {text!r}: write NAME=value")
        given[name.strip()] = value.strip()
    variables = {"HOME_NET": "[" + ",".join(config.home) + "]", **given}
    try:
        parse_addresses("$HOME_NET", variables)
    except Refused as reason:
        raise ConfigError(f"signatures.home: {reason}; give networks such as 10.0.0.0/8") from None
    return variables


def report_lines(found: RuleSet) -> list[str]:
    """One line per file, then one per refused rule."""
    used = Counter(rule.origin for rule in found.rules)
    refused = Counter(refusal.origin for refusal in found.refused)
    lines = [f"{path}: {used[path]} rules used, {refused[path]} refused" for path in dict.fromkeys(found.files)]
    return lines + [str(r) for r in sorted(found.refused, key=lambda r: (r.origin, r.line))]


def check(paths: Sequence[str], config: SignaturesConfig) -> tuple[list[str], bool]:
    """(report, whether every rule is used) for files alone."""
    found = RuleSet()
    variables = variables_of(config)
    for path in paths:
        found.read(path, variables)
    found.drop_refused_patterns(config.engine)
    return report_lines(found), not found.refused


def _name(line: str) -> str:
    """What a refused rule is called: its sid and message where they can be read."""
    try:
        rule = parse_rule(line)
    except Refused:
        return f"rule {line[:40]!r}"
    message = (rule.get("msg") or "").strip('"')[:80]
    return f"sid {rule.get('sid') or '?'}" + (f" ({message})" if message else "")


def _text(path: Path) -> str:
    try:
        if path.stat().st_size > MAX_FILE:
            raise ConfigError(f"rule file {path} is larger than {MAX_FILE >> 20} MiB; split it")
        return path.read_bytes().decode("utf-8", "surrogateescape")
    except OSError as error:
        raise ConfigError(f"rule file {path}: {error.strerror}; give a readable file") from None
