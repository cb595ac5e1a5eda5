"""Which addresses findings are about: they teach nothing for a while, and need no second alert."""

from __future__ import annotations

import socket
import struct
from collections import OrderedDict
from functools import lru_cache
from typing import TYPE_CHECKING, Final

import numpy as np

from engine.detect.finding import Finding

if TYPE_CHECKING:
    from numpy.typing import NDArray

HOLD_US: Final = 300_000_000  # after a finding above low
_KEYS: Final = 16_384
_SPANS: Final = 16  # of findings about an address that are told apart


class Held:
    """Addresses by their word H_LO, and the spans of time in which there were findings. Bounded."""

    def __init__(self) -> None:
        self._spans: OrderedDict[int, list[list[int]]] = OrderedDict()

    def add(self, finding: Finding) -> None:
        """Hold the addresses of a finding above low."""
        if finding.severity == "low":
            return
        for address in (finding.src_ip, finding.dst_ip):
            key, ts = None if address is None else _low_word(address), finding.ts
            if key is None:
                continue
            spans = self._spans.setdefault(key, [])
            self._spans.move_to_end(key)
            near = next((span for span in spans if span[0] - HOLD_US <= ts <= span[1] + HOLD_US), None)
            if near is not None:
                near[:] = min(near[0], ts), max(near[1], ts)
            else:
                spans.append([ts, ts])
                del spans[:-_SPANS]
        while len(self._spans) > _KEYS:
            self._spans.popitem(last=False)

    def among(self, low: NDArray[np.int64], first_us: int, last_us: int) -> NDArray[np.bool_]:
        """Which of the addresses findings of that time, or not long before, are about. What is older is forgotten."""
        since = first_us - HOLD_US
        while self._spans and max(last for _, last in next(iter(self._spans.values()))) < since:
            self._spans.popitem(last=False)
        now = [key for key, spans in self._spans.items() if any(a <= last_us and b >= since for a, b in spans)]
        return np.isin(low, np.array(now, np.int64)) if now else np.zeros(len(low), bool)


@lru_cache(_KEYS)
def _low_word(address: str) -> int | None:
    """The word H_LO of an address; None for what is none: rules of operators may give any text."""
    try:
        if ":" in address:
            return int(struct.unpack(">qq", socket.inet_pton(socket.AF_INET6, address.partition("%")[0]))[1])
        return int(struct.unpack(">I", socket.inet_aton(address))[0])
    except (OSError, ValueError, TypeError):
        return None
