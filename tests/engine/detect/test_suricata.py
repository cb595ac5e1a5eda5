"""Suricata's rule language, case by case: a rule, a tiny capture, the frames that must be found, and no others."""

from __future__ import annotations

import contextlib
import re
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from engine.detect.signatures.compiler import KEYWORDS, compile_rule
from engine.detect.signatures.syntax import Refused, content_bytes, parse_rule, rule_lines
from tests.builders import SRC4, dns_query, ethernet, ipv4, tcp, vxlan
from tests.engine.detect.signing import Bench, datagram, datagram6, down, find, hits, ping, rules_of, session, up
from tests.engine.dissect.hellos import chrome, client_hello, record, u16s, vector

GET = b"GET /a/b.php?id=1%20x HTTP/1.1\r\nHost: WWW.Example.com\r\nUser-Agent: curl/8\r\n\r\n"
QUERY = [datagram(dns_query("bad.Example.org"), 5000, 53)]
TCP = session(b"hello world", (b"answer",))
SYN = [up(b"", 1, flags=2)]


def _t(options: str, header: str = "tcp any any -> any any") -> str:
    return f"alert {header} ({options}{' ' if options else ''}sid:1;)"


def _c(options: str) -> str:
    return _t(f"content:{options};")


ABC = session(b"abcXdefXabc")
# FoxIO's and JA3's own examples of a fingerprint.
JA4, JA3 = "t13d1516h2_8daaf6152771_e5627efa2ab1", "ada70206e40642a3e4461f35503241d5"
HELLO = session(record(client_hello(chrome(b"www.example.com"))), dport=8443)
OLD_HELLO = session(record(client_hello(
    [(0, vector(vector(b"\0" + vector(b"a")))), (10, vector(u16s(23, 24, 25))), (11, b"\1\0")],
    (47, 53, 5, 10, 49161, 49162, 49171, 49172, 50, 56, 19, 4), 0x0301,
)))  # fmt: skip
SSH = session(b"SSH-2.0-OpenSSH_9.6\r\n", (b"SSH-2.0-OpenSSH_9.6\r\n",))[:4]
ABOUT = (
    'msg:"a test"; gid:1; rev:3; classtype:trojan-activity; priority:2; reference:url,example.com/a; '
    "metadata:signature_severity Major, created_at 2026_01_01; "
)
CASES = [
    # --- content
    ("content", _c('"world"'), TCP, [4]),
    ("content absent", _c('"World"'), TCP, []),
    ("content in both directions", _c('"e"'), TCP, [4, 5]),
    ("nocase", _c('"WoRLD"; nocase'), TCP, [4]),
    ("hex", _c('"|77 6f|rld"'), TCP, [4]),
    ("hex nocase", _c('"|57 4F|RLD"; nocase'), TCP, [4]),
    ("escaped characters", _c(r'"a\;b\"c\\d\:"'), session(b'a;b"c\\d:'), [4]),
    ("pipe as a byte", _c('"a|7c|b"'), session(b"a|b"), [4]),
    ("two contents in any order", _t('content:"world"; content:"hello";'), TCP, [4]),
    ("two contents, one absent", _t('content:"world"; content:"nope";'), TCP, []),
    ("negated content", _t('content:"e"; content:!"world";'), TCP, [5]),
    ("negated content alone", _c('!"world"'), TCP, [5]),
    ("offset reached", _c('"world"; offset:6'), TCP, [4]),
    ("offset passed", _c('"world"; offset:7'), TCP, []),
    ("depth exact", _c('"hello"; depth:5'), TCP, [4]),
    ("depth too small for its place", _c('"world"; depth:10'), TCP, []),
    ("depth counts from offset", _c('"world"; offset:6; depth:5'), TCP, [4]),
    ("depth from offset too small", _c('"world"; offset:5; depth:5'), TCP, []),
    ("distance", _t('content:"abc"; content:"def"; distance:1;'), ABC, [4]),
    ("distance too far", _t('content:"abc"; content:"def"; distance:2;'), ABC, []),
    ("distance negative", _t('content:"def"; content:"abc"; distance:-7; within:3;'), ABC, [4]),
    ("within", _t('content:"abc"; content:"def"; within:4;'), ABC, [4]),
    ("within too small", _t('content:"abc"; content:"def"; within:3;'), ABC, []),
    ("within counts from distance", _t('content:"abc"; content:"def"; distance:1; within:3;'), ABC, [4]),
    ("distance takes a later match", _t('content:"X"; content:"abc"; within:3;'), ABC, [4]),
    ("backtracking over three", _t('content:"a"; content:"b"; within:1; content:"d"; distance:0; within:1;'),
     session(b"abc ab abd"), [4]),
    ("negated within", _t('content:"abc"; content:!"def"; within:4;'), session(b"abcXdef", b"abcXXdef"), [5]),
    ("negated within tries later matches", _t('content:"a"; content:!"b"; within:1;'),
     session(b"ab ac", (b"ab ab",)), [4]),
    ("startswith", _c('"hel"; startswith'), TCP, [4]),
    ("startswith elsewhere", _c('"ello"; startswith'), TCP, []),
    ("endswith", _c('"rld"; endswith'), TCP, [4]),
    ("endswith elsewhere", _c('"worl"; endswith'), TCP, []),
    ("startswith and endswith", _c('"answer"; startswith; endswith'), TCP, [5]),
    ("endswith nocase", _c('"RLD"; nocase; endswith'), TCP, [4]),
    ("fast_pattern", _t('content:"hello"; content:"wo"; fast_pattern;'), TCP, [4]),
    ("fast_pattern:only", _t('content:"hello"; fast_pattern:only;'), TCP, [4]),
    ("rawbytes", _c('"hello"; rawbytes'), TCP, [4]),
    ("content of one byte", _c('"|00|"'), session(b"a\0b", b"ab"), [4]),
    ("line feeds in content", _c('"|0a 0a|"'), session(b"a\n\nb", b"c"), [4]),
    ("content across two segments", _c('"|0a 0a|"'), session(b"\n", b"\n"), [5]),
    # --- pcre
    ("pcre", _t('pcre:"/wor+ld/";'), TCP, [4]),
    ("pcre i", _t('pcre:"/WORLD/i";'), TCP, [4]),
    ("pcre anchored", _t('pcre:"/^hello/";'), TCP, [4]),
    ("pcre anchored elsewhere", _t('pcre:"/^world/";'), TCP, []),
    ("pcre end", _t('pcre:"/world$/";'), TCP, [4]),
    ("pcre end before a line feed", _t('pcre:"/world$/";'), session(b"world\n", b"world\n\n"), [4]),
    ("pcre m", _t('pcre:"/^b$/m";'), session(b"a\nb\nc", b"ab"), [4]),
    ("pcre without m", _t('pcre:"/^b$/";'), session(b"a\nb\nc"), []),
    ("pcre s", _t('pcre:"/a.b/s";'), session(b"a\nb"), [4]),
    ("pcre without s", _t('pcre:"/a.b/";'), session(b"a\nb"), []),
    ("pcre R", _t('content:"hello"; pcre:"/^ world/R";'), TCP, [4]),
    ("pcre R too early", _t('content:"world"; pcre:"/hello/R";'), TCP, []),
    ("content behind pcre", _t('pcre:"/hel+/"; content:"o"; within:1;'), TCP, [4]),
    ("pcre negated", _t('content:"e"; pcre:!"/w.rld/";'), TCP, [5]),
    ("pcre with slash, quote and semicolon", _t(r'pcre:"/a\/b\"\;c/";'), session(b'a/b";c'), [4]),
    ("pcre byte classes", _t(r'pcre:"/^[\x80-\xff]{3}[^\s]\d$/";'), session(b"\x80\xff\x90A1", b"\x80\xff\x90 1"), [4]),
    ("pcre alternatives and groups", _t(r'pcre:"/(?:foo|b(?P<n>a)r)\b/";'), session(b"a bar", b"bars"), [4]),
    ("pcre \\s holds the vertical tab", _t(r'pcre:"/a\sb/";'), session(b"a\x0bb", b"a_b"), [4]),
    # --- header
    ("udp", _t('content:"x";', "udp any any -> any any"), [datagram(b"x"), *session(b"x")], [1]),
    ("tcp", _t('content:"x";'), [datagram(b"x"), *session(b"x")], [5]),
    ("ip", _t('content:"x";', "ip any any -> any any"), [datagram(b"x"), *session(b"x"), ping(data=b"x")], [1, 5, 6]),
    ("icmp", _t('content:"x";', "icmp any any -> any any"), [datagram(b"x"), ping(data=b"x")], [2]),
    ("source address", _t('content:"e";', "tcp 10.1.2.3 any -> any any"), TCP, [4]),
    ("source network", _t('content:"e";', "tcp 192.0.2.0/24 any -> any any"), TCP, [5]),
    ("negated address", _t('content:"e";', "tcp !10.1.2.3 any -> any any"), TCP, [5]),
    ("list with negation", _t('content:"e";', "tcp [10.0.0.0/8,!10.1.2.0/24] any -> any any"), TCP, []),
    ("list of two", _t('content:"e";', "tcp [10.1.2.3, 192.0.2.200] any -> any any"), TCP, [4, 5]),
    ("HOME_NET", _t('content:"e";', "tcp $HOME_NET any -> $EXTERNAL_NET any"), TCP, [4]),
    ("EXTERNAL_NET", _t('content:"e";', "tcp $EXTERNAL_NET any -> $HOME_NET any"), TCP, [5]),
    ("negated variable", _t('content:"e";', "tcp !$HOME_NET any -> any any"), TCP, [5]),
    ("destination port", _t('content:"e";', "tcp any any -> any 80"), TCP, [4]),
    ("source port", _t('content:"e";', "tcp any 80 -> any any"), TCP, [5]),
    ("port range", _t('content:"e";', "tcp any any -> any 79:81"), TCP, [4]),
    ("open port range", _t('content:"e";', "tcp any any -> any :1023"), TCP, [4]),
    ("port list with negation", _t('content:"e";', "tcp any any -> any [1:1023,!80]"), TCP, []),
    ("negated port", _t('content:"e";', "tcp any any -> any !80"), TCP, [5]),
    ("port variable", _t('content:"e";', "tcp any any -> any $HTTP_PORTS"), TCP, [4]),
    ("both ways", _t('content:"e";', "tcp 10.1.2.3 any <> any 80"), TCP, [4, 5]),
    ("IPv6 address", _t('content:"x";', "udp 2001:db8::/32 any -> any any"), [datagram6(b"x"), datagram(b"x")], [1]),
    ("negation holds the other version", _t('content:"x";', "udp !10.0.0.0/8 any -> any any"),
     [datagram6(b"x"), datagram(b"x")], [1]),
    ("inner packet of a tunnel", _t('content:"x";', "tcp any any -> any 80"),
     [ethernet(ipv4(vxlan(up(b"x", 1)), 17))], [1]),
    # --- flow and packet options
    ("to_server", _t('flow:to_server; content:"e";'), TCP, [4]),
    ("to_client", _t('flow:to_client; content:"e";'), TCP, [5]),
    ("from_client", _t('flow:from_client; content:"e";'), TCP, [4]),
    ("established", _t('flow:established,to_server; content:"hello";'), TCP, [4]),
    ("not established", _t('flow:established; content:"hello";'), session(b"hello", handshake=False), []),
    ("stateless", _t('flow:stateless; content:"hello";'), session(b"hello", handshake=False), [1]),
    ("UDP is established by its answer", _t('flow:established; content:"x";', "udp any any -> any any"),
     [datagram(b"x"), datagram(b"x", answer=True), datagram(b"x")], [2, 3]),
    ("client by SYN-ACK first", _t('flow:to_server; content:"e";'),
     [down(b"", 5000, flags=0x12), up(b"hey", 1001), down(b"hey", 5001)], [2]),
    ("flags S", _t("flags:S;"), TCP, [1]),
    ("flags SA", _t("flags:SA;"), TCP, [2]),
    ("flags +", _t("flags:+A;"), TCP, [2, 3, 4, 5]),
    ("flags *", _t("flags:*SF;"), TCP, [1, 2]),
    ("flags !", _t("flags:!A;"), TCP, [1]),
    ("flags without ECN", _t("flags:S,CE;"), [up(b"", 1, flags=0xC2)], [1]),
    ("flags with ECN", _t("flags:S;"), [up(b"", 1, flags=0xC2)], []),
    ("flags 0", _t("flags:0;"), [up(b"", 1, flags=0), *SYN], [1]),
    ("dsize", _t("dsize:11;"), TCP, [4]),
    ("dsize <", _t('dsize:<7; content:"e";'), TCP, [5]),
    ("dsize >", _t("dsize:>6;"), TCP, [4]),
    ("dsize <>", _t("dsize:5<>11;"), TCP, [5]),
    ("itype", _t("itype:8;", "icmp any any -> any any"), [ping(8), ping(0)], [1]),
    ("itype range", _t("itype:2<>9;", "icmp any any -> any any"), [ping(8), ping(9), ping(0)], [1]),
    ("icode", _t("itype:3; icode:>2;", "icmp any any -> any any"), [ping(3, 1), ping(3, 3)], [2]),
    # --- threshold
    ("limit", _t('content:"e"; threshold:type limit, track by_src, count 1, seconds 60;'),
     session(b"e", b"e", b"e"), [4]),
    ("threshold", _t('content:"e"; threshold:type threshold, track by_src, count 2, seconds 60;'),
     session(b"e", b"e", b"e", b"e"), [5, 7]),
    ("both", _t('content:"e"; threshold: type both, track by_dst, count 2, seconds 60;'),
     session(b"e", b"e", b"e", b"e"), [5]),
    ("limit by destination", _t('content:"e"; threshold:type limit, track by_dst, count 1, seconds 60;'),
     session(b"e", (b"e",), b"e"), [4, 5]),
    # --- applications
    ("protocol http", _t('content:"GET";', "http any any -> any any"), session(GET, dport=8123), [4]),
    ("protocol http, other payload", _t('content:"hello";', "http any any -> any any"), TCP, []),
    ("dns.query", _t('dns.query; content:"bad.example.org"; nocase;', "dns any any -> any any"), QUERY, [0]),
    ("dns.query end", _t('dns.query; content:".org"; endswith;', "dns any any -> any any"), QUERY, [0]),
    ("dns.query of a size", _t("dns.query; bsize:15;", "dns any any -> any any"), QUERY, [0]),
    ("dns.query of another size", _t('dns.query; content:"."; bsize:>15;', "dns any any -> any any"), QUERY, []),
    ("dns_query with isdataat", _t('dns_query; content:".org"; isdataat:!1,relative;', "dns any any -> any any"),
     QUERY, [0]),
    ("addresses alone", _t("", "ip [192.0.2.200,192.0.2.7] any -> $HOME_NET any"), [*TCP, datagram6(b"x")], [2, 5]),
    ("IPv6 addresses alone", _t("", "ip 2001:db8::/32 any -> any any"), [*TCP, datagram6(b"x")], [6]),
    ("dns.query other", _t('dns.query; content:"good"; nocase;', "dns any any -> any any"), QUERY, []),
    ("http.uri is decoded", _t('http.uri; content:"id=1 x";', "http any any -> any any"), session(GET), [0]),
    ("http.uri.raw is not", _t('http.uri.raw; content:"id=1%20x";', "http any any -> any any"), session(GET), [0]),
    ("http.host in lower case", _t('http.host; content:"www.example.com";', "http any any -> any any"),
     session(GET), [0]),
    ("http.method and http.uri", _t('http.method; content:"GET"; http.uri; content:".php"; pcre:"/id=\\d/R";',
     "http any any -> any any"), session(GET), [0]),
    ("http.method differs", _t('http.method; content:"POST"; http.uri; content:".php";', "http any any -> any any"),
     session(GET), []),
    ("http.user_agent", _t('http.user_agent; content:"curl/"; startswith;', "tcp any any -> any 80"),
     session(GET), [0]),
    ("http row of another port", _t('http.uri; content:".php";', "http any any -> any 81"), session(GET), []),
    # --- the other side of what is above, and what is only said of a rule
    ("fast_pattern that is absent", _t('content:"hello"; content:"nope"; fast_pattern;'), TCP, []),
    ("rawbytes that are absent", _t('content:"nope"; rawbytes;'), TCP, []),
    ("isdataat finds more", _t('content:"hel"; isdataat:!1,relative;'), TCP, []),
    ("isdataat", _t('content:"rld"; isdataat:!1,relative;'), TCP, [4]),
    ("dsize of none", _t("dsize:12;"), TCP, []),
    ("itype of none", _t("itype:13;", "icmp any any -> any any"), [ping(8), ping(0)], []),
    ("icode of none", _t("icode:7;", "icmp any any -> any any"), [ping(3, 1), ping(3, 3)], []),
    ("flags of none", _t("flags:R;"), TCP, []),
    ("threshold not reached", _t('content:"e"; threshold:type threshold, track by_src, count 9, seconds 60;'),
     session(b"e", b"e", b"e"), []),
    ("from_server", _t('flow:from_server; content:"e";'), TCP, [5]),
    ("not_established", _t('flow:not_established; content:"hello";'), session(b"hello", handshake=False), [1]),
    ("not_established of one that is", _t('flow:not_established; content:"hello";'), TCP, []),
    ("gid, rev, msg, classtype, priority, reference, metadata, target",
     _t(ABOUT + 'content:"world"; target:dest_ip;'), TCP, [4]),
    ("the same, absent", _t(ABOUT + 'content:"nope"; target:dest_ip;'), TCP, []),
    ("protocol dns", _t('content:"|07|Example"; nocase;', "dns any any -> any any"), QUERY, [1]),
    ("protocol dns, other payload", _t('content:"x";', "dns any any -> any any"), [datagram(b"x")], []),
    ("protocol tls", _t('content:"|16 03|"; startswith;', "tls any any -> any any"), HELLO, [4]),
    ("protocol tls, other payload", _t('content:"hello";', "tls any any -> any any"), TCP, []),
    ("protocol ssh", _t('content:"OpenSSH";', "ssh any any -> any any"), SSH, [4]),
    ("protocol ssh, other payload", _t('content:"hello";', "ssh any any -> any any"), TCP, []),
    ("tls.sni", _t('tls.sni; content:"www.example.com";', "tls any any -> any any"), HELLO, [0]),
    ("tls.sni other", _t('tls.sni; content:"www.example.org";', "tls any any -> any any"), HELLO, []),
    ("tls_sni and pcre", _t('tls_sni; pcre:"/^www\\.[a-z]+\\.com$/";', "tls any any -> any any"), HELLO, [0]),
    ("tls_sni of another size", _t("tls_sni; bsize:14;", "tls any any -> any any"), HELLO, []),
    ("ja4.hash", _t(f'ja4.hash; content:"{JA4}";', "tls any any -> any any"), HELLO, [0]),
    ("ja4.hash other", _t('ja4.hash; content:"t13d1516h2_8daaf6152771_000000000000";', "tls any any -> any any"),
     HELLO, []),
    ("ja3.hash", _t(f'ja3.hash; content:"{JA3}";', "tls any any -> any any"), OLD_HELLO, [0]),
    ("ja3_hash", _t(f'ja3_hash; content:"{JA3[:8]}"; startswith;', "tls any any -> any any"), OLD_HELLO, [0]),
    ("ja3.hash other", _t(f'ja3.hash; content:"{JA3}";', "tls any any -> any any"), HELLO, []),
    ("ja3_hash other", _t(f'ja3_hash; content:!"{JA3[:8]}";', "tls any any -> any any"), OLD_HELLO, []),
    ("dns_query other", _t('dns_query; content:"good.example.org"; nocase;', "dns any any -> any any"), QUERY, []),
    ("http.uri.raw other", _t('http.uri.raw; content:"id=1 x";', "http any any -> any any"), session(GET), []),
    ("http.host other", _t('http.host; content:"WWW";', "http any any -> any any"), session(GET), []),
    ("http.method", _t('http.method; content:"GET"; bsize:3;', "http any any -> any any"), session(GET), [0]),
    ("http.user_agent other", _t('http.user_agent; content:"wget";', "http any any -> any any"), session(GET), []),
]  # fmt: skip


