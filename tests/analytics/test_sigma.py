"""Sigma rules over a lake of real captures: the same rows as SQL written by hand, and what is refused."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

import analytics
from analytics.rule_runner import LakeRule, check, find, open_session
from analytics.sigma import load
from analytics.sigma_fields import CONNECTIONS, DNS, HTTP, TLS, Field, Source
from tests.commands import ROOT, engine

CORPUS = ROOT.parent / "shared" / "corpus" / "captures"
CAPTURES = (
    "arkime--http-301-get.pcap", "arkime--dns-mx.pcap", "ja4--tls12.pcap", "arkime--dns-punycode.pcap",
    "PcapPlusPlus--four_ipv6_http_streams.pcap", "ja4--browsers-x509.pcapng", "ja4--latest.pcapng",
)  # fmt: skip

# (log source, detection, the rows it means as `VIEW WHERE ...`)
RULES: dict[str, tuple[dict[str, str], dict[str, Any], str]] = {
    "dns, startswith": (
        {"category": "dns"}, {"s": {"query|startswith": "XN--"}, "condition": "s"}, "dns WHERE query[:4] = 'xn--'",
    ),
    "dns, endswith and a list of types": (
        {"category": "dns"},
        {"s": {"query|endswith": [".corp", ".home", ".net"], "record_type": "a"}, "condition": "s"},
        "dns WHERE qtype = 'A' AND (suffix(query, '.corp') OR suffix(query, '.home') OR suffix(query, '.net'))",
    ),
    "dns, 1 of and not": (
        {"product": "zeek", "service": "dns"},
        {"a_1": {"rcode_name": "NXDOMAIN"}, "a_2": {"qtype_name": "MX"}, "f": {"query|contains": "upmc"},
         "condition": "1 of a_* and not f"},
        "dns WHERE (rcode = 'NXDOMAIN' OR qtype = 'MX') AND query NOT LIKE '%upmc%'",
    ),
    "dns, cidr in a list of answers": (
        {"category": "dns"}, {"s": {"answer|cidr": "34.192.0.0/10"}, "condition": "s"},
        "dns WHERE len(list_filter(answers, lambda a: a LIKE '34.2__.%' OR a LIKE '34.19_.%')) > 0",
    ),
    "dns, null": (
        {"category": "dns"}, {"s": {"rcode_name": None}, "condition": "s"}, "dns WHERE rcode IS NULL",
    ),
    "dns, exists and a number": (
        {"category": "dns"}, {"s": {"answer|exists": True, "question_length|gte": 30}, "condition": "s"},
        "dns WHERE answers IS NOT NULL AND length(query) >= 30",
    ),
    "connections, cidr of both families": (
        {"category": "network_connection"},
        {"s": {"DestinationIp|cidr": ["13.0.0.0/8", "2001:618::/32"]}, "condition": "s"},
        "connections WHERE starts_with(dst_ip, '13.') OR starts_with(dst_ip, '2001:618:')",
    ),
    "connections, an address spelled otherwise": (
        {"category": "firewall"}, {"s": {"dst_ip": "2001:0618:0001:8000:0:0:0:5"}, "condition": "s"},
        "connections WHERE dst_ip = '2001:618:1:8000::5'",
    ),
    "connections, ports and not cidr": (
        {"category": "network_connection"},
        {"s": {"DestinationPort": [80, 443]}, "f": {"DestinationIp|cidr": "172.16.0.0/12"},
         "g": {"Protocol": "udp"}, "condition": "s and not 1 of f* and not g"},
        "connections WHERE dst_port IN (80, 443) AND proto = 6 AND NOT dst_ip[:6] BETWEEN '172.16' AND '172.31'",
    ),
    "connections, Zeek's names and sizes": (
        {"product": "zeek", "service": "conn"},
        {"s": {"service": "ssl", "orig_bytes|gt": 3000, "id.resp_p": 443}, "condition": "s"},
        "connections WHERE app = 'tls' AND src_payload > 3000 AND dst_port = 443",
    ),
    "connections, not of what is absent": (
        {"category": "network"}, {"s": {"dst_port": 443}, "f": {"service": "ssl"}, "condition": "s and not f"},
        "connections WHERE dst_port = 443 AND app IS DISTINCT FROM 'tls'",
    ),
    "http, contains all": (
        {"category": "proxy"}, {"s": {"c-useragent|contains|all": ["konqueror", "kubuntu"]}, "condition": "s"},
        "http WHERE user_agent LIKE '%Konqueror%' AND user_agent LIKE '%Kubuntu%'",
    ),
    "http, regular expression": (
        {"category": "webserver"}, {"s": {"cs-uri-query|re": r"^/images/[a-z0-9_]+\.jpg$"}, "condition": "s"},
        "http WHERE starts_with(path, '/images/') AND suffix(path, '.jpg')",
    ),
    "http, regular expression without case": (
        {"category": "webserver"}, {"s": {"cs-uri-query|re|i": r"^/IMAGES/"}, "condition": "s"},
        "http WHERE starts_with(path, '/images/')",
    ),
    "http, whole URL, stem, query and extension": (
        {"category": "proxy"},
        {"s": {"c-uri|startswith": "http://6", "cs-uri-stem|endswith": "/log.php3", "c-uri-query|contains": "Image",
               "c-uri-extension": "php3"}, "condition": "s"},
        "http WHERE host = '6bone.informatik.uni-leipzig.de'",
    ),
    "http, a wildcard and characters that LIKE knows": (
        {"category": "proxy"},
        {"s": {"c-uri": "*/top_b?round.jpg"}, "t": {"c-uri|contains": "top_"}, "u": {"c-uri|contains": "topx"},
         "condition": "s and t and not u"},
        "http WHERE path = '/images/top_bground.jpg'",
    ),
    "http, cased": (
        {"category": "proxy"}, {"s": {"cs-method|cased": "get"}, "t": {"sc-status": 301}, "condition": "t and not s"},
        "http WHERE status = 301",
    ),
    "http, a quotation mark": (
        {"category": "proxy"}, {"s": {"c-useragent|contains": "' OR 1=1 --"}, "t": {"sc-status": "301"},
                                "condition": "s or t"},
        "http WHERE status = 301",
    ),
    "tls, subject and names": (
        {"product": "zeek", "service": "ssl"},
        {"s": {"version": "TLSv12", "issuer|contains": "microsoft"}, "f": {"san.dns|startswith": "apprep."},
         "condition": "s and not f"},
        "tls WHERE version = 'TLS 1.2' AND cert_issuer LIKE '%Microsoft%' AND sni = 'edge.microsoft.com'",
    ),
    "tls, all of them": (
        {"category": "tls"}, {"a": {"ja3": "34FCB8E0EF812F18E760B52314A54FD0"}, "b": {"sni": "EDGE.*"},
                              "condition": "all of them"},
        "tls WHERE sni = 'edge.microsoft.com'",
    ),
}  # fmt: skip


def text_of(name: str, where: dict[str, str], detection: dict[str, Any], **more: Any) -> str:
    return yaml.safe_dump({"title": name, "logsource": where, "detection": detection, "level": "high", **more})


@pytest.fixture(scope="module")
def lake(tmp_path_factory: pytest.TempPathFactory) -> Path:
    if not CORPUS.is_dir():
        pytest.skip("no captures beside the project")
    path = tmp_path_factory.mktemp("sigma") / "lake"
    done = engine("replay", *(CORPUS / name for name in CAPTURES), "--lake", path, "--no-detection", "--frames", "off")
    assert done.returncode == 0, done.stderr
    return path


@pytest.fixture
def session(lake: Path) -> Iterator[Any]:
    con = open_session(lake)
    yield con
    con.close()


@pytest.mark.corpus
@pytest.mark.parametrize("name", RULES)
def test_a_rule__finds_what_sql_by_hand_finds(name: str, lake: Path, session: Any, tmp_path: Path) -> None:
    where, detection, meant = RULES[name]
    (tmp_path / "rule.yml").write_text(text_of(name, where, detection))
    rules, refused = load([str(tmp_path)])
    assert not refused
    found = find(session, rules[0], None, None)
    with analytics.connect(lake) as con:
        rows = con.execute(f"SELECT epoch_us(ts), src_ip, dst_ip, dst_port FROM {meant} ORDER BY ALL").fetchall()
        view = meant.split()[0]
        everything = con.execute(f"SELECT count(*) FROM {view}").fetchone()
    assert sorted((f.ts, f.src_ip, f.dst_ip, f.dst_port) for f in found) == rows
    assert 0 < len(rows) < everything[0]  # the rule tells rows apart
    assert {(f.kind, f.severity, f.evidence["signature"]) for f in found} == {("sigma", "high", name)}


@pytest.mark.corpus
@pytest.mark.parametrize("source", [CONNECTIONS, DNS, HTTP, TLS], ids=lambda s: s.table)
def test_fields__each_is_sql_that_runs(source: Source, session: Any, tmp_path: Path) -> None:
    def tests(field: Field) -> dict[str, Any]:
        own = {"number": {"": 7, "|gt": 3, "|re": "^1"}, "bool": {"": True}, "ip": {"|cidr": "10.0.0.0/8", "": "10.*"}}
        return own.get(field.type, {"": "x", "|contains|cased": "y", "|re": "z+"})

    detection: dict[str, Any] = {
        f"s{n}": {name + modifier: value for modifier, value in tests(field).items()} | {f"{name}|exists": True}
        for n, (name, field) in enumerate(source.fields.items())
    }
    category = {"connections": "network", "http": "proxy"}.get(source.table, source.table)
    (tmp_path / "all.yml").write_text(text_of("all", {"category": category}, detection | {"condition": "1 of s*"}))
    rules, refused = load([str(tmp_path)])
    assert not refused
    check(session, rules[0])


REFUSED = {
    "Image has no column": ({"category": "network_connection"}, {"s": {"Image": "x"}, "condition": "s"}),
    "product windows": ({"product": "windows", "service": "security"}, {"s": {"a": "x"}, "condition": "s"}),
    "keywords": ({"category": "webserver"}, {"s": ["union select"], "condition": "s"}),
    "RE2": ({"category": "dns"}, {"s": {"query|re": "a(?=b)"}, "condition": "s"}),
    "placeholder": ({"category": "dns"}, {"s": {"query|expand": "%names%"}, "condition": "s"}),
    "no address": ({"category": "dns"}, {"s": {"query|cidr": "10.0.0.0/8"}, "condition": "s"}),
    "is a number": ({"category": "network"}, {"s": {"dst_port": "https"}, "condition": "s"}),
    "is no number": ({"category": "dns"}, {"s": {"query|gt": 5}, "condition": "s"}),
    "truth value": ({"category": "dns"}, {"s": {"AA": "perhaps"}, "condition": "s"}),
    "fieldref": ({"category": "network"}, {"s": {"src_ip|fieldref": "dst_ip"}, "condition": "s"}),
    "parts of a time": ({"category": "network"}, {"s": {"duration|hour": 3}, "condition": "s"}),
    "pipe": ({"category": "dns"}, {"s": {"query": "x"}, "condition": "s | count() > 5"}),
    "NUL": ({"category": "dns"}, {"s": {"query": "a\0b"}, "condition": "s"}),
    "timeframe": ({"category": "dns"}, {"s": {"query": "x"}, "timeframe": "5m", "condition": "s"}),
}


@pytest.mark.parametrize("reason", REFUSED)
def test_refused__whole_and_with_the_reason(reason: str, tmp_path: Path) -> None:
    where, detection = REFUSED[reason]
    (tmp_path / "rule.yml").write_text(text_of("a rule", where, detection))
    rules, refused = load([str(tmp_path)])
    assert not rules
    assert len(refused) == 1
    assert reason.lower() in str(refused[0]).lower()
    assert "\n" not in str(refused[0])


def test_refused__files_that_are_none(tmp_path: Path) -> None:
    texts = {
        "not YAML in line": "a: [", "no Sigma rule": "- 1\n- 2\n", "holds no Sigma": "", "not UTF-8": b"\xff\xfe",
        "correlation": "title: c\ncorrelation: {type: event_count, rules: [r], timespan: 1m, condition: {gte: 3}}\n",
        "detection": "title: x\nlogsource: {category: dns}\n",
        "log source": "title: x\nlogsource: 7\ndetection: {s: {query: x}, condition: s}\n",
    }  # fmt: skip
    for number, (reason, text) in enumerate(texts.items()):
        folder = tmp_path / str(number)
        folder.mkdir()
        (folder / "x.yaml").write_bytes(text if isinstance(text, bytes) else text.encode())
        rules, refused = load([str(folder)])
        assert not rules, reason
        assert [reason.lower() in str(r).lower().replace("logsource", "log source") for r in refused] == [True], refused


def test_refused__an_id_that_stands_twice(tmp_path: Path) -> None:
    text = text_of(
        "a", {"category": "dns"}, {"s": {"query": "x"}, "condition": "s"}, id="0" * 8 + "-0000-4000-8000-" + "1" * 12
    )
    (tmp_path / "a.yml").write_text(text)
    (tmp_path / "b.yml").write_text(text)
    rules, refused = load([str(tmp_path)])
    assert len(rules) == 1
    assert "twice" in str(refused[0])


_TEXTS = st.sampled_from([
    "s", "query", "query|re", "query|contains|all", "answer|cidr", "AA", "title", "logsource", "detection", "condition",
    "category", "dns", "level", "1 of s*", "not s and (", "all of them", "id", "|", "*", "%x%", "10.0.0.0/8", "action",
    "global", "correlation", "filter", "a'b", "\\", "tags", "timeframe", "query|base64offset|contains", "fields",
])  # fmt: skip
_VALUES = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | _TEXTS | st.text(max_size=5),
    lambda x: st.lists(x, max_size=3) | st.dictionaries(_TEXTS | st.integers(), x, max_size=4),
    max_leaves=10,
)
_RULES = _VALUES | st.fixed_dictionaries({
    "title": _VALUES, "logsource": st.just({"category": "dns"}) | _VALUES,
    "detection": st.fixed_dictionaries({"s": _VALUES, "condition": st.just("s") | _TEXTS}) | _VALUES,
})  # fmt: skip


@settings(deadline=None, max_examples=200, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(st.lists(_RULES, min_size=1, max_size=2))
def test_load__any_document_is_rules_or_refused(tmp_path: Path, documents: list[Any]) -> None:
    (tmp_path / "any.yml").write_text(yaml.safe_dump_all(documents))
    rules, refused = load([str(tmp_path)])
    assert rules or refused
    assert all("\n" not in str(r) for r in refused)


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    (tmp_path / "rules").mkdir()
    for number, name in enumerate(("dns, startswith", "http, cased")):
        where, detection, _ = RULES[name]
        (tmp_path / "rules" / f"{number}.yml").write_text(text_of(name, where, detection))
    return tmp_path / "rules"


@pytest.mark.corpus
def test_command__prints_hits_and_makes_alerts_once(lake: Path, folder: Path) -> None:
    checked = engine("rules", "check", folder)
    assert (checked.returncode, checked.stdout) == (0, "Sigma: 2 rules used, 0 refused\n")
    shown = engine("sigma", "run", folder, "--lake", lake, "--format", "json")
    assert shown.returncode == 0, shown.stderr
    assert [(r["rule"], r["domain"]) for r in json.loads(shown.stdout)] == [
        ("http, cased", "www.github.com"), ("dns, startswith", "xn--80a0adav.xn--80ao21a"),
    ]  # fmt: skip
    some = engine(
        "sigma", "run", folder, "--lake", lake, "--format", "csv", "--since", "2015-01-01", "--until", "2019-01-01"
    )
    assert some.stdout.count("\n") == 2
    for _ in range(2):  # what is an alert already does not become another
        assert engine("sigma", "run", folder, "--lake", lake, "--alert").returncode == 0
        with analytics.connect(lake) as con:
            rows = con.execute(
                "SELECT kind, severity, \"count\", evidence->>'signature' FROM alerts ORDER BY 4"
            ).fetchall()
        assert rows == [("sigma", "high", 1, "dns, startswith"), ("sigma", "high", 1, "http, cased")]


@pytest.mark.corpus
def test_command__says_in_one_line_what_is_wrong(lake: Path, folder: Path, tmp_path: Path) -> None:
    (folder / "bad.yml").write_text(text_of("bad", {"category": "dns"}, {"s": {"Image": "x"}, "condition": "s"}))
    checked = engine("rules", "check", folder)
    assert checked.returncode == 2
    assert "rule 'bad' refused: field Image has no column in dns" in checked.stdout
    for words in (["nothing.yml"], [str(tmp_path / "empty")]):
        (tmp_path / "empty").mkdir(exist_ok=True)
        done = engine("sigma", "run", *words, "--lake", lake)
        assert done.returncode == 2
        assert done.stderr.count("\n") == 1


def test_rules_of_one_kind__are_told_apart(tmp_path: Path) -> None:
    (tmp_path / "a.yml").write_text(text_of("a", {"category": "dns"}, {"s": {"query": "x"}, "condition": "s"}))
    rule = load([str(tmp_path)])[0][0]
    assert isinstance(rule, LakeRule)
    assert (rule.apart, rule.kind, rule.severity) == (True, "sigma", "high")


@pytest.mark.corpus
def test_detect__runs_configured_rules_over_what_it_has_read(folder: Path, tmp_path: Path) -> None:
    if not CORPUS.is_dir():
        pytest.skip("no captures beside the project")
    config = tmp_path / "a.toml"
    config.write_text(f'[sigma]\nfiles = ["{folder}"]\n')
    names = (CORPUS / "arkime--http-301-get.pcap", CORPUS / "arkime--dns-punycode.pcap")
    done = engine("detect", *names, "--lake", tmp_path / "lake", "--config", config)
    assert done.returncode == 0, done.stderr
    assert [line.count("(Sigma rule)") for line in done.stdout.splitlines()].count(1) == 2
