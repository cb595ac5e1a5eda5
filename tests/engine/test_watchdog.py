"""The watchdog: silence is noticed, said once, and its end too."""

from __future__ import annotations

import pytest

from engine.errors import ConfigError
from engine.watchdog import KIND, Watchdog
from engine.watchdog_config import WatchdogConfig

NOW_US = 1_800_000_000_000_000


def watch(**values: float) -> Watchdog:
    return Watchdog(WatchdogConfig(**{"no_packets_s": 10.0, "no_rows_s": 5.0, **values}))


def told(dog: Watchdog, received: dict[str, int], rows: int, now_s: float) -> tuple[list[str], int]:
    dog.look(received, rows, now_s, NOW_US + int(now_s * 1e6))
    return dog.lines, len(dog.findings)


def test_packets__silence_of_one_interface_is_said_once_and_told_each_period() -> None:
    dog = watch()
    assert told(dog, {"a": 1, "b": 1}, 0, 0) == ([], 0)
    assert told(dog, {"a": 1, "b": 2}, 2, 9.9) == ([], 0)
    lines, findings = told(dog, {"a": 1, "b": 3}, 3, 10)
    assert (lines, findings) == (["no packets on a for 10 s; see `engine status`"], 1)
    [found] = dog.findings
    assert (found.kind, found.severity, found.source, found.first_ts) == (KIND, "low", "a", NOW_US)
    assert dog.wrong == ["no packets on a for 10 s or more"]
    assert told(dog, {"a": 1, "b": 4}, 4, 19) == ([], 0)
    assert told(dog, {"a": 1, "b": 5}, 5, 20) == ([], 1)
    assert told(dog, {"a": 2, "b": 6}, 6, 21) == (["no packets on a: over"], 0)
    assert dog.wrong == []


def test_packets__an_interface_that_never_had_one() -> None:
    dog = watch()
    told(dog, {"a": 0}, 0, 100)
    assert told(dog, {"a": 0}, 0, 110)[1] == 1


def test_rows__only_when_packets_wait_for_them() -> None:
    dog = watch(no_packets_s=0)
    told(dog, {"a": 5}, 5, 0)
    assert told(dog, {"a": 5}, 5, 100) == ([], 0)  # a silent link needs no rows
    told(dog, {"a": 6}, 5, 101)
    assert told(dog, {"a": 9}, 5, 105) == ([], 0)
    lines, findings = told(dog, {"a": 9}, 5, 106)
    assert (lines, findings) == (["no rows committed for 5 s; see `engine status`"], 1)
    assert dog.findings[0].severity == "medium"
    assert told(dog, {"a": 9}, 6, 107) == (["no rows committed: over"], 0)
    assert told(dog, {"a": 10}, 7, 108) == ([], 0)


def test_off__never() -> None:
    dog = watch(no_packets_s=0, no_rows_s=0)
    told(dog, {"a": 1}, 0, 0)
    assert told(dog, {"a": 2}, 0, 1e6) == ([], 0)


@pytest.mark.parametrize("values", [{"no_packets_s": 0.5}, {"no_rows_s": 1.0}, {"no_packets_s": float("nan")}])
def test_config__out_of_range(values: dict[str, float]) -> None:
    with pytest.raises(ConfigError, match="watchdog"):
        WatchdogConfig(**values)
