"""What the dashboard costs on a large lake while a capture writes to it: every limit we set ourselves, as one table.

    sudo python -m benchmarks.watch [--rows 100000000] [--pps 100000] [--keep DIR] [--browser] [--json FILE]

Builds a lake of a day from real segments (`benchmarks.watch_lake`; with `--keep` its hours stay for the next time),
starts `engine run` with its dashboard on a private wire at `--pps`, and measures in turn: the
capture alone, the capture with 20 viewers who ask once a second, answers made anew (CPU time of all threads, median of
`--times`, and bytes as sent), pages of packets, and with `--browser` a real Chromium: bytes of the first load, from a
brush to the redrawn chart, from a click to the inspected packet.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import signal
import statistics
import subprocess
import sys
import tempfile
import threading
import time
import urllib.error
import urllib.request
from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Final

from benchmarks.measure import load, machine, process_cpu_s, versions, wait, write_json
from benchmarks.offline import ENGINE
from benchmarks.online import _inside, _started
from benchmarks.soak import processes
from benchmarks.watch_lake import LIVE, build, sessions_file
from benchmarks.wire import Wire, ip, usable, wire

VIEWERS: Final = 20
PORT: Final = 8050
IFACE: Final = "cap0"  # of `benchmarks.wire`
LIMITS: Final = {
    "overview 5m": 60, "overview 1h": 100, "overview 24h": 200, "hosts": 150, "graph": 150, "host": 150, "flows": 150,
    "page": 50, "filtered page": 300,
}  # fmt: skip
GZIP_LIMIT: Final = 8000
RANGES: Final = ("5m", "1h", "24h")
LOST: Final = (
    "kernel_drops",
    "drop_not_written",
    "drop_rows_shed",
    "flows_not_written",
    "messages_missed",
    "frames_not_stored",
)


# --- answers made anew, in this process ---------------------------------------------------------------------------


class Asker:
    """Asks a lake of its own `Watch`, so that CPU time is that of the answers alone."""

    def __init__(self, lake: Path, times: int) -> None:
        from analytics.watch.watch import Watch

        self.watch = Watch(lake)
        self.times = times

    def cost(
        self, name: str, range_text: str, text: str = "", params: dict[str, Any] | None = None, *, live: bool = True
    ) -> dict[str, Any]:
        """Median CPU ms, first CPU ms, median ms on the clock, bytes as sent. `live`: each of another second."""
        cpu, took, size = [], [], 0
        for _ in range(self.times + 1):
            if live:
                time.sleep(1 - time.time() % 1 + 0.01)
            self.watch.snapshots._kept.clear()
            began, before = time.monotonic(), time.process_time()
            try:
                size = len(self.watch.ask(name, range_text=range_text, filter_text=text, params=params).body)
            except Exception as error:  # noqa: BLE001 — a figure that cannot be had is said
                return {"error": str(error)}
            cpu.append((time.process_time() - before) * 1000)
            took.append((time.monotonic() - began) * 1000)
        return {
            "cpu_ms": round(statistics.median(cpu[1:]), 1), "first_ms": round(cpu[0], 1),
            "ms": round(statistics.median(took[1:]), 1), "gzip_bytes": size,
        }  # fmt: skip

    def busiest(self) -> dict[str, Any]:
        """An address, a name and so on that the filters of `filtered` name."""
        answer = self.watch.answer("hosts", range_text="5m", params={"limit": 3})
        return {"host": answer["rows"]["ip"][0], "other": answer["rows"]["ip"][-1]}


def answers(asker: Asker) -> dict[str, dict[str, Any]]:
    """The pages that people leave open."""
    found: dict[str, dict[str, Any]] = {"state": asker.cost("state", "5m")}
    for name in ("overview", "hosts", "graph", "flows"):
        for text in RANGES:
            found[f"{name} {text}"] = asker.cost(name, text)
    host = asker.busiest()["host"]
    for text in RANGES:
        found[f"host {text}"] = asker.cost("host", text, params={"ip": host})
    return found


def pages(asker: Asker) -> dict[str, dict[str, Any]]:
    """Pages of packets: newest, in the middle, oldest; then those of filters."""
    found: dict[str, dict[str, Any]] = {}
    for text in RANGES:
        total = asker.watch.answer("packets", range_text=text, params={"row": 0, "limit": 1})["total"]
        for where, row in (("first", 0), ("middle", total // 2), ("last", total - 200)):
            name = f"page {text} {where}"
            found[name] = asker.cost("packets", text, params={"row": max(0, row)}, live=False) | {"rows": total}
    host = asker.busiest()["host"]
    filters = (
        f"host={host}", "net=10.0.0.0/8", "port=53", "port=123", "app=dns", "-app=tls", "proto=icmp",
        "sni=host3.api.example",
        f"host={host} dport=443",
    )  # fmt: skip
    for text in RANGES:
        for words in filters:
            found[f"filtered page {text} {words}"] = asker.cost("packets", text, words, live=False)
    return found


# --- viewers, in a process of their own ---------------------------------------------------------------------------


def view(port: int, count: int, seconds: float) -> dict[str, Any]:
    """So many people on the overview page: two answers a second each, with the ETag that a browser would send."""
    took: list[float] = []
    failed: list[str] = []
    until = time.monotonic() + seconds

    def one(i: int) -> None:
        time.sleep(i / count)
        tags: dict[str, str] = {}
        while time.monotonic() < until:
            began = time.monotonic()
            for question in ("overview?range=5m", "state"):
                headers = {"Accept-Encoding": "gzip"} | ({"If-None-Match": tags[question]} if question in tags else {})
                asked = urllib.request.Request(f"http://127.0.0.1:{port}/api/v1/{question}", headers=headers)
                try:
                    with urllib.request.urlopen(asked, timeout=20) as answer:
                        answer.read()
                        tags[question] = answer.headers.get("ETag", "")
                except urllib.error.HTTPError as error:
                    if error.code != 304:
                        failed.append(f"{question}: {error}")
                except OSError as error:
                    failed.append(f"{question}: {error}")
            took.append(time.monotonic() - began)
            time.sleep(max(0.0, 1 - (time.monotonic() - began)))

    threads = [threading.Thread(target=one, args=(i,)) for i in range(count)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    order = sorted(took) or [0.0]
    return {
        "answers_per_s": round(2 * len(took) / seconds, 1), "p50_ms": round(1000 * order[len(order) // 2]),
        "p95_ms": round(1000 * order[int(len(order) * 0.95)]), "failures": len(failed), "first": failed[:3],
    }  # fmt: skip


def half(pair: Wire, lake: Path, pid: int, seconds: float, viewers: int) -> dict[str, Any]:
    """CPU of engine and dashboard over some seconds of capture, what was lost in them, and what viewers waited."""
    watching = None
    if viewers:
        watching = subprocess.Popen(
            _inside(pair.here, sys.executable, "-m", "benchmarks.watch", "--view", str(viewers), "--seconds",
                    str(seconds + 6)),
            stdout=subprocess.PIPE, text=True,
        )  # fmt: skip
        time.sleep(5)
    before, since, began = _cpu(pid), datetime.now(UTC), time.monotonic()
    time.sleep(seconds)
    passed, after = time.monotonic() - began, _cpu(pid)
    cpu = {name: round(100 * (after[name] - s) / passed, 1) for name, s in before.items() if name in after}
    until = datetime.now(UTC)
    seen = json.loads(watching.communicate()[0]) if watching is not None else {}
    time.sleep(1.5)  # until its counters are published
    return {"cpu_percent": cpu, "load": load(), "viewers": seen, **counted(lake, since, until)}


def _cpu(pid: int) -> dict[str, float]:
    """CPU seconds of the engine and its companions so far."""
    found = {}
    for name, one in processes(pid).items():
        with contextlib.suppress(OSError, IndexError):  # one that ended
            found[name] = process_cpu_s(one)
    return found


def counted(lake: Path, since: datetime, until: datetime) -> dict[str, Any]:
    """What `capture_stats` says of the live sensor: frames a second, and losses by cause."""
    import analytics

    sums = ", ".join(f"coalesce(sum({name}), 0)::BIGINT" for name in ("received", *LOST))
    with analytics.connect(lake, threads=1) as con:
        row = con.execute(
            f"SELECT {sums} FROM capture_stats WHERE sensor = ? AND ts >= ? AND ts < ?",
            [LIVE, since.replace(tzinfo=None), until.replace(tzinfo=None)],
        ).fetchall()[0]
    lost = {name: n for name, n in zip(LOST, row[1:], strict=True) if n}
    return {"pps": round(row[0] / (until - since).total_seconds()), "lost": lost}


# --- the run ------------------------------------------------------------------------------------------------------


@contextlib.contextmanager
def capture(pair: Wire, lake: Path, folder: Path, pps: int) -> Iterator[int]:
    """A capture at that rate into the lake, with its dashboard. Gives the engine's process id."""
    frames = folder / f"wire-{pps}.pcap"
    if not frames.exists():
        sessions_file(frames, 3, max(1000, pps))
    ip("-n", pair.here, "link", "set", "lo", "up")
    words = [
        *ENGINE,
        "run",
        "--iface",
        pair.capture,
        "--lake",
        str(lake),
        "--sensor",
        LIVE,
        "--no-login",
        "--port",
        str(PORT),
    ]
    with _started(_inside(pair.here, *words), folder / "log", "Ctrl-C stops") as process:
        sender = subprocess.Popen(
            _inside(pair.there, sys.executable, "-m", "benchmarks.sender", "--iface", pair.send, "--file", str(frames),
                    "--json", "--pps", str(pps), "--seconds", "3600"),
            stdout=subprocess.DEVNULL,
        )  # fmt: skip
        try:
            yield process.pid
        finally:
            sender.terminate()
            sender.wait()
            process.send_signal(signal.SIGINT)
            wait(process, time.monotonic() + 60)