def test_cases__are_a_hundred_and_have_names_of_their_own() -> None:
    assert len(CASES) >= 100
    assert len({name for name, *_ in CASES}) == len(CASES)


@pytest.mark.parametrize("keyword", KEYWORDS)
def test_cases__every_keyword_finds_something_and_something_else_not(keyword: str) -> None:
    used = [bool(frames) for _, rule, _, frames in CASES if re.search(rf"[(; ]{re.escape(keyword)}[;:]", rule)]
    assert set(used) == {True, False}


@pytest.mark.parametrize("engine", ["hyperscan", "re2"])
def test_case(engine: str, subtests: pytest.Subtests) -> None:
    for name, rule, frames, expected in CASES:
        with subtests.test(name):
            assert hits(find(rules_of(rule), frames, engine=engine)) == expected


def test_threshold__window_begins_again() -> None:
    from engine.detect.signatures.stage import Signatures
    from tests.engine.detect.signing import config_of

    rule = _t('content:"e"; threshold:type limit, track by_src, count 1, seconds 10;')
    bench = Bench(Signatures(config_of(), 1.0, rules_of(rule)))
    bench.send(session(b"e", b"e", b"e"), [0, 0, 0, 1, 5, 12])
    assert hits(bench.close()) == [4, 6]


def test_target__turns_the_finding_around() -> None:
    found = find(rules_of(_t('content:"uid=0"; target:src_ip;')), session((b"uid=0",), dport=4444))
    assert [(f.src_ip, f.dst_ip, f.dst_port) for f in found] == [("10.1.2.3", "192.0.2.200", 4444)]


