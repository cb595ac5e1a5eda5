"""The options of `engine model`. Nothing heavy is imported here."""

from __future__ import annotations

import argparse
from collections.abc import Callable
from typing import Any

Command = Callable[[str, Any, str], argparse.ArgumentParser]


def add_command(command: Command, function: Any) -> None:
    """Add the command, with the function that runs it."""
    actions = command("model", function, "train, list, show and choose the models behind anomalies").add_subparsers(
        title="actions", dest="action", metavar="ACTION", required=True
    )

    def action(name: str, text: str) -> argparse.ArgumentParser:
        sub = actions.add_parser(name, help=text, description=text)
        sub.add_argument("--lake", metavar="DIR", help="where the lake is (default: in your data directory)")
        sub.add_argument("--sensor", metavar="NAME", help="whose models (default: this host's, or the only ones)")
        sub.add_argument("--kind", metavar="KIND", help="what they score (default packet)")
        sub.add_argument("--config", metavar="FILE", help="TOML file, for [lake] and [scoring]")
        return sub

    listed = action("list", "all versions; the one in use is marked")
    listed.add_argument("--format", choices=("table", "json"), default="table")
    show = action("show", "everything known about a version, and whether traffic still is what it learned")
    show.add_argument("number", nargs="?", type=int, metavar="N", help="its number (default: the one in use)")
    show.add_argument("--format", choices=("text", "json"), default="text")
    train = action("train", "learn from packets of the lake; a running engine uses the result within seconds")
    train.add_argument("--since", metavar="TIME", help="from this time on: ISO in UTC, or 30s, 5m, 2h, 1d ago")
    train.add_argument("--until", metavar="TIME", help="before this time")
    train.add_argument("--where", metavar="SQL", help="condition over the columns of packets")
    train.add_argument("--rows", type=int, metavar="N", help="learn from so many of them (default: as configured)")
    train.add_argument("--note", default="", metavar="TEXT", help="what it is, for whoever reads the list later")
    use = action("use", "have a version used until another is chosen; auto: always the newest")
    use.add_argument("version", metavar="N|auto")
    export = action("export", "a version as one file, whose second line is readable JSON")
    export.add_argument("number", type=int, metavar="N")
    export.add_argument("file", metavar="FILE", help="must not exist")
    bring = action("import", "add an exported file as the newest version")
    bring.add_argument("file", metavar="FILE")
