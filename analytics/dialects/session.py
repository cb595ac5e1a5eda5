"""Sessions of Spark and of ClickHouse's library that have a lake as their tables."""

from __future__ import annotations

import os
import shutil
import sys
from typing import Any, Final

from analytics.dialects import catalogue
from analytics.store import require_lake
from engine.errors import ConfigError
from engine.ship_config import is_remote
from engine.tables import TABLES

_SETTINGS: Final = {
    "spark.sql.session.timeZone": "UTC",
    "spark.ui.enabled": "false",  # a web server that nobody asked for
    "spark.ui.showConsoleProgress": "false",
    "spark.log.level": "ERROR",
    "spark.sql.shuffle.partitions": "8",  # not 200: most of what these would do is start
}


def open_spark(lake: str, master: str, geo: str | None = None) -> Any:
    """A SparkSession with the lake's tables, and with `geo` and the questions if that file is given.

    Raises ConfigError or StoreError, one line.
    """
    session = start_spark(master)
    present = tables_of(lake)
    for statement in catalogue.spark_tables(lake, present) if geo is None else catalogue.of_spark(lake, geo, present):
        session.sql(statement)
    return session


def start_spark(master: str) -> Any:
    """A SparkSession. Executors on this machine run our Python, others what PYSPARK_PYTHON names.

    Raises ConfigError, one line.
    """
    try:
        from pyspark.sql import SparkSession
    except ImportError:
        raise ConfigError("Spark is not installed: pip install 'packetlake[spark]', and Java 17") from None
    home = os.environ.get("JAVA_HOME")
    if shutil.which("java") is None and not (home and os.access(f"{home}/bin/java", os.X_OK)):
        raise ConfigError("Spark needs Java 17: install it, or set JAVA_HOME")
    builder = SparkSession.builder.appName("packetlake").master("local[*]" if master == "local" else master)
    for name, value in _SETTINGS.items():
        builder = builder.config(name, value)
    if master.startswith("local"):
        os.environ.setdefault("PYSPARK_PYTHON", sys.executable)
    try:
        return builder.getOrCreate()
    except Exception as error:  # noqa: BLE001 — py4j raises what Java threw
        raise ConfigError(f"Spark at {master} does not start ({_first_line(error)}); its own log says why") from None


def open_clickhouse(lake: str, geo: str) -> Any:
    """A session of chdb, ClickHouse as a library, with the lake's views. Raises ConfigError, one line."""
    try:
        from chdb.session import Session
    except ImportError:
        raise ConfigError("ClickHouse's library is not installed: pip install chdb") from None
    session = Session()
    for statement in catalogue.of_clickhouse(lake, geo, tables_of(lake)):
        session.query(statement)
    return session


def tables_of(lake: str) -> list[str]:
    """The tables that have a segment there. Raises StoreError when it is no lake."""
    if is_remote(lake):
        from analytics.ship.remote import remote_lake

        remote = remote_lake(lake)
        remote.check()
        return [table for table in TABLES if remote.segments(table)]
    root = require_lake(lake)
    return [table for table in TABLES if next((root / table).glob("*/*/*/*.parquet"), None) is not None]


def _first_line(error: Exception) -> str:
    return (str(error).strip().splitlines() or [type(error).__name__])[0]
