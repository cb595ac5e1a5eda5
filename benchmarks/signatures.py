"""Signatures over payloads: ours beside google-re2 and Python's `re`; intel addresses.

    python -m benchmarks.signatures [--rules 200] [--json FILE]

One thread, CPU time, median of the runs. Rules and payloads are generated and seeded: three quarters of the rules
are contents of 6 to 16 bytes, one quarter regular expressions; one payload in a thousand holds what a rule looks for.
"stage" is all of `Signatures.take` on decoded batches, behind the first bytes of each stream; "every segment joined" is
the same within those, where the end of the segment before is scanned once more. "scan" is the scanner on gathered
buffers, "per payload" one call of the engine for each payload. Python's `re` searches each expression in each payload,
as programs without such an engine do.
"""

from __future__ import annotations

import argparse
import ipaddress
import json
import re
import statistics
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np

from engine import packets as k
from engine.config import FlowsConfig, SignaturesConfig
from engine.decode import Decoder
from engine.detect.intel_index import IntelIndex
from engine.detect.intel_lists import Entry
from engine.detect.signatures.gatherer import Gatherer
from engine.detect.signatures.loader import RuleSet
from engine.detect.signatures.rule import fast_item, pattern_of
from engine.detect.signatures.scanner import HyperscanScanner, Pattern, Re2Scanner
from engine.detect.signatures.stage import Signatures
from engine.flows import FlowTable
from engine.kernels.payloads import P_END, P_START

RUNS = 7
TARGET_GBIT_S, TARGET_INTEL_NS = 2.0, 15.0
_WORDS = b"the of select update script admin cookie session login passwd shell exec value data report index".split()


def median_s(work: Callable[[], object], runs: int = RUNS) -> float:
    """Median CPU seconds of a call, after one that is not counted."""
    work()
    times = []
    for _ in range(runs):
        began = time.thread_time_ns()
        work()
        times.append((time.thread_time_ns() - began) / 1e9)
    return statistics.median(times)


def make_rules(count: int) -> tuple[RuleSet, list[bytes]]:
    """(rules, a payload that each of them matches)."""
    random = np.random.default_rng(1)
    lines, matches = [], []
    for n in range(count):
        word = _WORDS[n % len(_WORDS)] + bytes(random.integers(97, 123, random.integers(3, 9)).tolist())
        sid = f"sid:{n + 1};"
        if n % 4:
            lines.append(f'alert tcp any any -> any any (content:"{word.decode()}"; nocase; {sid})')
            matches.append(word)
        else:
            lines.append(
                f'alert tcp any any -> any any (pcre:"/{word.decode()}[\\s+]{{1,8}}(?:from|into)=\\d+/i"; {sid})'
            )
            matches.append(word + b" + from=1")
    rules = RuleSet()
    rules.add_rules("\n".join(lines), "benchmark", {"HOME_NET": "any"})
    assert not rules.refused
    return rules, matches


