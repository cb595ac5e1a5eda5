"""What the operator sets about unknown behaviour, `[anomaly]`, and about rows of windows, `[windows]`."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Final

from engine.toml_values import check, integers

LENGTHS: Final = (1, 5, 60)


@dataclass(frozen=True, slots=True, kw_only=True)
class AnomalyConfig:
    """Alerts of kind anomaly (low) about windows of hosts that are far from the usual of this sensor. `method`: maxz,
    hbos or iforest, over windows of `lengths` seconds. Nothing is told before `learn_minutes` of the packets' clock;
    what was learned is kept as a model of kind window, and made anew from twice that time every `learn_minutes`, unless
    `frozen` (or `engine model use`). `model` names an exported one, which is then used frozen. At most `per_hour` are
    told. `margin`: how far above the most that is usual a score must be; 0 is the method's own. `rows`: most windows of
    each length that are kept to learn from; least_rows: fewer teach nothing."""

    enabled: bool = True
    method: str = "maxz"
    lengths: tuple[int, ...] = field(default=(5, 60), metadata=integers())
    per_hour: int = 4
    learn_minutes: int = 60
    frozen: bool = False
    model: str = ""
    margin: float = 0.0
    rows: int = 20_000
    least_rows: int = 200

    def __post_init__(self) -> None:
        methods = ("maxz", "hbos", "iforest")
        check(self.method in methods, "anomaly.method", self.method, f"use {', '.join(methods)}")
        known = bool(self.lengths) and set(self.lengths) <= set(LENGTHS)
        check(known, "anomaly.lengths", list(self.lengths), "use some of 1, 5, 60")
        check(0 <= self.per_hour <= 1_000, "anomaly.per_hour", self.per_hour, "use 0 to 1000")
        check(1 <= self.learn_minutes <= 10_080, "anomaly.learn_minutes", self.learn_minutes, "use 1 to 10080")
        check(0 <= self.margin <= 100, "anomaly.margin", self.margin, "use 0 (the method's own) to 100")
        check(1_000 <= self.rows <= 1_000_000, "anomaly.rows", self.rows, "use 1000 to 1000000")
        check(50 <= self.least_rows <= self.rows, "anomaly.least_rows", self.least_rows, "use 50 up to `rows`")


@dataclass(frozen=True, slots=True, kw_only=True)
class WindowsConfig:
    """Rows of the tables `windows`, `pair_windows` and `port_windows`: the lengths in seconds (1, 5, 60) that are
    written of each, and at most `most_rows` of one window, the busiest."""

    hosts: tuple[int, ...] = field(default=LENGTHS, metadata=integers())
    pairs: tuple[int, ...] = field(default=(60,), metadata=integers())
    ports: tuple[int, ...] = field(default=(60,), metadata=integers())
    most_rows: int = 1_000

    def __post_init__(self) -> None:
        for name in ("hosts", "pairs", "ports"):
            lengths = getattr(self, name)
            check(set(lengths) <= set(LENGTHS), f"windows.{name}", list(lengths), "use some of 1, 5, 60, or none")
        check(1 <= self.most_rows <= 100_000, "windows.most_rows", self.most_rows, "use 1 to 100000")
