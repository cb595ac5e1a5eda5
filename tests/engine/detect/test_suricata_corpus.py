"""Rules over real captures: as many frames, or messages, as tshark's display filters find there.

    python -m tests.engine.detect.test_suricata_corpus       asks tshark again, and prints the table EXPECTED

A rule has a display filter that means the same. `rows`: the rule is about messages, so a finding stands for a message
and the filter for the frame that completes it. tshark: `-n`, no defragmentation, TCP reassembled for messages only;
`!icmp` where it looks into what an ICMP error quotes.
"""

from __future__ import annotations

import subprocess
from collections import Counter
from concurrent.futures import ThreadPoolExecutor
from functools import cache, partial
from pathlib import Path
from typing import Any

import pytest

from engine.applications import Applications
from engine.config import FlowsConfig
from engine.decode import Decoder
from engine.detect.signatures.stage import Signatures
from engine.flows import FlowTable
from engine.packets import PacketBatch
from tests.engine.detect.signing import config_of, rules_of
from tests.flowing import batches

CAPTURES_AT = Path(__file__).parents[4] / "shared" / "corpus" / "captures"
CAPTURES = (
    "arkime--dns-mx.pcap", "arkime--http-500-head.pcap", "arkime--http-basicauth.pcap", "arkime--smtp-originating.pcap",
    "ja4--CVE-2018-6794.pcap", "ja4--browsers-x509.pcapng", "ja4--latest.pcapng", "ja4--ssh2.pcapng",
    "ja4--tls-handshake.pcapng", "PcapPlusPlus--four_ipv6_http_streams.pcap", "dpkt--dns_icmp.pcap",
)  # fmt: skip

