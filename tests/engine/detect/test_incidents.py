"""Findings to incidents: extended, closed, bounded, suppressed; the same however they are cut into batches."""

from __future__ import annotations

import json
import time
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from engine import alert_row
from engine.alert_config import AlertsConfig, KindConfig, SuppressConfig
from engine.detect import finding as finding_module
from engine.detect.evidence import Evidence, clean
from engine.detect.finding import Finding
from engine.detect.incidents import BUDGET, Incidents

NOON = 1_795_521_600_000_000
S = 1_000_000


def at(seconds: float, kind: str = "port_scan", **given: Any) -> Finding:
    values = {"severity": "medium", "why": f"at {seconds}", "src_ip": "10.0.0.1", "dst_ip": "10.0.0.2"} | given
    return Finding(ts=NOON + int(seconds * S), kind=kind, **values)


def run(findings: list[Finding], cuts: tuple[int, ...] = (), **config: Any) -> tuple[list[dict[str, Any]], Incidents]:
    """All rows, of findings that come in batches that end at the cuts."""
    rows: list[dict[str, Any]] = []
    incidents = Incidents(AlertsConfig(**config), rows.extend)
    ends = [*sorted(cuts), len(findings)]
    begin = 0
    for end in ends:
        batch = findings[begin:end]
        clock = max([f.ts for f in findings[:end]], default=NOON)
        incidents._looked_at = 0.0  # as if half a second had passed
        incidents.take(batch, clock)
        begin = end
    incidents.close()
    return rows, incidents


def final(rows: list[dict[str, Any]]) -> list[tuple[Any, ...]]:
    """The last state of each incident, without how often it was written."""
    newest = {row["incident_id"]: row for row in rows if row.get("incident_id")}
    assert all(row["event"] == "closed" for row in newest.values())
    return [tuple((k, str(v)) for k, v in row.items() if k != "revision") for row in newest.values()]


def opened(rows: list[dict[str, Any]]) -> list[dict[str, Any]]:
    return [row for row in rows if row["event"] == "opened"]


def test_severities__are_those_of_findings() -> None:
    assert alert_row.SEVERITIES == finding_module.SEVERITIES


def test_incident__opens_goes_on_and_ends() -> None:
    rows, incidents = run([at(0, count=3), at(30, severity="high"), at(80, severity="low", confidence=0.5)])
    assert [row["event"] for row in rows] == ["opened", "updated", "closed"]  # updated at once: it became graver
    last = rows[-1]
    assert (last["count"], last["severity"], last["confidence"], last["why"]) == (5, "high", 1.0, "at 80")
    assert (last["first_seen"], last["last_seen"]) == (NOON, NOON + 80 * S)
    assert [row["revision"] for row in rows] == [1, 2, 3]
    assert (incidents.counts.opened, incidents.counts.closed, incidents.open) == (1, 1, 0)


def test_incident__a_new_one_only_after_the_cooldown() -> None:
    assert len(opened(run([at(0), at(60)])[0])) == 1
    rows = run([at(0), at(60.001)])[0]
    assert [row["event"] for row in rows] == ["opened", "closed", "opened", "closed"]
    assert rows[1]["ts"] == NOON + 60 * S
    assert rows[0]["incident_id"] != rows[2]["incident_id"]


def test_incident__one_for_each_kind_and_pair() -> None:
    rows = run([at(0), at(0, kind="syn_flood"), at(0, src_ip=None), at(0, dst_ip="10.0.0.3"), at(1)])[0]
    assert len(opened(rows)) == 4


def test_cooldown__by_kind() -> None:
    kinds = (KindConfig(name="beacon", cooldown_s=300), KindConfig(name="odd", severity="critical"))
    rows = run([at(0, "beacon"), at(0, "odd"), at(299, "beacon"), at(299, "odd")], kind=kinds)[0]
    assert [row["kind"] for row in opened(rows)] == ["beacon", "odd", "odd"]
    assert opened(rows)[1]["severity"] == "critical"


def test_quiet_incident__is_closed_by_the_packets_clock() -> None:
    rows: list[dict[str, Any]] = []
    incidents = Incidents(AlertsConfig(), rows.extend)
    incidents.take([at(0)], NOON)
    for seconds, events in ((70, 1), (90, 2)):
        incidents._looked_at = 0.0
        incidents.tick(NOON + seconds * S)
        assert len(rows) == events
    assert rows[-1]["ts"] == NOON + 60 * S


