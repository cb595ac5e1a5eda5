"""Sessions of Spark and of ClickHouse's library that have a lake as their tables."""

from __future__ import annotations

import os
import shutil
from typing import Any, Final

from analytics.dialects import catalogue
from engine.errors import ConfigError

_SETTINGS: Final = {
    "spark.sql.session.timeZone": "UTC",
    "spark.ui.enabled": "false",  # a web server that nobody asked for
    "spark.ui.showConsoleProgress": "false",
    "spark.log.level": "ERROR",
    "spark.sql.shuffle.partitions": "8",  # not 200: most of what these would do is start
}


def open_spark(lake: str, geo: str, master: str) -> Any:
    """A SparkSession with the lake's tables, `geo` and the questions. Raises ConfigError, one line."""
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
    try:
        session = builder.getOrCreate()
    except Exception as error:  # noqa: BLE001 — py4j raises what Java threw
        raise ConfigError(f"Spark at {master} does not start: {_first_line(error)}") from None
    for statement in catalogue.of_spark(lake, geo):
        session.sql(statement)
    return session


def open_clickhouse(lake: str, geo: str) -> Any:
    """A session of chdb, ClickHouse as a library, with the lake's views. Raises ConfigError, one line."""
    try:
        from chdb.session import Session
    except ImportError:
        raise ConfigError("ClickHouse's library is not installed: pip install chdb") from None
    session = Session()
    for statement in catalogue.of_clickhouse(lake, geo):
        session.query(statement)
    return session


def _first_line(error: Exception) -> str:
    return (str(error).strip().splitlines() or [type(error).__name__])[0]
