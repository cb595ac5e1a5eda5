"""For programs that watch the engine.

GET /healthz         "ok" while the dashboard answers; open
GET /metrics         for Prometheus; a token of any role
GET /api/v1/status   what `engine status --json` says; 503 while nothing captures into the lake
"""

from __future__ import annotations

import threading
import time
from typing import Any, Final

from flask import Blueprint, Response, current_app, jsonify

from analytics import exposition, status
from webui.api import answered
from webui.security import METRICS

FRESH_S: Final = 5.0  # a look costs a listing of the lake, so several who ask share one


def blueprint() -> Blueprint:
    """The routes."""
    routes = Blueprint("status", __name__)
    lock = threading.Lock()
    last: list[tuple[float, dict[str, Any]]] = []

    def look() -> dict[str, Any]:
        with lock:
            now = time.monotonic()
            if not last or now - last[0][0] > FRESH_S:
                last[:] = [(now, status.look(current_app.config["PACKETLAKE_LAKE"], count_rows=False))]
            return last[0][1]

    @routes.get("/healthz")
    def alive() -> str:
        return "ok\n"

    @routes.get(METRICS)
    @answered("viewer")
    def metrics() -> Response:
        return Response(exposition.text(look()), content_type=exposition.CONTENT_TYPE)

    @routes.get("/api/v1/status")
    @answered("viewer")
    def full() -> Response:
        found = look()
        answer = jsonify(found)
        answer.status_code = 503 if found["exit_code"] == 2 else 200
        return answer

    return routes
