"""`engine bench`: every stage, the whole engine over savefiles and live, and other tools beside it, in one result."""

from __future__ import annotations

import datetime
import os
import tempfile
from argparse import Namespace
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

from benchmarks import compare, data, measure, offline, online, peers, wire
from benchmarks.stages import DECODE, READ, TOTAL, stage_costs
from engine.errors import ConfigError, EngineError

SECTIONS = ("stages", "offline", "live", "peers")
SMALL, BIG, MIX, OWN = "64-byte frames, many flows", "1514-byte random payload", "realistic mix", "capture"


@dataclass(frozen=True, slots=True)
class Plan:
    """How much is measured. `live` and `offline_full` name the inputs that are sent, and replayed with raw frames."""

    small: int
    flows: int
    big: int
    mix: int
    runs: int
    live_s: float
    live_steps: int
    live: tuple[str, ...]
    offline_off: tuple[str, ...]
    offline_full: tuple[str, ...]
    peers: tuple[str, ...]
    peer_scale: float


FULL = Plan(
    small=1_000_000, flows=200_000, big=100_000, mix=300_000, runs=5, live_s=5, live_steps=8, live=(SMALL, BIG, MIX),
    offline_off=(SMALL, BIG, MIX, OWN), offline_full=(SMALL, BIG, MIX, OWN), peers=(SMALL, MIX, OWN), peer_scale=1,
)  # fmt: skip
SHORT = Plan(
    small=200_000, flows=50_000, big=20_000, mix=60_000, runs=3, live_s=1.5, live_steps=3, live=(SMALL,),
    offline_off=(MIX,), offline_full=(MIX,), peers=(MIX,), peer_scale=0.1,
)  # fmt: skip


@dataclass(frozen=True, slots=True)
class Input:
    """A savefile to measure with."""

    name: str
    what: str
    path: Path
    packets: int
    size: int


def main(options: Namespace) -> int:
    """Run what the options of `engine bench` ask for."""
    if options.compare:
        return compare.run(*map(Path, options.compare))
    sections = _sections(options)
    for path in (options.json, options.html):
        _check_output(path)
    plan = SHORT if options.short else FULL
    with tempfile.TemporaryDirectory(prefix="packetlake-bench-") as name:
        Path(name).chmod(0o755)
        inputs = _inputs(plan, Path(name), options.capture)
        result = _measure(plan, sections, inputs, Path(name), options.nfstream_python or [])
        result["short"] = bool(options.short)
    if options.json:
        measure.write_json(Path(options.json), result)
    if options.html:
        from benchmarks.page import render

        Path(options.html).write_text(render(result))
    return 0


# --- options -----------------------------------------------------------------------------------------------------


def _sections(options: Namespace) -> tuple[str, ...]:
    wanted = [*(options.only or ()), *(["stages"] if options.stages else [])]
    for name in wanted:
        if name not in SECTIONS:
            raise ConfigError(f"--only {name!r} is unknown; use {', '.join(SECTIONS)}")
    return tuple(name for name in SECTIONS if not wanted or name in wanted)


def _check_output(name: str | None) -> None:
    """Before anything is measured: a result that cannot be written would be lost."""
    if name is None:
        return
    path = Path(name)
    if not path.parent.is_dir() or path.is_dir() or not os.access(path.parent, os.W_OK):
        raise ConfigError(f"result {name}: cannot be written there; give a file in a directory that exists")


# --- inputs ------------------------------------------------------------------------------------------------------


def _inputs(plan: Plan, folder: Path, capture: str | None) -> list[Input]:
    """The generated savefiles and the user's, as plain pcap."""
    size = 0
    if capture is not None:
        try:
            size = Path(capture).stat().st_size
        except OSError as error:
            raise ConfigError(f"capture {capture}: {(error.strerror or str(error)).lower()}") from None
    needed = 20 * size + (2 << 30)
    if offline.free_bytes() < needed:
        raise ConfigError(
            f"{tempfile.gettempdir()} has too little room: benchmarks write up to {needed >> 20:,} MiB there; "
            "free some, or set TMPDIR"
        )
    own = []
    if capture is not None:  # first: a foreign file is told at once
        packets, volume, _ = data.copy_capture(capture, folder / "capture.pcap")
        if not packets:
            raise ConfigError(f"capture {capture} holds no frames; give one that does")
        own = [Input(OWN, Path(capture).name, folder / "capture.pcap", packets, volume)]
    print(f"making the inputs (load {measure.load():.1f})", flush=True)
    small = data.write_many_flows(folder / "small.pcap", plan.small, plan.flows)
    big = data.write_random_payload(folder / "big.pcap", plan.big)
    mix = data.write_sessions(folder / "mix.pcap", plan.mix)
    return [
        _input(SMALL, f"UDP, {plan.flows:,} flows drawn at random", small, plan.small),
        _input(BIG, "UDP, every payload different", big, plan.big),
        _input(MIX, "made-up sessions of DNS, TLS, QUIC, HTTP, SSH, voice, scans", mix, plan.mix),
        *own,
    ]  # fmt: skip


