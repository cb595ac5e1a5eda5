"""Intel lists: what is read of them, what is found, what is forgotten."""

from __future__ import annotations

import ipaddress
import json
import os
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from engine.config import IntelConfig
from engine.detect.finding import Finding
from engine.detect.intel import Intel
from engine.detect.intel_index import IntelIndex
from engine.detect.intel_lists import Entry, classify, read_entries
from engine.errors import ConfigError
from engine.packets import A_DST_HI, A_SRC_HI, HAS_IP, S_IP_VERSION, PacketBatch
from tests.builders import ethernet, ipv4, vxlan
from tests.engine.detect.signing import Bench, datagram, datagram6, session

JA3 = "769c0b0c0a0f0e0d0c0b0a0908070605"
JA4 = "t13d1516h2_8daaf6152771_b0da82dd1658"


def _intel(tmp_path: Path, *lines: str, **values: Any) -> Intel:
    path = tmp_path / "bad.txt"
    path.write_text("\n".join(lines) + "\n")
    return Intel(IntelConfig(lists=(str(path),), **values))


def _find(intel: Intel, frames: list[bytes], times: list[float] | None = None) -> list[Finding]:
    try:
        return Bench(intel).send(frames, times or ()).close()  # type: ignore[arg-type]
    finally:
        intel.close()


def _read(text: str) -> list[tuple[str, str]]:
    return [(e.kind, e.value) for e in read_entries(text, "l")]


# --- lists --------------------------------------------------------------------------------------------------------


def test_lists__plain_lines() -> None:
    text = f"# head\n192.0.2.1 # c2\n198.51.100.0/24\n\n2001:DB8::1\nEvil.Example.\n*.bad.test\n{JA3.upper()}\n{JA4}\n"
    assert _read(text) == [
        ("ip", "192.0.2.1"), ("ip", "198.51.100.0/24"), ("ip", "2001:db8::1"), ("domain", "evil.example"),
        ("domain", "bad.test"), ("ja3", JA3), ("ja4", JA4),
    ]  # fmt: skip
    assert next(read_entries(text, "l")).about == "c2"


def test_lists__hosts_files_urls_and_defanged() -> None:
    assert _read("0.0.0.0 ads.test\n127.0.0.1\tx.test\nhttps://u@a.test:8443/x?y\n203.0.113[.]9:443\n") == [
        ("domain", "ads.test"), ("domain", "x.test"), ("domain", "a.test"), ("ip", "203.0.113.9"),
    ]  # fmt: skip


def test_lists__csv_with_header() -> None:
    text = '# feed\n"first_seen","dst_ip","malware","valid_until"\n"2024","203.0.113.7","Q, bot","2030-01-01"\n'
    assert list(read_entries(text, "l")) == [Entry("ip", "203.0.113.7", "l", "Q, bot", 1_893_456_000)]


def test_lists__misp_and_stix() -> None:
    misp = {"response": [{"Event": {"info": "Op", "Attribute": [
        {"type": "ip-dst|port", "value": "203.0.113.7|80"}, {"type": "domain", "value": "e.test", "comment": "c"},
        {"type": "md5", "value": "x"}],
        "Object": [{"Attribute": [{"type": "ja3-fingerprint-md5", "value": JA3}]}]}}]}  # fmt: skip
    found = list(read_entries(json.dumps(misp), "l"))
    assert [(e.kind, e.value, e.about) for e in found] == [
        ("ip", "203.0.113.7", "Op"), ("domain", "e.test", "c"), ("ja3", JA3, "Op"),
    ]  # fmt: skip
    stix = {"type": "bundle", "objects": [{"type": "indicator", "name": "n", "valid_until": "2030-01-01T00:00:00Z",
            "pattern": "[ipv4-addr:value = '203.0.113.7' OR domain-name:value = 'e.test']"}]}  # fmt: skip
    assert [(e.value, e.until, e.about) for e in read_entries(json.dumps(stix), "l")] == [
        ("203.0.113.7", 1_893_456_000, "n"), ("e.test", 1_893_456_000, "n"),
    ]  # fmt: skip


