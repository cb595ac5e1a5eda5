"""The API: every question of `analytics.watch` under /api/v1/, SQL, alerts and capture files. Described by itself at
/api/v1/openapi.json.

The gate (`webui.security`) has let the request through and left `flask.g.role`; without a role everything is refused.
Answers are compressed once and sent to everybody who asks the same, with an ETag. Errors are {"error": one line}.
"""

from __future__ import annotations

import gzip
import importlib
import tempfile
import threading
import weakref
from collections.abc import Callable, Iterable, Iterator
from datetime import UTC, datetime, timedelta
from functools import wraps
from itertools import chain
from pathlib import Path
from typing import IO, TYPE_CHECKING, Any, Final

from flask import Blueprint, Flask, Response, g, request

from analytics import alerts as alert_words
from analytics.watch import export, filters, openapi, pcap, registry, sqlrun, timerange
from analytics.watch.context import Stopped, to_json
from analytics.watch.registry import NotAllowed, NotFound, may
from analytics.watch.sqlrun import SqlRunner
from analytics.watch.watch import EXPORT_ROWS, Watch
from engine.errors import ConfigError, EngineError

if TYPE_CHECKING:
    import pyarrow as pa

    Handler = Callable[..., Response]

OURS: Final = frozenset({"range", "filter", "format", "explain", "part", "rows"})  # the rest are a question's own
MAX_PCAP: Final = 1 << 30  # bytes of a capture file made by a browser's request
MAX_PCAPS: Final = 2  # at a time: they take room in the temporary directory, which may be memory
MUTE_HOURS: Final = 24 * 366
SQL_RUNNER: Final = "PACKETLAKE_SQL"  # where the application keeps it


class Opened:
    """The lake's questions, opened by the first request: making the application opens nothing."""

    def __init__(self, lake: Path) -> None:
        self.path = lake
        self._lock = threading.Lock()
        self._watch: Watch | None = None

    def __call__(self) -> Watch:
        with self._lock:
            if self._watch is None:
                self._watch = Watch(self.path)
            return self._watch


def register(server: Flask, lake: Path | str, watch: Watch | None = None) -> None:
    """Add the API of a lake. `watch`: one that is open already."""
    opened = Opened(Path(lake).expanduser().absolute())
    get = opened if watch is None else lambda: watch
    blueprint = Blueprint("api", __name__, url_prefix="/api/v1")
    _questions(blueprint, get)
    runner = server.config[SQL_RUNNER] = SqlRunner(opened.path)
    _sql(blueprint, runner)
    _alerts(blueprint, opened.path)
    _captures(blueprint, get)
    server.register_blueprint(blueprint)


def answered(role: str) -> Callable[[Handler], Handler]:
    """Refuse who has not that role; turn our errors into answers."""

    def decorate(handler: Handler) -> Handler:
        @wraps(handler)
        def answer(*args: Any, **kwargs: Any) -> Response:
            try:
                if not may(getattr(g, "role", None), role):
                    raise NotAllowed(f"this needs the role {role}")
                return handler(*args, **kwargs)
            except EngineError as error:
                return _refused(error)

        return answer

    return decorate


def _refused(error: EngineError) -> Response:
    status = (
        403 if isinstance(error, NotAllowed) else 404 if isinstance(error, NotFound)
        else 504 if isinstance(error, Stopped) else 400 if isinstance(error, ConfigError) else 503
    )  # fmt: skip
    return _json(_told(error), status)


def _told(error: EngineError) -> dict[str, Any]:
    line = getattr(error, "line", None)  # of SQL
    return {"error": str(error)} | ({"line": line} if line else {})


def _json(answer: dict[str, Any], status: int = 200) -> Response:
    return Response(to_json(answer), status, mimetype="application/json")


def _note(event: str, **facts: Any) -> None:
    importlib.import_module("webui.audit").note(event, **facts)


def _still_there() -> Callable[[], bool]:
    """Whether the browser still waits; waitress knows."""
    gone = request.environ.get("waitress.client_disconnected")
    return (lambda: not gone()) if callable(gone) else lambda: True


# --- questions -------------------------------------------------------------------------------------------------------


