"""The independent check: captures of others through the engine, and what is said of them.

    python -m benchmarks.detect_corpus ../shared/corpus [--lake DIR]

prints the tables of docs/detection.md: attacks that their repositories document, and the other captures of which more
than low is said. Exit code 1 when an attack that is to be named is not, or more than 2 % of the others are loud.
"""

from __future__ import annotations

import argparse
import sys
import tempfile
from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from engine.alert_config import AlertsConfig
from engine.capture.pacing import Pace
from engine.capture.savefile import SavefileSource
from engine.config import EngineConfig, FlowsConfig, FramesConfig, LakeConfig
from engine.pipeline import Pipeline
from engine.writer import init_lake

LOUD_SHARE: Final = 0.02  # of the captures without a documented attack
_RUNS: Final = 4
_WAIT_S: Final = 600.0


@dataclass(frozen=True, slots=True)
class Attack:
    """What a repository says a capture shows, and the kind that names it; "" where nothing is expected, and why."""

    what: str
    kind: str = ""
    missed: str = ""


_TEXT_ONLY: Final = "the text is encoded or compressed on the wire"
DOCUMENTED: Final = {
    "zeek--bruteforce.pcap": Attack("FTP passwords tried", "ftp_bruteforce"),
    "nDPI--bad-dns-traffic.pcap": Attack("tunnel in DNS names", "dns_tunnel"),
    "nDPI--tcp_scan.pcapng": Attack("seven probes of a slow scan, NULL, FIN and XMAS among them", "port_scan"),
    "suricata-verify--ipv6-dos-with-ext-headers-5__denial6-5.pcap": Attack(
        "denial6: ICMPv6 echo behind authentication headers", "icmp_flood"
    ),
    "suricata-verify--ipv6-dos-with-ext-headers-6__denial6-6.pcap": Attack(
        "denial6: ICMPv6 reports in fragments", "icmp_flood"
    ),
    "gopacket--cip.pcap": Attack("scans of a controller by three hosts", "port_scan"),
    "fpcap--linux-cooked-unsw-nb15.pcap": Attack("UNSW-NB15: generated exploits over HTTP", "web_attack"),
    "suricata-verify--http-evader-473__input.pcap": Attack("HTTP evasion with EICAR", "signature"),
    **{
        f"suricata-verify--http-evader-{n}__input.pcap": Attack("HTTP evasion with EICAR", missed=_TEXT_ONLY)
        for n in (145, 196, 206, 215, 221, 226, 231, 316)
    },
    "arkime--badcurveball.pcap": Attack("CVE-2020-0601, a forged curve", missed="no look into keys of certificates"),
    "ja4--CVE-2018-6794.pcap": Attack("an answer before its request", missed="no rule for that; the text is harmless"),
    "nfstream--malware.pcap": Attack("one look-up, one TLS connection", missed="only a list of names can know it"),
    "suricata-verify--ipv6-covert-dstopts__covert_send6.pcap": Attack(
        "18 echoes with data in destination options", missed="options are not looked at"
    ),
    "suricata-verify--krb5-kerberoasting__kerberoast.pcap": Attack(
        "one ticket asked with RC4", missed="no parser of Kerberos tickets"
    ),
    "suricata-verify--smb2-04__20171220_smb_at_schedule.pcap": Attack("task by SMB", missed="no parser of SMB"),
    "suricata-verify--smb2-07__20171220_smb_psexec_add_user.pcap": Attack("psexec by SMB", missed="no parser of SMB"),
    "zeek--CVE-2015-3194.pcap": Attack("malformed certificate", missed="one message, for OpenSSL only"),
    "zeek--heartbleed-encrypted-short.pcap": Attack("Heartbleed, encrypted", missed="only lengths would tell"),
}  # fmt: skip
# Others that say more than low, and why. What stands here counts as loud all the same.
EXPLAINED: Final = {
    "pktvisor--dns_ipv4_udp.pcap": "a load generator asks for random names below one domain, as a tunnel does",
    "pktvisor--dns_ipv6_tcp.pcap": "the same over TCP",
}


@dataclass(frozen=True, slots=True)
class Raised:
    """Incidents of one kind and severity in a capture, and one of their reasons."""

    kind: str
    severity: str
    count: int
    why: str


