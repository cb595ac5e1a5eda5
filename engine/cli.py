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

from engine import __version__, alerts_cli, care_cli, cluster_cli, companions, model_cli, ship_cli
from engine.errors import ConfigError, EngineError
from engine.log import FORMAT, FORMATS, report, say


def main(arguments: list[str] | None = None) -> int:
    """Run one command. Returns the exit code: 0 done, 2 the operator must change something."""
    # Before numpy and pyarrow are imported: threads of BLAS and the allocator would start as root and keep its rights.
    os.environ.update(OPENBLAS_NUM_THREADS="1", JE_ARROW_MALLOC_CONF="background_thread:false")
    options = _parser().parse_args(arguments)
    if sys.stdout is None:  # closed by whoever started us: nobody wants the output
        sys.stdout = open(os.devnull, "w")  # noqa: SIM115
    if getattr(options, "log", None):
        os.environ[FORMAT] = options.log  # the processes beside the engine have it, too
    try:
        code = int(options.command(options))
        sys.stdout.flush()
        return code
    except EngineError as error:
        report("error", str(error))
        return 2
    except BrokenPipeError:  # `engine config | head` has seen enough
        _discard_output()
        return 0
    except OSError as error:
        if error.errno != errno.ENOSPC:
            raise
        _discard_output()
        report("error", "cannot write the output: no space left on device; free some")
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
    _web(run)
    run.add_argument("--no-dashboard", action="store_true", help="capture only")
    run.add_argument("--ship", metavar="URL", help="bring segments there too: a directory, or s3://BUCKET/PREFIX")
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
    model_cli.add_command(command, _model)
    ship_cli.add_command(command, _load)
    cluster_cli.add_commands(command, _load, _lake_or_url)

    compact = command("compact", _compact, "merge small segments into large ones; a running capture does it by itself")
    compact.add_argument(
        "--grace", type=float, default=300.0, metavar="SECONDS", help="how long a query may run meanwhile (default 300)"
    )
    _lake(compact)

    care_cli.add_commands(command, _load, _lake_path)

    status = command("status", _status, "say whether it captures, what is lost, what the lake holds, how long it lasts")
    how = status.add_mutually_exclusive_group()
    how.add_argument("--json", action="store_true", help="for programs; the exit code is 0, 1 see to it, 2 stopped")
    how.add_argument("--metrics", action="store_true", help="for Prometheus, in its text format")
    _lake(status)

    retain = command("retain", _retain, "delete what is beyond the limits; a running capture does it by itself")
    retain.add_argument("--dry-run", action="store_true", help="say what would go, delete nothing")
    retain.add_argument(
        "--grace", type=float, default=300.0, metavar="SECONDS", help="how long a query may run meanwhile (default 300)"
    )
    retain.add_argument("--config", metavar="FILE", help="TOML file, for [retention] (default: as the last run had it)")
    _lake(retain)

    geoip = command("geoip", _geoip, "say which GeoIP database is used; get or choose one")
    geoip.add_argument("action", nargs="?", choices=("status", "install", "use", "ipinfo"), default="status")
    geoip.add_argument("path", nargs="?", metavar="PATH", help="for `use`: a MaxMind-format database")
    geoip.add_argument("--url", help="for `install`: fetch from here instead of DB-IP's own site")
    geoip.add_argument("--config", metavar="FILE", help="for `ipinfo`: TOML file with [geo]")
    _lake(geoip)

    rules = command("rules", _rules, "say which signatures of rule files are used, and why others are refused")
    rules.add_argument("action", choices=("check", "lists"), help="`lists`: what intel lists hold and have found")
    text = "Suricata rules; lines of name, severity, regex; Sigma rules, or a directory; rules in .py, .sql"
    rules.add_argument("files", nargs="*", metavar="FILE", help=text)
    rules.add_argument("--config", metavar="FILE", help="TOML file, for [intel], and [signatures] home and variables")
    _lake(rules)

    sigma = command("sigma", _sigma, "run Sigma rules over the lake, and print the hits or make alerts of them")
    sigma.add_argument("action", choices=("run",))
    sigma.add_argument("files", nargs="+", metavar="RULES", help="file ending in .yml or .yaml, or a directory of them")
    sigma.add_argument("--since", metavar="TIME", help="from this time on: ISO in UTC, or 30s, 5m, 2h, 1d ago")
    sigma.add_argument("--until", metavar="TIME", help="before this time")
    sigma.add_argument("--alert", action="store_true", help="make alerts of the hits instead of printing them")
    sigma.add_argument("--format", choices=("table", "csv", "json"), default="table")
    sigma.add_argument("--config", metavar="FILE", help="TOML file, for [alerts]")
    _lake(sigma)

    dashboard = command("dashboard", _dashboard, "serve the dashboard over a lake without capturing")
    _web(dashboard)
    dashboard.add_argument("--config", metavar="FILE", help="TOML file, for [web]")
    _lake(dashboard)
    _user(command("user", _users, "say who may look at the dashboard, and what scripts may ask"))
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
    link = command("link", _link, "print a new one-time link to the running dashboard")
    link.add_argument("--user", metavar="NAME", help="whom it signs in (default: the first admin)")
    _lake(link)
    command("interfaces", _interfaces, "list what can be captured")
    config = command("config", _config, "print the configuration as TOML")
    config.add_argument("--config", metavar="FILE")
    return parser