# name: (rule's header, its options, tshark's filter)
RULES: dict[str, tuple[str, str, str]] = {
    "content": ("tcp any any -> any any", 'content:"HTTP/1.1";', 'tcp.payload contains "HTTP/1.1"'),
    "nocase": ("tcp any any -> any any", 'content:"host|3a|"; nocase;', 'tcp.payload matches "host:"'),
    "udp": ("udp any any -> any any", 'content:"google";', 'udp.payload contains "google"'),
    "startswith": ("tcp any any -> any any", 'content:"GET "; startswith;', "tcp.payload[0:4] == 47:45:54:20"),
    "endswith": ("udp any any -> any 53", 'content:"|00 01 00 01|"; endswith;',
                 "udp.dstport == 53 && udp.payload[-4:4] == 00:01:00:01"),
    "offset, depth": ("udp any any -> any any", 'content:"|04|wpad"; offset:12; depth:5;',
                      "udp.payload[12:5] == 04:77:70:61:64"),
    "distance, within": ("tcp any any -> any any", 'content:"GET "; content:"HTTP/1."; distance:1; within:60;',
                         'tcp.payload matches "(?s-i)GET .{1,53}HTTP/1\\\\."'),
    "negated content": ("tcp any any -> any any", 'content:"HTTP/1."; content:!"Host|3a|";',
                        'tcp.payload contains "HTTP/1." && !(tcp.payload contains "Host:")'),
    "pcre": ("tcp any any -> any any", r'pcre:"/User-Agent: [A-Z]\w+\/\d/";',
             'tcp.payload matches "(?-i)User-Agent: [A-Z]\\\\w+/\\\\d"'),
    "pcre m": ("tcp any any -> any any", r'pcre:"/^Accept: .*\r$/m";',
               'tcp.payload matches "(?m-i)^Accept: .*\\\\r$"'),
    "pcre bytes": ("tcp any any -> any any", r'pcre:"/^\x16\x03[\x01-\x03]..\x01/s";',
                   'tcp.payload matches "(?s-i)^\\\\x16\\\\x03[\\\\x01-\\\\x03]..\\\\x01"'),
    "dsize": ("tcp any any -> any any", "dsize:>1000;", "tcp.len > 1000"),
    "dsize range": ("udp any any -> any any", "dsize:30<>60;", "udp.length > 38 && udp.length < 68"),
    "flags S": ("tcp any any -> any any", "flags:S;", "tcp.flags == 0x002 && !icmp"),
    "flags SA": ("tcp any any -> any any", "flags:SA;", "tcp.flags == 0x012"),
    "flags +": ("tcp any any -> any any", "flags:+F;", "tcp.flags.fin == 1"),
    "flags *": ("tcp any any -> any any", "flags:*SR;", "(tcp.flags.syn == 1 || tcp.flags.reset == 1) && !icmp"),
    "itype": ("icmp any any -> any any", "itype:3;", "icmp.type == 3"),
    "itype, icode": ("icmp any any -> any any", "itype:<4; icode:>1;", "icmp.type < 4 && icmp.code > 1"),
    "port": ("tcp any any -> any 80", 'content:"GET";', 'tcp.dstport == 80 && tcp.payload contains "GET"'),
    "negated ports": ("tcp any ![80,443] -> any any", "dsize:>0;",
                      "tcp.len > 0 && tcp.srcport != 80 && tcp.srcport != 443"),
    "port range": ("tcp any any -> any 1:1023", "flags:S;", "tcp.flags == 0x002 && tcp.dstport <= 1023 && !icmp"),
    "network": ("udp 172.16.0.0/12 any -> any any", "dsize:>0;", "ip.src == 172.16.0.0/12 && udp.length > 8"),
    "networks with negation": ("tcp any any -> [172.16.0.0/12,!172.27.0.0/16] any", "dsize:>0;",
                               "ip.dst == 172.16.0.0/12 && !(ip.dst == 172.27.0.0/16) && tcp.len > 0"),
    "IPv6 network": ("tcp 2001:618::/32 any -> any any", 'content:"GET";',
                     'ipv6.src == 2001:618::/32 && tcp.payload contains "GET"'),
    "both ways": ("tcp 172.16.0.0/12 any <> any 443", "flags:S;",
                  "tcp.flags == 0x002 && ((ip.src == 172.16.0.0/12 && tcp.dstport == 443) || "
                  "(ip.dst == 172.16.0.0/12 && tcp.srcport == 443))"),
    "ssh": ("ssh any any -> any any", 'content:"SSH-2.0-OpenSSH"; startswith;',
            'ssh.protocol contains "SSH-2.0-OpenSSH"'),
    "rows: dns.query": ("dns any any -> any any", 'dns.query; content:"wpad."; startswith;',
                        'dns.qry.name matches "^wpad[.]" && dns.flags.response == 0'),
    "rows: dns.query end": ("dns any any -> any any", 'dns_query; content:".com"; nocase; endswith;',
                            'dns.qry.name matches "[.]com$" && dns.flags.response == 0'),
    "rows: tls.sni": ("tls any any -> any any", 'tls.sni; content:".google.com"; endswith;',
                      'tls.handshake.extensions_server_name matches "[.]google[.]com$"'),
    "rows: tls.sni of a size": ("tls any any -> any any", "tls_sni; bsize:14;",
                                'tls.handshake.extensions_server_name matches "^.{14}$"'),
    "rows: ja3.hash": ("tls any any -> any any", 'ja3.hash; content:"a0e9f5d64349fb13191bc781f81f42e1";',
                       'tls.handshake.ja3 == "a0e9f5d64349fb13191bc781f81f42e1"'),
    "rows: http.method": ("http any any -> any any", 'http.method; content:"HEAD";',
                          'tcp && http.request.method == "HEAD"'),
    "rows: http.uri.raw": ("http any any -> any any", 'http.uri.raw; content:".jpg"; endswith;',
                           'tcp && http.request.uri matches "(?-i)[.]jpg$"'),
    "rows: http.host": ("http any any -> any any", 'http.host; content:"uk6x";', 'tcp && http.host contains "uk6x"'),
    "rows: http.user_agent": ("http any any -> any any",
                              'http.user_agent; content:"Mozilla/"; startswith; content:"Windows";',
                              'tcp && http.user_agent matches "(?-i)^Mozilla/" && http.user_agent contains "Windows"'),
}  # fmt: skip

