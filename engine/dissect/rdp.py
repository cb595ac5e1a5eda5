"""RDP (MS-RDPBCGR 2.2.1.1, 2.2.1.2): who asks for a desktop, and how the connection will be secured.

A row is a connection: its X.224 request, with the confirm if it was seen. What follows is TLS, or RDP's own encryption.
"""

from __future__ import annotations

import re
from typing import Any, Final

from engine.dissect.base import TCP, Application, Flow, Message, Pattern, Verdict, column, text_of

_PORT: Final = 3389
_REQUEST: Final = 0xE0
_CONFIRM: Final = 0xD0
_COOKIE: Final = re.compile(rb"(?:^|\n)Cookie: mstshash=([^\r\n]*)")
_TOKEN: Final = re.compile(rb"(?:^|\n)((?:Cookie: )?(?:msts|tsv)[=:][^\r\n]*)")
_PROTOCOLS: Final = ((1, "tls"), (2, "credssp"), (4, "rdstls"), (8, "credssp_ex"), (16, "rdsaad"))
_FAILURES: Final = {
    1: "tls required by server", 2: "tls not allowed by server", 3: "no certificate on server", 4: "inconsistent flags",
    5: "credssp required by server", 6: "tls with user authentication required by server",
}  # fmt: skip


class _Parser:
    def __init__(self, flow: Flow) -> None:
        self._flow = flow
        self._row: dict[str, Any] = {}
        self._seq: int | None = None  # of the request, which may be sent twice

    def feed(self, message: Message) -> Verdict:
        """A connection request or a connection confirm (X.224 13.3, 13.4)."""
        data = message.data
        if len(data) < 11 or data[:2] != b"\x03\0" or data[5] not in (_REQUEST, _CONFIRM):
            return self._other()
        size, indicated = int.from_bytes(data[2:4], "big"), data[4]
        if size != indicated + 5 or size < 11 or (message.whole and len(data) < size):
            return self._other()
        variable = data[11:size]
        if data[5] == _REQUEST:
            if self._seq == message.seq:
                return Verdict.MORE
            self._seq = message.seq
            return self._request(variable, message.ts)
        return self._confirm(variable, message.ts)

    def finish(self) -> None:
        """Emit a request whose confirm was not seen."""
        if self._row:
            row, self._row = self._row, {}
            self._flow.emit(**row)

    def _other(self) -> Verdict:
        return Verdict.MORE if self._flow.app else Verdict.FOREIGN

    def _request(self, variable: bytes, ts: int) -> Verdict:
        """Routing token or cookie, and the protocols that the client can speak (MS-RDPBCGR 2.2.1.1)."""
        cookie, token = _COOKIE.search(variable), _TOKEN.search(variable)
        offer = _negotiation(variable, 1)
        if cookie is None and token is None and offer is None and (variable or self._flow.dst_port != _PORT):
            return self._other()  # X.224 of something else: its parameters are other ones
        self._flow.app = "rdp"
        self.finish()
        flags, protocols = offer or (0, 0)
        self._row = {
            "ts": ts,
            "user": text_of(cookie[1], 256) if cookie else None,
            "routing_token": text_of(token[1], 256) if token else None,
            "requested_protocols": [name for bit, name in _PROTOCOLS if protocols & bit] or ["rdp"],
            "restricted_admin": bool(flags & 1) if offer else None,
        }
        return Verdict.MORE

    def _confirm(self, variable: bytes, ts: int) -> Verdict:
        """The protocol that the server chose, or why it refuses (MS-RDPBCGR 2.2.1.2)."""
        chosen, failure = _negotiation(variable, 2), _negotiation(variable, 3)
        if not self._row and chosen is None and failure is None:
            return self._other()
        if not self._row and self._flow.app == "rdp":
            return Verdict.RELEASE  # said again after the flow was released
        self._flow.app = "rdp"
        row = self._row or {"ts": ts}
        self._row = {}
        if failure is not None:
            row["failure"] = _FAILURES.get(failure[1], str(failure[1]))
        else:
            protocol = chosen[1] if chosen else 0
            row["selected_protocol"] = next((n for bit, n in _PROTOCOLS if bit == protocol), str(protocol or "rdp"))
        self._flow.emit(**row)
        return Verdict.RELEASE if chosen and chosen[1] else Verdict.DONE


def _negotiation(variable: bytes, kind: int) -> tuple[int, int] | None:
    """Flags and value of the structure of a negotiation at the end: 1 request, 2 response, 3 failure."""
    at = -8
    if len(variable) >= 44 and variable[-36:-32] == b"\x06\0\x24\0":  # a correlation identifier follows (2.2.1.1.2)
        at = -44
    part = variable[at:][:8]
    if len(part) != 8 or part[0] != kind or part[2:4] != b"\x08\0":
        return None
    return part[1], int.from_bytes(part[4:8], "little")


APPLICATION = Application(
    name="rdp",
    meaning="Remote Desktop Protocol",
    patterns=(
        # TPKT (RFC 1006 6) with an X.224 connection request or confirm.
        Pattern(transport=TCP, value=b"\x03\0\0\0\0\xe0\0\0", mask=b"\xff\xff\xfe\0\0\xff\xff\xff", length=(11, 512)),
        Pattern(transport=TCP, value=b"\x03\0\0\0\0\xd0\0\0", mask=b"\xff\xff\xff\0\0\xff\xff\xff", length=(11, 128)),
    ),
    parser=_Parser,
    columns=(
        column("user", "text", "", "mstshash cookie: the start of the user's name", "MS-RDPBCGR 2.2.1.1"),
        column("routing_token", "text", "", "Token of a load balancer", "MS-RDPBCGR 2.2.1.1"),
        column("requested_protocols", "texts", "", "tls, credssp, rdstls, credssp_ex, rdsaad; rdp", "2.2.1.1.1"),
        column("restricted_admin", "bool", "", "The client asked for restricted admin mode", "MS-RDPBCGR 2.2.1.1.1"),
        column("selected_protocol", "text", "", "What the server chose", "MS-RDPBCGR 2.2.1.2.1"),
        column("failure", "text", "", "Why the server refused", "MS-RDPBCGR 2.2.1.2.2"),
    ),
)