@pytest.mark.parametrize(
    "text", ["", "0.0.0.0", "127.0.0.1", "0.0.0.0/0", "::1", "1.2.3", "com", "a b", "224.0.0.1", "x" * 600, "-a.test"]
)
def test_lists__what_must_not_be_listed(text: str) -> None:
    assert classify(text) is None


_KEYS = st.sampled_from(["type", "value", "pattern", "objects", "Event", "Attribute"])
_JSON = st.recursive(
    st.none() | st.text(max_size=9) | st.integers(),
    lambda x: st.lists(x, max_size=3) | st.dictionaries(_KEYS, x, max_size=4),
    max_leaves=12,
)


@given(st.text(max_size=300) | st.binary(max_size=300).map(lambda b: b.decode("latin-1")) | _JSON.map(json.dumps))
def test_lists__any_text_is_survived(text: str) -> None:
    list(read_entries(text, "l"))


# --- look-ups -----------------------------------------------------------------------------------------------------

_V4 = st.integers(1 << 24, (1 << 24) + 2000) | st.integers(0, (1 << 32) - 1)
_V6 = st.integers(1 << 125, (1 << 125) + 2000) | st.integers(1 << 64, (1 << 128) - 1)


@settings(max_examples=150, deadline=None)
@given(
    st.lists(st.tuples(_V4, st.integers(8, 32)), max_size=12),
    st.lists(st.tuples(_V6, st.integers(16, 128)), max_size=12),
    st.lists(_V4, max_size=8), st.lists(_V6, max_size=8),
)  # fmt: skip
def test_index__equals_a_slow_search(
    nets4: list[tuple[int, int]], nets6: list[tuple[int, int]], some4: list[int], some6: list[int]
) -> None:
    networks = [ipaddress.ip_network((n, p), strict=False) for n, p in nets4]
    networks6 = [ipaddress.ip_network((n, p), strict=False) for n, p in nets6]
    every = [*networks, *networks6]
    index = IntelIndex([Entry("ip", str(n), "l") for n in every])
    asked = [(a, False) for a in some4 + [n for net in networks for n in (int(net[0]), int(net[-1]))]]
    asked += [(a, True) for a in some6 + [n for net in networks6 for n in (int(net[0]), int(net[-1]))]]
    packets = PacketBatch(rows=max(1, len(asked)))
    packets.present[:] = HAS_IP
    for row, (address, v6) in enumerate(asked):
        packets.short[S_IP_VERSION, row] = 6 if v6 else 4
        packets.address[A_SRC_HI : A_SRC_HI + 2, row] = address >> 64, address & (1 << 64) - 1
        packets.address[A_DST_HI : A_DST_HI + 2, row] = (0xFE80 << 48, 1) if v6 else (0, 0)
    hits = np.zeros((4, 4 * len(asked) + 4), np.int64)
    n, row = index.find_addresses(packets.short, packets.address, packets.present, 0, len(asked), hits)
    assert row == len(asked)
    found = {int(r): str(every[e]) for r, e, side, _ in hits[:, :n].T if side == 0}
    for number, (address, v6) in enumerate(asked):
        holding = [x for x in every if (x.version == 6) == v6 and ipaddress.ip_address(address if not v6 else
                   ipaddress.IPv6Address(address)) in x]  # fmt: skip
        best = max(holding, key=lambda x: x.prefixlen, default=None)
        assert found.get(number) == (None if best is None else str(best))


def test_index__names_and_their_parents() -> None:
    index = IntelIndex([Entry("domain", "evil.test", "l"), Entry("domain", "a.evil.test", "l"), Entry("ja3", JA3, "l")])
    names = ["evil.test", "EVIL.test.", "x.evil.test", "b.a.evil.test", "notevil.test", "test", "", "." * 300]
    assert [index.find_name(n) for n in names] == [0, 0, 0, 1, None, None, None, None]
    assert (index.find_hash(JA3), index.find_hash(JA4)) == (2, None)


# --- the stage ----------------------------------------------------------------------------------------------------


