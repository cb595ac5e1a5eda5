"""A rule's text to a Rule: every keyword is understood, or the rule is refused by the keyword's name."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from typing import Any, Final

from engine.detect.signatures import priorities
from engine.detect.signatures.networks import parse_addresses, parse_ports
from engine.detect.signatures.regex import parse_regex
from engine.detect.signatures.rule import (
    PAYLOAD,
    STICKY,
    Content,
    Flags,
    Item,
    Pcre,
    Range,
    Rule,
    Threshold,
)
from engine.detect.signatures.syntax import Option, Refused, RuleText, content_bytes, parse_rule, unquote

_ACTIONS: Final = ("alert", "drop", "reject", "rejectsrc", "rejectdst", "rejectboth")  # nothing is dropped: it reports
_PROTOS: Final = {
    "ip": frozenset[int](), "tcp": frozenset({6}), "udp": frozenset({17}), "icmp": frozenset({1, 58}),
    "http": frozenset({6}), "dns": frozenset({6, 17}), "tls": frozenset({6, 17}), "ssh": frozenset({6}),
}  # fmt: skip
_APPS: Final = ("http", "dns", "tls", "ssh")
_ALIASES: Final = {"dns_query": "dns.query", "tls_sni": "tls.sni", "ja3_hash": "ja3.hash"}
_APP_OF_BUFFER: Final = {"dns.query": "dns", "tls.sni": "tls", "ja3.hash": "tls", "ja4.hash": "tls"}
_PCRE: Final = re.compile(r"/(.*)/([A-Za-z]*)\Z", re.S)
_NUMBER: Final = re.compile(r"-?\d{1,5}\Z")
_TCP_FLAGS: Final = {"F": 1, "S": 2, "R": 4, "P": 8, "A": 16, "U": 32, "E": 64, "C": 128, "2": 64, "1": 128, "0": 0}
_THRESHOLD_KINDS: Final = ("limit", "threshold", "both")


@dataclass
class _Draft:
    """A rule while its options are read."""

    values: dict[str, Any] = field(default_factory=dict)
    items: list[Item] = field(default_factory=list)
    buffer: str = PAYLOAD
    touched: set[str] = field(default_factory=set)  # modifiers of the last content
    reference: list[str] = field(default_factory=list)
    metadata: dict[str, str] = field(default_factory=dict)
    classtype: str = ""
    priority: int | None = None
    seen: set[str] = field(default_factory=set)


def compile_rule(line: str, variables: Mapping[str, str], origin: str, own: bool = False) -> Rule:
    """The rule of a line. `own`: one of those that come with the program. Raises Refused."""
    text = parse_rule(line)
    draft = _Draft()
    for option in text.options:
        handler = _HANDLERS.get(option.name) or (_sticky if _ALIASES.get(option.name, option.name) in STICKY else None)
        if handler is None:
            raise Refused(f"keyword {option.name} is not supported")
        if option.name in _ONCE:
            if option.name in draft.seen:
                raise Refused(f"{option.name} stands twice")
            draft.seen.add(option.name)
        handler(draft, option)
    rule = _finish(text, draft, variables, origin, own)
    _check(rule)
    return rule


def _finish(text: RuleText, draft: _Draft, variables: Mapping[str, str], origin: str, own: bool) -> Rule:
    header = text.header
    if header.action not in _ACTIONS:
        raise Refused(f"action {header.action} is not supported")
    if header.proto not in _PROTOS:
        raise Refused(f"protocol {header.proto} is not supported")
    if header.direction not in ("->", "<>"):
        raise Refused(f"direction {header.direction} is neither -> nor <>")
    if "sid" not in draft.values:
        raise Refused("sid is missing")
    severity = priorities.severity(draft.classtype, draft.priority, draft.metadata.get("signature_severity", ""))
    return Rule(
        kind=draft.metadata.get("kind", "signature") if own else "signature",
        severity=severity,
        origin=origin,
        protos=_PROTOS[header.proto],
        app=header.proto if header.proto in _APPS else "",
        src=parse_addresses(header.src, variables),
        src_ports=parse_ports(header.src_port, variables),
        dst=parse_addresses(header.dst, variables),
        dst_ports=parse_ports(header.dst_port, variables),
        both_ways=header.direction == "<>",
        items=tuple(draft.items),
        classtype=draft.classtype,
        reference=tuple(draft.reference),
        **{"rev": 0, "message": "", **draft.values},
    )


def _check(rule: Rule) -> None:
    """What each option allows alone, but not together."""
    if rule.buffers:
        if any(item.buffer == PAYLOAD for item in rule.items):
            raise Refused("content of the payload together with " + ", ".join(sorted(rule.buffers)))
        if not rule.tables:
            raise Refused("no application has all of " + ", ".join(sorted(rule.buffers)))
        wanted = {_APP_OF_BUFFER.get(b, "http") for b in rule.buffers}
        ip = rule.app == "" and (not rule.protos or (rule.protos == {6} and wanted == {"http"}))
        if not ip and wanted != {rule.app}:
            raise Refused(f"{', '.join(sorted(rule.buffers))} needs the protocol {', '.join(sorted(wanted))}")
        if rule.to_server is False:
            raise Refused("flow:to_client together with " + ", ".join(sorted(rule.buffers)))
        for name in ("dsize", "itype", "icode", "flags"):
            if getattr(rule, name) is not None:
                raise Refused(f"{name} together with " + ", ".join(sorted(rule.buffers)))
    if (rule.itype or rule.icode) and rule.protos != {1, 58}:
        raise Refused("itype and icode need the protocol icmp")
    if rule.flags and rule.protos != {6}:
        raise Refused("flags needs the protocol tcp")


# --- contents -----------------------------------------------------------------------------------------------------


def _sticky(draft: _Draft, option: Option) -> None:
    draft.buffer = _ALIASES.get(option.name, option.name)


def _bsize(draft: _Draft, option: Option) -> None:
    if draft.buffer == PAYLOAD:
        raise Refused("bsize stands behind no sticky buffer")
    draft.values["sizes"] = (*draft.values.get("sizes", ()), (draft.buffer, _range(option, 1 << 20)))


def _isdataat(draft: _Draft, option: Option) -> None:
    """Only the form that means: nothing follows."""
    if (option.value or "").replace(" ", "") != "!1,relative":
        raise Refused(f"isdataat:{option.value} is not supported, only !1,relative")
    _modify(draft, option, endswith=True)


def _content(draft: _Draft, option: Option) -> None:
    negated, text = unquote(option)
    draft.items.append(Content(data=content_bytes(text), buffer=draft.buffer, negated=negated))
    draft.touched = set()


def _modify(draft: _Draft, option: Option, **values: Any) -> None:
    """Change the last content."""
    last = draft.items[-1] if draft.items else None
    if not isinstance(last, Content):
        raise Refused(f"{option.name} stands behind no content")
    if option.name in draft.touched:
        raise Refused(f"{option.name} stands twice for one content")
    draft.touched.add(option.name)
    changed = replace(last, **values)
    if changed.relative and (changed.depth is not None or changed.offset or changed.startswith):
        raise Refused("offset, depth or startswith together with distance or within for one content")
    if changed.startswith and (changed.offset or changed.depth is not None):
        raise Refused("startswith together with offset or depth")
    if changed.depth is not None and changed.depth < len(changed.data):
        raise Refused("depth is less than the content's length")
    if changed.within is not None and changed.within < len(changed.data):
        raise Refused("within is less than the content's length")
    draft.items[-1] = changed


def _number(option: Option, least: int = 0, most: int = 65_535) -> int:
    value = option.value or ""
    if not _NUMBER.match(value) or not least <= int(value) <= most:
        raise Refused(f"{option.name}:{value} is no number from {least} to {most}")
    return int(value)


def _nocase(draft: _Draft, option: Option) -> None:
    last = draft.items[-1] if draft.items else None
    _modify(draft, option, nocase=True, **({"data": last.data.lower()} if isinstance(last, Content) else {}))


def _fast(draft: _Draft, option: Option) -> None:
    last = draft.items[-1] if draft.items else None
    if isinstance(last, Content) and last.negated:
        raise Refused("fast_pattern of a negated content")
    _modify(draft, option, fast=True)


def _pcre(draft: _Draft, option: Option) -> None:
    negated, text = unquote(option)
    found = _PCRE.match(text)
    if found is None:
        raise Refused("pcre: its value must be /expression/flags")
    for flag in found[2]:
        if flag not in "ismRB":
            raise Refused(f"pcre flag {flag} is not supported")
    expression = found[1].replace("\\;", ";").replace("\\/", "/").replace('\\"', '"')
    regex = parse_regex(expression, found[2])
    draft.items.append(Pcre(regex=regex, buffer=draft.buffer, negated=negated, relative="R" in found[2]))


# --- the packet and its flow --------------------------------------------------------------------------------------


def _flow(draft: _Draft, option: Option) -> None:
    for word in (w.strip() for w in (option.value or "").split(",")):
        if word in ("to_server", "from_client", "to_client", "from_server"):
            name, value = "to_server", word in ("to_server", "from_client")
        elif word in ("established", "not_established"):
            name, value = "established", word == "established"
        elif word == "stateless":
            continue
        else:
            raise Refused(f"flow:{word} is not supported")
        if draft.values.get(name, value) != value:
            raise Refused("flow contradicts itself")
        draft.values[name] = value


def _range(option: Option, most: int) -> Range:
    """`n`, `<n`, `>n`, `a<>b` (without a and b)."""
    value = (option.value or "").replace(" ", "")
    found = re.match(r"(?:(\d{1,5})|([<>])(\d{1,5})|(\d{1,5})<>(\d{1,5}))\Z", value)
    if found is None:
        raise Refused(f"{option.name}:{value[:40]} is no number or range")
    plain, sign, bound, low, high = found.groups()
    if plain:
        return Range(int(plain), int(plain))
    if sign:
        return Range(0, int(bound) - 1) if sign == "<" else Range(int(bound) + 1, most)
    if int(high) - int(low) < 2:
        raise Refused(f"{option.name}:{value} holds no number")
    return Range(int(low) + 1, int(high) - 1)


def _range_of(name: str, most: int) -> Callable[[_Draft, Option], None]:
    def handler(draft: _Draft, option: Option) -> None:
        draft.values[name] = _range(option, most)

    return handler


def _flags(draft: _Draft, option: Option) -> None:
    wanted, _, ignored = (option.value or "").replace(" ", "").partition(",")
    mode = wanted[:1] if wanted[:1] in ("+", "*", "!") else "="
    wanted = wanted.lstrip("+*!")
    if not wanted or set(wanted + ignored) - set(_TCP_FLAGS):
        raise Refused(f"flags:{option.value} is not understood")
    bits = sum({_TCP_FLAGS[c] for c in wanted})
    mask = 0xFF & ~sum({_TCP_FLAGS[c] for c in ignored})
    draft.values["flags"] = Flags(bits, mask, mode)


def _threshold(draft: _Draft, option: Option) -> None:
    parts = {name: value for name, _, value in (part.partition(" ") for part in _comma(option))}
    kind, track = parts.pop("type", ""), parts.pop("track", "")
    count, seconds = parts.pop("count", ""), parts.pop("seconds", "")
    if parts:
        raise Refused(f"threshold: {next(iter(parts))} is not supported")
    if kind not in _THRESHOLD_KINDS:
        raise Refused(f"threshold: type {kind} is not supported")
    if track not in ("by_src", "by_dst"):
        raise Refused(f"threshold: track {track} is not supported")
    if not (count.isdecimal() and seconds.isdecimal() and 0 < int(count) < 10**9 and 0 < int(seconds) < 10**7):
        raise Refused("threshold: count and seconds must be numbers above 0")
    draft.values["threshold"] = Threshold(kind, track == "by_src", int(count), int(seconds))


def _comma(option: Option) -> list[str]:
    return [" ".join(part.split()) for part in (option.value or "").split(",")]


# --- what is said of it -------------------------------------------------------------------------------------------


def _message(draft: _Draft, option: Option) -> None:
    text = unquote(option)[1]
    draft.values["message"] = re.sub(r"\\([;:\"\\])", r"\1", text)


def _value(name: str) -> Callable[[_Draft, Option], None]:
    def handler(draft: _Draft, option: Option) -> None:
        value = option.value or ""
        if not value.isdecimal() or len(value) > 10:
            raise Refused(f"{option.name}:{value[:40]} is no number")
        draft.values[name] = int(value)

    return handler


def _classtype(draft: _Draft, option: Option) -> None:
    draft.classtype = option.value or ""


def _priority(draft: _Draft, option: Option) -> None:
    draft.priority = _number(option, 1, 255)


def _reference(draft: _Draft, option: Option) -> None:
    draft.reference.append((option.value or "")[:256])


def _metadata(draft: _Draft, option: Option) -> None:
    for part in _comma(option):
        name, _, value = part.partition(" ")
        draft.metadata[name] = value


def _target(draft: _Draft, option: Option) -> None:
    if option.value not in ("src_ip", "dest_ip"):
        raise Refused(f"target:{option.value} is not supported")
    draft.values["target"] = option.value


_HANDLERS: Final[dict[str, Callable[[_Draft, Option], None]]] = {
    "content": _content, "nocase": _nocase, "pcre": _pcre, "fast_pattern": _fast,
    "offset": lambda d, o: _modify(d, o, offset=_number(o)),
    "depth": lambda d, o: _modify(d, o, depth=_number(o, 1)),
    "distance": lambda d, o: _modify(d, o, distance=_number(o, -65_535)),
    "within": lambda d, o: _modify(d, o, within=_number(o, 1)),
    "startswith": lambda d, o: _modify(d, o, startswith=True),
    "endswith": lambda d, o: _modify(d, o, endswith=True),
    "rawbytes": _modify, "bsize": _bsize, "isdataat": _isdataat,
    "flow": _flow, "dsize": _range_of("dsize", 1 << 20), "itype": _range_of("itype", 255),
    "icode": _range_of("icode", 255), "flags": _flags, "threshold": _threshold,
    "sid": _value("sid"), "rev": _value("rev"), "msg": _message, "classtype": _classtype, "priority": _priority,
    "reference": _reference, "metadata": _metadata, "target": _target, "gid": lambda d, o: None,
}  # fmt: skip
_ONCE: Final = frozenset({
    "sid", "rev", "msg", "classtype", "priority", "flow", "dsize", "itype", "icode", "flags", "threshold", "target",
})  # fmt: skip
KEYWORDS: Final = (*_HANDLERS, *STICKY, *_ALIASES)
