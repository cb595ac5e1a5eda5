"""Suricata's rule syntax: a line to its header and options, nothing understood yet.

Own parser: suricataparser 1.0.0 finds options with regular expressions and passes over what it cannot read, where a
rule must be understood whole or refused.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Final

MAX_RULE: Final = 16_384
_SPACE: Final = " \t"


class Refused(ValueError):  # noqa: N818 - it names what happened to the rule
    """The rule is not used; the message names what of it is not supported or wrong."""


@dataclass(frozen=True, slots=True)
class Option:
    """`name` alone (value None) or `name:value;`. The value is as written, without the blanks around it."""

    name: str
    value: str | None = None


@dataclass(frozen=True, slots=True)
class Header:
    """The words before the options."""

    action: str
    proto: str
    src: str
    src_port: str
    direction: str
    dst: str
    dst_port: str


@dataclass(frozen=True, slots=True)
class RuleText:
    """A rule as written."""

    header: Header
    options: tuple[Option, ...]

    def get(self, name: str) -> str | None:
        """The value of the first option of that name."""
        return next((o.value for o in self.options if o.name == name), None)


def rule_lines(text: str) -> Iterator[tuple[int, str]]:
    """(line number, rule) of each rule; comments and blank lines are passed over, a backslash continues a line."""
    held, began = "", 0
    for number, raw in enumerate(text.split("\n"), 1):
        line = raw.rstrip("\r")
        if not held and (not line.strip() or line.lstrip().startswith("#")):
            continue
        began = began or number
        if line.endswith("\\"):
            held += line[:-1]
            continue
        yield began, (held + line).strip()
        held, began = "", 0
    if held.strip():
        yield began, held.strip()


def parse_rule(line: str) -> RuleText:
    """Take a rule apart. Raises Refused."""
    if len(line) > MAX_RULE:
        raise Refused(f"longer than {MAX_RULE} characters")
    open_at = line.find("(")
    if open_at < 0 or not line.rstrip().endswith(")"):
        raise Refused("no options in parentheses")
    words = _header_words(line[:open_at])
    if len(words) != 7:
        raise Refused(f"its header has {len(words)} words, not 7 (action proto src port -> dst port)")
    return RuleText(Header(*words), tuple(_options(line[open_at + 1 : line.rstrip().rindex(")")])))


def _header_words(text: str) -> list[str]:
    """Words at blanks outside brackets."""
    words, word, depth = [], "", 0
    for c in text:
        depth += (c == "[") - (c == "]")
        if c in _SPACE and depth <= 0:
            if word:
                words.append(word)
            word = ""
        elif c not in _SPACE:
            word += c
    if depth:
        raise Refused("brackets in its header do not match")
    return [*words, word] if word else words


def _options(text: str) -> Iterator[Option]:
    """Split at semicolons outside quotes; a backslash protects the next character."""
    at, n = 0, len(text)
    while True:
        while at < n and text[at] in _SPACE:
            at += 1
        if at >= n:
            return
        start, quoted = at, False
        while at < n and (text[at] != ";" or quoted):
            if text[at] == "\\":
                at += 1
            elif text[at] == '"':
                quoted = not quoted
            at += 1
        if at >= n:
            raise Refused("a quotation mark or the last semicolon is missing")
        name, colon, value = text[start:at].partition(":")
        name = name.strip()
        if not name or not name.replace("_", "").replace(".", "").replace("-", "").isalnum():
            raise Refused(f"option {name[:40]!r} is no keyword")
        yield Option(name, value.strip() if colon else None)
        at += 1


def unquote(option: Option) -> tuple[bool, str]:
    """(negated, text between the quotation marks)."""
    value = option.value or ""
    negated = value.startswith("!")
    value = value[1:].lstrip() if negated else value
    if len(value) < 2 or value[0] != '"' or value[-1] != '"':
        raise Refused(f"{option.name}: its value must stand in quotation marks")
    return negated, value[1:-1]


def content_bytes(text: str) -> bytes:
    """The bytes of a content: text, `|41 42|` in hexadecimal, backslash before a character that means something."""
    out, at, n = bytearray(), 0, len(text)
    while at < n:
        c = text[at]
        if c == "|":
            end = text.find("|", at + 1)
            digits = text[at + 1 : end].replace(" ", "") if end > 0 else "?"
            try:
                out += bytes.fromhex(digits)
            except ValueError:
                raise Refused(f"content {text[:60]!r}: bad hexadecimal between | |") from None
            at = end + 1
            continue
        if c == "\\":
            at += 1
            if at >= n or text[at] not in ':;"\\|':
                raise Refused(f'content {text[:60]!r}: a backslash may stand before : ; " \\ | only')
            c = text[at]
        out += c.encode("utf-8", "surrogateescape")
        at += 1
    if not out:
        raise Refused("content is empty")
    if len(out) > 255:
        raise Refused("content is longer than 255 bytes")
    return bytes(out)