def browse(pair: Wire) -> dict[str, Any]:
    """`benchmarks.watch_browser` in the capture's namespace."""
    words = _inside(pair.here, sys.executable, "-m", "benchmarks.watch_browser", f"http://127.0.0.1:{PORT}")
    done = subprocess.run(words, capture_output=True, text=True, check=False, timeout=240)
    if done.returncode:
        return {"skipped": done.stderr.strip()[-300:]}
    return dict(json.loads(done.stdout))


def measure(folder: Path, options: argparse.Namespace) -> dict[str, Any]:
    """Everything, as the result that `table` shows."""
    built = build(folder, options.rows, options.pps, IFACE, time.time)
    lake = folder / "lake"
    print(
        f"lake: {built.rows:,} packets of a day, {built.bytes / 1e9:.2f} GB, {built.hours_made} hours made anew",
        flush=True,
    )
    result: dict[str, Any] = {"rows": built.rows, "bytes": built.bytes, "pps": options.pps, "load_before": load()}
    with wire() as pair, capture(pair, lake, folder, options.pps) as pid:
        time.sleep(10)
        result["alone"] = half(pair, lake, pid, options.seconds, 0)
        result["watched"] = half(pair, lake, pid, options.seconds, VIEWERS)
        asker = Asker(lake, options.times)
        _settle(asker)
        result["answers"] = answers(asker)
        result["pages"] = pages(asker)
        asker.watch.close()
        if options.browser:
            result["browser"] = browse(pair)
    return result | {"load_after": load(), "machine": machine(), "versions": versions()}


