"""Does it run for long? `engine run` on a private wire with everything on, watched, queried and at its lake's limits.

    sudo python -m benchmarks.soak [--minutes 60] [--pps N] [--json FILE]

The sender gives the made-up sessions at a steady rate: half of the highest that is held without loss (found first), or
`--pps`. Meanwhile viewers ask the dashboard for its pages once a second, ad-hoc SQL runs every half minute, retention
holds the lake at a size that it reaches within minutes, and the merger merges. Every ten seconds: resident memory of
each process, CPU, size and number of the lake's files. The verdict compares the end with minute 10 (a sixth of a
shorter run): memory within 5 %, size at its limit, files bounded, no drops of our own, no errors.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import re
import signal
import statistics
import subprocess
import sys
import tempfile
import time
import urllib.request
from dataclasses import asdict, dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

from benchmarks.data import write_sessions
from benchmarks.measure import load, machine, process_cpu_s, versions, wait, write_json
from benchmarks.offline import ENGINE
from benchmarks.online import _counts, _inside, _started, search
from benchmarks.wire import Wire, ip, usable, wire

VIEWERS, SQL_EVERY_S, SAMPLE_S = 5, 30.0, 10.0
_CONFIG = """
[frames]
limit_bytes = 536870912
[retention]
packets_gib = {packets}
flows_gib = 0.125
applications_gib = 0.125
windows_gib = 0.0625
rollups_gib = 0.0625
"""
_LIMIT_GIB = 0.5 + 0.125 + 0.125 + 0.0625 + 0.0625  # all but packets, which is given
_OWN = ("drop_", "flows_not", "messages_missed", "frames_not", "scores_shed")
_QUERIES = (
    "SELECT app, sum(src_bytes + dst_bytes) AS bytes FROM table_between('flows', '{minutes}', '{now}') GROUP BY app",
    "SELECT src_ip, count(*) AS n FROM table_between('packets', '{seconds}', '{now}') GROUP BY src_ip ORDER BY n DESC",
    "SELECT kind, severity, count(*) FROM alerts GROUP BY ALL",
)
# Ranges that are full by minute 10, so that answers are as large then as at the end.
_PAGES = (
    "overview?range=5m", "state", "packets?range=1m&limit=100", "flows?range=5m&limit=100", "hosts?range=5m",
    "alerts?range=5m", "anomalies?range=5m", "health?range=5m", "dns?range=5m", "tls?range=5m",
)  # fmt: skip


@dataclass(frozen=True, slots=True)
class Sample:
    """One look: seconds since the start, resident KiB and CPU seconds by process, bytes and files of the lake, and how
    many of the bytes no query sees any more and wait for their deletion."""

    at_s: float
    rss_kib: dict[str, int]
    cpu_s: dict[str, float]
    bytes: int
    waiting: int
    files: int
    load: float


def processes(pid: int) -> dict[str, int]:
    """The engine and what it started, by what they are."""
    found = {"engine": pid}
    children = [child for task in Path(f"/proc/{pid}/task").iterdir() for child in _children(task)]
    for child in children:
        with contextlib.suppress(OSError):
            words = Path(f"/proc/{child}/cmdline").read_bytes().decode(errors="replace").split("\0")
            name = words[words.index("-m") + 1] if "-m" in words else Path(words[0]).name
            while name in found:
                name += "+"
            found[name] = int(child)
    return found


def _children(task: Path) -> list[str]:
    with contextlib.suppress(OSError):
        return (task / "children").read_text().split()
    return []


def resident(pid: int) -> int:
    """KiB, 0 once it is gone."""
    with contextlib.suppress(OSError):
        return int(re.findall(r"VmRSS:\s+(\d+)", Path(f"/proc/{pid}/status").read_text())[0])
    return 0


def tree(folder: Path) -> tuple[int, int]:
    """Bytes and number of files; what goes away meanwhile does not count."""
    size = number = 0
    for path in folder.rglob("*"):
        with contextlib.suppress(OSError):
            status = path.stat()
            if path.is_file():
                size, number = size + status.st_size, number + 1
    return size, number


def retired(lake: Path) -> int:
    """Bytes of segments that retention has taken from all new queries, and deletes when old ones are over."""
    size = 0
    for note in (lake / ".retired").glob("*@*"):
        with contextlib.suppress(OSError, ValueError):
            table = note.name.partition("@")[0]
            for place in json.loads(note.read_text()):
                with contextlib.suppress(OSError):
                    size += (lake / table / place).stat().st_size
    return size


def look(pid: int, lake: Path, began: float) -> Sample:
    all_of = processes(pid)
    cpu = {}
    for name, one in all_of.items():
        with contextlib.suppress(OSError, IndexError):
            cpu[name] = round(process_cpu_s(one), 2)
    size, files = tree(lake)
    rss = {name: resident(one) for name, one in all_of.items()}
    return Sample(round(time.monotonic() - began, 1), rss, cpu, size, retired(lake), files, load())


# --- the viewers: a process of its own, in the capture's namespace ------------------------------------------------


def view(port: int, seconds: float) -> dict[str, Any]:
    """Ask for the pages in turn, `VIEWERS` of them each second. Returns answers, failures and median ms."""
    took, failed, turn = [], [], 0
    until = time.monotonic() + seconds
    while time.monotonic() < until:
        began = time.monotonic()
        for _ in range(VIEWERS):
            page = _PAGES[turn % len(_PAGES)]
            turn += 1
            asked = time.monotonic()
            try:
                urllib.request.urlopen(f"http://127.0.0.1:{port}/api/v1/{page}", timeout=30).read()
                took.append(time.monotonic() - asked)
            except Exception as error:  # noqa: BLE001 — whatever it is, it is what is being looked for
                failed.append(f"{page}: {error}")
        time.sleep(max(0.0, 1 - (time.monotonic() - began)))
    return {
        "answers": len(took), "median_ms": round(1000 * statistics.median(took or [0])), "failures": len(failed),
        "first_failures": failed[:5],
    }  # fmt: skip


# --- one run ------------------------------------------------------------------------------------------------------


def soak(pair: Wire, capture: Path, pps: float, minutes: float, packets_gib: float, folder: Path) -> dict[str, Any]:
    """Run it, and say what was seen; files of the run are under `folder`."""
    lake, config, log = folder / "lake", folder / "soak.toml", folder / "log"
    config.write_text(_CONFIG.format(packets=packets_gib))
    ip("-n", pair.here, "link", "set", "lo", "up")
    words = [*ENGINE, "run", "--iface", pair.capture, "--lake", str(lake), "--config", str(config), "--no-login",
             "--port", "8050"]  # fmt: skip
    seconds = minutes * 60
    samples: list[Sample] = []
    sql: dict[str, Any] = {"queries": 0, "failures": []}
    with _started(_inside(pair.here, *words), log, "Ctrl-C stops") as process:
        sender = subprocess.Popen(
            _inside(pair.there, sys.executable, "-m", "benchmarks.sender", "--iface", pair.send, "--file", capture,
                    "--json", "--pps", str(pps), "--seconds", str(seconds)),
            stdout=subprocess.PIPE, text=True,
        )  # fmt: skip
        viewer = subprocess.Popen(
            _inside(pair.here, sys.executable, "-m", "benchmarks.soak", "--view", "8050", "--minutes", str(minutes)),
            stdout=subprocess.PIPE, text=True,
        )  # fmt: skip
        began = time.monotonic()
        next_sql = SQL_EVERY_S
        while sender.poll() is None and process.poll() is None:
            time.sleep(SAMPLE_S)
            samples.append(look(process.pid, lake, began))
            if samples[-1].at_s >= next_sql:
                next_sql += SQL_EVERY_S
                now = datetime.now(UTC).replace(tzinfo=None)
                query = _QUERIES[sql["queries"] % len(_QUERIES)].format(
                    now=now, seconds=now - timedelta(seconds=10), minutes=now - timedelta(minutes=5)
                )
                done = subprocess.run(
                    [*ENGINE, "sql", "--lake", str(lake), "--format", "csv", query],
                    capture_output=True, text=True, check=False, timeout=120,
                )  # fmt: skip
                sql["queries"] += 1
                if done.returncode:
                    sql["failures"].append(done.stderr.strip()[-300:])
        sent = json.loads(sender.communicate()[0] or "{}")
        seen = json.loads(viewer.communicate()[0] or "{}")
        time.sleep(2)
        alive = process.poll() is None
        process.send_signal(signal.SIGINT)
        ended = wait(process, time.monotonic() + 60)
    lines = log.read_text(errors="replace").splitlines()
    return {
        "pps": pps, "minutes": minutes, "limit_bytes": int((packets_gib + _LIMIT_GIB) * 2**30), "sent": sent,
        "alive_to_the_end": alive, "exit_code": ended.code, "viewers": seen, "sql": sql, "counts": _counts(lake),
        "log": [line for line in lines if not line.startswith("dashboard:")], "samples": [asdict(s) for s in samples],
    }  # fmt: skip


def _gib(size: float) -> str:
    return f"{size / 2**30:.2f} GiB"


def verdict(run: dict[str, Any]) -> list[tuple[str, bool, str]]:
    """What was promised, whether it held, and the figures."""
    samples, counts = run["samples"], run["counts"]
    start = min(600.0, run["minutes"] * 10)
    steady = [s for s in samples if s["at_s"] >= start]
    half = len(steady) // 2

    def median(rows: list[dict[str, Any]], name: str) -> float:
        return statistics.median(s["rss_kib"].get(name, 0) for s in rows) / 1024

    found = []
    window = max(1, len(steady) // 10)  # five minutes of an hour: a dashboard's memory goes up and down
    for name in steady[0]["rss_kib"]:
        first, last = median(steady[:window], name), median(steady[-window:], name)
        change = 100 * (last / first - 1) if first else 0.0
        found.append((f"memory of {name}", change <= 5, f"{first:.0f} -> {last:.0f} MiB, {change:+.1f} %"))
    size = [s["bytes"] - s["waiting"] for s in steady]
    limit, waiting = run["limit_bytes"], max(s["waiting"] for s in steady)
    text = f"at most {_gib(max(size))}, at the end {_gib(size[-1])} of {_gib(limit)}; up to {_gib(waiting)} more waited"
    found.append(("lake size", max(size) <= 1.1 * limit, text))
    files = [max(s["files"] for s in part) for part in (steady[:half], steady[half:]) if part]
    text = f"at most {files[0]:,} in the first half, {files[-1]:,} in the second"
    found.append(("files", files[-1] <= 1.2 * files[0] + 50, text))
    own = {name: n for name, n in counts.items() if n and name.startswith(_OWN)}
    found.append(("own drops", not own, json.dumps(own)))
    missing = counts["received"] - counts["rows"] - sum(n for name, n in counts.items() if name.startswith("drop_"))
    text = f"{counts['received']:,} received, {counts['rows']:,} rows, {missing} missing"
    found.append(("books", missing == 0, text))
    found.append(("kernel drops", counts["kernel_drops"] == 0, f"{counts['kernel_drops']:,}"))
    seen, sql = run["viewers"], run["sql"]
    good = not seen.get("failures", 1) and not sql["failures"] and run["exit_code"] == 0 and run["alive_to_the_end"]
    text = (
        f"viewers {seen.get('failures')} of {seen.get('answers', 0):,}, SQL {len(sql['failures'])} of {sql['queries']}"
    )
    found.append(("errors", good, f"{text}, exit code {run['exit_code']}"))
    return found


def main() -> int:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--minutes", type=float, default=60)
    parser.add_argument("--pps", type=float, default=0, help="(half of the highest rate that is held)")
    parser.add_argument("--packets-gib", type=float, default=2.0, help="most room for packet rows (2)")
    parser.add_argument("--json", type=Path, metavar="FILE")
    parser.add_argument("--view", type=int, help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.view:
        print(json.dumps(view(options.view, options.minutes * 60)))
        return 0
    reason = usable()
    if reason:
        raise SystemExit(f"benchmarks.soak: {reason}")
    with tempfile.TemporaryDirectory(prefix="packetlake-soak-") as name, wire() as pair:
        folder = Path(name)
        folder.chmod(0o777)  # the engine becomes another account
        capture = write_sessions(folder / "sessions.pcap", 250_000)
        pps = options.pps
        if not pps:
            held = search(pair, capture, 6, 6)["held_pps"]["median"]
            pps = held / 2
            print(f"held {held:,.0f} packets/s; soaking at half of it", flush=True)
        result = soak(pair, capture, pps, options.minutes, options.packets_gib, folder)
    checks = verdict(result)
    for what, good, text in checks:
        print(f"{'ok  ' if good else 'FAIL'}  {what}: {text}")
    print(*result["log"], sep="\n")
    if options.json:
        write_json(options.json, result | {"machine": machine(), "versions": versions(), "checks": checks})
    return int(not all(good for _, good, _ in checks))


if __name__ == "__main__":
    sys.exit(main())
