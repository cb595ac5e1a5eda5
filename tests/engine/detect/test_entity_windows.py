"""Rows of windows of pairs and ports, counted by hand."""

from __future__ import annotations

from typing import Any

import pytest

from engine.anomaly_config import WindowsConfig
from engine.detect.entity_windows import EntityWindows
from engine.errors import ConfigError
from engine.tables import TABLES
from tests.detecting import RST_ACK, START_NS, SYN, Rig, Talk, arp_frame, tcp_frame, udp_frame
from tests.flowing import Timed

ALL = WindowsConfig(pairs=(1, 5, 60), ports=(1, 5, 60))
A, B = "10.0.0.1", "10.0.0.2"


def windows(timed: list[Timed], config: WindowsConfig = ALL, cuts: Any = ()) -> list[tuple[str, dict[str, Any]]]:
    found: list[tuple[str, dict[str, Any]]] = []
    entities = EntityWindows(config, lambda table, rows: found.extend((table, row) for row in rows))
    Rig(entities=entities, windows=config).send(sorted(timed, key=lambda t: t[0]), cuts)
    return found


def at(row: dict[str, Any]) -> float:
    return (row["ts"] * 1000 - START_NS) / 1e9


def asked(start: float, count: int, step: float) -> list[Timed]:
    """Questions of A to B with answers, each of a flow of its own."""
    return [
        frame
        for n in range(count)
        for frame in (
            (start + n * step, udp_frame(A, B, 20_000 + n, 53, bytes(100))),
            (start + n * step + 0.0001, udp_frame(B, A, 53, 20_000 + n, bytes(300))),
        )
    ]


def test_pair__each_length_counts_its_own_part() -> None:
    timed = asked(0, 600, 0.01) + asked(62, 30, 0.001)  # six seconds; and the next minute
    rows = [row for table, row in windows(timed) if table == "pair_windows"]
    assert [(row["window_s"], at(row), row["packets"]) for row in rows] == [
        *((1, float(n), 100) for n in range(5)), (5, 0.0, 500), (1, 5.0, 100), (5, 5.0, 100), (60, 0.0, 600),
        (1, 62.0, 30), (60, 60.0, 30),
    ]  # fmt: skip
    minute = rows[8]
    assert minute["src_ip"] == A
    assert minute["dst_ip"] == B
    assert minute["packets_back"] == minute["answered"] == minute["attempts"] == 600
    assert (minute["payload"], minute["payload_back"]) == (60_000, 180_000)
    assert (minute["bytes"], minute["bytes_back"]) == (600 * 142, 600 * 342)
    assert (minute["refused"], minute["unanswered"], minute["failed_ports"]) == (0, 0, 0)


def test_pair__outcomes_and_ports_of_a_scan() -> None:
    timed: list[Timed] = []
    for n in range(20):
        timed.append((n * 0.01, tcp_frame(A, B, 4000, 100 + n, SYN)))
        if n < 8:
            timed.append((n * 0.01 + 0.001, tcp_frame(B, A, 100 + n, 4000, RST_ACK)))
    (row,) = [row for table, row in windows(timed, WindowsConfig()) if table == "pair_windows"]
    assert (row["attempts"], row["refused"], row["unanswered"], row["failed_ports"]) == (20, 8, 12, 20)


def test_pair__regular_connections_have_little_variation() -> None:
    timed = [frame for n in range(12) for frame in Talk(n * 5.0, A, B, 4000 + n, 80).say(b"x" * 10).frames]
    rows = [row for table, row in windows(timed, WindowsConfig()) if table == "pair_windows"]
    assert rows[0]["gap_s"] == pytest.approx(5.0, abs=0.01)
    assert rows[0]["gap_variation"] < 0.01
    assert rows[0]["dst_port"] == 80


def test_port__hosts_asked_on_one_port_and_by_arp() -> None:
    sweep = [(n * 0.05, tcp_frame(A, f"10.0.1.{n}", 4000, 445, SYN)) for n in range(15)]
    arps = [(n * 0.05, arp_frame("10.0.0.9", f"10.0.1.{n}")) for n in range(30)]
    rows = [row for table, row in windows(sweep + arps, WindowsConfig()) if table == "port_windows"]
    assert [(row["src_ip"], row["proto"], row["dst_port"], row["hosts"], row["failed_hosts"]) for row in rows] == [
        ("10.0.0.9", None, None, 30, 30), (A, 6, 445, 15, 15),
    ]  # fmt: skip


def test_rows__do_not_depend_on_cuts_and_fit_the_tables() -> None:
    timed = asked(0, 600, 0.01) + [(n * 0.05, tcp_frame(A, f"10.0.1.{n}", 4000, 445, SYN)) for n in range(15)]
    expected = windows(timed)
    assert windows(timed, cuts=range(0, len(timed), 37)) == expected
    for table, row in expected:
        assert row.keys() == {c.name for c in TABLES[table]}
        assert all(c.nullable or row[c.name] is not None for c in TABLES[table])


def test_rows__are_bounded_and_lengths_chosen() -> None:
    timed = [frame for n in range(30) for frame in asked(n * 0.01, 50, 0.001)]
    few = windows(timed, WindowsConfig(pairs=(60,), ports=(), most_rows=1))
    assert [(table, row["window_s"]) for table, row in few] == [("pair_windows", 60)]
    assert windows(timed, WindowsConfig(pairs=(), ports=())) == []


@pytest.mark.parametrize("values", [{"pairs": (7,)}, {"ports": (0,)}, {"hosts": (2,)}, {"most_rows": 0}])
def test_configuration__is_checked(values: dict[str, Any]) -> None:
    with pytest.raises(ConfigError, match=f"windows.{next(iter(values))}"):
        WindowsConfig(**values)
