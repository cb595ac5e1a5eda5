"""Regular expressions in the common part of what Hyperscan and RE2 read, with the same meaning in both.

An expression is taken apart and written anew, twice. `exact` decides, by RE2 over one payload. `filter` goes to the
scanner over many payloads with line feeds between them: its anchors match at every line, so it matches wherever
`exact` does, and more. What either engine lacks (look-around, back references, possessive quantifiers, ...) is refused.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from functools import cached_property
from typing import Any, Final

from engine.detect.signatures.syntax import Refused

MAX_REGEX: Final = 4096
_MAX_REPEAT: Final = 1000  # RE2's own bound
_PLAIN: Final = {"d": r"\d", "D": r"\D", "w": r"\w", "W": r"\W"}
_BYTE: Final = {"t": 9, "n": 10, "r": 13, "f": 12, "a": 7, "e": 27}
# RE2's \s has no vertical tab, PCRE's and Hyperscan's has.
_SPACE: Final = r"\t\n\x0b\x0c\r\x20"
_NOT_SPACE: Final = r"\x00-\x08\x0e-\x1f\x21-\xff"
_QUANTIFIER: Final = re.compile(r"\{(\d{1,5})(,(\d{0,5}))?\}")
_POSIX: Final = re.compile(r"\[:\^?(alnum|alpha|ascii|blank|cntrl|digit|graph|lower|print|punct|upper|word|xdigit):\]")
_INLINE: Final = re.compile(r"\(\?([a-z]*)(-[a-z]+)?([:)])")
_NAME: Final = re.compile(r"\(\?P?<[A-Za-z_]\w*>")


@dataclass(frozen=True)
class Regex:
    """A regular expression over bytes. `exact` and `filter`: its two texts, ASCII. `caseless`, `dotall`: flags."""

    exact: str
    filter: str
    caseless: bool = False
    dotall: bool = False

    @property
    def flags(self) -> str:
        """Inline flags, for either text."""
        letters = "i" * self.caseless + "s" * self.dotall
        return f"(?{letters})" if letters else ""

    @cached_property
    def compiled(self) -> Any:
        """RE2's object: `search(data)` and so on, in linear time."""
        import re2

        return re2.compile((self.flags + self.exact).encode(), re2_options())

    def __getstate__(self) -> dict[str, Any]:
        return {name: value for name, value in self.__dict__.items() if name != "compiled"}


def re2_options(max_mem: int = 16 << 20) -> Any:
    """Bytes, not UTF-8; silent."""
    import re2

    options = re2.Options()
    options.encoding = re2.Options.Encoding.LATIN1
    options.log_errors = False
    options.max_mem = max_mem
    return options


def parse_regex(text: str, flags: str = "") -> Regex:
    """An expression with flags `i`, `s`, `m`. Raises Refused naming what is not supported."""
    import re2

    if len(text) > MAX_REGEX:
        raise Refused(f"regular expression longer than {MAX_REGEX} characters")
    writer = _Writer(text, "m" in flags)
    writer.write()
    regex = Regex("".join(writer.exact), "".join(writer.filter), "i" in flags, "s" in flags)
    try:
        compiled = regex.compiled
    except re2.error as error:
        raise Refused(f"regular expression {text[:60]!r}: {_said(error)}") from None
    if compiled.search(b"") is not None:
        raise Refused(f"regular expression {text[:60]!r}: it matches an empty payload")
    return regex


def _said(error: Exception) -> str:
    cause = error.args[0] if error.args else error
    return cause.decode("latin-1") if isinstance(cause, bytes) else str(cause)


