"""Server names as numbers, which records of flows and rows of packets hold."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

from engine import flow_row as r

if TYPE_CHECKING:
    from numpy.typing import NDArray


class Names:
    """Server names as small numbers. Bounded: names that no flow carries any more make room for new ones."""

    def __init__(self, capacity: int = 1 << 18) -> None:
        self.capacity = capacity
        self._texts: list[str] = [""]
        self._numbers: dict[str, int] = {}
        self._spare: list[int] = []
        self.generation = 0  # a number means the same name as long as this does not change

    def number(self, text: str) -> int:
        """The name's number; 0 when there is no room for another."""
        known = self._numbers.get(text)
        if known is not None:
            return known
        if self._spare:
            number = self._spare.pop()
            self._texts[number] = text
        elif len(self._texts) < self.capacity:
            number = len(self._texts)
            self._texts.append(text)
        else:
            return 0
        self._numbers[text] = number
        return number

    def texts(self, numbers: NDArray[Any]) -> list[str]:
        """The names of some numbers."""
        return [self._texts[n] for n in numbers.tolist()]

    def is_full(self, wanted: int) -> bool:
        """True when `wanted` more names may not fit."""
        return len(self._numbers) + wanted >= self.capacity

    def make_room(self, records: NDArray[np.int64]) -> None:
        """Forget the names that none of the records carries."""
        self.generation += 1
        used = set(np.unique(records[records[:, r.R_FLOW_ID] != 0, r.R_NAME]).tolist())
        self._numbers = {text: number for text, number in self._numbers.items() if number in used}
        self._spare = [n for n in range(1, len(self._texts)) if n not in used]