def _questions(blueprint: Blueprint, opened: Callable[[], Watch]) -> None:
    @blueprint.get("/openapi.json")
    @answered("viewer")
    def describe() -> Response:
        return _json(openapi.document())

    @blueprint.get("/<name>")
    @answered("viewer")
    def ask(name: str) -> Response:
        watch = opened()
        form = request.args.get("format", "json")
        how: dict[str, Any] = {
            "range_text": request.args.get("range"), "filter_text": request.args.get("filter"), "role": g.role,
            "params": {k: v for k, v in request.args.items() if k not in OURS},
        }  # fmt: skip
        if request.args.get("explain") == "sql":
            return _json({"question": name, "sql": watch.explain(name, **how)})
        if form == "json":
            return _encoded(watch, name, how)
        if form not in export.MEDIA:
            raise ConfigError(f"format {form[:20]!r} is unknown; use json, {', '.join(export.MEDIA)}")
        rows = registry.Param("rows", EXPORT_ROWS, "Rows", low=1, high=EXPORT_ROWS).parse(request.args.get("rows"))
        part = request.args.get("part")
        _note("export", question=name, format=form, range=how["range_text"], filter=how["filter_text"])
        return _file(
            lambda use: watch.table(name, part, use, rows=rows, **how), form, f"{name}{f'-{part}' if part else ''}"
        )


def _encoded(watch: Watch, name: str, how: dict[str, Any]) -> Response:
    answer = watch.ask(name, alive=_still_there(), **how)
    etag = f'"{answer.etag}"'
    headers = {"ETag": etag, "Vary": "Accept-Encoding", "Server-Timing": f"lake;dur={answer.ms:.1f}"}
    if etag in {tag.strip().removeprefix("W/") for tag in request.headers.get("If-None-Match", "").split(",")}:
        return Response(status=304, headers=headers)
    if "gzip" in request.headers.get("Accept-Encoding", "").lower():
        return Response(answer.body, 200, headers | {"Content-Encoding": "gzip"}, mimetype="application/json")
    return Response(gzip.decompress(answer.body), 200, headers, mimetype="application/json")


def _file(run: Callable[[Callable[[pa.RecordBatchReader], Any]], Any], form: str, name: str) -> Response:
    """Stream what `run` reads. It holds its connection while it runs, so it does so in a thread of its own."""
    stream = export.Stream(run, form)
    return _attachment(stream.parts(), form, name, stream.close)


def _attachment(parts: Iterable[bytes], form: str, name: str, close: Callable[[], None]) -> Response:
    headers = {"Content-Disposition": f'attachment; filename="{_file_name(name)}.{form}"'}
    response = Response(parts, 200, headers, mimetype=export.MEDIA[form])
    response.call_on_close(close)
    return response


def _file_name(name: str) -> str:
    return "".join(c if c.isalnum() or c in "-_" else "_" for c in name)[:60]


# --- SQL -------------------------------------------------------------------------------------------------------------


def _body() -> dict[str, Any]:
    given = request.get_json(silent=True)
    if not isinstance(given, dict):
        raise ConfigError("the request has no JSON object as its body")
    return given


def _text(given: dict[str, Any], name: str, most: int = 1_000) -> str | None:
    value = given.get(name)
    if value is None or value == "":
        return None
    if not isinstance(value, str) or len(value) > most:
        raise ConfigError(f"{name} is no text of at most {most} characters")
    return value


def _noted(runner: SqlRunner, sql: str, run_id: str | None) -> Response:
    """The result; what ran, and how it ended, is kept for the person."""
    book = importlib.import_module("webui.sql_book")
    try:
        answer = runner.show(sql, g.user, run_id, alive=_still_there())
    except EngineError as error:
        book.note(runner.lake, g.user, sql, error=str(error)[:300])
        raise
    book.note(runner.lake, g.user, sql, ms=answer.ms, rows=answer.rows)
    return Response(answer.body, mimetype="application/json")


def _sql(blueprint: Blueprint, runner: SqlRunner) -> None:
    @blueprint.post("/sql")
    @answered("operator")
    def run() -> Response:
        given = _body()
        sql = _text(given, "sql", sqlrun.MAX_TEXT) or ""
        run_id, form = _text(given, "id", 64), _text(given, "format", 20) or "json"
        if form == "json":
            try:
                return _noted(runner, sql, run_id)
            except EngineError as error:
                if given.get("tell") is not True:
                    raise
                return _json(_told(error))  # to whoever is writing the query, its error is an answer
        if form not in export.MEDIA:
            raise ConfigError(f"format {form!r} is unknown; use json, {', '.join(export.MEDIA)}")
        _note("export", question="sql", format=form, sql=sql)
        parts = runner.export(sql, g.user, form, run_id, _still_there())
        first = next(parts, b"")  # nothing was sent yet: what is wrong can still be said properly
        return _attachment(chain([first], parts), form, "query", parts.close)

    @blueprint.post("/sql/cancel")
    @answered("operator")
    def cancel() -> Response:
        run_id = _text(_body(), "id", 64)
        if run_id is None:
            raise ConfigError("id is missing: that of the query to cancel")
        owner = None if may(g.role, "admin") else g.user
        return _json({"cancelled": runner.stop(run_id, owner)})


# --- alerts ----------------------------------------------------------------------------------------------------------


