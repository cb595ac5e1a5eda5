"""The command line, and the one place that knows all packages.

Heavy imports happen inside the command that needs them.
"""

from __future__ import annotations

import argparse
import errno
import os
import sys
from pathlib import Path
from typing import Any

from engine import __version__, alerts_cli, companions
from engine.errors import ConfigError, EngineError


def main(arguments: list[str] | None = None) -> int:
    """Run one command. Returns the exit code: 0 done, 2 the operator must change something."""
    # Before numpy and pyarrow are imported: threads of BLAS and the allocator would start as root and keep its rights.
    os.environ.update(OPENBLAS_NUM_THREADS="1", JE_ARROW_MALLOC_CONF="background_thread:false")
    options = _parser().parse_args(arguments)
    if sys.stdout is None:  # closed by whoever started us: nobody wants the output
        sys.stdout = open(os.devnull, "w")  # noqa: SIM115
    try:
        code = int(options.command(options))
        sys.stdout.flush()
        return code
    except EngineError as error:
        print(f"engine: {error}", file=sys.stderr)  # noqa: T201
        return 2
    except BrokenPipeError:  # `engine config | head` has seen enough
        _discard_output()
        return 0
    except OSError as error:
        if error.errno != errno.ENOSPC:
            raise
        _discard_output()
        print("engine: cannot write the output: no space left on device; free some", file=sys.stderr)  # noqa: T201
        return 2
    except KeyboardInterrupt:
        return 130