def _input(name: str, what: str, path: Path, packets: int) -> Input:
    return Input(name, what, path, packets, path.stat().st_size - 24 - 16 * packets)


# --- measuring ---------------------------------------------------------------------------------------------------


def _measure(
    plan: Plan, sections: Sequence[str], inputs: list[Input], folder: Path, pythons: Sequence[str]
) -> dict[str, Any]:
    result: dict[str, Any] = {
        "format": compare.FORMAT,
        "created": datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds"),
        "machine": measure.machine(),
        "versions": measure.versions(),
        "commit": measure.commit(),
        "load_before": measure.load(),
        "inputs": {i.name: {"what": i.what, "packets": i.packets, "mean_bytes": i.size / i.packets} for i in inputs},
        "sections": {},
    }
    work: dict[str, Callable[[], dict[str, Any]]] = {
        "stages": lambda: {i.name: _told(i.name, partial(stage_costs, i.path, "full", plan.runs)) for i in inputs},
        "offline": lambda: _offline(plan, inputs, folder),
        "live": lambda: _live(plan, inputs),
        "peers": lambda: _peers(plan, inputs, result["sections"], pythons),
    }
    for name in sections:
        print(f"\n{name} (load {measure.load():.1f})", flush=True)
        part = result["sections"][name] = _try(work[name])
        if "skipped" in part:
            _show(part)
    result["load_after"] = measure.load()
    return result


def _try(work: Callable[[], dict[str, Any]]) -> dict[str, Any]:
    """What cannot be measured here is skipped, and says so."""
    try:
        return work()
    except EngineError as error:
        return {"skipped": str(error)}


def _told(name: str, work: Callable[[], dict[str, Any]]) -> dict[str, Any]:
    """The same, printed as soon as it is there."""
    part = _try(work)
    _show({name: part})
    return part


def _offline(plan: Plan, inputs: list[Input], folder: Path) -> dict[str, Any]:
    started = offline.start_cpu_s(folder, inputs[0].path)
    start = measure.figure(started, "CPU s", measure.LOWER)
    part: dict[str, Any] = {"start": _told("start", lambda: {"cpu_s": start})}
    for i in inputs:
        for mode, names in (("off", plan.offline_off), ("full", plan.offline_full)):
            if i.name in names or i.name == OWN:
                replay = partial(offline.replay_figures, i.path, mode, start["median"], plan.runs)
                part.setdefault(i.name, {})[f"frames {mode}"] = _told(f"{i.name} / frames {mode}", replay)
    return part


def _live(plan: Plan, inputs: list[Input]) -> dict[str, Any]:
    reason = wire.usable()
    if reason:
        return {"skipped": reason}
    part: dict[str, Any] = {}
    with wire.wire() as pair:
        for i in inputs:
            if i.name in plan.live or i.name == OWN:
                part[i.name] = row = _told(i.name, partial(online.search, pair, i.path, plan.live_s, plan.live_steps))
                reference = partial(online.reference, pair, i.path, 0, plan.live_s)
                row["tcpdump -w /dev/null"] = _told(f"{i.name} / tcpdump -w /dev/null", reference)
    return part


def _peers(plan: Plan, inputs: list[Input], done: dict[str, Any], pythons: Sequence[str]) -> dict[str, Any]:
    part: dict[str, Any] = {}
    for i in inputs:
        if i.name not in plan.peers and i.name != OWN:
            continue
        costs = done.get("stages", {}).get(i.name, {})
        stages = costs.get("stages") or stage_costs(i.path, "full", 3)["stages"]
        replay = done.get("offline", {}).get(i.name, {}).get("frames off", {}).get("packets_per_cpu_s")
        ours = {"read, decode, entropy": stages[READ]["median"] + stages[DECODE]["median"]}
        whole = replay["median"] if replay else 1e9 / stages[TOTAL]["median"]
        rates = {name: 1e9 / ns for name, ns in ours.items()} | {"everything": whole}
        found = peers.measure_peers(i.path, pythons, 3, plan.peer_scale)
        peers.add_ratios(found, rates)
        _show({i.name: found})
        part[i.name] = found | {compare.OURS: {name: round(rate) for name, rate in rates.items()}}
    return part


def _show(part: dict[str, Any]) -> None:
    """Every figure and every skip, a line each."""
    for name, f in compare.figures(part):
        spread = f"{compare.number(f['min'])} to {compare.number(f['max'])}" if f["runs"] > 1 else ""
        print(f"  {name:<62} {compare.number(f['median']):>12} {f['unit']:<18} {spread}", flush=True)
    for name, why in compare.skips(part):
        print(f"  {name}: skipped: {why}", flush=True)
