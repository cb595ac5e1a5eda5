"""What a window of a host is judged by: counts on a scale of octaves, and three shares as they are."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final, NamedTuple

import numpy as np

from engine.kernels import window_layout as w

if TYPE_CHECKING:
    from numpy.typing import NDArray

VERSION: Final = 1  # of the columns and their scales
LEAST_PACKETS: Final = 5  # that a host sent in a window: less says nothing of it, and forged sources send one each


class Column(NamedTuple):
    """`counter`: of the windows; counts become log2(1 + count). `suffered`: others do it to the host."""

    name: str
    words: str
    counter: int = -1
    suffered: bool = False


COLUMNS: Final = (
    Column("out_packets", "packets sent", w.C_OUT_PACKETS),
    Column("out_bytes", "bytes sent", w.C_OUT_BYTES),
    Column("out_payload", "bytes of payload sent", w.C_OUT_PAYLOAD),
    Column("in_packets", "packets received", w.C_IN_PACKETS),
    Column("in_bytes", "bytes received", w.C_IN_BYTES),
    Column("attempts", "connections and requests begun", w.C_ATTEMPTS),
    Column("refused", "attempts refused", w.C_REFUSED),
    Column("unanswered", "attempts without an answer", w.C_UNANSWERED),
    Column("peers", "hosts asked", w.C_PEERS),
    Column("new_peers", "hosts asked that were not known", w.C_NEW_PEERS),
    Column("ports", "ports asked for", w.C_PORTS),
    Column("out_syn", "SYNs sent", w.C_OUT_SYN),
    Column("out_udp", "UDP datagrams sent", w.C_OUT_UDP),
    Column("dns_names", "DNS names asked for", w.C_DNS_LABELS),
    Column("in_attempts", "attempts of others", w.C_IN_ATTEMPTS, True),
    Column("in_failed", "attempts of others that failed", w.C_IN_FAILED, True),
    Column("in_peers", "hosts that asked it", w.C_IN_PEERS, True),
    Column("in_udp", "UDP datagrams received", w.C_IN_UDP, True),
    Column("in_echo", "pings received", w.C_IN_ECHO, True),
    Column("in_stray", "segments of no connection received", w.C_IN_STRAY, True),
    Column("out_rst", "RSTs sent", w.C_OUT_RST, True),
    Column("out_icmp_errors", "ICMP errors sent", w.C_OUT_ERRORS, True),
    Column("dns_entropy", "bits per character of DNS names"),
    Column("entropy", "bits per byte of what it sent"),
    Column("upload", "octaves of upload above download"),
)  # fmt: skip
NAMES: Final = tuple(c.name for c in COLUMNS)
_COUNTED: Final = np.array([c.counter for c in COLUMNS if c.counter >= 0])
N_COUNTED: Final = len(_COUNTED)
_LITTLE: Final = 4096.0  # bytes added on both sides: the balance of a few requests says nothing


def matrix(counters: NDArray[np.int64]) -> NDArray[np.float32]:
    """float32[n, columns] of int64[n, N_COUNTERS]."""
    x = np.empty((len(counters), len(COLUMNS)), np.float32)
    x[:, :N_COUNTED] = np.log2(counters[:, _COUNTED].astype(np.float32) + 1)
    unit = w.ENTROPY_UNIT
    x[:, N_COUNTED] = counters[:, w.C_DNS_ENTROPY] / np.maximum(counters[:, w.C_DNS_LABELS], 1) / unit
    x[:, N_COUNTED + 1] = counters[:, w.C_OUT_ENTROPY] / np.maximum(counters[:, w.C_OUT_ENTROPY_N], 1) / unit
    up, down = counters[:, w.C_OUT_PAYLOAD] + _LITTLE, counters[:, w.C_IN_PAYLOAD] + _LITTLE
    x[:, N_COUNTED + 2] = np.maximum(0.0, np.log2(up / down))
    return x


def value_of(column: int, x: float) -> float:
    """What stands behind a number of the matrix: the count, or the share itself."""
    return float(round(2.0 ** float(x) - 1)) if column < N_COUNTED else round(float(x), 2)