def _alerts(blueprint: Blueprint, lake: Path) -> None:
    @blueprint.post("/alerts")
    @answered("operator")
    def add() -> Response:
        given = _body()
        names = ("kind", "severity", "why", "src", "dst")
        values = {name: _text(given, name) for name in names}
        missing = [name for name in names[:3] if values[name] is None]
        if missing:
            raise ConfigError(f"{missing[0]} is missing")
        incident = alert_words.add(lake, g.user, **values)  # type: ignore[arg-type] # checked above
        _note("alert added", incident=incident)
        return _json({"id": incident}, 201)

    @blueprint.post("/alerts/<any(ack, reopen):word>")
    @answered("operator")
    def mark(word: str) -> Response:
        ids = _body().get("ids")
        if not isinstance(ids, list) or not all(isinstance(one, str) for one in ids):
            raise ConfigError("ids is missing: a list of the alerts' ids")
        alert_words.mark_all(lake, ids, g.user, done=word == "ack")
        _note(f"alert {word}", alerts=len(ids), incidents=" ".join(ids))
        return _json({"ids": ids, "done": word})

    @blueprint.post("/alerts/<incident>/<word>")
    @answered("operator")
    def say(incident: str, word: str) -> Response:
        text = _text(_body(), "note")
        acts: dict[str, Callable[[], None]] = {
            "ack": lambda: alert_words.acknowledge(lake, incident, g.user, text),
            "reopen": lambda: alert_words.reopen(lake, incident, g.user, text),
            "note": lambda: alert_words.note(lake, incident, g.user, text or ""),
        }
        if word not in acts:
            raise NotFound(f"{word[:20]!r} is unknown; use {', '.join(acts)}")
        acts[word]()
        _note(f"alert {word}", incident=incident)
        return _json({"id": incident, "done": word})

    @blueprint.post("/mutes")
    @answered("operator")
    def mute() -> Response:
        given = _body()
        about = {name: _text(given, name) for name in ("kind", "src", "dst")}
        hours = given.get("hours")
        if hours is not None and not (isinstance(hours, int | float) and 0 < hours <= MUTE_HOURS):
            raise ConfigError(f"hours {str(hours)[:20]} is out of range: use up to {MUTE_HOURS}, or leave it out")
        until = None if hours is None else datetime.now(UTC).replace(tzinfo=None) + timedelta(hours=hours)
        alert_words.mute(lake, g.user, until=until, reason=_text(given, "note"), **about)
        _note("mute", **about, hours=hours)
        return _json({"muted": about, "until": None if until is None else timerange.to_us(until)}, 201)

    @blueprint.post("/mutes/remove")
    @answered("operator")
    def unmute() -> Response:
        given = _body()
        about = {name: _text(given, name) for name in ("kind", "src", "dst")}
        alert_words.unmute(lake, g.user, **about)
        _note("unmute", **about)
        return _json({"unmuted": about})


# --- capture files ---------------------------------------------------------------------------------------------------


def _captures(blueprint: Blueprint, opened: Callable[[], Watch]) -> None:
    slots = threading.BoundedSemaphore(MAX_PCAPS)

    @blueprint.get("/pcap")
    @answered("operator")
    def capture() -> Response:
        watch = opened()
        span = watch.lake.span(timerange.parse(request.args.get("range")))
        condition = pcap.condition(
            filters.parse(request.args.get("filter")), span, request.args.get("source"),
            registry.Param("frame", 0, "Number of the frame", low=0).parse(request.args.get("frame")),
        )  # fmt: skip
        limit = registry.Param("limit", 10_000_000, "Frames", low=1, high=10_000_000).parse(request.args.get("limit"))
        if request.args.get("estimate") in ("1", "true"):
            return _json(pcap.estimate(watch.lake.path, condition, limit) | {"most": MAX_PCAP})
        if not slots.acquire(timeout=2):
            raise Stopped(f"{MAX_PCAPS} capture files are under way already; wait for one")
        file = tempfile.TemporaryFile()  # noqa: SIM115 — it is closed when it was sent
        weakref.finalize(file, slots.release)  # however the answer ends
        try:
            frames = pcap.write(watch.lake.path, condition, limit, MAX_PCAP, file)
            asked = {name: request.args.get(name) for name in ("filter", "range")}
            _note("export", question="pcap", frames=frames, **asked)
        except BaseException:
            file.close()
            raise
        size = file.tell()
        file.seek(0)
        headers = {"Content-Disposition": 'attachment; filename="packets.pcapng"', "Content-Length": str(size)}
        response = Response(_parts(file), 200, headers, mimetype="application/x-pcapng")
        response.call_on_close(file.close)
        return response


def _parts(file: IO[bytes]) -> Iterator[bytes]:
    with file:
        while part := file.read(1 << 18):
            yield part