REFUSED = [
    (_t('content:"a"; byte_test:4,>,1,0;'), "keyword byte_test"),
    (_t('content:"a"; isdataat:10;'), "isdataat:10"),
    (_t('content:"a"; bsize:10;'), "bsize stands behind no sticky buffer"),
    (_t('content:"a"; dotprefix;'), "keyword dotprefix"),
    (_t('file_data; content:"a";'), "keyword file_data"),
    (_t('content:"a"; flowbits:set,x;'), "keyword flowbits"),
    (_t('http.header; content:"a";', "http any any -> any any"), "keyword http.header"),
    (_t('content:"a"; http_uri;', "http any any -> any any"), "keyword http_uri"),
    (_t('content:"a"; detection_filter:track by_src, count 1, seconds 1;'), "keyword detection_filter"),
    (_t('pcre:"/(?=a)b/";'), "(?=a"),
    (_t('pcre:"/(?<!a)b/";'), "(?<!"),
    (_t('pcre:"/(a)\\1/";'), "\\1"),
    (_t('pcre:"/a++b/";'), "possessive"),
    (_t('pcre:"/a{1,2000}/";'), "repetitions"),
    (_t('pcre:"/a/U";'), "pcre flag U"),
    (_t('pcre:"/a*/";'), "empty payload"),
    (_t('pcre:"/(a/";'), "missing )"),
    (_t('content:"a";', "tcp $NOWHERE any -> any any"), "$NOWHERE"),
    (_t('content:"a";', "smb any any -> any any"), "protocol smb"),
    (_t('content:"a";', "tcp any any <- any any"), "direction <-"),
    (_t('content:"a";', "tcp 10.0.0.300 any -> any any"), "10.0.0.300"),
    (_t('content:"a";', "tcp any 70000 -> any any"), "70000"),
    ('pass tcp any any -> any any (content:"a"; sid:1;)', "action pass"),
    ('alert tcp any any -> any any (content:"a";)', "sid is missing"),
    ('alert tcp any any -> any any (content:"a"; sid:1)', "semicolon"),
    ('alert tcp any any -> any (content:"a"; sid:1;)', "6 words"),
    (_t('content:"a|4|";'), "hexadecimal"),
    (_t('content:"";'), "empty"),
    (_t("content:abc;"), "quotation"),
    (_t("nocase;"), "behind no content"),
    (_t('content:"abc"; depth:2;'), "depth is less"),
    (_t('content:"abc"; offset:1; distance:1;'), "together"),
    (_t('content:"a"; nocase; nocase;'), "nocase stands twice"),
    (_t('dns.query; content:"a";', "http any any -> any any"), "needs the protocol dns"),
    (_t('dns.query; content:"a"; http.uri; content:"b";', "dns any any -> any any"), "no application"),
    (_t('content:"a"; http.uri; content:"b";', "http any any -> any any"), "payload together"),
    (_t('flow:to_client; http.uri; content:"b";', "http any any -> any any"), "to_client"),
    (_t("flow:only_stream;"), "only_stream"),
    (_t("itype:8;"), "need the protocol icmp"),
    (_t("flags:Z;"), "flags:Z"),
    (_t('content:"a"; threshold:type backoff, track by_src, count 1, seconds 1;'), "type backoff"),
    (_t('content:"a"; threshold:type limit, track by_rule, count 1, seconds 1;'), "track by_rule"),
    (_t("dsize:5<>6;"), "holds no number"),
    ("nonsense", "no options"),
]


