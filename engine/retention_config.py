"""What the operator can set about how long the lake keeps what: by age, by size, and by the disk's free space."""

from __future__ import annotations

import tomllib
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from engine.errors import ConfigError
from engine.toml_values import check, values_of

GIB: Final = 1 << 30


@dataclass(frozen=True, slots=True, kw_only=True)
class RetentionConfig:
    """The oldest go first. Ages are days since something was written (0: any age), sizes GiB on disk (0: any size);
    raw frames have their size in `[frames] limit_bytes`. When the disk has less than `min_free_percent` and less than
    `min_free_gib` left, frames go first, then packets, applications, flows, windows, rollups and alerts."""

    enabled: bool = True
    frames_days: float = 30.0
    packets_days: float = 30.0
    packets_gib: float = 0.0
    applications_days: float = 90.0
    applications_gib: float = 0.0
    flows_days: float = 180.0
    flows_gib: float = 0.0
    windows_days: float = 365.0
    windows_gib: float = 0.0
    rollups_days: float = 730.0
    rollups_gib: float = 0.0
    alerts_days: float = 1825.0
    alerts_gib: float = 0.0
    min_free_percent: float = 5.0
    min_free_gib: float = 10.0

    def __post_init__(self) -> None:
        for name in self.__slots__:
            value = getattr(self, name)
            if name.endswith("_days"):
                check(0 <= value <= 36_500, f"retention.{name}", value, "use 0 (any age) to 36500 days")
            elif name.endswith("_gib"):
                check(0 <= value <= 1 << 20, f"retention.{name}", value, "use 0 (any size) to 1048576 GiB")
        check(0 <= self.min_free_percent <= 90, "retention.min_free_percent", self.min_free_percent, "use 0 to 90 %")

    def days(self, kind: str) -> float:
        """How old a kind of tables may be; 0: any age."""
        return float(getattr(self, f"{kind}_days"))

    def most_bytes(self, kind: str) -> int:
        """How much a kind of tables may take on disk; 0: any size."""
        return int(getattr(self, f"{kind}_gib", 0.0) * GIB)

    def wanted_free(self, total: int) -> int:
        """Bytes that a disk of `total` bytes is to have free."""
        return min(int(total * self.min_free_percent / 100), int(self.min_free_gib * GIB))


def changed_settings(lake: Path) -> float:
    """When they were left, seconds since the epoch; 0 for never."""
    try:
        return _left(lake).stat().st_mtime
    except OSError:
        return 0.0


def _left(lake: Path) -> Path:
    return lake / ".settings" / "running.toml"


def left_settings(lake: Path) -> RetentionConfig:
    """The section as the last `engine run` on this lake had it, else the defaults: what a command without --config
    goes by, so that it never deletes what the engine would have kept."""
    path = _left(lake)
    try:
        with open(path, "rb") as file:
            given = tomllib.load(file).get("retention", {})
    except FileNotFoundError:
        return RetentionConfig()
    except (OSError, tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise ConfigError(f"settings of the last run, {path}: {error}; give --config FILE") from None
    if not isinstance(given, dict):
        raise ConfigError(f"settings of the last run, {path}: retention is no section; give --config FILE")
    return RetentionConfig(**values_of(str(path), "retention", RetentionConfig(), given))
