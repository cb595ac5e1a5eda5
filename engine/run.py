"""`engine run` and `engine replay`: from options to a finished run with its summary."""

from __future__ import annotations

import contextlib
import os
import shlex
import signal
import sys
import time
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from engine import sandbox
from engine.capture import interfaces, privileges
from engine.config import EngineConfig
from engine.errors import CaptureError, EngineError
from engine.log import kept, report, say
from engine.metrics import TOTAL_FIELDS, SourceTotals
from engine.supervise import Companion

GENERATED = "generated"  # the source's name when capturing is not allowed


@dataclass(slots=True)
class Dashboard:
    """The dashboard's process, its socket, kept for its next start should it end, and the link that opens it."""

    process: Companion | None = None
    listener: Any = None
    link: str = ""

    def close(self) -> None:
        """Stop it and wait for its end."""
        if self.process is not None:
            self.process.close()


def become_unprivileged(
    lake: Path, user: str | None, files: Iterable[str] = (), config: EngineConfig | None = None, config_file: str = ""
) -> Callable[[], None]:
    """Choose the account and prepare the lake for it. Returns what gives up all rights; with a configuration, also
    those to files and system calls that the run does not need."""
    readable = [Path(f) for f in files if Path(f).exists()]
    account = privileges.choose_account(user, (*privileges.runtime_paths(), *readable), lake)
    privileges.prepare_lake(lake, account)

    rights = os.geteuid() == 0  # else there is nothing to tell

    def drop() -> None:
        line = privileges.drop(account)
        if rights:
            say(line)
        if config is not None and config.security.sandbox:
            confine(config, lake, [*readable, *([Path(config_file)] if config_file else [])], connect=not files)

    return drop


def confine(config: EngineConfig, lake: Path, files: Iterable[Path], connect: bool) -> None:
    """Give up, for this process and those it starts, all files but those of the run, and system calls it never makes.

    Files that the configuration names may be replaced, and others beside them named later (SIGHUP): their directories
    are readable. `connect`: notifications and lists may be set up while it runs. Raises CaptureError when the kernel
    refuses.
    """
    files = list(files)
    grants = sandbox.Grants(write=[lake], connect=connect or any("://" in name for name in config.intel.lists))
    grants.read += [_reachable(path) for path in (*_named_files(config), *files)]
    grants.write += [Path(config.eve.file).absolute().parent] if config.eve.file else []
    grants.write += [_reachable(path) for path in files if path.suffix == ".toml"]  # the dashboard may change it
    if config.ship.url.startswith("s3://"):
        grants.read.append(Path("~/.aws").expanduser())
    elif config.ship.url:
        grants.write.append(Path(config.ship.url.removeprefix("file://")))
    ours = Path(__file__).resolve().parents[1]  # analytics and webui, too
    sandbox.usual_paths(grants, [*privileges.runtime_paths(), Path(sys.base_prefix), ours])
    try:
        abi, calls = sandbox.confine_files(grants), sandbox.deny_calls()
    except OSError as error:
        raise CaptureError(
            f"cannot confine the process: {error.strerror}; `[security] sandbox = false` goes without"
        ) from None
    missing = " and ".join(n for n, there in (("Landlock", abi), ("seccomp filter", calls)) if not there)
    if missing:
        report("warning", f"no {missing} on this machine: files and calls are less confined")


def _reachable(path: Path) -> Path:
    """The directory of a file, so that it may be replaced; the file alone where that would be a home or the root."""
    folder = path.expanduser().absolute().parent
    return path if folder in (Path("/"), Path("/root"), Path.home()) or folder.parent == Path("/home") else folder


def _named_files(config: EngineConfig) -> list[Path]:
    """Files and directories that a configuration names for reading."""
    names = [
        *config.signatures.files, *config.signatures.patterns, *config.intel.lists, *config.sigma.files,
        *config.rules.files.python, *(rule.file for rule in config.rules.files.sql), config.geo.token_file,
        config.anomaly.model, config.web.tls_cert, config.web.tls_key, *(t.url_file for t in config.notify.targets),
    ]  # fmt: skip
    return [Path(name).expanduser() for name in names if name and "://" not in name]


def warm_up() -> None:
    """Load the kernels; a cold start says what takes its time."""
    started = time.monotonic()
    from engine import warmup

    if warmup.cache_is_warm():
        warmup.warm_up()
        return
    say("first start of this version: compiling the kernels, about half a minute, once ...")
    warmup.warm_up()
    say(f"kernels compiled in {time.monotonic() - started:.0f} s")