# name: {capture: frames or messages}; where a capture is not named there are none. From tshark 4.0.17.
EXPECTED: dict[str, dict[str, int]] = {
    "content": {"arkime--http-500-head.pcap": 2, "arkime--http-basicauth.pcap": 2, "ja4--CVE-2018-6794.pcap": 15,
        "ja4--latest.pcapng": 2, "ja4--ssh2.pcapng": 4, "PcapPlusPlus--four_ipv6_http_streams.pcap": 18},
    "nocase": {"arkime--http-500-head.pcap": 1, "arkime--http-basicauth.pcap": 1, "ja4--CVE-2018-6794.pcap": 12,
        "ja4--latest.pcapng": 1, "ja4--ssh2.pcapng": 2, "PcapPlusPlus--four_ipv6_http_streams.pcap": 9},
    "udp": {"ja4--ssh2.pcapng": 4, "dpkt--dns_icmp.pcap": 2},
    "startswith": {"arkime--http-basicauth.pcap": 1, "ja4--CVE-2018-6794.pcap": 12, "ja4--latest.pcapng": 1,
        "ja4--ssh2.pcapng": 2, "PcapPlusPlus--four_ipv6_http_streams.pcap": 9},
    "endswith": {"ja4--latest.pcapng": 11, "ja4--ssh2.pcapng": 18, "dpkt--dns_icmp.pcap": 2},
    "offset, depth": {"ja4--latest.pcapng": 8, "ja4--ssh2.pcapng": 16},
    "distance, within": {"ja4--CVE-2018-6794.pcap": 12, "ja4--latest.pcapng": 1, "ja4--ssh2.pcapng": 2,
        "PcapPlusPlus--four_ipv6_http_streams.pcap": 9},
    "negated content": {"arkime--http-500-head.pcap": 1, "arkime--http-basicauth.pcap": 1, "ja4--CVE-2018-6794.pcap":
        3, "ja4--latest.pcapng": 1, "ja4--ssh2.pcapng": 2, "PcapPlusPlus--four_ipv6_http_streams.pcap": 9},
    "pcre": {"arkime--http-basicauth.pcap": 1, "ja4--CVE-2018-6794.pcap": 12, "ja4--latest.pcapng": 1,
        "PcapPlusPlus--four_ipv6_http_streams.pcap": 9},
    "pcre m": {"arkime--http-500-head.pcap": 1, "arkime--http-basicauth.pcap": 1, "ja4--CVE-2018-6794.pcap": 12,
        "PcapPlusPlus--four_ipv6_http_streams.pcap": 9},
    "pcre bytes": {"ja4--browsers-x509.pcapng": 3, "ja4--latest.pcapng": 5, "ja4--ssh2.pcapng": 5,
        "ja4--tls-handshake.pcapng": 59},
    "dsize": {"arkime--smtp-originating.pcap": 1, "ja4--browsers-x509.pcapng": 13, "ja4--latest.pcapng": 30,
        "ja4--ssh2.pcapng": 28, "ja4--tls-handshake.pcapng": 67, "PcapPlusPlus--four_ipv6_http_streams.pcap": 19},
    "dsize range": {"ja4--latest.pcapng": 28, "ja4--ssh2.pcapng": 217, "dpkt--dns_icmp.pcap": 7},
    "flags S": {"arkime--http-500-head.pcap": 1, "arkime--http-basicauth.pcap": 1, "arkime--smtp-originating.pcap": 1,
        "ja4--CVE-2018-6794.pcap": 3, "ja4--browsers-x509.pcapng": 3, "ja4--latest.pcapng": 6, "ja4--ssh2.pcapng": 44,
        "PcapPlusPlus--four_ipv6_http_streams.pcap": 4},
    "flags SA": {"arkime--http-500-head.pcap": 1, "arkime--http-basicauth.pcap": 1, "arkime--smtp-originating.pcap":
        1, "ja4--CVE-2018-6794.pcap": 3, "ja4--browsers-x509.pcapng": 3, "ja4--latest.pcapng": 6, "ja4--ssh2.pcapng":
        9, "PcapPlusPlus--four_ipv6_http_streams.pcap": 4},
    "flags +": {"arkime--http-500-head.pcap": 2, "arkime--smtp-originating.pcap": 2, "ja4--CVE-2018-6794.pcap": 16,
        "ja4--browsers-x509.pcapng": 11, "ja4--latest.pcapng": 4, "ja4--ssh2.pcapng": 9},
    "flags *": {"arkime--http-500-head.pcap": 2, "arkime--http-basicauth.pcap": 2, "arkime--smtp-originating.pcap": 3,
        "ja4--CVE-2018-6794.pcap": 9, "ja4--browsers-x509.pcapng": 8, "ja4--latest.pcapng": 12, "ja4--ssh2.pcapng":
        55, "PcapPlusPlus--four_ipv6_http_streams.pcap": 8},
    "itype": {"ja4--latest.pcapng": 5, "ja4--ssh2.pcapng": 32},
    "itype, icode": {"ja4--latest.pcapng": 5, "ja4--ssh2.pcapng": 32},
    "port": {"ja4--latest.pcapng": 1, "ja4--ssh2.pcapng": 2, "PcapPlusPlus--four_ipv6_http_streams.pcap": 9},
    "negated ports": {"arkime--http-500-head.pcap": 1, "arkime--http-basicauth.pcap": 2,
        "arkime--smtp-originating.pcap": 12, "ja4--CVE-2018-6794.pcap": 15, "ja4--browsers-x509.pcapng": 41,
        "ja4--latest.pcapng": 37, "ja4--ssh2.pcapng": 366, "ja4--tls-handshake.pcapng": 71,
        "PcapPlusPlus--four_ipv6_http_streams.pcap": 9},
    "port range": {"arkime--http-500-head.pcap": 1, "arkime--smtp-originating.pcap": 1, "ja4--browsers-x509.pcapng":
        3, "ja4--latest.pcapng": 6, "ja4--ssh2.pcapng": 14, "PcapPlusPlus--four_ipv6_http_streams.pcap": 4},
    "network": {"ja4--latest.pcapng": 60, "ja4--ssh2.pcapng": 375},
    "networks with negation": {"ja4--latest.pcapng": 37, "ja4--ssh2.pcapng": 265},
    "IPv6 network": {"PcapPlusPlus--four_ipv6_http_streams.pcap": 9},
    "both ways": {"ja4--browsers-x509.pcapng": 3, "ja4--latest.pcapng": 5, "ja4--ssh2.pcapng": 5},
    "ssh": {"ja4--ssh2.pcapng": 2},
    "rows: dns.query": {"ja4--latest.pcapng": 4, "ja4--ssh2.pcapng": 8},
    "rows: dns.query end": {"arkime--dns-mx.pcap": 1, "ja4--latest.pcapng": 10, "ja4--ssh2.pcapng": 10},
    "rows: tls.sni": {"ja4--ssh2.pcapng": 2, "ja4--tls-handshake.pcapng": 10},
    "rows: tls.sni of a size": {"ja4--ssh2.pcapng": 1, "ja4--tls-handshake.pcapng": 5},
    "rows: ja3.hash": {"ja4--latest.pcapng": 1, "ja4--ssh2.pcapng": 2},
    "rows: http.method": {"arkime--http-500-head.pcap": 1},
    "rows: http.uri.raw": {"PcapPlusPlus--four_ipv6_http_streams.pcap": 3},
    "rows: http.host": {"PcapPlusPlus--four_ipv6_http_streams.pcap": 8},
    "rows: http.user_agent": {"arkime--http-500-head.pcap": 1, "arkime--http-basicauth.pcap": 1,
        "ja4--CVE-2018-6794.pcap": 2, "ja4--latest.pcapng": 1},
}  # fmt: skip


