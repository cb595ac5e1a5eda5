"""A lake that two sensors write: what a question says of the one and what it says of the other add up to both."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from analytics.watch import registry
from analytics.watch.filters import parse
from analytics.watch.watch import Watch
from engine.alert_row import rules_of
from tests.webui import traffic

Answer = dict[str, Any]
A, B = "berlin", "paris"


@pytest.fixture(scope="module")
def two(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, float]:
    """Captures of the corpus, attacks in the same minutes at the other; and one alert of a rule over the lake."""
    place = tmp_path_factory.mktemp("two")
    traffic.record(place, traffic.REAL[::2], sensor=A)
    recorded = traffic.record(place, traffic.REAL[1::2], sensor=B)
    return recorded.lake, recorded.now


@pytest.fixture(scope="module")
def watch(two: tuple[Path, float]) -> Iterator[Watch]:
    watch = Watch(two[0], clock=lambda: two[1])
    yield watch
    watch.close()


def table(columns: Answer, keys: tuple[str, ...], sums: tuple[str, ...]) -> Counter[Any]:
    """Sums by key of columns."""
    found: Counter[Any] = Counter()
    for i in range(len(columns[sums[0]])):
        for name in sums:
            found[(*(columns[k][i] for k in keys), name)] += columns[name][i] or 0
    return found


def numbers(found: Answer, *names: str) -> Counter[Any]:
    return Counter({name: found[name] or 0 for name in names})


def series(found: Answer, names: list[str] | None = None) -> Counter[Any]:
    names = [n for n in found if isinstance(found[n], list)] if names is None else names
    return Counter({(name, i): n or 0 for name in names for i, n in enumerate(found[name])})


# What of an answer adds up. The rest are rates, quantiles, counts of what both may have seen, and the newest rows.
ADDS_UP: dict[str, tuple[dict[str, Any], Callable[[Answer], Counter[Any]]]] = {
    "overview": ({"top": 50}, lambda a: (
        numbers(a["kpi"], "packets", "bytes", "flows", "undecodable") + Counter(a["kpi"]["drops"]["by_cause"])
        + numbers(a["kpi"]["drops"], "seen", "lost") + Counter(a["kpi"]["alerts"])
        + table(a["mix"], ("class",), ("packets", "bytes")) + series(a["timeline"], ["dropped"]))),
    "packet_count": ({}, lambda a: numbers(a, "count") + series(a["timeline"]["series"])),
    "packets": ({"row": 0}, lambda a: numbers(a, "total")),
    "flows": ({}, lambda a: numbers(a, "total", "bytes", "packets")),
    "flow_count": ({}, lambda a: series(a["timeline"]["series"])),
    "hosts": ({"limit": 1000}, lambda a: numbers(a, "bytes") + table(
        a["rows"], ("ip",), ("bytes_sent", "bytes_received", "packets", "flows", "failed", "alerts"))),
    "places": ({}, lambda a: numbers(a["internal"], "bytes") + numbers(a["unlocated"], "bytes")),
    "graph": ({}, lambda a: numbers(a, "bytes")),
    "host": ({"ip": "10.20.0.99"}, lambda a: numbers(a["totals"], "bytes_sent", "packets", "flows", "failed") + Counter(
        {"alerts": len(a["alerts"]["id"])})),
    "dns": ({}, lambda a: numbers(a["totals"], "count", "answered", "errors") + series(a["timeline"]["series"])),
    "tls": ({}, lambda a: numbers(a["totals"], "count", "resumed", "alerts") + series(a["timeline"]["series"])),
    "http": ({}, lambda a: numbers(a["totals"], "count", "errors", "bytes") + series(a["timeline"]["series"])),
    "quic": ({}, lambda a: numbers(a["totals"], "count", "resumed") + series(a["timeline"]["series"])),
    "alerts": ({"state": "all"}, lambda a: numbers(a, "total") + Counter(a["severities"]) + series(a["timeline"])),
    "anomalies": ({}, lambda a: numbers(a["totals"], "scored", "above", "not_learned")
        + table(a["thresholds"], ("threshold",), ("packets",))),
    "anomaly_alerts": ({"threshold": 0.9}, lambda a: numbers(a, "packets")),
    "unusual_windows": ({}, lambda a: numbers(a, "total")),
    "health": ({}, lambda a: Counter({k: v for k, v in a["totals"].items() if not k.endswith(("_fill", "_frames"))})
        + numbers(a["drops"], "seen", "lost")),
    "state": ({}, lambda a: numbers(a["minute"], "seen", "lost") + Counter(a["alerts"])),
}  # fmt: skip
ELSEWHERE = {
    "packet", "flow", "alert",  # one, by its number
    "unusual_packets",  # the highest of all
    "complete", "mutes", "firing", "config",  # of the lake
}  # fmt: skip


def test_no_question_is_forgotten() -> None:
    assert {q.name for q in registry.every()} == ADDS_UP.keys() | ELSEWHERE


@pytest.fixture(params=["live", "past", "all"])
def span(request: pytest.FixtureRequest, two: tuple[Path, float]) -> str:
    """From what is mirrored in memory, and from the tables."""
    end = int(two[1] * 1e6)
    return {"live": "15m", "past": f"{end - 900_000_000},{end}", "all": "all"}[request.param]


@pytest.mark.parametrize("name", ADDS_UP)
def test_one_and_the_other_are_both(watch: Watch, name: str, span: str) -> None:
    params, of = ADDS_UP[name]

    def ask(text: str) -> Counter[Any]:
        return of(watch.answer(name, range_text=span, filter_text=text, role="admin", params=params))

    both, a, b = ask(""), ask(f"sensor={A}"), ask(f"sensor={B}")
    assert a + b == both
    assert ask(f"-sensor={A}") == b
    assert ask(f"sensor={A},{B}") == both
    assert not +ask("sensor=nobody")
    # Counters of a replay are of when it ran, after the newest packet, with which `all` ends.
    if name not in ("anomalies", "anomaly_alerts", "unusual_windows", "places", "quic") and (name, span) != (
        "health",
        "all",
    ):
        assert +a, "nothing to tell apart"
        assert +b, "nothing to tell apart"


@pytest.mark.parametrize("name", sorted(ADDS_UP))
def test_what_is_shown_as_sql_is_of_the_sensor_too(watch: Watch, name: str) -> None:
    params, _ = ADDS_UP[name]
    if registry.find(name).statements is None:
        return
    for part, sql in watch.explain(name, filter_text=f"sensor={A}", role="admin", params=params).items():
        # What a host is called and where it is, whoever saw it; and without a model no window is unusual.
        if part not in ("called", "who") and name != "unusual_windows":
            assert A in sql, part
        watch.table(name, part, lambda reader: reader.read_all(), filter_text=f"sensor={A}", role="admin",
                    params=params)  # fmt: skip


def test_state_knows_all_sensors(watch: Watch) -> None:
    assert watch.answer("state", filter_text=f"sensor={A}")["sensors"] == [A, B]


def test_what_a_rule_over_the_lake_found_is_the_sensors() -> None:
    assert set(parse(f"sensor={A}").where("alerts").values.values()) == {A, rules_of(A)}
    assert set(parse(f"sensor={A}").where("packets").values.values()) == {A}