class _Writer:
    """Reads an expression from left to right and writes its two texts."""

    def __init__(self, text: str, multiline: bool) -> None:
        self._text, self._at, self._multiline = text, 0, multiline
        self.exact: list[str] = []
        self.filter: list[str] = []

    def write(self) -> None:
        """All of it."""
        while self._at < len(self._text):
            self._step(self._text[self._at])

    def _step(self, c: str) -> None:
        if c == "\\":
            self._escape()
        elif c == "[":
            self._class()
        elif c == "(":
            self._group()
        elif c == "^":
            self._anchor("(?m:^)" if self._multiline else r"\A", "^")
        elif c == "$":
            self._anchor("(?m:$)" if self._multiline else r"(?:\n?\z)", "$")
        elif c in "*+?{":
            self._quantifier(c)
        elif c in ")|.":
            self._put(c)
        else:
            self._put(_literal(c))

    def _put(self, text: str, more: int = 1) -> None:
        self.exact.append(text)
        self.filter.append(text)
        self._at += more

    def _anchor(self, exact: str, loose: str, more: int = 1) -> None:
        self.exact.append(exact)
        self.filter.append(loose)
        self._at += more

    def _refuse(self, what: str) -> None:
        raise Refused(f"regular expression with {what}, which the engines do not support")

    def _escape(self) -> None:
        following = self._text[self._at + 1 : self._at + 2]
        if following in ("b", "B"):
            self._put("\\" + following, 2)
        elif following == "A":
            self._anchor(r"\A", "^", 2)
        elif following == "z":
            self._anchor(r"\z", "$", 2)
        elif following == "Z":
            self._anchor(r"(?:\n?\z)", "$", 2)
        elif following == "s":
            self._put(f"[{_SPACE}]", 2)
        elif following == "S":
            self._put(f"[{_NOT_SPACE}]", 2)
        else:
            self._put(*self._plain_escape())

    def _plain_escape(self, in_class: bool = False) -> tuple[str, int]:
        """(what to write, characters read) for an escape that means the same inside and outside of a class."""
        text, at = self._text, self._at
        c = text[at + 1 : at + 2]
        if not c:
            self._refuse("a backslash at its end")
        if c in _PLAIN:
            return _PLAIN[c], 2
        if c in _BYTE:
            return f"\\x{_BYTE[c]:02x}", 2
        if c == "x":
            return self._hexadecimal()
        octal = re.compile(r"0[0-7]{0,2}" if not in_class else r"[0-7]{1,3}").match(text, at + 1)
        if octal and int(octal[0], 8) < 256:
            return f"\\x{int(octal[0], 8):02x}", 1 + len(octal[0])
        if c.isalnum() or not c.isascii():
            self._refuse(f"\\{c}")
        return _literal(c), 2

    def _hexadecimal(self) -> tuple[str, int]:
        found = re.compile(r"\\x(?:\{([0-9A-Fa-f]{1,2})\}|([0-9A-Fa-f]{2}))").match(self._text, self._at)
        if found is None:
            raise Refused("regular expression with \\x and no two hexadecimal digits")
        return f"\\x{int(found[1] or found[2], 16):02x}", len(found[0])

    def _class(self) -> None:
        """A character class up to its bracket."""
        text, start = self._text, self._at
        out = "["
        self._at += 1
        if text[self._at : self._at + 1] == "^":
            out += "^"
            self._at += 1
        first = True
        while self._at < len(text) and (text[self._at] != "]" or first):
            out += self._class_item()
            first = False
        if self._at >= len(text):
            raise Refused(f"regular expression with an open class: {text[start : start + 20]!r}")
        self._put(out + "]")

    def _class_item(self) -> str:
        text, c = self._text, self._text[self._at]
        posix = _POSIX.match(text, self._at)
        if posix:
            self._at += len(posix[0])
            return posix[0]
        if c == "\\":
            following = text[self._at + 1 : self._at + 2]
            special = {"s": _SPACE, "S": _NOT_SPACE, "b": r"\x08"}.get(following)
            if special:
                self._at += 2
                return special
            written, read = self._plain_escape(in_class=True)
            self._at += read
            return written
        self._at += 1
        if not c.isascii():
            self._refuse(f"{c!r} in a class")
        return c if c.isalnum() or c == "-" else f"\\x{ord(c):02x}"

    def _group(self) -> None:
        text, at = self._text, self._at
        if text.startswith("(?:", at):
            self._put("(?:", 3)
            return
        if text.startswith("(*", at):
            self._refuse(text[at : at + 12])
        if not text.startswith("(?", at):
            self._put("(")
            return
        name = _NAME.match(text, at)
        if name:
            self._put("(", len(name[0]))
            return
        inline = _INLINE.match(text, at)
        if inline is None or set(inline[1] + (inline[2] or "-")[1:]) - {"i", "s"}:
            self._refuse(text[at : at + 4])
        assert inline is not None
        self._put(inline[0], len(inline[0]))

    def _quantifier(self, c: str) -> None:
        found = _QUANTIFIER.match(self._text, self._at) if c == "{" else None
        if c == "{" and found is None:
            self._put(r"\{")
            return
        if found and max(int(found[1]), int(found[3] or 0)) > _MAX_REPEAT:
            self._refuse(f"more than {_MAX_REPEAT} repetitions")
        self._put(found[0] if found else c, len(found[0]) if found else 1)
        following = self._text[self._at : self._at + 1]
        if following == "+":
            self._refuse("a possessive quantifier")
        if following == "?":
            self._put("?")


def _literal(c: str) -> str:
    """A character that means itself: its bytes in UTF-8."""
    if c.isascii():
        return c if c.isalnum() or c in " _/=<>&%!,:;'\"@~`-" else f"\\x{ord(c):02x}"
    written = "".join(f"\\x{b:02x}" for b in c.encode("utf-8", "surrogateescape"))
    return f"(?:{written})" if len(written) > 4 else written


def literal_regex(data: bytes) -> str:
    """An expression that matches these bytes."""
    return "".join(f"\\x{b:02x}" for b in data)