def run(
    config: EngineConfig, lake: Path, user: str | None, start_dashboard: Callable[[Path], Dashboard] | None,
    load: Callable[[], EngineConfig] | None = None, config_file: str = "",
) -> int:  # fmt: skip
    """Capture until a signal comes. Without the right to capture, and no interface named, show generated traffic.
    `load` reads the configuration again, from `config_file` or what stands for it, when SIGHUP comes."""
    on_signals(_leave_at_once)
    names = config.capture.interfaces
    generated = False
    if not names:
        if privileges.can_capture():
            names = (interfaces.default_interface(),)
        else:
            generated = True
            lake = lake.with_name(lake.name + "-generated")
            say("no right to capture here (run with sudo, or grant CAP_NET_RAW): showing generated traffic instead")
    drop = become_unprivileged(lake, user, (), config, config_file)
    warm_up()
    from engine.capture.pacing import Pace
    from engine.capture.savefile import SavefileSource
    from engine.pipeline import Pipeline
    from engine.presence import Presence
    from engine.reload import Reload
    from engine.sensor_lock import SensorLock
    from engine.synth import GeneratedCapture
    from engine.watchdog import Watchdog
    from engine.writer import init_lake

    sources = [] if generated else _open_interfaces(names, config)
    dashboard, presence = Dashboard(), None
    try:
        drop()
        init_lake(lake)
        presence = Presence(lake, SensorLock(lake, config.lake.sensor, [GENERATED] if generated else names))
        _leave_settings(config, lake)
        pipeline = Pipeline(lake, config, report, live=not generated)
        if generated:
            pipeline.start_replay([SavefileSource(GENERATED, stream=GeneratedCapture())], Pace("recorded"))
        else:
            pipeline.start_live(sources)
        if start_dashboard is not None:
            dashboard = start_dashboard(lake)
        what = "generated traffic" if generated else f"capturing on {', '.join(names)}"
        say(f"{what}; lake {lake}")
        if dashboard.link:
            link = f"{dashboard.link.partition('#')[0]}; `engine link` signs in" if kept() else dashboard.link
            say(f"dashboard: {link}")
        say("Ctrl-C stops")
        watchdog = None if generated else Watchdog(config.watchdog)
        reload = load and Reload(load, config_file, config, lake, report, lambda used: _leave_settings(used, lake))
        return _finish(pipeline, lake, watchdog, presence, reload)
    finally:
        if presence is not None:
            presence.close()
        dashboard.close()
        for source in sources:
            source.close()


def _leave_settings(config: EngineConfig, lake: Path) -> None:
    """Leave the configuration, secrets masked, where the dashboard finds it: `<lake>/.settings/running.toml`."""
    target = lake / ".settings" / "running.toml"
    partial = target.with_name(".running.toml.inprogress")
    with contextlib.suppress(OSError):  # no reason not to capture
        target.parent.mkdir(exist_ok=True)
        partial.write_text(config.to_toml())
        partial.chmod(0o600)
        partial.replace(target)


def _open_interfaces(names: Sequence[str], config: EngineConfig) -> list[Any]:
    if config.capture.driver == "pypcap":
        from engine.capture.pypcap_driver import PypcapSource as Source
    else:
        from engine.capture.live import LiveSource as Source  # type: ignore[assignment]
    opened: list[Any] = []
    try:
        for number, name in enumerate(dict.fromkeys(names)):
            for source in _shares(Source, name, config, number):
                source.open()
                opened.append(source)
                for warning in getattr(source, "warnings", ()):
                    report("warning", warning)
    except EngineError:
        for source in opened:
            source.close()
        raise
    return opened


def _shares(kind: Any, name: str, config: EngineConfig, number: int) -> list[Any]:
    """The sources of an interface: one, or as many as share it."""
    if config.capture.fanout == 1:
        return [kind(name, config.capture)]
    group = os.getpid() * 31 + number  # of this process and interface
    return [kind(name, config.capture, group) for _ in range(config.capture.fanout)]


def replay(
    config: EngineConfig, lake: Path, user: str | None, files: Sequence[str], speed: str,
    tell_run: Callable[[str], None] | None = None,
) -> int:  # fmt: skip
    """Run savefiles through the engine. Exit code 2 when one of them was refused. `tell_run` gets the run's name."""
    from engine.capture.pacing import Pace

    on_signals(_leave_at_once)
    pace = Pace(speed)
    drop = become_unprivileged(lake, user, files, config)
    warm_up()
    from engine.capture.savefile import SavefileSource
    from engine.pipeline import Pipeline
    from engine.writer import init_lake

    drop()
    init_lake(lake)
    config = config.override("applications", budget=1.0)  # a file waits for its parsers
    pipeline = Pipeline(lake, config, report)
    if tell_run is not None:
        tell_run(pipeline.run)
    pipeline.start_replay([SavefileSource(f, config.capture.bpf_filter) for f in files], pace)
    return _finish(pipeline, lake)


def _leave_at_once(_number: int, _frame: object) -> None:
    """A signal before the first frame. There is nothing to save, and compiling would swallow an exception."""
    say("stopped before the capture began")
    os._exit(0)


