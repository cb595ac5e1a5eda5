"""Windows that ended as rows of the table `windows`: only those in which enough happened (`engine/window_row.py`)."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from itertools import chain
from typing import TYPE_CHECKING, Final, NamedTuple

import numpy as np
import pyarrow as pa

from engine.detect.tick import Ended, Tick, address_text
from engine.kernels import window_layout as w
from engine.tables import arrow_schema
from engine.window_row import LEAST_ATTEMPTS, LEAST_PACKETS, MOST_ROWS

if TYPE_CHECKING:
    from numpy.typing import NDArray

_SCHEMA: Final = arrow_schema("windows")

_COUNTERS: Final = {
    "out_packets": w.C_OUT_PACKETS, "out_bytes": w.C_OUT_BYTES, "out_payload": w.C_OUT_PAYLOAD,
    "in_packets": w.C_IN_PACKETS, "in_bytes": w.C_IN_BYTES, "in_payload": w.C_IN_PAYLOAD, "attempts": w.C_ATTEMPTS,
    "answered": w.C_ANSWERED, "refused": w.C_REFUSED, "unanswered": w.C_UNANSWERED, "in_attempts": w.C_IN_ATTEMPTS,
    "in_failed": w.C_IN_FAILED, "peers": w.C_PEERS, "new_peers": w.C_NEW_PEERS, "ports": w.C_PORTS,
    "in_peers": w.C_IN_PEERS, "out_syn": w.C_OUT_SYN, "in_syn": w.C_IN_SYN, "out_syn_ack": w.C_OUT_SYN_ACK,
    "in_completed": w.C_IN_DONE, "in_stray": w.C_IN_STRAY, "out_rst": w.C_OUT_RST, "out_udp": w.C_OUT_UDP,
    "in_udp": w.C_IN_UDP, "in_dns": w.C_IN_DNS, "in_echo": w.C_IN_ECHO, "out_icmp_errors": w.C_OUT_ERRORS,
}  # fmt: skip


class WindowRows(NamedTuple):
    """Windows worth a row: when each began (us), its length (s), source, host, and int64[n, N_COUNTERS]."""

    starts: list[int]
    lengths: list[int]
    sources: list[str]
    hosts: list[str]
    counters: NDArray[np.int64]


def rows_of(tick: Tick, ended: list[Ended], most: int = MOST_ROWS) -> Iterator[WindowRows]:
    """The rows of the windows that ended with this tick, length by length."""
    for window in ended:
        rows = window.busy(LEAST_PACKETS[window.length_s], LEAST_ATTEMPTS[window.length_s])
        if not len(rows):
            continue
        c = window.counters_of(rows)
        if len(rows) > most:
            busiest = np.argsort(c[:, w.C_OUT_PACKETS] + c[:, w.C_IN_PACKETS], kind="stable")[-most:]
            rows, c = rows[busiest], c[busiest]
        # In the order in which the hosts appeared: that of the rows is the hash's, which is another at each start.
        order = np.argsort(tick.windows.hosts[rows, w.H_ID])
        names = tick.windows.hosts[rows[order], : w.H_META + 1].tolist()
        yield WindowRows(
            [window.start * 1_000_000] * len(rows),
            [window.length_s] * len(rows),
            [tick.windows.source_name(name[w.H_META] >> 1) for name in names],
            [address_text(name[w.H_HI], name[w.H_LO], name[w.H_META]) for name in names],
            c[order],
        )


def to_arrow(made: Sequence[WindowRows]) -> pa.RecordBatch:
    """Rows of several ticks as one record batch of the table `windows`."""
    c = np.concatenate([rows.counters for rows in made]).T.copy()
    columns = {
        "ts": list(chain.from_iterable(rows.starts for rows in made)),
        "window_s": list(chain.from_iterable(rows.lengths for rows in made)),
        "source": list(chain.from_iterable(rows.sources for rows in made)),
        "ip": list(chain.from_iterable(rows.hosts for rows in made)),
        **{name: c[at] for name, at in _COUNTERS.items()},
        "entropy": _mean(c[w.C_OUT_ENTROPY], c[w.C_OUT_ENTROPY_N]),
        "dns_names": c[w.C_DNS_LABELS],
        "dns_entropy": _mean(c[w.C_DNS_ENTROPY], c[w.C_DNS_LABELS]),
    }
    return pa.record_batch([pa.array(columns[f.name], f.type) for f in _SCHEMA], _SCHEMA)


def _mean(total: NDArray[np.int64], count: NDArray[np.int64]) -> pa.Array:
    """Mean entropy, bits; NULL of nothing."""
    return pa.array(total / w.ENTROPY_UNIT / np.maximum(count, 1), pa.float32(), mask=count == 0)