def _web(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--host", metavar="ADDRESS", help="where the dashboard listens (default 127.0.0.1)")
    parser.add_argument("--port", type=int, help="dashboard port (default 8050, 0: any free one)")
    parser.add_argument("--tls-cert", metavar="FILE", help="serve https with this certificate chain, PEM")
    parser.add_argument("--tls-key", metavar="FILE", help="and this key, PEM without a passphrase")
    parser.add_argument("--allow-host", action="append", metavar="NAME", help="a name it is reached by; repeatable")
    parser.add_argument("--no-login", action="store_true", help="no password on 127.0.0.1; anyone here may look")


def _user(parser: argparse.ArgumentParser) -> None:
    actions = ("add", "list", "role", "remove", "set-password", "sessions", "token")
    parser.add_argument("action", choices=actions, help="sessions and token list what there is")
    parser.add_argument("name", nargs="?", metavar="NAME", help="the user")
    parser.add_argument("--role", choices=("viewer", "operator", "admin"), help="default viewer")
    parser.add_argument("--password-file", metavar="FILE", help="its first line; else from standard input")
    parser.add_argument("--revoke", metavar="ID", help="for sessions (or `all`) and token: end it")
    parser.add_argument("--days", type=float, default=90, metavar="N", help="for token: until then (default 90)")
    parser.add_argument("--label", default="", metavar="TEXT", help="for token: what it is for")
    _lake(parser)


def _lake(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--lake", metavar="DIR", help="where the lake is (default: in your data directory)")


def _selection(parser: argparse.ArgumentParser) -> None:
    _lake(parser)
    parser.add_argument("--where", metavar="SQL", help="condition over the columns of packets")
    parser.add_argument("--flow", type=int, action="append", metavar="ID", help="packets of this flow_id; repeatable")


def _common(parser: argparse.ArgumentParser) -> None:
    _lake(parser)
    parser.add_argument(
        "--log", choices=FORMATS, help="lines on standard error as text or as JSON objects (default text)"
    )
    parser.add_argument("--idle", type=float, metavar="SECONDS", help="a flow that is quiet for so long has ended (60)")
    parser.add_argument("--active", type=float, metavar="SECONDS", help="a longer flow is reported in parts (300)")
    parser.add_argument("--max-flows", type=int, metavar="N", help="flows at once, 384 bytes each (default 500000)")
    parser.add_argument("--no-packets", action="store_true", help="flows, applications, alerts and rollups only")
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
        .override(
            "lake",
            sensor=given.get("sensor"),
            path=given.get("lake"),
            packets=False if given.get("no_packets") else None,
        )
        .override("ship", url=None if given.get("ship") is None else ship_cli.absolute(given["ship"]))
        .override("frames", **_frames(given.get("frames"), given.get("frames_limit")))
        .override("flows", idle_s=given.get("idle"), active_s=given.get("active"), max_flows=given.get("max_flows"))
        .override("applications", enabled=False if given.get("no_applications") else None)
        .override("detection", enabled=False if given.get("no_detection") else None)
        .override(
            "web",
            host=given.get("host"),
            port=given.get("port"),
            enabled=False if given.get("no_dashboard") else None,
            tls_cert=given.get("tls_cert"),
            tls_key=given.get("tls_key"),
            allow_hosts=None if given.get("allow_host") is None else tuple(given["allow_host"]),
            login=False if given.get("no_login") else None,
        )
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
    from engine.ship_config import is_remote

    if is_remote(config.lake.path):
        raise ConfigError(f"--lake {config.lake.path}: this command needs a lake on this machine, unlike `engine sql`")
    return Path(os.path.abspath(config.lake.path)) if config.lake.path else default_lake()


def _lake_or_url(config: Any) -> str | Path:
    """Of a command that reads a lake wherever it is."""
    from engine.ship_config import check_url, is_remote

    if not is_remote(config.lake.path):
        return _lake_path(config)
    check_url(config.lake.path, "--lake")
    return str(config.lake.path)


def _run(options: argparse.Namespace) -> int:
    from engine import run, settings
    from engine.companion_config import with_token

    config = _load_of_run(options)
    companions.check_rules(config)
    ship_cli.check(config, _lake_path(config))
    geo = with_token(config.geo) if config.geo.ipinfo else None
    listener = companions.listen(config.web, _lake_path(config)) if config.web.enabled else None

    def start(lake: Path) -> Any:
        companions.start_upkeep(lake, config.retention)
        companions.start_rules(lake, config)
        ship_cli.start(lake, config)
        if geo is not None:
            companions.start_ipinfo(lake, geo)
        return run.Dashboard() if listener is None else companions.start_dashboard(lake, listener, config.web)

    lake = _lake_path(config)
    file = os.path.abspath(options.config or settings.of_lake(lake))
    return run.run(config, lake, options.user, start, lambda: _load_of_run(options), file)


def _load_of_run(options: argparse.Namespace) -> Any:
    """As `_load`; without --config, the file that the dashboard writes into the lake stands for it."""
    from engine import settings

    config = _load(options)
    if options.config is not None:
        return config
    file = settings.of_lake(_lake_path(config))
    try:
        settings.check_editable(file.read_text(encoding="utf-8"), str(file))
    except FileNotFoundError:
        return config
    except (OSError, UnicodeDecodeError) as error:
        reason = (getattr(error, "strerror", None) or "it is not text").lower()
        raise ConfigError(f"configuration file {file}: {reason}; make it readable, or remove it") from None
    return _load(argparse.Namespace(**(vars(options) | {"config": str(file)})))


def _replay(options: argparse.Namespace) -> int:
    from engine import run

    config = _load(options)
    return run.replay(config, _lake_path(config), options.user, options.files, options.speed)


def _detect(options: argparse.Namespace) -> int:
    from engine import run

    config, runs = _load(options), list[str]()
    lake = _lake_path(config)
    companions.check_rules(config)
    code = run.replay(config, lake, options.user, options.files, "max", runs.append)
    from analytics.alert_commands import list_run
    from engine.detect.alert_stage import run_prefix

    for name in runs:
        list_run(lake, run_prefix(config.lake.sensor, name) + "-")
    if (config.rules.files.sql or config.sigma.files) and config.detection.enabled:
        from analytics import sql_rules

        if prefix := sql_rules.run_once(lake, config):
            list_run(lake, f"{prefix}-")
    return code


def _dashboard(options: argparse.Namespace) -> int:
    from engine import run

    config = _load(options)
    lake = _lake_path(config)
    if not lake.is_dir():
        raise ConfigError(f"lake {lake} does not exist; capture something first, or name another with --lake")
    listener = companions.listen(config.web, lake)
    run.become_unprivileged(lake, None)()
    dashboard = companions.start_dashboard(lake, listener, config.web)
    say(f"dashboard: {dashboard.link}\nCtrl-C stops")
    return run.serve(dashboard)


def _link(options: argparse.Namespace) -> int:
    lake = _lake_path(_load(options))
    if not lake.is_dir():
        raise ConfigError(f"lake {lake} does not exist; name the running engine's with --lake")
    print(companions.new_link(lake, options.user))  # noqa: T201
    return 0


def _users(options: argparse.Namespace) -> int:
    from webui import user_commands

    return user_commands.run(_lake_path(_load(options)), options)


def _sql(options: argparse.Namespace) -> int:
    from analytics import shell

    lake = _lake_or_url(_load(options))
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


def _model(options: argparse.Namespace) -> int:
    from analytics import model_commands
    from engine import run

    config = _load(options)
    lake = _lake_path(config)
    if not lake.is_dir():
        raise ConfigError(f"lake {lake} does not exist; capture something first, or name another with --lake")
    if options.action in ("train", "use", "import"):  # what is written belongs to whoever runs the engine
        run.become_unprivileged(lake, None, (options.file,) if options.action == "import" else ())()
    return model_commands.run(lake, options, config)


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
    done = compaction.compact(lake, plan, lambda text: report("warning", text))
    say(f"{done.segments:,} segments with {done.rows:,} rows merged into {done.merged:,}")
    return 0


def _status(options: argparse.Namespace) -> int:
    from analytics import status

    form = "json" if options.json else "metrics" if options.metrics else "text"
    return status.run(_lake_path(_load(options)), form)


def _retain(options: argparse.Namespace) -> int:
    from analytics import compaction, retention
    from engine import run
    from engine.retention_config import left_settings

    config = _load(options)
    lake = _lake_path(config)
    if not lake.is_dir():
        raise ConfigError(f"lake {lake} does not exist; capture something first, or name another with --lake")
    if options.grace < 0:
        raise ConfigError(f"--grace {options.grace:g} is out of range: use 0 (nobody reads the lake) or more seconds")
    limits = config.retention if options.config else left_settings(lake)
    run.become_unprivileged(lake, None)()

    def warn(text: str) -> None:
        report("warning", text)

    if options.dry_run:
        cuts = retention.Retention(lake, limits, options.grace, warn).plan()
    else:
        cuts = compaction.retain(lake, limits, options.grace, lambda _: None)
    for cut in cuts:
        print(cut.text())  # noqa: T201
    if not cuts:
        print("nothing is beyond the limits")  # noqa: T201
    return 0


def _rules(options: argparse.Namespace) -> int:
    if options.action == "lists":
        from analytics import intel_hits

        config = _load(options)
        print("\n".join(intel_hits.lines(_lake_path(config), config.intel)))  # noqa: T201
        return 0
    if not options.files:
        raise ConfigError("engine rules check needs a FILE of rules")
    from engine.detect.signatures.loader import check

    sigma = [f for f in options.files if f.endswith((".yml", ".yaml")) or os.path.isdir(f)]
    queries, scripts = ([f for f in options.files if f.endswith(end)] for end in (".sql", ".py"))
    others = [f for f in options.files if f not in (*sigma, *queries, *scripts)]
    lines, every = check(others, _load(options).signatures) if others else ([], True)
    for path in (*queries, *scripts):
        line, good = _check_own(path)
        lines, every = [*lines, line], every and good
    if sigma:
        from analytics import sigma_commands

        more, all_sigma = sigma_commands.check(sigma)
        lines, every = [*lines, *more], every and all_sigma
    print("\n".join(lines))  # noqa: T201
    return 0 if every else 2


def _check_own(path: str) -> tuple[str, bool]:
    """A line about a file of rules in Python or SQL, and whether it can be used."""
    from analytics import sql_rules
    from engine.detect.rules import python_files

    try:
        if path.endswith(".sql"):
            sql_rules.check_file(path)
            return f"{path}: a SELECT that a lake can answer", True
        return f"{path}: rules {', '.join(rule.name for rule in python_files.load(path))}", True
    except ConfigError as error:
        return str(error), False


def _sigma(options: argparse.Namespace) -> int:
    from analytics import sigma_commands

    config = _load(options)
    return sigma_commands.run(_lake_path(config), config, options)


def _geoip(options: argparse.Namespace) -> int:
    from analytics import geoip

    config = _load(options)
    lake = _lake_path(config)
    if options.action == "ipinfo":
        return _ipinfo(lake, config)
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


def _ipinfo(lake: Path, config: Any) -> int:
    import threading

    from analytics.ipinfo import Enricher
    from engine.companion_config import with_token

    if not config.geo.ipinfo:
        raise ConfigError("ipinfo.io is not to be asked: addresses would leave this machine; set [geo] ipinfo = true")
    failures = list[str]()
    answers = Enricher(lake, with_token(config.geo), failures.append).look(threading.Event())
    print(f"{answers:,} addresses answered by ipinfo")  # noqa: T201
    if failures:
        raise ConfigError("; ".join(failures))
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