def _discard_output() -> None:
    """What is still buffered goes nowhere: the interpreter flushes standard output once more when it ends."""
    os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="engine", description="Capture packets at wire speed and keep them as columns."
    )
    parser.add_argument("--version", action="version", version=f"packetlake {__version__}")
    commands = parser.add_subparsers(title="commands", metavar="COMMAND", required=True)

    def command(name: str, function: Any, text: str) -> argparse.ArgumentParser:
        sub = commands.add_parser(name, help=text, description=text)
        sub.set_defaults(command=function)
        return sub

    run = command("run", _run, "capture live traffic into the lake and show it in the dashboard")
    run.add_argument(
        "--iface", action="append", metavar="NAME", help="interface; repeat for several (default: the default route's)"
    )
    run.add_argument("--filter", metavar="BPF", help="capture filter, as for tcpdump")
    run.add_argument("--snaplen", type=int, metavar="BYTES", help="bytes kept of each frame (default 262144)")
    run.add_argument("--no-promiscuous", action="store_true", help="only frames for this machine")
    run.add_argument("--buffer", type=int, metavar="MIB", help="kernel buffer per interface (default 64 MiB)")
    run.add_argument("--microseconds", action="store_true", help="ask for microsecond instead of nanosecond timestamps")
    run.add_argument("--driver", choices=("libpcap", "pypcap"), help="pypcap: portable, slow (default libpcap)")
    run.add_argument("--fanout", type=int, metavar="N", help="threads that share an interface by flow (default 1)")
    run.add_argument("--port", type=int, help="dashboard port on 127.0.0.1 (default 8050, 0: any free one)")
    run.add_argument("--no-dashboard", action="store_true", help="capture only")
    _common(run)

    replay = command("replay", _replay, "run savefiles (pcap, pcapng; also gzip, zstd, lz4) through the engine")
    replay.add_argument("files", nargs="+", metavar="FILE", help="savefile, or - for standard input")
    replay.add_argument("--speed", default="max", metavar="max|recorded|PPS", help="how fast (default max)")
    replay.add_argument("--filter", metavar="BPF", help="keep only frames that match, as for tcpdump")
    _common(replay)

    detect = command("detect", _detect, "look for attacks in savefiles, and list the incidents")
    detect.add_argument("files", nargs="+", metavar="FILE", help="savefile, or - for standard input")
    detect.add_argument("--filter", metavar="BPF", help="keep only frames that match, as for tcpdump")
    _common(detect)

    sql = command("sql", _sql, "query the lake; without a query, a prompt")
    sql.add_argument("query", nargs="?", metavar="SQL")
    sql.add_argument("--format", choices=("table", "csv", "json", "parquet"), default="table")
    sql.add_argument("--output", type=Path, metavar="FILE", help="write there instead of standard output")
    _lake(sql)

    export = command("export", _export, "write the frames of selected packets as pcap or pcapng")
    export.add_argument("output", metavar="OUT", help="file ending in .pcap or .pcapng; - is pcapng to standard output")
    _selection(export)
    export.add_argument("--since", metavar="TIME", help="from this time on: ISO in UTC, or 30s, 5m, 2h, 1d ago")
    export.add_argument("--until", metavar="TIME", help="before this time")
    export.add_argument("--limit", type=int, metavar="FRAMES", help="at most the first so many frames")
    export.add_argument("--max-size", type=int, default=4096, metavar="MIB", help="refuse a larger file (default 4096)")
    export.add_argument("--dry-run", action="store_true", help="say how much it would be, write nothing")

    inspect = command("inspect", _inspect, "show the layers and bytes of one packet, of the lake or of a savefile")
    inspect.add_argument("file", nargs="?", metavar="FILE", help="savefile; without one, the packet is from the lake")
    inspect.add_argument("number", nargs="?", type=int, metavar="FRAME_NO", help="number of its frame, from 1")
    _selection(inspect)
    inspect.add_argument("--nth", type=int, default=1, metavar="N", help="the Nth packet that matches (default 1)")
    inspect.add_argument("--source", metavar="NAME", help="interface or savefile, as in the column `source`")
    inspect.add_argument("--frame-no", type=int, metavar="N", help="number of the frame within its source")
    inspect.add_argument("--format", choices=("text", "json"), default="text")

    alerts_cli.add_commands(command, _alerts, _notify)

    compact = command("compact", _compact, "merge small segments into large ones; a running capture does it by itself")
    compact.add_argument(
        "--grace", type=float, default=300.0, metavar="SECONDS", help="how long a query may run meanwhile (default 300)"
    )
    _lake(compact)

    geoip = command("geoip", _geoip, "say which GeoIP database is used; get or choose one")
    geoip.add_argument("action", nargs="?", choices=("status", "install", "use"), default="status")
    geoip.add_argument("path", nargs="?", metavar="PATH", help="for `use`: a MaxMind-format database")
    geoip.add_argument("--url", help="for `install`: fetch from here instead of DB-IP's own site")
    _lake(geoip)

    rules = command("rules", _rules, "say which signatures of rule files are used, and why others are refused")
    rules.add_argument("action", choices=("check",))
    rules.add_argument("files", nargs="+", metavar="FILE", help="Suricata rules, or lines of name, severity, regex")
    rules.add_argument("--config", metavar="FILE", help="TOML file, for [signatures] home and variables")

    dashboard = command("dashboard", _dashboard, "serve the dashboard over a lake without capturing")
    dashboard.add_argument("--port", type=int, help="port on 127.0.0.1 (default 8050, 0: any free one)")
    _lake(dashboard)
    bench = command("bench", _bench, "measure this machine: stages, savefiles, live, other tools beside it")
    bench.add_argument("--short", action="store_true", help="less of everything, in under a minute")
    bench.add_argument("--only", action="append", metavar="SECTION", help="stages, offline, live or peers; repeatable")
    bench.add_argument("--stages", action="store_true", help="the same as --only stages")
    bench.add_argument("--capture", metavar="FILE", help="measure with this savefile too")
    bench.add_argument("--json", metavar="FILE", help="write the result there")
    bench.add_argument("--html", metavar="FILE", help="write it as a page with plots")
    bench.add_argument(
        "--compare", nargs=2, metavar=("OLD", "NEW"), help="only compare two results: better, worse, noise"
    )
    bench.add_argument(
        "--nfstream-python", action="append", metavar="PATH", help="interpreter that has nfstream or scapy; repeatable"
    )
    _lake(command("link", _link, "print a new one-time link to the running dashboard"))
    command("interfaces", _interfaces, "list what can be captured")
    config = command("config", _config, "print the configuration as TOML")
    config.add_argument("--config", metavar="FILE")
    return parser


