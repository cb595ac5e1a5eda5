"""`engine bench` and its sender: the short form to its end, verdicts of comparisons, and what is refused."""

from __future__ import annotations

import json
import math
import re
from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest

from benchmarks import compare, online, sender, sessions
from benchmarks.measure import HIGHER, LOWER, figure
from benchmarks.wire import Wire, inside, ip, usable
from engine.errors import ConfigError
from tests.commands import engine


@pytest.fixture(scope="module")
def short(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder with the result of the short form."""
    folder = tmp_path_factory.mktemp("bench")
    done = engine(
        "bench", "--short", "--json", folder / "bench.json", "--html", folder / "bench.html", timeout=280
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    return folder


def test_bench__short_form_measures_every_section(short: Path) -> None:
    result = compare.read_result(short / "bench.json")
    assert result["short"] is True
    assert result["machine"]["cores"] >= 1
    assert {"python", "numpy", "numba", "pyarrow", "duckdb", "libpcap", "packetlake"} <= set(result["versions"])
    assert {"commit", "load_before", "load_after", "created"} <= set(result)
    sections = result["sections"]
    assert set(sections) == {"stages", "offline", "live", "peers"}
    mix = sections["stages"]["realistic mix"]
    assert {"read, walk", "decode, entropy", "flow table", "applications", "Parquet write", "total"} <= set(
        mix["stages"]
    )
    assert {"capture", "decode", "main"} <= set(mix["threads"])
    for mode in ("frames off", "frames full"):
        replay = sections["offline"]["realistic mix"][mode]
        assert replay["packets"] == result["inputs"]["realistic mix"]["packets"]
        assert replay["lost"]["max"] == 0
        assert (replay["frames_bytes_per_packet"]["min"] > 60) == (mode == "frames full")
    assert "packets_per_cpu_s" in sections["peers"]["realistic mix"]["dpkt"]
    if usable():
        assert sections["live"]["skipped"] == usable()
    else:
        live = sections["live"]["64-byte frames, many flows"]
        assert 1 <= len(live["steps"]) <= 3
        assert all(step["arrived"] >= step["counts"]["rows"] > 0 for step in live["steps"])


def test_bench__figures_are_numbers_with_their_spread(short: Path) -> None:
    found = dict(compare.figures(compare.read_result(short / "bench.json")["sections"]))
    assert len(found) > 60
    for name, f in found.items():
        assert math.isfinite(f["median"]), name
        assert f["min"] <= f["median"] <= f["max"], name
        assert f["runs"] >= 1, name


def test_bench__page_stands_alone(short: Path) -> None:
    page = (short / "bench.html").read_text()
    assert "realistic mix" in page
    assert page.count("plotly-graph-div") >= 3
    assert not re.search(r"<(script|link|img|iframe)[^>]+(src|href)\s*=", page)


def test_bench__compares_a_result_with_itself(short: Path) -> None:
    done = engine("bench", "--compare", short / "bench.json", short / "bench.json")
    assert done.returncode == 0, done.stderr
    assert re.fullmatch(r"\d+ within noise", done.stdout.splitlines()[-1])


# --- verdicts --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("old", "new", "better", "verdict"),
    [
        ([100, 101, 102], [80, 81, 82], LOWER, compare.BETTER),
        ([100, 101, 102], [80, 81, 82], HIGHER, compare.WORSE),
        ([100, 101, 102], [120, 121, 122], LOWER, compare.WORSE),
        ([100, 101, 102], [120, 121, 122], "", compare.CHANGED),
        ([90, 100, 125], [120, 121, 122], LOWER, compare.NOISE),  # one old run was as slow
        ([100, 100, 100], [102, 102, 102], LOWER, compare.NOISE),  # apart, but by 2 %
        ([100], [92], LOWER, compare.NOISE),  # one run each: 8 % say nothing
        ([100], [80], LOWER, compare.BETTER),
        ([0, 0, 0], [0, 0, 0], LOWER, compare.NOISE),
        ([0, 0, 0], [5, 6, 7], LOWER, compare.WORSE),
    ],
)
def test_compare__verdict(old: list[float], new: list[float], better: str, verdict: str) -> None:
    assert compare.judge(figure(old, "ns", better), figure(new, "ns", better)) == verdict


def _result(path: Path, **figures: Any) -> Path:
    path.write_text(json.dumps({"format": compare.FORMAT, "sections": {"stages": figures}}))
    return path


def test_compare__prints_each_figure_that_both_have(tmp_path: Path) -> None:
    old = _result(tmp_path / "old", decode=figure([100, 101, 102], "ns", LOWER), gone=figure([1], "ns", LOWER))
    new = _result(tmp_path / "new", decode=figure([50, 51, 52], "ns", LOWER), fresh=figure([1], "ns", LOWER))
    done = engine("bench", "--compare", old, new)
    assert done.returncode == 0, done.stderr
    assert re.search(r"^better +0\.50 +101 -> +51 ns +stages / decode$", done.stdout.replace("51.0", "51"), re.M)
    assert done.stdout.splitlines()[-1] == "1 better"


# --- refusals --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("words", "part"),
    [
        (["--only", "everything"], "everything"),
        (["--capture", "/nonexistent.pcap", "--stages"], "/nonexistent.pcap"),
        (["--capture", "FOREIGN", "--stages"], "neither pcap nor pcapng"),
        (["--json", "/nonexistent/bench.json"], "/nonexistent/bench.json"),
        (["--html", "/"], "/"),
        (["--compare", "/nonexistent.json", "FOREIGN"], "/nonexistent.json"),
        (["--compare", "FOREIGN", "FOREIGN"], "not JSON"),
        (["--compare", "EMPTY", "EMPTY"], "no figure in common"),
    ],
    ids=lambda value: " ".join(value) if isinstance(value, list) else None,
)
def test_bench__bad_input_is_one_line(words: list[str], part: str, tmp_path: Path) -> None:
    (tmp_path / "FOREIGN").write_text("this is no capture, and no result either")
    _result(tmp_path / "EMPTY")
    given = [str(tmp_path / word) if word in ("FOREIGN", "EMPTY") else word for word in words]
    done = engine("bench", *given)
    assert done.returncode == 2, done
    assert len(done.stderr.splitlines()) == 1, done.stderr
    assert done.stderr.startswith("engine: ")
    assert part in done.stderr


def test_sender__refuses_what_is_no_veth() -> None:
    for name in ("lo", "nosuch0"):
        with pytest.raises(ConfigError, match=f"{name} is not one end of a veth pair"):
            sender.check_interface(name)


def test_sender__refuses_a_default_route(wire: Wire) -> None:
    ip("-n", wire.there, "addr", "add", "10.99.0.1/24", "dev", wire.send)
    ip("-n", wire.there, "route", "add", "default", "via", "10.99.0.2", "dev", wire.send)
    with inside(wire.there), pytest.raises(ConfigError, match="default route"):
        sender.check_interface(wire.send)


def test_sender__refuses_a_namespace_without_name(wire: Wire, monkeypatch: pytest.MonkeyPatch) -> None:
    with inside(wire.there):
        sender.check_interface(wire.send)
        monkeypatch.setattr(sender, "_in_named_namespace", lambda: False)
        with pytest.raises(ConfigError, match="namespace"):
            sender.check_interface(wire.send)


# --- sending and searching -------------------------------------------------------------------------------------------


def test_sender__sends_as_many_as_asked(wire: Wire) -> None:
    with inside(wire.there):
        frames = sender.generated(64, 100)
        flat = sender.send(wire.send, frames, count=1234, seconds=5)
        paced = sender.send(wire.send, frames, pps=2000, count=0, seconds=0.5)
    assert (flat.frames, flat.bytes) == (1234, 1234 * 64)
    assert 700 <= paced.frames <= 1001
    assert online._arrived(wire) == flat.frames + paced.frames


def _fake_engine(monkeypatch: pytest.MonkeyPatch, capacity: float, most: float) -> list[float]:
    """An engine that holds `capacity` packets/s, offered at most `most`; returns the rates that were tried."""
    tried: list[float] = []

    def step(_wire: Any, _capture: Any, pps: float, seconds: float, _frames: str) -> online.Step:
        tried.append(pps)
        sent = int((pps or most) * seconds)
        rows = min(sent, int(capacity * seconds))
        return online.Step(pps, sent, seconds, sent * 64, sent, 0.0, 1.0, 1, 1, 1.0, {"rows": rows})

    monkeypatch.setattr(online, "engine_step", step)
    return tried


@pytest.mark.parametrize("capacity", [20_000, 90_000, 340_000, 590_000])
def test_search__finds_the_highest_rate_in_a_bounded_number_of_steps(
    capacity: float, monkeypatch: pytest.MonkeyPatch
) -> None:
    tried = _fake_engine(monkeypatch, capacity, 600_000)
    held = online.search(None, Path(), 5, 10)["held_pps"]["median"]  # type: ignore[arg-type]
    assert len(tried) <= 10
    assert 0.9 * capacity <= held <= 1.002 * capacity


def test_search__ends_when_the_sender_gives_no_more(monkeypatch: pytest.MonkeyPatch) -> None:
    tried = _fake_engine(monkeypatch, 1e9, 600_000)
    result = online.search(None, Path(), 5, 10)  # type: ignore[arg-type]
    assert tried == [0]
    assert result["held_is_all_the_sender_gives"] is True


# --- generated traffic -----------------------------------------------------------------------------------------------


def test_sessions__are_the_same_each_time_and_in_order() -> None:
    first = list(sessions.frames(3000))
    assert first == list(sessions.frames(3000))
    assert len(first) == 3000
    assert all(a[0] <= b[0] for a, b in pairwise(first))


def test_sessions__are_what_they_say(tmp_path: Path) -> None:
    from benchmarks.data import write_sessions

    path = write_sessions(tmp_path / "mix.pcap", 8000)
    lake = tmp_path / "lake"
    assert engine("replay", path, "--lake", lake, "--frames", "off").returncode == 0
    query = "SELECT (SELECT count(*) FROM packets WHERE status <> 'ok'), list(DISTINCT app) FROM flows"
    done = engine("sql", query, "--lake", lake, "--format", "json")
    (bad, apps), = (tuple(row.values()) for row in json.loads(done.stdout))  # fmt: skip
    assert bad == 0
    assert {"dns", "tls", "quic", "http", "ntp"} <= set(apps)
