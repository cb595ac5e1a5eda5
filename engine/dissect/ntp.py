"""NTP (RFC 5905): who asks which server for the time, and how far that server is from a clock.

Control messages (mode 6, RFC 9327) and those of ntpd's own tools (mode 7) are rows with version and mode only: a small
question for a large answer, they have been used to flood others (CVE-2013-5211).
"""

from __future__ import annotations

import struct

from engine.dissect.base import UDP, Application, Flow, Malformed, Message, Pattern, Verdict, column, text_of

_MODES = {1: "active", 2: "passive", 3: "client", 4: "server", 5: "broadcast", 6: "control", 7: "private"}


class _Parser:
    def __init__(self, flow: Flow) -> None:
        self._flow = flow

    def feed(self, message: Message) -> Verdict:
        """One packet is one row (RFC 5905 7.3)."""
        data = message.data
        version, mode = data[0] >> 3 & 7, data[0] & 7
        if mode not in _MODES or not 1 <= version <= 4 or not _is_plausible(data, mode, message.whole):
            if self._flow.app:
                raise Malformed("not a message of NTP")
            return Verdict.FOREIGN
        self._flow.app = "ntp"
        if mode >= 6:
            self._flow.emit(ts=message.ts, version=version, mode=_MODES[mode])
            return Verdict.MORE
        stratum = data[1]
        delay, dispersion = struct.unpack_from(">iI", data, 4)
        identifier = data[12:16]
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


def _is_plausible(data: bytes, mode: int, whole: bool) -> bool:
    """Whether what follows the first byte fits the mode."""
    if mode == 6:  # RFC 9327 2: operation, sequence, status, association, offset, count
        return len(data) >= 12 and (not whole or struct.unpack_from(">H", data, 10)[0] <= len(data) - 12)
    if mode == 7:  # ntp_request.h: sequence, implementation, request, error and count, size of an item
        count, size = struct.unpack_from(">HH", data, 4)
        return data[2] in (0, 2, 3) and (not whole or (count & 0x0FFF) * (size & 0x0FFF) <= len(data) - 8)
    return len(data) >= 48 and data[1] <= 16


APPLICATION = Application(
    name="ntp",
    meaning="Network Time Protocol",
    patterns=(Pattern(transport=UDP, ports=(123,), length=(8, 65_535)),),
    parser=_Parser,
    columns=(
        column("version", "int16", "", "Protocol version, 1 to 4", "RFC 5905 7.3"),
        column("mode", "text", "", "client, server, broadcast, active, passive; control, private", "RFC 5905 7.3"),
        column("stratum", "int16", "", "Hops from a reference clock; 0 unspecified or a kiss code", "RFC 5905 7.3"),
        column("root_delay_ms", "float32", "ms", "Round trip to the reference clock", "RFC 5905 7.3"),
        column("root_dispersion_ms", "float32", "ms", "Error relative to the reference clock", "RFC 5905 7.3"),
        column("reference", "text", "", "Reference clock, kiss code, or the upstream server's address", "RFC 5905 7.3"),
    ),
)