def _lake(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--lake", metavar="DIR", help="where the lake is (default: in your data directory)")


def _selection(parser: argparse.ArgumentParser) -> None:
    _lake(parser)
    parser.add_argument("--where", metavar="SQL", help="condition over the columns of packets")
    parser.add_argument("--flow", type=int, action="append", metavar="ID", help="packets of this flow_id; repeatable")


def _common(parser: argparse.ArgumentParser) -> None:
    _lake(parser)
    parser.add_argument("--idle", type=float, metavar="SECONDS", help="a flow that is quiet for so long has ended (60)")
    parser.add_argument("--active", type=float, metavar="SECONDS", help="a longer flow is reported in parts (300)")
    parser.add_argument("--max-flows", type=int, metavar="N", help="flows at once, 384 bytes each (default 500000)")
    parser.add_argument("--no-applications", action="store_true", help="do not look at what payloads say")
    parser.add_argument("--no-detection", action="store_true", help="no rules, signatures, lists and alerts")
    parser.add_argument("--frames", metavar="full|off|BYTES", help="raw frames kept beside the rows (default full)")
    parser.add_argument("--frames-limit", type=int, metavar="MIB", help="at most this much of them (default 1024)")
    parser.add_argument("--sensor", metavar="NAME", help="name of this sensor in the lake (default: the host's)")
    parser.add_argument("--user", metavar="NAME", help="as root: the account to become (default: who ran sudo)")
    parser.add_argument("--config", metavar="FILE", help="TOML file, see `engine config`")


def _load(options: argparse.Namespace) -> Any:
    """Defaults, then the file, then the flags."""
    from engine.config import load_config

    config = load_config(getattr(options, "config", None))
    given = vars(options)
    if given.get("lake") == "":  # an unset shell variable must not fill the current directory
        raise ConfigError("--lake '' names no directory; give one, or leave the option out")
    interfaces, buffer = given.get("iface"), given.get("buffer")
    return (
        config.override(
            "capture",
            interfaces=tuple(interfaces) if interfaces else None,
            bpf_filter=given.get("filter"),
            snaplen=given.get("snaplen"),
            promiscuous=False if given.get("no_promiscuous") else None,
            buffer_bytes=None if buffer is None else buffer << 20,
            nanoseconds=False if given.get("microseconds") else None,
            driver=given.get("driver"),
            fanout=given.get("fanout"),
        )
        .override("lake", sensor=given.get("sensor"), path=given.get("lake"))
        .override("frames", **_frames(given.get("frames"), given.get("frames_limit")))
        .override("flows", idle_s=given.get("idle"), active_s=given.get("active"), max_flows=given.get("max_flows"))
        .override("applications", enabled=False if given.get("no_applications") else None)
        .override("detection", enabled=False if given.get("no_detection") else None)
        .override("web", port=given.get("port"), enabled=False if given.get("no_dashboard") else None)
    )


def _frames(text: str | None, limit_mib: int | None) -> dict[str, Any]:
    """The values of the section `frames` for --frames and --frames-limit."""
    limit = None if limit_mib is None else limit_mib << 20
    if text is None or text in ("full", "off"):
        return {"mode": text, "limit_bytes": limit}
    if not text.isdecimal():
        raise ConfigError(f"--frames {text!r} is unknown; use full, off, or the number of bytes to keep of each frame")
    return {"mode": "head", "head_bytes": int(text), "limit_bytes": limit}


def _lake_path(config: Any) -> Path:
    from engine.config import default_lake

    return Path(os.path.abspath(config.lake.path)) if config.lake.path else default_lake()


def _run(options: argparse.Namespace) -> int:
    from engine import run

    config = _load(options)
    listener = companions.listen(config.web.port) if config.web.enabled else None

    def start(lake: Path) -> Any:
        companions.start_merging(lake)
        return run.Dashboard(None, "") if listener is None else companions.start_dashboard(lake, listener)

    return run.run(config, _lake_path(config), options.user, start)


def _replay(options: argparse.Namespace) -> int:
    from engine import run

    config = _load(options)
    return run.replay(config, _lake_path(config), options.user, options.files, options.speed)


def _detect(options: argparse.Namespace) -> int:
    from engine import run

    config, runs = _load(options), list[str]()
    lake = _lake_path(config)
    code = run.replay(config, lake, options.user, options.files, "max", runs.append)
    from analytics.alert_commands import list_run
    from engine.detect.alert_stage import run_prefix

    for name in runs:
        list_run(lake, run_prefix(config.lake.sensor, name) + "-")
    return code


def _dashboard(options: argparse.Namespace) -> int:
    from engine import run

    config = _load(options)
    lake = _lake_path(config)
    if not lake.is_dir():
        raise ConfigError(f"lake {lake} does not exist; capture something first, or name another with --lake")
    listener = companions.listen(config.web.port)
    run.become_unprivileged(lake, None)()
    dashboard = companions.start_dashboard(lake, listener)
    run.say(f"dashboard: {dashboard.link}\nCtrl-C stops")
    return run.serve(dashboard)


def _link(options: argparse.Namespace) -> int:
    lake = _lake_path(_load(options))
    if not lake.is_dir():
        raise ConfigError(f"lake {lake} does not exist; name the running engine's with --lake")
    print(companions.new_link(lake))  # noqa: T201
    return 0


def _sql(options: argparse.Namespace) -> int:
    from analytics import shell

    lake = _lake_path(_load(options))
    if options.query is None and sys.stdin.isatty():
        shell.prompt(lake)
    else:
        shell.run_query(
            lake, options.query if options.query is not None else sys.stdin.read(), options.format, options.output
        )
    return 0


def _export(options: argparse.Namespace) -> int:
    from analytics import pcap_export

    return pcap_export.run(_lake_path(_load(options)), options)


def _inspect(options: argparse.Namespace) -> int:
    from analytics import inspector

    if options.file is None:
        return inspector.run(_lake_path(_load(options)), options)
    if options.number is None:
        raise ConfigError(f"engine inspect {options.file} needs the FRAME_NO to show, from 1")
    from engine.capture.lookup import read_frame

    frame = inspector.Frame(*read_frame(options.file, options.number), options.file, options.number)
    return inspector.show(frame, options.format)


def _alerts(options: argparse.Namespace) -> int:
    from analytics import alert_commands

    return alert_commands.run(_lake_path(_load(options)), options)


def _notify(options: argparse.Namespace) -> int:
    from engine.notify import send_test

    return send_test(_load(options).notify, options.to)


def _compact(options: argparse.Namespace) -> int:
    from analytics import compaction
    from analytics.merge_jobs import Plan
    from engine import run

    lake = _lake_path(_load(options))
    if not lake.is_dir():
        raise ConfigError(f"lake {lake} does not exist; capture something first, or name another with --lake")
    if options.grace < 0:
        raise ConfigError(f"--grace {options.grace:g} is out of range: use 0 (nobody reads the lake) or more seconds")
    run.become_unprivileged(lake, None)()
    plan = Plan(older_s=60, least=2, grace_s=options.grace)
    done = compaction.compact(lake, plan, lambda text: run.report("warning", text))
    run.say(f"{done.segments:,} segments with {done.rows:,} rows merged into {done.merged:,}")
    return 0


def _rules(options: argparse.Namespace) -> int:
    from engine.detect.signatures.loader import check

    lines, every = check(options.files, _load(options).signatures)
    print("\n".join(lines))  # noqa: T201
    return 0 if every else 2


def _geoip(options: argparse.Namespace) -> int:
    from analytics import geoip

    lake = _lake_path(_load(options))
    if options.action == "install":
        geoip.install(lake, options.url)
    elif options.action == "use":
        if not options.path:
            raise ConfigError("engine geoip use needs the PATH of a MaxMind-format database")
        geoip.use(lake, options.path)
    for name, value in geoip.status(lake).items():
        if value:
            print(f"{name.replace('_', ' ')}: {value}")  # noqa: T201
    return 0


def _bench(options: argparse.Namespace) -> int:
    from benchmarks import suite

    return suite.main(options)


def _interfaces(_: argparse.Namespace) -> int:
    from engine.capture.interfaces import list_interfaces

    print(f"{'NAME':<16} {'STATE':<10} {'SPEED':>10}  ADDRESSES")  # noqa: T201
    for i in list_interfaces():
        state = ("up" if i.up else "down") + ("" if i.running or not i.up else ", idle")
        speed = f"{i.speed_mbps} Mbit/s" if i.speed_mbps else "-"
        notes = [
            n for n, on in (("default", i.default_route), ("loopback", i.loopback), ("wireless", i.wireless)) if on
        ]
        note = f"  ({', '.join(notes)})" if notes else ""
        text = " ".join(i.addresses) or i.description
        print(f"{i.name:<16} {state:<10} {speed:>10}  {text}{note}")  # noqa: T201
    return 0


def _config(options: argparse.Namespace) -> int:
    print(_load(options).to_toml(), end="")  # noqa: T201
    return 0


if __name__ == "__main__":
    sys.exit(main())
