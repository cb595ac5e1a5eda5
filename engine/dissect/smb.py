"""SMB 1 to 3 over TCP (MS-SMB 2.1, MS-SMB2 2.1): a length and one of the four protocol identifiers."""

from __future__ import annotations

from engine.dissect._recognition import recogniser
from engine.dissect.base import TCP, Application, Flow, Message, Pattern

_IDENTIFIERS = (b"\xffSMB", b"\xfeSMB", b"\xfdSMB", b"\xfcSMB")  # SMB 1; 2 and 3; encrypted; compressed


def _check(flow: Flow, message: Message) -> bool:
    data = message.data
    return data[0] == 0 and data[4:8] in _IDENTIFIERS and int.from_bytes(data[1:4], "big") >= 32


APPLICATION = Application(
    name="smb",
    meaning="Server Message Block (Windows file sharing)",
    patterns=(Pattern(transport=TCP, value=b"\0\0\0\0\xfcSMB", mask=b"\xff\0\0\0\xfc\xff\xff\xff"),),
    parser=recogniser("smb", _check),
)