def _settle(asker: Asker) -> None:
    """Until the mirrors have read the day."""
    for name in ("overview", "hosts"):
        for _ in range(60):
            if asker.watch.answer(name, range_text="24h").get("loaded", 1.0) >= 1:
                break
            time.sleep(1)


def lines(result: dict[str, Any]) -> list[tuple[str, str, str, bool | None]]:
    """What was measured, the figure, the limit, and whether it holds (None: there is none)."""
    found: list[tuple[str, str, str, bool | None]] = []
    for name, row in (result["answers"] | result["pages"]).items():
        if "error" in row:
            found.append((name, row["error"], "", False))
            continue
        limit = next((ms for start, ms in LIMITS.items() if f"{name} ".startswith(f"{start} ")), None)
        small = name.startswith("overview") and row["gzip_bytes"] > GZIP_LIMIT
        text = f"{row['cpu_ms']:.0f} ms CPU, {row['gzip_bytes']:,} bytes"
        told = f"{limit} ms" + (f", {GZIP_LIMIT:,} bytes" if name.startswith("overview") else "") if limit else ""
        found.append((name, text, told, None if limit is None else row["cpu_ms"] <= limit and not small))
    for name in ("alone", "watched"):
        part = result[name]
        lost = json.dumps(part["lost"]) if part["lost"] else "nothing lost"
        found.append((f"capture {name}", f"{part['pps']:,} packets/s, {lost}", "nothing lost", not part["lost"]))
    part = result["watched"]
    web = part["cpu_percent"].get("webui", 0.0)
    seen = part["viewers"]
    found.append(
        (
            f"dashboard, {VIEWERS} viewers",
            f"{web:.1f} % of a core, {seen['p50_ms']} ms an answer, {seen['failures']} failures",
            "25 %",
            web <= 25 and not seen["failures"],
        )
    )
    browser = result.get("browser", {})
    for key, unit, limit in (
        ("first_load_bytes", "bytes", 3_000_000),
        ("brush_ms", "ms", 500),
        ("brush_packets_ms", "ms", 500),
        ("inspect_ms", "ms", 200),
    ):
        if key in browser:
            found.append((f"browser: {key}", f"{browser[key]:,} {unit}", f"{limit:,} {unit}", browser[key] <= limit))
    if "skipped" in browser:
        found.append(("browser", browser["skipped"], "", None))
    return found