def test_update__is_written_every_few_seconds_at_most() -> None:
    rows: list[dict[str, Any]] = []
    incidents = Incidents(AlertsConfig(), rows.extend)
    for n in range(600):  # a finding each 0.1 s
        incidents._looked_at = 0.0
        for incident in incidents._open.values():
            incident.written_at = 0.0  # as if the machine's clock went as fast
        incidents.take([at(n / 10)], NOON + n * S // 10)
    incidents.close()
    assert 11 <= len(rows) <= 14
    assert rows[-1]["count"] == 600


def test_evidence__newest_first_and_largest() -> None:
    findings = [
        at(n, evidence={"ports": p, "host": "a", "rate": r}) for n, (p, r) in enumerate([(5, 1.0), (9, 8.0), (30, 2.0)])
    ]
    evidence = json.loads(run(findings)[0][-1]["evidence"])
    assert evidence == {
        "ports": 30,
        "host": "a",
        "rate": 2.0,
        "first": {"ports": 5, "rate": 1.0},
        "peak": {"rate": 8.0},
    }


def test_evidence__texts_that_differ_are_all_kept() -> None:
    findings = [at(n, kind="signature", evidence={"signature": f"rule {n % 3}", "same": "x"}) for n in range(9)]
    evidence = json.loads(run(findings)[0][-1]["evidence"])
    assert evidence["all"] == {"signature": ["rule 0", "rule 1", "rule 2"]}
    assert (evidence["signature"], evidence["same"]) == ("rule 2", "x")


def test_examples__are_bounded_first_and_newest() -> None:
    rows = run([at(n / 100, flow_ids=(n,), packets=(n + 1,), source="eth0") for n in range(1000)])[0]
    assert rows[-1]["flow_ids"] == [*range(10), *range(990, 1000)]
    assert rows[-1]["packets"][-1] == 1000
    rows = run([at(0, packets=(1,), source="eth0"), at(1, packets=(2,), source="eth1")])[0]
    assert rows[-1]["packets"] == [1]  # numbers of another source would name other packets


def test_fields__stay_only_while_all_agree() -> None:
    rows = run([at(0, dst_port=22, proto=6, domain="a.example"), at(1, dst_port=23, proto=6, domain="a.example")])[0]
    assert (rows[0]["dst_port"], rows[-1]["dst_port"], rows[-1]["proto"]) == (22, None, 6)
    assert rows[-1]["domain"] == "a.example"


def test_million_findings_of_one_key__are_one_incident() -> None:
    rows: list[dict[str, Any]] = []
    incidents = Incidents(AlertsConfig(), rows.extend)
    batch = [at(n / 1000, evidence={"ports": n}, flow_ids=(n,)) for n in range(50_000)]
    began = time.process_time()
    for _ in range(20):
        incidents.take(batch, batch[-1].ts)
    cost = (time.process_time() - began) / 1e6
    incidents.close()
    assert len(opened(rows)) == 1
    assert rows[-1]["count"] == 1_000_000
    assert len(rows) < 100
    assert cost < 10e-6  # measured: 1.3 us


def test_budget__the_rest_is_counted_into_one_incident() -> None:
    many = [at(n, src_ip=f"10.0.{n // 256}.{n % 256}") for n in range(200)]
    rows, incidents = run(many, budget_per_hour=60)
    assert len(opened(rows)) == 61
    hidden = next(row for row in rows if row["kind"] == BUDGET and row["event"] == "closed")
    assert hidden["count"] == 140
    assert json.loads(hidden["evidence"])["incidents"] == 140
    assert json.loads(hidden["evidence"])["kinds"] == {"port_scan": 140}
    assert "140 more incidents" in hidden["why"]
    counts = incidents.counts
    assert counts.findings == sum(r["count"] for r in rows if r["event"] == "closed") == 200
    assert counts.over_budget == 140


def test_budget__is_severities_own_and_of_the_hour() -> None:
    low = [at(n, "anomaly", severity="low", src_ip=f"10.1.0.{n}") for n in range(20)]
    high = [at(30 + n, severity="high", src_ip=f"10.2.0.{n}") for n in range(5)]
    later = [at(3600 + n, "anomaly", severity="low", src_ip=f"10.3.0.{n}") for n in range(3)]
    rows = run([*low, *high, *later], low_budget_per_hour=10, budget_per_hour=5)[0]
    by_kind = [row["kind"] for row in opened(rows)]
    assert (by_kind.count("anomaly"), by_kind.count("port_scan"), by_kind.count(BUDGET)) == (13, 5, 1)
    assert next(row for row in opened(rows) if row["kind"] == BUDGET)["severity"] == "low"


def test_open_incidents__are_bounded() -> None:
    rows, incidents = run([at(n / 100, src_ip=f"10.0.0.{n}") for n in range(50)], max_open=10)
    assert incidents.counts.evicted == 40
    assert incidents.counts.closed == incidents.counts.opened == len(opened(rows)) == 50


@settings(max_examples=60, deadline=None)
@given(
    st.lists(
        st.tuples(
            st.floats(0, 40), st.integers(0, 5), st.sampled_from(["port_scan", "beacon", "x"]), st.integers(0, 9),
            st.sampled_from(["low", "medium", "high"]),
        ),
        max_size=60,
    ),
    st.lists(st.integers(0, 60), max_size=20),
    st.integers(1, 6),
)  # fmt: skip
def test_batches__the_same_incidents_however_cut(
    steps: list[tuple[float, int, str, int, str]], cuts: list[int], budget: int
) -> None:
    findings, now = [], 0.0
    for step, host, kind, late, severity in steps:
        now += step
        ts = now - min(late, now)  # up to nine seconds late
        findings.append(at(ts, kind, src_ip=f"10.0.0.{host}", severity=severity, evidence={"n": len(findings)}))
    config: dict[str, Any] = {"budget_per_hour": budget, "max_open": 4}
    whole, one = run(findings, **config)
    cut, other = run(findings, tuple(min(c, len(findings)) for c in cuts), **config)
    assert final(cut) == final(whole)
    assert one.counts == other.counts
    told = one.counts
    closed = [row["count"] for row in whole if row["event"] == "closed"]
    assert sum(closed) == told.findings  # nothing is lost


def test_second_savefile__may_be_older_than_the_first() -> None:
    rows, _ = run([at(0), at(-86_400 * 3000), at(-86_400 * 3000 + 1)])
    assert [row["event"] for row in rows] == ["opened", "closed", "opened", "closed"]
    assert rows[-1]["count"] == 2


def test_year_9999__does_not_stop_the_rest() -> None:
    far = 253_402_300_799 * S
    findings = [at(0), Finding(ts=far, kind="x", severity="low", why=""), at(1), at(2), at(3)]
    rows, incidents = run(findings)
    assert incidents.counts.findings == 5
    assert max(row["count"] for row in rows) == 3
    assert len(rows) < 10


@pytest.mark.parametrize(
    ("entry", "suppressed"),
    [
        ({"kinds": ("port_scan",)}, True),
        ({"kinds": ("syn_flood",)}, False),
        ({"src": ("10.0.0.0/24",)}, True),
        ({"src": ("10.0.1.0/24", "10.0.0.1")}, True),
        ({"src": ("10.0.0.2",)}, False),
        ({"dst": ("10.0.0.2",)}, True),
        ({"address": ("10.0.0.2/32",)}, True),
        ({"address": ("2001:db8::/32",)}, False),
        ({"ports": (22, 443)}, True),
        ({"ports": (80,)}, False),
        ({"domains": ("*.example.com",)}, True),
        ({"domains": ("EVIL.example.com.",)}, True),
        ({"domains": ("example.com",)}, False),
        ({"time": "11:00-13:00"}, True),
        ({"time": "13:00-11:00"}, False),
        ({"time": "22:00-12:01"}, True),
        ({"kinds": ("port_scan",), "src": ("192.168.0.0/16",)}, False),  # all must hold
    ],
)
def test_suppression__by_each_condition(entry: dict[str, Any], suppressed: bool) -> None:
    finding = at(0, dst_port=443, domain="evil.example.com", count=4)
    rows, incidents = run([finding], suppress=(SuppressConfig(**entry, reason="usual"),))
    assert incidents.counts.suppressed == (4 if suppressed else 0)
    assert [row["event"] for row in rows] == (["suppressed"] if suppressed else ["opened", "closed"])
    if suppressed:  # nothing is lost without a word
        assert (rows[0]["count"], rows[0]["kind"]) == (4, "port_scan")
        assert rows[0]["why"] == "by alerts.suppress number 1 (usual)"


def test_suppression__time_in_a_zone() -> None:
    pytest.importorskip("zoneinfo")
    entry = SuppressConfig(time="13:00-13:01", timezone="Europe/Berlin")  # noon UTC in November
    assert run([at(0)], suppress=(entry,))[1].counts.suppressed == 1
    assert run([at(61)], suppress=(entry,))[1].counts.suppressed == 0


def test_min_severity__below_is_counted() -> None:
    rows, incidents = run([at(0, severity="low"), at(1)], min_severity="medium")
    assert len(opened(rows)) == 1
    assert incidents.counts.below_severity == 1


def test_hostile_text__is_kept_as_it_looks() -> None:
    nasty = "a\x1b[31m\"'<script>\n\u202e\ud800\x00=cmd|' /C calc'!A0"
    rows = run([at(0, why=nasty, kind="k\n", src_ip="x\r", domain=nasty, evidence={nasty: [nasty, {nasty: b"\xff"}]})])[
        0
    ]
    row = rows[-1]
    for name in ("why", "kind", "src_ip", "domain", "evidence"):
        assert row[name].isprintable()
        row[name].encode()
    assert "<script>" in row["why"]  # escaping is for whoever shows it
    json.loads(row["evidence"])


@settings(max_examples=100, deadline=None)
@given(
    st.dictionaries(
        st.text(),
        st.recursive(
            st.none() | st.booleans() | st.integers() | st.floats() | st.text() | st.binary(),
            lambda inner: st.lists(inner) | st.dictionaries(st.text(), inner) | st.sets(st.integers()),
            max_leaves=30,
        ),
        max_size=60,
    )
)
def test_evidence__any_is_bounded_json(values: dict[str, Any]) -> None:
    evidence = Evidence(values)
    evidence.add(values)
    text = evidence.text()
    assert isinstance(json.loads(text), dict)
    assert len(text) < 20_000
    assert text.isprintable()


def test_clean__cuts_and_dots() -> None:
    assert clean("a\tb\u00a0c") == "a·b c"
    assert clean("x" * 600) == "x" * 499 + "…"
