"""How often a rule may report (Suricata's `threshold`). Bounded: the state that is oldest makes room."""

from __future__ import annotations

from typing import Final

from engine.detect.signatures.rule import Threshold

_MOST: Final = 65_536


class Thresholds:
    """Counts hits by rule and address."""

    def __init__(self) -> None:
        self._state: dict[tuple[int, str], list[int]] = {}  # start of the window in us, hits in it

    def admit(self, number: int, threshold: Threshold, address: str, ts: int) -> bool:
        """Whether this hit of rule `number` is reported. `ts` in microseconds."""
        key = number, address
        state = self._state.get(key)
        if state is None or not 0 <= ts - state[0] <= threshold.seconds * 1_000_000:
            if state is None and len(self._state) >= _MOST:
                del self._state[next(iter(self._state))]
            self._state[key] = state = [ts, 0]
        state[1] += 1
        if threshold.kind == "limit":
            return state[1] <= threshold.count
        if threshold.kind == "both":
            return state[1] == threshold.count
        if state[1] >= threshold.count:
            state[1] = 0
            return True
        return False
