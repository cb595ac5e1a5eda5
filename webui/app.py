"""The dashboard: `create_app(lake)` gives a Dash application whose `.server` is the WSGI application to serve.

Dash makes the frame and the layout of each page. What they show is fetched from `/api/v1` by the scripts in assets/,
so no callback runs on the server while somebody watches; the only one gives the layout of a page gone to.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any, Final

from dash import Dash, Input, Output
from flask import g, has_request_context

from analytics.watch.watch import Watch
from webui import api, login, people_api, security, settings_api, sql_api, status_api
from webui.pages import Context, shell

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
# Served, but not loaded into every page.
LATER: Final = ["ace", "boot", "fonts", "graph", "icons", "topojson"]


def create_app(lake: Path | str | Watch, access: security.Access | None = None) -> Dash:
    """The application over a lake, or over an opened one (tests set its clock). It binds nothing."""
    watch = lake if isinstance(lake, Watch) else None
    lake = Path(lake.lake.path if isinstance(lake, Watch) else lake)
    app = Dash(
        "packetlake",
        title="PacketLake",
        update_title="",
        assets_folder=str(Path(__file__).parent / "assets"),
        assets_path_ignore=LATER,
        index_string=PAGE,
        compress=True,
        serve_locally=True,
        enable_mcp=False,
        add_log_handler=False,
        suppress_callback_exceptions=True,
    )

    def context() -> Context:
        inside = has_request_context()  # Dash also asks for the layout once by itself, at the start
        return Context(lake, g.get("user", "") if inside else "", g.get("role", "") if inside else "")

    app.layout = lambda: shell.layout(context())

    @app.callback(Output("shell-page", "children"), Input("shell-url", "pathname"))  # type: ignore[untyped-decorator] # Dash publishes no types
    def show(path: Any) -> Any:
        return shell.page(path if isinstance(path, str) else "/", context())

    app.server.register_blueprint(login.pages())
    app.server.register_blueprint(people_api.blueprint())
    app.server.register_blueprint(settings_api.blueprint())
    app.server.register_blueprint(sql_api.blueprint())
    app.server.register_blueprint(status_api.blueprint())
    api.register(app.server, lake, watch)
    # After every callback is registered: the hashes are of the scripts that Dash writes into the page.
    security.protect(app.server, access or security.Access(lake), app.csp_hashes())
    return app
