"""`engine model`: what versions there are, what they learned, which is used."""

from __future__ import annotations

import json
import sys
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

import duckdb
import numpy as np

from analytics.alert_commands import _user as user
from analytics.formats import one_line_text
from analytics.packet_features import COLUMNS, features_of
from analytics.selection import Selection
from analytics.shell import open_session, replaced, translated
from analytics.training import PACKET, train
from engine.config import EngineConfig
from engine.drift import CHANGED, Baseline
from engine.errors import ConfigError
from engine.forest import Forest
from engine.models import Model, ModelStore, stores

if TYPE_CHECKING:
    import argparse

    from numpy.typing import NDArray

_MOST_ROWS: Final = 10_000_000
_DRIFT_ROWS: Final = 10


def run(lake: Path, options: argparse.Namespace, config: EngineConfig) -> int:
    """Run one action of `engine model`."""
    if options.action == "list":
        return _list(lake, options)
    store = _store(lake, options, config)
    return int(_ACTIONS[options.action](lake, store, options, config) or 0)


def _store(lake: Path, options: argparse.Namespace, config: EngineConfig) -> ModelStore:
    """The models that the options are about."""
    kind = options.kind or PACKET
    known = [s for s in stores(lake) if s.kind == kind]
    names = [s.sensor for s in known]
    if options.sensor is None and config.lake.sensor not in names and len(names) > 1:
        raise ConfigError(f"lake {lake} has {kind} models of {', '.join(names)}; choose with --sensor")
    sensor = options.sensor or (names[0] if len(names) == 1 else config.lake.sensor)
    store = ModelStore(lake, sensor, kind)
    if not store.numbers() and options.action not in ("train", "import"):
        makes = "`engine model train` makes one" if kind == PACKET else "the engine learns one while it runs"
        there = f"there are some of {', '.join(names)}" if names else makes
        raise ConfigError(f"sensor {sensor} has no {kind} model in lake {lake}; {there}")
    return store


def _list(lake: Path, options: argparse.Namespace) -> int:
    wanted = [
        s for s in stores(lake) if options.sensor in (None, s.sensor) and options.kind in (None, s.kind) and s.numbers()
    ]
    rows = [row for store in wanted for row in _rows(store)]
    if options.format == "json":
        print(json.dumps(rows, indent=1))  # noqa: T201
        return 0
    lines = [("", "SENSOR", "KIND", "N", "METHOD", "ROWS", "MADE", "BY", "NOTE")]
    for row in rows:
        mark = ("* chosen" if row["chosen"] else "*") if row["in_use"] else ""
        told = row.get("problem") or row["note"]
        made = _time(row["made_s"] * 1e6) if row["made_s"] else ""
        lines.append((
            mark, row["sensor"], row["kind"], str(row["number"]), row["method"], f"{row['rows']:,}", made,
            one_line_text(row["made_by"]), one_line_text(told),
        ))  # fmt: skip
    widths = [max(len(line[n]) for line in lines) for n in range(len(lines[0]))]
    for line in lines:
        print("  ".join(cell.ljust(w) for cell, w in zip(line, widths, strict=True)).rstrip())  # noqa: T201
    return 0


def _rows(store: ModelStore) -> list[dict[str, Any]]:
    """The versions of a store, oldest first, damaged ones included."""
    used, chosen, rows = _in_use(store), store.chosen(), []
    for number in store.numbers():
        row: dict[str, Any] = {
            "sensor": store.sensor, "kind": store.kind, "number": number, "in_use": number == used,
            "chosen": number == chosen, "method": "", "rows": 0, "made_s": 0.0, "made_by": "", "note": "",
        }  # fmt: skip
        try:
            model = store.load(number)
        except ConfigError as error:
            row["problem"] = str(error)
        else:
            row |= {name: getattr(model, name) for name in ("method", "rows", "made_s", "made_by", "note")}
        rows.append(row)
    return rows


