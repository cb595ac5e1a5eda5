"""Alerts on single packets' anomalies, off unless `[scoring] alert` asks for them: kind packet_score, always low.

Attacks are mostly ordinary packets and unusual packets mostly harmless, so there is one finding for a source and batch,
and findings of at most `alerts_per_hour` sources an hour, by the packets' clock; of the others it is said how many.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final

import numpy as np

from engine import packets as k
from engine.config import ScoringConfig
from engine.detect.finding import Finding
from engine.detect.tick import address_text
from engine.explain import Explainer
from engine.forest import Forest

if TYPE_CHECKING:
    from numpy.typing import NDArray

KIND: Final = "packet_score"
_HOUR_US: Final = 3_600_000_000
_REMEMBERED: Final = 10_000  # sources beyond the budget that are told apart
_REASONS: Final = 3


class PacketScores:
    """Findings of scored batches. For one thread."""

    def __init__(self, config: ScoringConfig) -> None:
        self._threshold = config.threshold
        self._most = config.alerts_per_hour
        self._hour = 0
        self._told: set[tuple[int, int]] = set()
        self._untold: set[tuple[int, int]] = set()
        self._explainer: tuple[Forest, Explainer] | None = None

    def take(self, packets: k.PacketBatch, features: NDArray[np.int16], forest: Forest, model: int) -> list[Finding]:
        """Findings of the packets that have a source and score the threshold or more."""
        n = packets.count
        above = np.flatnonzero(
            (packets.anomaly[:n] >= self._threshold) & (packets.present[:n] & np.uint32(k.HAS_IP) != 0)
        )
        if not len(above):
            return []
        ends = packets.address[:, above]
        sources: dict[tuple[int, int], list[int]] = {}
        for row, hi, lo in zip(
            above.tolist(), ends[k.A_SRC_HI].tolist(), ends[k.A_SRC_LO].tolist(), strict=True
        ):  # fmt: skip
            hour = int(packets.long[k.L_TS, row]) // _HOUR_US
            if hour != self._hour:
                self._hour = hour
                self._told.clear()
                self._untold.clear()
            if (hi, lo) in self._told or len(self._told) < self._most:
                self._told.add((hi, lo))
                sources.setdefault((hi, lo), []).append(row)
            elif len(self._untold) < _REMEMBERED:
                self._untold.add((hi, lo))
        return [self._finding(packets, features, forest, model, rows) for rows in sources.values()]

    def _finding(
        self, packets: k.PacketBatch, features: NDArray[np.int16], forest: Forest, model: int, rows: list[int]
    ) -> Finding:
        times = packets.long[k.L_TS, rows]
        top = rows[int(packets.anomaly[rows].argmax())]
        frame_no, anomaly = int(packets.long[k.L_FRAME_NO, top]), float(packets.anomaly[top])
        reasons = self._reasons(forest, features[:, top])
        evidence: dict[str, Any] = {
            "anomaly": round(anomaly, 5), "threshold": self._threshold, "model": model, "packets": len(rows),
            "frame_no": frame_no, "features": reasons,
        }  # fmt: skip
        if self._untold:
            evidence["sources_not_told"] = len(self._untold)
        v6 = int(packets.short[k.S_IP_VERSION, top] == 6)
        address = packets.address.view(np.int64)[:, top].tolist()
        return Finding(
            ts=int(times.max()), first_ts=int(times.min()), kind=KIND, severity="low", count=len(rows),
            why=f"{len(rows)} packets as seldom as one in {1 / max(1 - self._threshold, 1e-4):,.0f}; the most unusual, "
            f"number {frame_no}, scores {anomaly:.4f}, most of all for its {' and '.join(reasons)}",
            src_ip=address_text(address[k.A_SRC_HI], address[k.A_SRC_LO], v6), source=packets.source,
            confidence=0.2, evidence=evidence,
            packets=tuple(packets.long[k.L_FRAME_NO, rows[:10]].tolist()),
        )  # fmt: skip

    def _reasons(self, forest: Forest, row: NDArray[np.int16]) -> dict[str, float]:
        """The features that made it unusual, with their shares of what did."""
        if self._explainer is None or self._explainer[0] is not forest:
            self._explainer = forest, Explainer(forest)
        found = np.maximum(self._explainer[1].explain(row[None, :])[0], 0)
        order = np.argsort(-found, kind="stable")[:_REASONS]
        return {forest.features[i]: round(float(found[i] / found.sum()), 2) for i in order if found[i] > 0}
