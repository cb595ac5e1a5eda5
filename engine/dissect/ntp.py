"""NTP (RFC 5905): who asks which server for the time, and how far that server is from a clock."""

from __future__ import annotations

import struct

from engine.dissect.base import UDP, Application, Flow, Message, Pattern, Verdict, column, text_of

_MODES = {1: "active", 2: "passive", 3: "client", 4: "server", 5: "broadcast"}


class _Parser:
    def __init__(self, flow: Flow) -> None:
        self._flow = flow

    def feed(self, message: Message) -> Verdict:
        """One packet is one row (RFC 5905 7.3)."""
        head, stratum = message.data[0], message.data[1]
        version, mode = head >> 3 & 7, head & 7
        if mode not in _MODES or not 1 <= version <= 4 or stratum > 16 or len(message.data) < 48:
            return Verdict.FOREIGN
        self._flow.app = "ntp"
        delay, dispersion = struct.unpack_from(">iI", message.data, 4)
        identifier = message.data[12:16]
        self._flow.emit(
            ts=message.ts,
            version=version,
            mode=_MODES[mode],
            stratum=stratum,
            root_delay_ms=delay / 65.536,
            root_dispersion_ms=dispersion / 65.536,
            reference=text_of(identifier.rstrip(b"\0")) if stratum <= 1 else ".".join(map(str, identifier)),
        )
        return Verdict.MORE

    def finish(self) -> None:
        """Nothing is open between packets."""


APPLICATION = Application(
    name="ntp",
    meaning="Network Time Protocol",
    patterns=(Pattern(transport=UDP, ports=(123,), length=(48, 1024)),),
    parser=_Parser,
    columns=(
        column("version", "int16", "", "Protocol version, 1 to 4", "RFC 5905 7.3"),
        column("mode", "text", "", "client, server, broadcast, active, passive", "RFC 5905 7.3"),
        column("stratum", "int16", "", "Hops from a reference clock; 0 unspecified or a kiss code", "RFC 5905 7.3"),
        column("root_delay_ms", "float32", "ms", "Round trip to the reference clock", "RFC 5905 7.3"),
        column("root_dispersion_ms", "float32", "ms", "Error relative to the reference clock", "RFC 5905 7.3"),
        column("reference", "text", "", "Reference clock, kiss code, or the upstream server's address", "RFC 5905 7.3"),
    ),
)