def _in_use(store: ModelStore) -> int:
    """The version that an engine started now would use, 0 for none."""
    for number in store.newest_first():
        try:
            _check(store.load(number))
        except ConfigError:
            continue
        return number
    return 0


def _check(model: Model) -> None:
    """Raises ConfigError for a packet model that the engine could not use."""
    if model.kind == PACKET:
        Forest.of(model)
        Baseline.of(model)


def _show(lake: Path, store: ModelStore, options: argparse.Namespace, _config: EngineConfig) -> None:
    number = options.number or _in_use(store)
    if not number:
        raise ConfigError(f"no model of sensor {store.sensor} can be used; name the number of one to see why")
    model = store.load(number)
    _check(model)
    drift = _drift(lake, store, number) if store.kind == PACKET else []
    if options.format == "json":
        whole = {"number": number, "in_use": number == _in_use(store), **model.header(), "drift": drift}
        print(json.dumps(whole, indent=1, default=str))  # noqa: T201
        return
    shown: dict[str, Any] = {
        "model": f"{number} of sensor {store.sensor}, kind {store.kind}"
        + (", in use" if number == _in_use(store) else "")
        + (", chosen" if number == store.chosen() else ""),
        "method": model.method, "features": f"{', '.join(model.features)} (version {model.feature_version})",
        "learned from": f"{model.rows:,} rows of {_time(model.first_us)} to {_time(model.last_us)}",
        "made": f"{_time(model.made_s * 1e6)} by {model.made_by}, engine {model.engine_version}", "note": model.note,
    }  # fmt: skip
    lines = [f"{name:<16} {one_line_text(value)}" for name, value in shown.items() if value]
    for title, values in (("parameters", model.parameters), ("metrics", model.metrics)):
        lines.append(title)
        lines += [f"  {one_line_text(name):<24} {one_line_text(_number(value))}" for name, value in values.items()]
    if drift:
        lines.append(f"drift (psi: below 0.1 traffic is what it learned, above {CHANGED} it is not)")
        for d in drift:
            lines.append(
                f"  {d['ts']:%Y-%m-%d %H:%M}  psi {_number(d['psi']):<8} most of all {d['worst_feature']} "
                f"({_number(d['worst_psi'])}); {d['scored']:,} scored, {d['above']:,} from {_number(d['threshold'])} on"
            )
    print("\n".join(lines))  # noqa: T201


def _drift(lake: Path, store: ModelStore, number: int) -> list[dict[str, Any]]:
    """The newest minutes of `model_stats` that compare traffic with what the version learned, newest first."""
    con = open_session(lake)
    try:
        found = con.execute(
            "SELECT ts, scored, above, threshold, psi, worst_feature, worst_psi FROM model_stats "
            "WHERE model_sensor = ? AND model = ? AND psi IS NOT NULL ORDER BY ts DESC LIMIT ?",
            [store.sensor, number, _DRIFT_ROWS],
        )
        names = [d[0] for d in found.description]
        return [dict(zip(names, row, strict=True)) for row in found.fetchall()]
    finally:
        con.close()


def _train(lake: Path, store: ModelStore, options: argparse.Namespace, config: EngineConfig) -> None:
    if store.kind != PACKET:
        raise ConfigError(f"--kind {store.kind}: only packet models are trained by this command; leave --kind out")
    most = config.scoring.training_rows if options.rows is None else options.rows
    if not 1_000 <= most <= _MOST_ROWS:
        raise ConfigError(f"--rows {most} is out of range: use 1000 to {_MOST_ROWS}")
    rows, span_us = _sample(lake, store.sensor.removesuffix(".replay"), options, most)
    if len(rows) < 1_000:
        raise ConfigError(
            f"{len(rows)} packets match; 1000 at least are needed: widen --since, --until or --where, or capture more"
        )
    model = train(
        rows, config.scoring.trees, config.scoring.samples, span_us, made_by=user(), note=one_line_text(options.note)
    )
    number = store.add(model)
    metrics = ", ".join(f"{name.replace('_', ' ')} {_number(value)}" for name, value in model.metrics.items())
    print(f"model {number} of sensor {store.sensor}: learned from {model.rows:,} packets; {metrics}")  # noqa: T201
    chosen = store.chosen()
    if chosen is not None:
        print(f"model {chosen} stays in use, as chosen; to change that: engine model use {number}", file=sys.stderr)  # noqa: T201