def on_signals(handler: Callable[[int, Any], None]) -> None:
    """Have the signals that end a run handled by `handler`. Under nohup, the terminal's end stays ignored."""
    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
        if number != signal.SIGHUP or signal.getsignal(number) != signal.SIG_IGN:
            signal.signal(number, handler)


def _finish(pipeline: Any, lake: Path, watchdog: Any = None, presence: Any = None, reload: Any = None) -> int:
    """Wait for the end or a signal, stop in order, print the summary."""
    stopping: list[int] = []

    def on_signal(number: int, _frame: object) -> None:
        stopping.append(number)
        pipeline.stop()

    on_signals(on_signal)
    if reload is not None:
        reload.listen(lambda: on_signal(signal.SIGHUP, None))
    started = time.monotonic()
    ended = False
    while not ended and not stopping:
        ended = pipeline.wait(0.2)
        if watchdog is not None:
            _watch(watchdog, presence, pipeline)
        if reload is not None and reload.asked:
            reload.take(pipeline)
        _progress(pipeline.totals, time.monotonic() - started)
    if not ended and not pipeline.wait(2.5):
        pipeline.abandon()
    if not pipeline.wait(2.0):
        raise CaptureError("the engine did not stop within 5 s; segments published before are complete")
    print_summary(pipeline.totals, time.monotonic() - started, lake, pipeline.flow_memory)
    if presence is not None and not stopping:
        report("error", "no interface is left to capture on")
        return 1
    return 2 if pipeline.incomplete else 0


def _watch(watchdog: Any, presence: Any, pipeline: Any) -> None:
    """Have the watchdog look, and say what it found: here, in an incident, and to `engine status`."""
    totals = pipeline.totals
    rows = sum(t.rows + t.rows_off for t in totals.values())
    watchdog.look(pipeline.received, rows, time.monotonic(), time.time_ns() // 1000)
    for line in watchdog.lines:
        report("warning", line)
    for finding in watchdog.findings:
        pipeline.notice(finding)
    presence.tell(pipeline.troubles + watchdog.wrong, totals)


def _on_terminal() -> bool:
    return sys.stderr is not None and sys.stderr.isatty()


_last_progress = 0.0


def _progress(totals: dict[str, SourceTotals], elapsed_s: float) -> None:
    """A line that is rewritten once a second, on a terminal only."""
    global _last_progress
    if not _on_terminal() or elapsed_s - _last_progress < 1:
        return
    _last_progress = elapsed_s
    rows = sum(t.rows + t.rows_off for t in totals.values())
    lost = sum(t.kernel_drops + t.own_drops for t in totals.values())
    with contextlib.suppress(OSError):
        sys.stderr.write(f"\r{rows:>14,} packets  {elapsed_s:8.0f} s  {lost:,} dropped ")
        sys.stderr.flush()


def print_summary(totals: dict[str, SourceTotals], elapsed_s: float, lake: Path, flow_memory: tuple[int, int]) -> None:
    """Packets, rate, drops by cause, flows, applications, raw frames, and where the lake is."""
    if _on_terminal():
        say("")
    rows = sum(t.rows + t.rows_off for t in totals.values())
    volume = sum(t.wire_bytes for t in totals.values())
    rate = rows / elapsed_s if elapsed_s else 0.0
    summary = f"{rows:,} packets, {volume:,} bytes on the wire in {elapsed_s:.1f} s: {rate:,.0f} packets/s"
    say(summary, rows=rows, wire_bytes=volume, elapsed_s=round(elapsed_s, 3))
    for name, t in totals.items():
        drops = ", ".join(f"{cause} {count:,}" for cause, count in t.drops.items())
        counters = {field: getattr(t, field) for field in TOTAL_FIELDS}
        say(
            f"  {name}: received {t.received:,}; drops: {drops}; undecodable {t.undecodable:,}", source=name, **counters
        )
    flows, evicted = sum(t.flows for t in totals.values()), sum(t.flows_evicted for t in totals.values())
    peak, bound = flow_memory
    say(f"flows: {flows:,}, ended early {evicted:,}; at most {peak:,} at once; table bounded to {bound >> 20:,} MiB")
    messages, missed = sum(t.messages for t in totals.values()), sum(t.messages_missed for t in totals.values())
    stored, not_stored = (
        sum(t.frames_stored for t in totals.values()),
        sum(t.frames_not_stored for t in totals.values()),
    )
    say(f"application messages: {messages:,} read, {missed:,} missed")
    say(f"raw frames: {stored:,} kept, {not_stored:,} not kept")
    say(f"lake: {lake}   (to query it: engine sql --lake {shlex.quote(str(lake))})")


def serve(dashboard: Dashboard) -> int:
    """Wait for the dashboard's end or a signal."""
    stopping: list[int] = []
    on_signals(lambda number, _: stopping.append(number))
    assert dashboard.process is not None
    while not stopping and dashboard.process.running:
        time.sleep(0.1)
    dashboard.close()
    return 0 if stopping else dashboard.process.code
