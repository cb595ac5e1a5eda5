"""The options of `engine alerts` and `engine notify`. Nothing heavy is imported here."""

from __future__ import annotations

import argparse
from collections.abc import Callable
from typing import Any

_SEVERITIES = ("low", "medium", "high", "critical")
Command = Callable[[str, Any, str], argparse.ArgumentParser]


def add_commands(command: Command, alerts: Any, notify: Any) -> None:
    """Add both commands, with the functions that run them."""
    actions = command("alerts", alerts, "list and show alerts; acknowledge, mute, add and export them").add_subparsers(
        title="actions", dest="action", metavar="ACTION", required=True
    )

    def action(name: str, text: str) -> argparse.ArgumentParser:
        sub = actions.add_parser(name, help=text, description=text)
        sub.add_argument("--lake", metavar="DIR", help="where the lake is (default: in your data directory)")
        return sub

    _choose(listed := action("list", "alerts, newest first"))
    listed.add_argument("--format", choices=("table", "csv", "json"), default="table")
    show = action("show", "one alert: why, its numbers, its history")
    show.add_argument("id", metavar="ID", help="its id, or how that begins")
    show.add_argument("--format", choices=("text", "json"), default="text")
    ack = action("ack", "somebody deals with it, or has")
    ack.add_argument("ids", nargs="+", metavar="ID")
    ack.add_argument("--note", metavar="TEXT", help="why, for whoever reads it later")
    reopen = action("reopen", "take an acknowledgement back")
    reopen.add_argument("id", metavar="ID")
    reopen.add_argument("--note", metavar="TEXT")
    note = action("note", "add a remark")
    note.add_argument("id", metavar="ID")
    note.add_argument("text", metavar="TEXT")
    mute = action("mute", "no new alerts of a kind, from or to somebody; a running engine follows within seconds")
    _muted(mute)
    mute.add_argument("--for", dest="duration", metavar="TIME", help="30m, 2h, 7d (default: until unmute)")
    mute.add_argument("--note", metavar="TEXT", help="why, for whoever reads it later")
    _muted(action("unmute", "take a mute back"))
    mutes = action("mutes", "what is muted now")
    mutes.add_argument("--format", choices=("table", "csv", "json"), default="table")
    add = action("add", "enter an alert that no detector saw; prints its id")
    add.add_argument("--kind", required=True, metavar="KIND")
    add.add_argument("--severity", required=True, choices=_SEVERITIES)
    add.add_argument("--src", metavar="ADDRESS")
    add.add_argument("--dst", metavar="ADDRESS")
    add.add_argument("--why", required=True, metavar="TEXT", help="what happened, in a sentence")
    export = action("export", "alerts as a file; CSV is safe to open in a spreadsheet")
    export.add_argument("file", metavar="FILE", help="ends in .csv, .json or .parquet")
    _choose(export)

    tests = command("notify", notify, "check how notifications are sent").add_subparsers(
        title="actions", dest="action", metavar="ACTION", required=True
    )
    text = "send a test message to the targets of the configuration"
    test = tests.add_parser("test", help=text, description=text)
    test.add_argument("--to", metavar="NAME", help="only to this target")
    test.add_argument("--config", metavar="FILE", required=True, help="TOML file with [[notify.targets]]")


def _choose(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--since", metavar="TIME", help="those that went on after: ISO in UTC, or 30s, 5m, 2h, 1d ago")
    parser.add_argument("--severity", choices=_SEVERITIES, help="from this severity on")
    parser.add_argument("--kind", metavar="KIND", help="only of this kind")
    parser.add_argument("--open", action="store_true", help="only those that nobody has acknowledged")


def _muted(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--kind", metavar="KIND", help="alerts of this kind (default: all)")
    parser.add_argument("--src", metavar="CIDR", help="from this address or network (default: all)")
    parser.add_argument("--dst", metavar="CIDR", help="to this address or network (default: all)")