def _sample(
    lake: Path, sensor: str, options: argparse.Namespace, most: int
) -> tuple[NDArray[np.int16], tuple[int, int]]:
    """Features of at most so many of the sensor's packets that match, at random; their first and last time."""
    con = open_session(lake)
    try:
        condition = Selection(where=options.where, since=options.since, until=options.until).condition(con)
        # DuckDB's reservoir: one pass, and only what it keeps is in memory.
        sql = (
            f"SELECT ts, {', '.join(COLUMNS)} FROM (SELECT * FROM packets WHERE sensor = ? AND {condition}) "  # noqa: S608 — parsed
            f"USING SAMPLE reservoir({most} ROWS)"
        )
        try:
            table = con.sql(sql, params=[sensor]).to_arrow_table()
        except duckdb.Error as error:
            raise translated(error, sql, None) from None
    finally:
        con.close()
    if not table.num_rows:
        return np.zeros((0, len(COLUMNS)), np.int16), (0, 0)
    times = table.column("ts").cast("int64").to_numpy()
    return features_of(table), (int(times.min()), int(times.max()))


def _use(_lake: Path, store: ModelStore, options: argparse.Namespace, _config: EngineConfig) -> None:
    if options.version == "auto":
        store.choose(None)
        print(f"the newest model of sensor {store.sensor} is used from now on: {_in_use(store)}")  # noqa: T201
        return
    number = _given_number(store, options.version)
    _check(store.load(number))
    store.choose(number)
    print(f"model {number} of sensor {store.sensor} is used until another is chosen; no new ones are trained")  # noqa: T201


def _given_number(store: ModelStore, text: str) -> int:
    there = ", ".join(map(str, store.numbers()))
    if not text.isascii() or not text.isdigit() or len(text) > 9 or int(text) not in store.numbers():
        raise ConfigError(f"sensor {store.sensor} has no {store.kind} model {text}; there are {there}; or say auto")
    return int(text)


def _export(_lake: Path, store: ModelStore, options: argparse.Namespace, _config: EngineConfig) -> None:
    model = store.load(_given_number(store, str(options.number)))
    output = Path(options.file)
    if output.exists():
        raise ConfigError(f"{output} exists already; give another name")
    data = model.to_bytes()
    try:
        with replaced(output) as file:
            file.write(data)
    except OSError as error:
        raise ConfigError(f"{output}: {(error.strerror or str(error)).lower()}; give another name") from None
    print(f"{len(data):,} bytes written to {output}", file=sys.stderr)  # noqa: T201


def _import(lake: Path, store: ModelStore, options: argparse.Namespace, _config: EngineConfig) -> None:
    model = Model.read(Path(options.file))
    if model.kind != store.kind:
        raise ConfigError(f"{options.file} is a model of kind {model.kind[:64]}; give --kind {model.kind[:64]}")
    _check(model)
    number = store.add(replace(model, sensor=store.sensor, made_by=user()))
    print(f"model {number} of sensor {store.sensor}, from {options.file}")  # noqa: T201


def _time(us: float) -> str:
    try:
        return f"{datetime.fromtimestamp(us / 1e6, UTC):%Y-%m-%d %H:%M:%S}"
    except (ValueError, OverflowError, OSError):  # a file may say anything
        return "no time"


def _number(value: Any) -> str:
    return f"{value:.4g}" if isinstance(value, float) else str(value)


_ACTIONS: Final = {"show": _show, "train": _train, "use": _use, "export": _export, "import": _import}