@pytest.mark.parametrize(("rule", "reason"), REFUSED)
def test_refused__names_what_is_not_supported(rule: str, reason: str) -> None:
    with pytest.raises(Refused, match=re.escape(reason)):
        compile_rule(rule, {"HOME_NET": "10.0.0.0/8"}, "test")


def test_document__lists_what_is_supported_and_what_is_not() -> None:
    text = (Path(__file__).parents[3] / "docs" / "signatures.md").read_text()
    assert [k for k in KEYWORDS if f"`{k}`" not in text] == []
    refused = text[text.index("Refused, among others") :].split("\n\n")[0]
    names = [n for n in re.findall(r"`([a-z_.]{3,})`", refused) if n not in ("isdataat", "pass")]
    assert len(names) > 15
    for name in names:
        with pytest.raises(Refused, match=f"keyword {re.escape(name)} is not supported"):
            compile_rule(_t(f'content:"a"; {name}:1;'), {"HOME_NET": "10.0.0.0/8"}, "test")


def test_rule_lines__continues_and_passes_comments() -> None:
    assert list(rule_lines("# no\n\nalert a \\\n b\r\nalert c\n")) == [(3, "alert a  b"), (5, "alert c")]


_WORDS = st.sampled_from(
    ["alert", "tcp", "any", "->", "<>", "$HOME_NET", "[", "]", "!", ",", "(", ")", ";", ":", '"', "\\", "|", "41", " ",
     "1:2", "10.0.0.0/8", *KEYWORDS, "/a/i", "type limit", "{", "}", "*", "+", "?", "^", "$", "\u00e9", "\0", "\n"]
)  # fmt: skip


