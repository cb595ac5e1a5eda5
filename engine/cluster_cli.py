"""`engine lake` and `engine job`: the lake on engines of more than one machine."""

from __future__ import annotations

import argparse
from collections.abc import Callable
from pathlib import Path
from typing import Any

Load = Callable[[argparse.Namespace], Any]
Place = Callable[[Any], str | Path]
_JOBS = ("rollups", "train", "beacons", "rarity", "compact")  # those of analytics.jobs, which the help does not import


def add_commands(command: Callable[..., argparse.ArgumentParser], load: Load, lake_or_url: Place) -> None:
    """Declare both commands."""

    def init(options: argparse.Namespace) -> int:
        return _init(lake_or_url(load(options)), options)

    def job(options: argparse.Namespace) -> int:
        from analytics import jobs

        config = load(options)
        return jobs.run(lake_or_url(config), options, config)

    parser = command(
        "lake", init, "print the SQL that gives Spark or ClickHouse the lake as tables, views and functions"
    )
    parser.add_argument("action", choices=("spark-init", "clickhouse-init"))
    parser.add_argument("--geo", metavar="FILE", help="where to write what GeoIP knows (default: .geo/ in the lake)")
    parser.add_argument("--lake", metavar="DIR", help="where the lake is, a directory or s3://BUCKET/PREFIX")

    parser = command("job", job, "run a batch job over the lake, here or on a Spark cluster")
    parser.add_argument("job", choices=_JOBS, metavar="NAME", help=", ".join(_JOBS))
    parser.add_argument(
        "--on", default="local", metavar="MASTER", help="local (default), spark://HOST:PORT, local[N], yarn"
    )
    parser.add_argument("--since", metavar="TIME", help="from this time on: ISO in UTC, or 30s, 5m, 2h, 1d ago")
    parser.add_argument("--until", metavar="TIME", help="before this time")
    parser.add_argument("--output", metavar="PLACE", help="directory of Parquet files; for `train`, the model's file")
    parser.add_argument("--rows", type=int, metavar="N", help="for `train`: packets to learn from")
    parser.add_argument("--config", metavar="FILE", help="TOML file, for [scoring]")
    parser.add_argument("--lake", metavar="DIR", help="where the lake is, a directory or s3://BUCKET/PREFIX")


def _init(lake: str | Path, options: argparse.Namespace) -> int:
    from analytics.dialects import catalogue, geo_file
    from analytics.dialects.session import tables_of

    present = tables_of(str(lake))
    if isinstance(lake, Path) and options.geo is None:
        from engine import run  # what is written into a lake belongs to whoever runs the engine

        run.become_unprivileged(lake, None)()
    geo = geo_file.write_geo(lake, None if options.geo is None else Path(options.geo))
    if options.action == "spark-init":
        statements = catalogue.of_spark(str(lake), geo, present)
    else:
        statements = catalogue.of_clickhouse(str(lake), geo, present, _endpoint())
    print(";\n\n".join(statements) + ";")  # noqa: T201
    return 0


def _endpoint() -> str:
    """The store's URL, from where other S3 programs look."""
    import os

    found = os.environ.get("AWS_ENDPOINT_URL_S3") or os.environ.get("AWS_ENDPOINT_URL")
    if found:
        return found.rstrip("/") if "://" in found else f"https://{found.rstrip('/')}"
    region = os.environ.get("AWS_REGION") or os.environ.get("AWS_DEFAULT_REGION") or "us-east-1"
    return f"https://s3.{region}.amazonaws.com"