def findings(capture: Path) -> Counter[int]:
    """How often each rule is found: by its number from 1."""
    lines = [f"alert {h} ({options} sid:{n};)" for n, (h, options, _) in enumerate(RULES.values(), 1)]
    signatures, applications = Signatures(config_of(join_bytes=0), 1.0, rules_of(*lines)), Applications()
    table, decoder = FlowTable(FlowsConfig(), lambda rows: rows.release(), applications), Decoder()
    found, packets = [], PacketBatch()
    for frames in batches(capture):
        table.follow(frames, decoder.decode(frames, packets))
        found += signatures.take(frames, packets, table)
    table.close()
    for name, rows in applications.take_rows().items():
        found += signatures.application_rows(name, rows)
    numbers: Counter[int] = Counter()
    for finding in found:
        numbers[finding.evidence["sid"]] += finding.count
    return numbers


@cache
def counts() -> dict[str, dict[str, int]]:
    """Of each rule, what the captures hold."""
    by_capture = {name: findings(CAPTURES_AT / name) for name in CAPTURES}
    return {
        rule: {capture: found[n] for capture, found in by_capture.items() if found[n]}
        for n, rule in enumerate(RULES, 1)
    }


@pytest.mark.corpus
@pytest.mark.skipif(not CAPTURES_AT.is_dir(), reason="the captures are not beside the project")
@pytest.mark.parametrize("name", RULES)
def test_rule__finds_what_tshark_finds(name: str) -> None:
    assert counts()[name] == EXPECTED[name]


def test_expected__each_rule_is_found_somewhere_and_not_everywhere() -> None:
    assert EXPECTED.keys() == RULES.keys()
    assert all(0 < len(found) < len(CAPTURES) for found in EXPECTED.values())


def tshark(capture: str, display_filter: str, whole: bool) -> int:
    off = ["-oip.defragment:FALSE", "-oipv6.defragment:FALSE", f"-otcp.desegment_tcp_streams:{str(whole).upper()}"]
    command: list[Any] = ["tshark", "-n", *off, "-r", CAPTURES_AT / capture, "-Y", display_filter, "-T", "fields"]
    done = subprocess.run([*command, "-e", "frame.number"], capture_output=True, text=True, check=True)
    return len(done.stdout.split())


def main() -> None:
    with ThreadPoolExecutor(2) as pool:
        for name, (_, _, display_filter) in RULES.items():
            whole = name.startswith("rows")
            numbers = pool.map(partial(tshark, display_filter=display_filter, whole=whole), CAPTURES)
            said = {capture: n for capture, n in zip(CAPTURES, numbers, strict=True) if n}
            ours = counts()[name]
            print(
                f"    {name!r}: {said},".replace("'", '"') + ("" if said == ours else f"  # NOT OURS: {ours}"),
                flush=True,
            )


if __name__ == "__main__":
    main()