@given(st.one_of(st.text(max_size=200), st.lists(_WORDS, max_size=40).map("".join), st.lists(_WORDS, max_size=40).map(
    lambda words: f"alert tcp any any -> any any ({' '.join(words)} sid:1;)")))  # fmt: skip
def test_parser__any_text_is_a_rule_or_refused(text: str) -> None:
    with contextlib.suppress(Refused):
        compile_rule(text, {"HOME_NET": "10.0.0.0/8"}, "test")


@given(st.binary(min_size=1, max_size=60))
def test_content__bytes_survive_being_written(data: bytes) -> None:
    written = "".join(chr(b) if chr(b).isalnum() and b < 128 else f"|{b:02x}|" for b in data)
    assert content_bytes(written) == data
    text = parse_rule(f'alert ip any any -> any any (msg:"x\\; y"; content:"{written}"; sid:7;)')
    assert text.get("content") == f'"{written}"'
    assert text.get("msg") == '"x\\; y"'


def test_addresses__source_is_as_in_the_packet() -> None:
    frames = [ethernet(ipv4(tcp(b"abc", 1, 2), 6, src=SRC4))]
    (found,) = find(rules_of(_c('"abc"')), frames)
    assert (found.src_ip, found.dst_ip, found.kind, found.severity) == (
        "10.1.2.3",
        "192.0.2.200",
        "signature",
        "medium",
    )
