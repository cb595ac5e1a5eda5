"""Windows that ended as rows of the table `windows`: only those in which enough happened (`engine/window_row.py`)."""

from __future__ import annotations

from typing import Any, Final

import numpy as np

from engine.detect.windows import Ended, Tick, address_text
from engine.kernels import window_layout as w
from engine.window_row import LEAST_ATTEMPTS, LEAST_PACKETS, MOST_ROWS

_COUNTERS: Final = {
    "out_packets": w.C_OUT_PACKETS, "out_bytes": w.C_OUT_BYTES, "out_payload": w.C_OUT_PAYLOAD,
    "in_packets": w.C_IN_PACKETS, "in_bytes": w.C_IN_BYTES, "in_payload": w.C_IN_PAYLOAD, "attempts": w.C_ATTEMPTS,
    "answered": w.C_ANSWERED, "refused": w.C_REFUSED, "unanswered": w.C_UNANSWERED, "in_attempts": w.C_IN_ATTEMPTS,
    "in_failed": w.C_IN_FAILED, "peers": w.C_PEERS, "new_peers": w.C_NEW_PEERS, "ports": w.C_PORTS,
    "in_peers": w.C_IN_PEERS, "out_syn": w.C_OUT_SYN, "in_syn": w.C_IN_SYN, "out_syn_ack": w.C_OUT_SYN_ACK,
    "in_completed": w.C_IN_DONE, "in_stray": w.C_IN_STRAY, "out_rst": w.C_OUT_RST, "out_udp": w.C_OUT_UDP,
    "in_udp": w.C_IN_UDP, "in_dns": w.C_IN_DNS, "in_echo": w.C_IN_ECHO, "out_icmp_errors": w.C_OUT_ERRORS,
}  # fmt: skip


def rows_of(tick: Tick, ended: list[Ended]) -> list[dict[str, Any]]:
    """The rows of the windows that ended with this tick."""
    rows: list[dict[str, Any]] = []
    for window in ended:
        c = window.counters
        packets = c[:, w.C_OUT_PACKETS] + c[:, w.C_IN_PACKETS]
        enough = packets >= LEAST_PACKETS[window.length_s]
        enough |= c[:, w.C_ATTEMPTS] + c[:, w.C_IN_ATTEMPTS] >= LEAST_ATTEMPTS[window.length_s]
        chosen = np.flatnonzero(enough)
        if len(chosen) > MOST_ROWS:
            chosen = chosen[np.argsort(packets[chosen], kind="stable")[-MOST_ROWS:]]
        # In the order in which the hosts appeared: that of the rows is the hash's, which is another at each start.
        chosen = chosen[np.argsort(tick.windows.hosts[window.rows[chosen], w.H_ID])]
        rows += [_row(tick, window, n) for n in chosen.tolist()]
    return rows


def _row(tick: Tick, window: Ended, n: int) -> dict[str, Any]:
    host, c = tick.windows.hosts[window.rows[n]], window.counters[n].tolist()
    payloads = c[w.C_OUT_ENTROPY_N]
    return {
        "ts": window.start * 1_000_000,
        "window_s": window.length_s,
        "source": tick.windows.source_name(int(host[w.H_META]) >> 1),
        "ip": address_text(int(host[w.H_HI]), int(host[w.H_LO]), int(host[w.H_META])),
        **{name: c[at] for name, at in _COUNTERS.items()},
        "entropy": c[w.C_OUT_ENTROPY] / w.ENTROPY_UNIT / payloads if payloads else None,
    }
