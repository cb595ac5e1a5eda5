"""Incidents as Suricata's EVE JSON, for whatever reads that already: lines of a file, and syslog messages.

Layout: https://docs.suricata.io/en/latest/output/eve/eve-json-format.html, event_type `alert`. What Suricata has no
name for stands under `packetlake`.
"""

from __future__ import annotations

import contextlib
import json
import os
import re
import socket
import time
import zlib
from collections.abc import Callable
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Final

from engine.alert_config import FACILITIES, EveConfig
from engine.alert_row import SEVERITIES
from engine.constants import PROTO_ICMP, PROTO_ICMPV6, PROTO_SCTP, PROTO_TCP, PROTO_UDP

_PROTOS: Final = {PROTO_TCP: "TCP", PROTO_UDP: "UDP", PROTO_ICMP: "ICMP", PROTO_ICMPV6: "IPv6-ICMP", PROTO_SCTP: "SCTP"}
_EVE_SEVERITY: Final = {"low": 3, "medium": 2, "high": 1, "critical": 1}  # 1 is the gravest
_SYSLOG_SEVERITY: Final = {"low": 5, "medium": 4, "high": 3, "critical": 2}  # RFC 5424, 6.2.1
_OWN_SIDS: Final = 9_000_000  # ids of our kinds are above: rules of others stay below
_MAX_DATAGRAM: Final = 60_000
_TIMEOUT_S: Final = 2.0
_PAUSE_S: Final = 5.0  # after a failure


def eve_record(row: dict[str, Any], sensor: str) -> dict[str, Any]:
    """A row of `alert_events` as an EVE record."""
    kind, evidence = row["kind"], _evidence(row)
    ids = row.get("flow_ids") or []
    sid = evidence.get("sid")
    record = {
        "timestamp": _timestamp(row["ts"]),
        "flow_id": ids[0] if ids else None,
        "in_iface": row.get("source") or None,
        "event_type": "alert",
        "src_ip": row.get("src_ip"),
        "src_port": evidence.get("src_port"),
        "dest_ip": row.get("dst_ip"),
        "dest_port": row.get("dst_port"),
        "proto": _PROTOS.get(row["proto"], str(row["proto"])) if row.get("proto") is not None else None,
        "community_id": evidence.get("community_id"),
        "alert": {
            "action": "allowed",
            "gid": 1,
            "signature_id": sid if isinstance(sid, int) else _OWN_SIDS + zlib.crc32(kind.encode()) % 1_000_000,
            "rev": 1,
            "signature": str(evidence.get("signature") or f"PacketLake {kind}"),
            "category": str(evidence.get("category") or evidence.get("classtype") or kind),
            "severity": _EVE_SEVERITY.get(row["severity"], 2),
        },
        "host": sensor,
        "packetlake": {
            name: row.get(name)
            for name in ("incident_id", "event", "severity", "confidence", "why", "count", "domain")
        } | {name: _timestamp(row[name]) for name in ("first_seen", "last_seen")} | {"evidence": evidence},
    }  # fmt: skip
    return {name: value for name, value in record.items() if value is not None}


def _evidence(row: dict[str, Any]) -> dict[str, Any]:
    try:
        value = json.loads(row.get("evidence") or "{}")
    except ValueError:
        return {}
    return value if isinstance(value, dict) else {}