def test_take__the_side_that_came_first_is_the_source(tmp_path: Path) -> None:
    (found,) = _find(_intel(tmp_path, "192.0.2.200 # c2"), session(b"x", (b"y",)))
    assert (found.src_ip, found.dst_ip, found.dst_port, found.severity) == ("10.1.2.3", "192.0.2.200", 80, "high")
    assert (found.kind, found.evidence["indicator"], found.evidence["about"]) == ("intel", "192.0.2.200", "c2")
    assert found.packets == (1,)


def test_take__inbound_networks_ipv6_and_tunnels(tmp_path: Path) -> None:
    intel = _intel(tmp_path, "192.0.2.0/24", "2001:db8::/32")
    found = _find(intel, [datagram(b"x", answer=True), datagram6(b"x")])
    assert [(f.src_ip, f.severity) for f in found] == [("192.0.2.200", "medium"), ("2001:db8::1", "medium")]
    tunnel = ethernet(ipv4(vxlan(datagram(b"x")), 17, dst=bytes([10, 9, 9, 9])))
    (inner,) = _find(_intel(tmp_path, "192.0.2.200"), [tunnel])
    assert (inner.src_ip, inner.dst_ip, inner.dst_port) == ("10.1.2.3", "192.0.2.200", 6000)


def test_take__a_pair_is_told_again_after_a_while(tmp_path: Path) -> None:
    intel = _intel(tmp_path, "192.0.2.200", repeat_s=60)
    bench = Bench(intel)  # type: ignore[arg-type]
    for at in (0, 1, 30, 61, 62):
        bench.send([datagram(b"x")], [at])
    assert [f.count for f in bench.close()] == [1, 3]
    assert intel.hits.total() == 5
    assert "5 hits" in intel.report()[0]
    intel.close()


def test_rows__names_and_fingerprints(tmp_path: Path) -> None:
    intel = _intel(tmp_path, "evil.test", JA3, JA4)
    own = {"ts": 1, "src_ip": "10.0.0.1", "dst_ip": "10.0.0.2", "dst_port": 443, "flow_id": 7}
    rows = [{**own, "sni": "good.test", "ja3": JA3, "ja4": "t" + JA4[1:]}]
    found = intel.application_rows("tls", rows)
    assert [(f.evidence["type"], f.domain, f.flow_ids) for f in found] == [("ja3", None, (7,)), ("ja4", None, (7,))]
    assert intel.application_rows("dns", [{**own, "query": "X.evil.test"}])[0].domain == "X.evil.test"
    assert intel.application_rows("http", [{**own, "dst_ip": "10.0.0.3", "host": "evil.test:8080"}])
    assert not intel.application_rows("ssh", [{**own, "host": "evil.test"}])


def test_expiry__by_entry_and_by_age_of_the_list(tmp_path: Path) -> None:
    csv = ("ip,valid_until", "192.0.2.200,2001-01-01")
    assert not _find(_intel(tmp_path, *csv), [datagram(b"x")])
    assert _find(_intel(tmp_path, csv[0], "192.0.2.200,2100-01-01"), [datagram(b"x")])
    path = tmp_path / "bad.txt"
    os.utime(path, (1, 1))
    old = Intel(IntelConfig(lists=(str(path),), max_age_days=30))
    assert not _find(old, [datagram(b"x")])
    assert "not used" in old.report()[0]


def test_refresh__a_changed_file_is_read_again_a_missing_one_kept(tmp_path: Path) -> None:
    intel, path = _intel(tmp_path, "192.0.2.1"), tmp_path / "bad.txt"
    assert not intel.refresh()
    path.write_text("192.0.2.200\n192.0.2.3\n")
    assert intel.refresh()
    path.unlink()
    assert not intel.refresh()
    assert "No such file" in intel.report()[0]
    assert _find(intel, [datagram(b"x")])


def test_lists__missing_file_is_an_error_and_a_url_is_not_fetched_by_default() -> None:
    with pytest.raises(ConfigError, match=r"nowhere\.txt"):
        Intel(IntelConfig(lists=("nowhere.txt",)))
    intel = Intel(IntelConfig(lists=("http://127.0.0.1:1/x",)))
    assert "not fetched" in intel.report()[0]
    intel.close()
