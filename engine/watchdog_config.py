"""When the engine says that nothing comes any more."""

from __future__ import annotations

from dataclasses import dataclass

from engine.toml_values import check


@dataclass(frozen=True, slots=True, kw_only=True)
class WatchdogConfig:
    """Live capture: an interface without packets for `no_packets_s`, or packets of which none has become a row for
    `no_rows_s`, is said, and makes an incident of kind capture_silent. 0: never."""

    no_packets_s: float = 300.0
    no_rows_s: float = 30.0

    def __post_init__(self) -> None:
        ok = self.no_packets_s == 0 or 1 <= self.no_packets_s <= 86_400
        check(ok, "watchdog.no_packets_s", self.no_packets_s, "use 0 (never), or 1 to 86400 seconds")
        ok = self.no_rows_s == 0 or 5 <= self.no_rows_s <= 86_400
        check(ok, "watchdog.no_rows_s", self.no_rows_s, "use 0 (never), or 5 to 86400 seconds")