def captures(corpus: Path) -> list[Path]:
    """Those that are no other one in another compression."""
    found = sorted((corpus / "captures").iterdir())
    names = {path.name for path in found}
    return [
        p for p in found if not p.name.startswith("derived--") and p.name.removesuffix(".zst") not in names - {p.name}
    ]


def detect(files: Sequence[Path], lake: Path) -> dict[str, list[Raised]]:
    """What the engine raises of each file. Neighbours often show the same hosts within a minute, which would be one
    incident, so they go through different runs; a run forgets everything else when a file ends."""
    import analytics

    config = EngineConfig(
        lake=LakeConfig(sensor="corpus"), frames=FramesConfig(mode="off"), flows=FlowsConfig(max_flows=20_000),
        alerts=AlertsConfig(budget_per_hour=100_000, low_budget_per_hour=100_000),
    ).override("applications", budget=1.0).override("scoring", enabled=False)  # fmt: skip
    init_lake(lake)
    for n in range(min(_RUNS, len(files))):
        pipeline = Pipeline(lake, config, lambda _level, _text: None)
        pipeline.start_replay([SavefileSource(str(path)) for path in files[n::_RUNS]], Pace("max"))
        if not pipeline.wait(_WAIT_S):
            raise SystemExit(f"not through after {_WAIT_S:.0f} s")
    sql = "SELECT source, kind, severity, count(*), any_value(why) FROM alerts GROUP BY ALL ORDER BY ALL"
    raised: dict[str, list[Raised]] = {path.name: [] for path in files}
    with analytics.connect(lake) as con:
        for source, *rest in con.execute(sql).fetchall():
            raised[Path(source).name].append(Raised(*rest))
    return raised


def missing(raised: dict[str, list[Raised]]) -> list[str]:
    """Attacks among these captures that are to be named and are not."""
    return [n for n, a in DOCUMENTED.items() if a.kind and n in raised and a.kind not in {r.kind for r in raised[n]}]


def loud(raised: dict[str, list[Raised]]) -> list[str]:
    """Captures without a documented attack of which more than low is said."""
    return [n for n, found in raised.items() if n not in DOCUMENTED and any(r.severity != "low" for r in found)]


def _table(head: str, rows: Iterable[Sequence[str]]) -> str:
    names = head.split("|")
    return "\n".join(["| " + " | ".join(cells) + " |" for cells in (names, ["---"] * len(names), *rows)])


def report(raised: dict[str, list[Raised]]) -> str:
    """The tables of docs/detection.md."""
    attacks = [
        (f"`{name}`", a.what, ", ".join(f"{r.kind} ({r.severity})" for r in raised[name]) or f"nothing: {a.missed}")
        for name, a in DOCUMENTED.items()
        if name in raised
    ]
    others = [
        (f"`{n}`", ", ".join(f"{r.kind} ({r.severity})" for r in raised[n] if r.severity != "low"),
         EXPLAINED.get(n, raised[n][0].why))
        for n in loud(raised)
    ]  # fmt: skip
    benign = sum(name not in DOCUMENTED for name in raised)
    quiet = [f for n, f in raised.items() if n not in DOCUMENTED and f and all(r.severity == "low" for r in f)]
    low = Counter(kind for found in quiet for kind in {r.kind for r in found})
    named = sum(bool(a.kind) for n, a in DOCUMENTED.items() if n in raised)
    return (
        f"{_table('capture|what it shows|raised', attacks)}\n\n"
        f"{named - len(missing(raised))} of {len(attacks)} documented attacks are named.\n\n"
        f"{_table('other capture|raised above low|why', others)}\n\n"
        f"{len(others)} of {benign} other captures ({100 * len(others) / max(1, benign):.1f} %) say more than low, "
        f"{len(quiet)} something low ({', '.join(f'{kind} {count}' for kind, count in low.most_common())})."
    )


def main() -> int:
    """Print the report."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.detect_corpus", description="What captures raise.")
    parser.add_argument("corpus", type=Path)
    parser.add_argument("--lake", type=Path, help="a new directory to keep; default: a temporary one")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as temporary:
        raised = detect(captures(options.corpus), options.lake or Path(temporary) / "lake")
    print(report(raised))
    others = sum(name not in DOCUMENTED for name in raised)
    return int(bool(missing(raised)) or len(loud(raised)) > LOUD_SHARE * others)


if __name__ == "__main__":
    sys.exit(main())