def make_payloads(kind: str, size: int, count: int, matches: list[bytes]) -> list[bytes]:
    """Random bytes, or text of a web; one in a thousand with a match."""
    random = np.random.default_rng(2)
    page = b"".join(
        b"<p class='c%d'>%s</p>\n" % (n, b" ".join(_WORDS[i] for i in random.integers(0, len(_WORDS), 9)))
        for n in range(3000)
    )
    head = b"GET /index.php?id=7&lang=en HTTP/1.1\r\nHost: www.example.com\r\nUser-Agent: Mozilla/5.0\r\n\r\n"
    payloads = []
    for n in range(count):
        if kind == "random":
            data = random.bytes(size)
        else:
            at = int(random.integers(0, len(page) - size))
            data = (head + page[at : at + size])[:size] if n % 8 == 0 else page[at : at + size]
        if n % 1000 == 500:
            word = matches[n // 1000 % len(matches)]
            data = data[: size - len(word)] + word
        payloads.append(data)
    return payloads


def make_batch(payloads: list[bytes]) -> tuple[k.FrameBatch, k.PacketBatch, FlowTable]:
    """The payloads as TCP segments of 500 flows, decoded."""
    head = bytes.fromhex("0a1b2c3d4e5f020000c0ffee0800")
    frames = k.FrameBatch(len(payloads), sum(map(len, payloads)) + 64 * len(payloads))
    at, sequence = 0, [1] * 500
    for n, data in enumerate(payloads):
        flow = n % 500
        ip = bytes.fromhex("4500") + (40 + len(data)).to_bytes(2, "big") + bytes.fromhex("0001000040060000")
        ip += bytes([10, 1, flow >> 8, flow & 255, 192, 0, 2, 1])
        tcp = (20_000 + flow).to_bytes(2, "big") + (80).to_bytes(2, "big") + sequence[flow].to_bytes(4, "big")
        frame = head + ip + tcp + bytes.fromhex("00000001501800ff00000000") + data
        sequence[flow] += len(data)
        frames.arena[at : at + len(frame)] = np.frombuffer(frame, np.uint8)
        frames.frames[:, n] = 1_700_000_000 * 10**9 + n * 1000, at, len(frame), len(frame), 1
        at += len(frame)
    frames.count = len(payloads)
    packets = k.PacketBatch(len(payloads))
    Decoder().decode(frames, packets)
    table = FlowTable(FlowsConfig(), lambda rows: rows.release())
    table.follow(frames, packets)
    return frames, packets, table


def measure(kind: str, size: int, rules: RuleSet, matches: list[bytes]) -> dict[str, float]:
    """Gbit/s of payload by way of scanning."""
    payloads = make_payloads(kind, size, min(16_000, 8_000_000 // size), matches)
    frames, packets, table = make_batch(payloads)
    bits = sum(map(len, payloads)) * 8
    items = [fast_item(rule) for rule in rules.rules]
    patterns = [pattern_of(item) for item in items if item is not None]
    stage, none = Signatures(SignaturesConfig(), 1.0, rules), Signatures(SignaturesConfig(join_bytes=0), 1.0, rules)
    slow = Signatures(SignaturesConfig(engine="re2"), 1.0, rules)
    gathered = [(bytes(g.data), g.pieces.copy()) for g in Gatherer(0, 1024).gather(frames, packets)]
    fast, portable = HyperscanScanner(patterns), Re2Scanner(patterns)
    few = payloads[: max(20, len(payloads) // 200)]
    compiled = [re.compile(_text(p), re.I) for p in patterns]

    def scan(scanner: HyperscanScanner | Re2Scanner) -> None:
        for data, pieces in gathered:
            scanner.scan(memoryview(data), pieces[P_START], pieces[P_END])

    early = Signatures(SignaturesConfig(flows=1024, join_bytes=1 << 20), 1.0, rules)

    def join() -> None:
        early._gatherer._entries[:] = 0
        early.take(frames, packets, table)

    def each(payload: bytes) -> None:
        fast._run(memoryview(payload), lambda *_: False)

    found = [sum(f.count for f in s.take(frames, packets, table)) for s in (none, Signatures(SignaturesConfig(
        engine="re2", join_bytes=0), 1.0, rules))]  # fmt: skip
    assert found[0] == found[1] > 0, found
    few_bits = sum(map(len, few)) * 8
    return {
        "stage": bits / median_s(lambda: stage.take(frames, packets, table)) / 1e9,
        "stage, every segment joined": bits / median_s(join) / 1e9,
        "stage, re2": bits / median_s(lambda: slow.take(frames, packets, table)) / 1e9,
        "scan, hyperscan": bits / median_s(lambda: scan(fast)) / 1e9,
        "scan, hyperscan per payload": bits / median_s(lambda: [each(p) for p in payloads]) / 1e9,
        "scan, re2": bits / median_s(lambda: scan(portable)) / 1e9,
        "scan, re2 per payload": bits / median_s(lambda: [portable._set.Match(p) for p in payloads]) / 1e9,
        "scan, Python re": few_bits / median_s(lambda: [c.search(p) for p in few for c in compiled]) / 1e9,
    }


def _text(pattern: Pattern) -> bytes:
    return re.escape(pattern.literal) if pattern.regex is None else pattern.regex.exact.encode()


def measure_intel(entries: int = 100_000) -> dict[str, float]:
    """ns a packet: addresses at random, and of few hosts."""
    random = np.random.default_rng(3)
    listed = [str(ipaddress.ip_address(int(n))) for n in random.integers(1 << 24, 0xE0000000, entries)]
    index = IntelIndex([Entry("ip", a + "/24" if n % 4 == 0 else a, "l") for n, a in enumerate(_networks(listed))])
    rows = k.ROWS_PER_BATCH
    packets, hits = k.PacketBatch(rows), np.zeros((4, 16_384), np.int64)
    packets.present[:], packets.short[k.S_IP_VERSION] = k.HAS_IP, 4
    out = {}
    for name, hosts in (("random addresses", 1 << 20), ("200 hosts", 200)):
        pool = random.integers(1 << 24, 0xE0000000, hosts).astype(np.uint64)
        for slot in (k.A_SRC_LO, k.A_DST_LO):
            packets.address[slot] = pool[random.integers(0, hosts, rows)]
        work = (packets.short, packets.address, packets.present, 0, rows, hits)
        out[name] = median_s(lambda work=work: index.find_addresses(*work), 25) / rows * 1e9  # type: ignore[misc]
    return out


def _networks(addresses: list[str]) -> list[str]:
    """Every fourth one the first address of its /24."""
    return [a.rpartition(".")[0] + ".0" if n % 4 == 0 else a for n, a in enumerate(addresses)]


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rules", type=int, default=200)
    parser.add_argument("--json", type=Path)
    options = parser.parse_args()
    rules, matches = make_rules(options.rules)
    results: dict[str, dict[str, float]] = {}
    for kind, size in (("random", 1400), ("text", 1400), ("text", 200), ("text", 60)):
        results[f"{kind}, {size} bytes"] = measure(kind, size, rules, matches)
    print(f"{options.rules} rules, Gbit/s of payload per core (target: stage at least {TARGET_GBIT_S})")
    for name, figures in results.items():
        print(name)
        for what, value in figures.items():
            print(f"    {what:<30} {value:8.3f}")
    results["intel, ns a packet"] = measure_intel()
    print(f"intel, 100,000 entries, ns a packet (target: at most {TARGET_INTEL_NS})")
    for what, value in results["intel, ns a packet"].items():
        print(f"    {what:<30} {value:8.1f}")
    if options.json:
        options.json.write_text(json.dumps(results, indent=1))


if __name__ == "__main__":
    main()
