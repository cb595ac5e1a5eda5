"""Labelled traffic of real tools: what is found, how soon, what is said of ordinary use. Real captures stay quiet."""

from __future__ import annotations

import csv
import json
import random
import re
from collections.abc import Iterable
from functools import cache
from pathlib import Path
from typing import Any

import pytest

from engine.detect.finding import Finding
from tests.detecting import Rig

SHARED = Path(__file__).parents[4] / "shared"
LABELLED, CAPTURES = SHARED / "detect", SHARED / "corpus" / "captures"
SETS = ("train", "val", "test1", "test2", "benign")
OTHERS = ("sqli", "web_attack", "c2_shell")  # signatures find these
NAMES = {  # what an operator accepts as the name
    "arp_scan": "arp_scan", "web_scan": "web_scan", "scan": "port_scan", "sweep": "host_sweep|ping_sweep",
    "arp_spoof": "arp_spoof", "flood": "_flood", "dns_": "dns_tunnel", "exfil": "exfiltration",
    "ssh_brute": "ssh_bruteforce",
    "slowloris": "slowloris", "beacon": "beacon",
}  # fmt: skip
ATTACKS = ("nDPI--bad-dns-traffic.pcap", "nDPI--tcp_scan.pcapng")
GRACE_S, COOLDOWN_S = 10.0, 60.0

pytestmark = [
    pytest.mark.corpus,
    pytest.mark.skipif(not LABELLED.is_dir(), reason=f"no labelled traffic at {LABELLED}"),
]


def incidents(findings: Iterable[Finding]) -> list[Finding]:
    """The first finding of a kind, source and victim; later ones within a minute extend it."""
    last: dict[Any, int] = {}
    first = []
    for f in sorted(findings, key=lambda f: f.ts):
        key = f.kind, f.src_ip, f.dst_ip
        if key not in last or f.ts - last[key] > COOLDOWN_S * 1e6:
            first.append(f)
        last[key] = f.ts
    return first


@cache
def alerts_of(name: str) -> tuple[Finding, ...]:
    return tuple(incidents(Rig().read(LABELLED / "data" / f"{name}.pcap.zst")))


def labels_of(name: str) -> list[dict[str, str]]:
    with open(LABELLED / "data" / f"{name}.intervals.csv") as file:
        return list(csv.DictReader(file))


def is_in(address: str, given: str) -> bool:
    return any(
        address == one or (one.endswith("/24") and address.startswith(one[:-4])) for one in given.split(";") if one
    )


def concerns(alert: Finding, label: dict[str, str]) -> bool:
    """The alert is about this attack: its time, and the pair, or the one of both that it names."""
    if not float(label["t_start"]) - 0.5 <= alert.ts / 1e6 <= float(label["t_end"]) + GRACE_S:
        return False
    src, dst, by, to = alert.src_ip or "", alert.dst_ip or "", label["attackers"], label["victims"]
    if src and dst:
        return (is_in(src, by) and is_in(dst, to)) or (is_in(dst, by) and is_in(src, to))
    return is_in(src or dst, by) or (label["type"].endswith("flood") and is_in(src or dst, to))


LABELS = [(name, label["attack_id"]) for name in SETS for label in labels_of(name)] if LABELLED.is_dir() else []


@pytest.mark.parametrize(("name", "attack"), LABELS)
def test_attack__named_in_time_and_not_too_often(name: str, attack: str) -> None:
    label = next(label for label in labels_of(name) if label["attack_id"] == attack)
    kind = label["type"]
    if kind in OTHERS:
        pytest.skip("found by signatures")
    goal = json.loads((LABELLED / "goals.json").read_text())["attacks"][kind]
    hits = [a for a in alerts_of(name) if concerns(a, label)]
    wanted = next(pattern for part, pattern in NAMES.items() if part in kind)
    named = [a.ts / 1e6 - float(label["t_start"]) for a in hits if re.search(wanted, a.kind)]
    assert named, f"not found; {[a.kind for a in hits]}"
    assert named[0] <= goal["within_s"]
    assert len(hits) <= goal["max_alerts"]


@pytest.mark.parametrize("name", SETS if LABELLED.is_dir() else ())
def test_ordinary_use__no_false_alert(name: str) -> None:
    labels = labels_of(name)
    assert [(a.kind, a.why) for a in alerts_of(name) if not any(concerns(a, label) for label in labels)] == []


@pytest.mark.parametrize("name", ["val", "test2"])
def test_cutting__same_findings(name: str) -> None:
    path = LABELLED / "data" / f"{name}.pcap.zst"
    whole, cut = Rig(), Rig()

    def by_packets(found: list[Finding]) -> list[Any]:
        return [(f.ts, f.kind, f.src_ip, f.dst_ip, f.count, f.why) for f in found if not f.flow_ids]

    def by_rows(found: list[Finding]) -> list[Any]:
        return [(f.ts, f.kind, f.src_ip, f.dst_ip, f.count, f.why) for f in found if f.flow_ids]

    first, second = whole.read(path), cut.read(path, random.Random(1))
    assert by_packets(first) == by_packets(second)
    assert by_rows(first) == by_rows(second)
    assert whole.windows == cut.windows


@pytest.mark.skipif(not CAPTURES.is_dir(), reason=f"no captures at {CAPTURES}")
def test_captures__applications_stay_quiet() -> None:
    """Of nDPI's captures of applications at most 2 % say more than low."""
    rig, loud, files = Rig(), [], 0
    for path in sorted(CAPTURES.glob("nDPI--*")):
        if path.name in ATTACKS:
            continue
        files += 1
        if any(f.severity != "low" for f in rig.read(path)):
            loud.append(path.name)
    assert files > 50
    assert len(loud) <= max(1, files // 50), loud


@pytest.mark.skipif(not CAPTURES.is_dir(), reason=f"no captures at {CAPTURES}")
@pytest.mark.parametrize(
    ("capture", "kind"),
    [("zeek--bruteforce.pcap", "ftp_bruteforce"), (ATTACKS[0], "dns_tunnel"), (ATTACKS[1], "port_scan")],
)
def test_captures__attacks_of_others(capture: str, kind: str) -> None:
    if not (CAPTURES / capture).exists():
        pytest.skip("not among the captures")
    assert kind in {f.kind for f in Rig().read(CAPTURES / capture)}