def _timestamp(us: int) -> str:
    try:
        at = datetime.fromtimestamp(us // 1_000_000, UTC)
    except (ValueError, OverflowError, OSError):  # a packet's clock of another age
        at = datetime.fromtimestamp(0, UTC)
    return f"{at:%Y-%m-%dT%H:%M:%S}.{us % 1_000_000:06d}+0000"


class EveOutput:
    """Writes incidents as configured. For one thread, which may wait for a disk or the network.

    Args:
        say: told in one line when an output fails, once until it works again.

    Attributes: failed: records that an output could not take.
    """

    def __init__(self, config: EveConfig, sensor: str, say: Callable[[str], None]) -> None:
        self._config = config
        self._sensor = sensor
        self._say = say
        self._file = _RotatingFile(Path(config.file), config.rotate_mib << 20, config.keep) if config.file else None
        self._syslog = _Syslog(config.syslog, config.facility, sensor) if config.syslog else None
        self._broken: dict[str, float] = {}  # output: when it is tried again
        self.failed = 0

    @property
    def enabled(self) -> bool:
        return self._file is not None or self._syslog is not None

    def put(self, row: dict[str, Any]) -> None:
        """Write a row of `alert_events` if it is one to be told."""
        wanted = ("opened", "manual", "closed") if self._config.closed else ("opened", "manual")
        if not self.enabled or row["event"] not in wanted:
            return
        if SEVERITIES.index(row["severity"]) < SEVERITIES.index(self._config.min_severity):
            return
        record = eve_record(row, self._sensor)
        line = json.dumps(record, ensure_ascii=True, separators=(",", ":"))
        if self._file is not None:
            self._guard(f"eve.file {self._config.file}", lambda out: out.write(line), self._file)
        if self._syslog is not None:
            severity = row["severity"]
            self._guard(f"eve.syslog {self._config.syslog}", lambda out: out.send(line, record, severity), self._syslog)

    def _guard(self, name: str, act: Callable[[Any], None], out: Any) -> None:
        if time.monotonic() < self._broken.get(name, 0.0):  # a look-up of its name may take seconds each time
            self.failed += 1
            return
        try:
            act(out)
            self._broken.pop(name, None)
        except OSError as error:
            self.failed += 1
            new = name not in self._broken
            self._broken[name] = time.monotonic() + _PAUSE_S
            if new:
                reason = (error.strerror or str(error)).lower()
                self._say(f"{name}: {reason}; alerts are in the lake all the same, check the section [eve]")

    def close(self) -> None:
        for out in (self._file, self._syslog):
            if out is not None:
                out.close()


class _RotatingFile:
    """Lines; at `limit` bytes the file becomes FILE.1, that FILE.2, and so on up to FILE.<keep>."""

    def __init__(self, path: Path, limit: int, keep: int) -> None:
        self._path, self._limit, self._keep = path, limit, keep
        self._out: Any = None

    def write(self, line: str) -> None:
        if self._out is not None and not self._is_current():  # logrotate has moved it
            self.close()
        if self._out is None:
            self._path.parent.mkdir(parents=True, exist_ok=True)
            fd = os.open(self._path, os.O_WRONLY | os.O_CREAT | os.O_APPEND | os.O_CLOEXEC, 0o640)
            self._out = os.fdopen(fd, "ab", buffering=0)
        data = line.encode() + b"\n"
        if self._out.seek(0, os.SEEK_END) + len(data) > self._limit and self._out.tell():
            self._rotate()
            self.write(line)
            return
        self._out.write(data)

    def _is_current(self) -> bool:
        try:
            return os.path.samestat(os.fstat(self._out.fileno()), os.stat(self._path))
        except OSError:
            return False

    def _rotate(self) -> None:
        self.close()
        for number in range(self._keep - 1, 0, -1):
            with contextlib.suppress(FileNotFoundError):
                os.replace(f"{self._path}.{number}", f"{self._path}.{number + 1}")
        os.replace(self._path, f"{self._path}.1")

    def close(self) -> None:
        if self._out is not None:
            self._out.close()
            self._out = None


class _Syslog:
    """RFC 5424 over UDP (RFC 5426) or a datagram socket such as /dev/log. One datagram for each record."""

    def __init__(self, target: str, facility: str, sensor: str) -> None:
        self._target = target
        self._facility = FACILITIES.index(facility)
        self._host = re.sub(r"[^!-~]", "-", sensor)[:255] or "-"
        self._socket: socket.socket | None = None

    def send(self, line: str, record: dict[str, Any], severity: str) -> None:
        priority = self._facility * 8 + _SYSLOG_SEVERITY.get(severity, 4)
        stamp = record["timestamp"].replace("+0000", "Z")
        if len(line) > _MAX_DATAGRAM:
            record = record | {"packetlake": {"incident_id": record["packetlake"]["incident_id"], "cut": len(line)}}
            line = json.dumps(record, ensure_ascii=True, separators=(",", ":"))
        header = f"<{priority}>1 {stamp} {self._host} packetlake {os.getpid()} alert - "
        try:
            self._connected().send((header + line).encode())
        except OSError:
            self.close()  # a syslog daemon that was restarted has a new socket
            self._connected().send((header + line).encode())

    def _connected(self) -> socket.socket:
        if self._socket is None:
            if self._target.startswith("unix://"):
                made = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
                address: Any = self._target.removeprefix("unix://")
            else:
                host, port = _host_port(self._target)
                family, kind, proto, _, address = socket.getaddrinfo(host, port, type=socket.SOCK_DGRAM)[0]
                made = socket.socket(family, kind, proto)
            made.settimeout(_TIMEOUT_S)
            try:
                made.connect(address)
            except OSError:
                made.close()
                raise
            self._socket = made
        return self._socket

    def close(self) -> None:
        if self._socket is not None:
            self._socket.close()
            self._socket = None


def _host_port(target: str) -> tuple[str, int]:
    found = re.fullmatch(r"udp://(?:\[(.+)\]|([^:]+))(?::(\d+))?", target)
    assert found is not None  # checked by the configuration
    return found[1] or found[2], int(found[3] or 514)
