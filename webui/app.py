"""The dashboard: `create_app(lake)` gives a Dash application whose `.server` is the WSGI application to serve."""

from __future__ import annotations

from pathlib import Path
from typing import Any, Final

from dash import ClientsideFunction, Dash, Input, Output

from analytics.queries import RANGES_S, Snapshots
from engine.errors import StoreError
from webui import ids, security
from webui.pages import shell

# The theme script runs before anything is drawn, or a dark page would flash white. Not inline: the policy forbids it.
PAGE: Final = """<!DOCTYPE html>
<html lang="en">
<head>
{%metas%}
<title>{%title%}</title>
<link rel="icon" href="/assets/icons/brand.svg" type="image/svg+xml">
<script src="/assets/boot/theme.js"></script>
{%css%}
</head>
<body>
{%app_entry%}
<footer>{%config%}{%scripts%}{%renderer%}</footer>
</body>
</html>
"""


def create_app(lake: Path | str | Snapshots) -> Dash:
    """The application over a lake, or over answers a test has prepared. It starts nothing and binds nothing."""
    snapshots = lake if isinstance(lake, Snapshots) else Snapshots(lake)
    app = Dash(
        "packetlake",
        title="PacketLake",
        update_title="",
        assets_folder=str(Path(__file__).parent / "assets"),
        assets_path_ignore=["boot", "fonts", "icons", "topojson"],  # served, but not loaded into every page
        index_string=PAGE,
        compress=True,
        serve_locally=True,
        enable_mcp=False,
        add_log_handler=False,
    )
    app.layout = shell.layout()
    _register(app, snapshots)

    def healthz() -> tuple[str, int]:
        return "ok\n", 200

    app.server.add_url_rule("/healthz", "healthz", healthz)
    # After every callback is registered: the hashes are of the scripts that Dash writes into the page.
    security.protect(app.server, snapshots.lake, app.csp_hashes())
    return app


def _register(app: Dash, snapshots: Snapshots) -> None:
    @app.callback(  # type: ignore[untyped-decorator] # Dash publishes no types
        Output(ids.SNAPSHOT, "data"),
        Input(ids.TICK, "n_intervals"),
        Input(ids.RANGE, "data"),
        # A tick while an answer is under way would make Dash drop that answer: on a slow machine, every one.
        running=[(Output(ids.TICK, "disabled"), True, False)],
    )
    def refresh(_tick: int | None, wanted: Any) -> dict[str, Any]:
        return read_snapshot(snapshots, wanted)

    app.clientside_callback(
        ClientsideFunction("overview", "paint"),
        Output(ids.TIMELINE, "figure"),
        Input(ids.SNAPSHOT, "data"),
        Input(ids.PAINTED, "data"),
    )


def read_snapshot(snapshots: Snapshots, wanted: Any) -> dict[str, Any]:
    """The snapshot a browser asked for. What it asks is not trusted; what fails is said on the page."""
    asked = wanted if isinstance(wanted, dict) else {}
    range_s = asked.get("range_s")
    try:
        return snapshots.snapshot(range_s if range_s in RANGES_S else RANGES_S[0], asked.get("newest") is True)
    except StoreError as error:
        return {"error": str(error)}