def main() -> int:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--rows", type=int, default=100_000_000, help="packets of the day (100000000)")
    parser.add_argument(
        "--pps", type=int, default=100_000, help="of the last five minutes, and while measuring (100000)"
    )
    parser.add_argument("--keep", type=Path, metavar="DIR", help="keep the lake there for the next time")
    parser.add_argument("--times", type=int, default=5, help="answers per figure (5)")
    parser.add_argument("--seconds", type=float, default=20, help="of capture alone, and of capture watched (20)")
    parser.add_argument("--browser", action="store_true", help="also in Chromium, by playwright")
    parser.add_argument("--json", type=Path, metavar="FILE")
    parser.add_argument("--view", type=int, help=argparse.SUPPRESS)
    options = parser.parse_args()
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))  # what was started is ended on the way out
    if options.view:
        print(json.dumps(view(PORT, options.view, options.seconds)))
        return 0
    if not (options.pps >= 1000 and options.rows >= 400 * options.pps and options.times >= 1 and options.seconds >= 1):
        parser.error(
            "use --pps of at least 1000, --rows of at least 400 times that, --times and --seconds of at least 1"
        )
    reason = usable()
    if reason:
        print(f"benchmarks.watch: {reason}", file=sys.stderr)
        return 2
    with tempfile.TemporaryDirectory(prefix="packetlake-watch-") as name:
        folder = options.keep or Path(name)
        folder.mkdir(parents=True, exist_ok=True)
        folder.chmod(0o755)  # the engine becomes another account
        result = measure(folder, options)
    found = lines(result)
    for what, text, limit, good in found:
        print(
            f"{'    ' if good is None else 'ok  ' if good else 'OVER'}  {what:<44}  {text}"
            f"{f'  (limit {limit})' if limit else ''}"
        )
    print(f"load {result['load_before']:.1f} before, {result['load_after']:.1f} after")
    if options.json:
        write_json(options.json, result)
    return int(any(good is False for _, _, _, good in found))


if __name__ == "__main__":
    sys.exit(main())
