"""Copy third-party files into assets/: `python -m webui.vendor`. Needs `npm` and `node`; run it when a version changes.

The versions are here and nowhere else. The world map is plotly.js's own, so it follows plotly's version: a test
compares this one with the plotly.js that the plotly package carries.
"""

from __future__ import annotations

import json
import subprocess
import sys
import tarfile
import tempfile
from pathlib import Path
from typing import Final

ASSETS: Final = Path(__file__).parent / "assets"
PLOTLY_JS: Final = "4.1.1"
ACE: Final = ("ace", "mode-sql", "ext-language_tools", "ext-searchbox", "theme-cloud_editor", "theme-cloud_editor_dark")
# File name here, name in lucide.
ICONS: Final = {
    "activity": "activity", "alerts": "bell", "anomalies": "activity", "applications": "layers",
    "chart": "chart-column",
    "check": "check", "chevron": "chevron-down", "chevron-right": "chevron-right", "clock": "clock", "close": "x",
    "columns": "columns-3", "configuration": "settings", "copy": "copy", "download": "download", "edit": "pencil",
    "exclude": "circle-minus", "external": "external-link", "eye": "eye", "eye-off": "eye-off", "filter": "funnel",
    "flows": "arrow-left-right", "freeze": "snowflake", "globe": "globe", "graph": "share-2", "health": "heart-pulse",
    "hosts": "network", "info": "info", "keyboard": "keyboard", "log-out": "log-out", "map": "map", "moon": "moon",
    "more": "ellipsis", "mute": "bell-off", "note": "message-square-text", "overview": "layout-dashboard",
    "packets": "list", "pause": "pause", "play": "play", "plus": "plus", "refresh": "refresh-cw", "save": "save",
    "search": "search", "shield": "shield", "sql": "terminal", "star": "star", "sun": "sun", "table": "table",
    "trash": "trash-2", "user": "circle-user", "warning": "triangle-alert", "zoom-out": "zoom-out",
}  # fmt: skip
HEAD: Final = """# Third-party files in this directory

Copied from npm packages by `python -m webui.vendor`, so that the page loads nothing from another machine.

| files | package | licence |
|---|---|---|
"""


def main() -> int:
    """Fetch, copy, and write VENDORED.md."""
    rows = []
    with tempfile.TemporaryDirectory() as directory:
        work = Path(directory)
        for name, copy in COPIERS.items():
            rows.append(copy(_fetch(work, name), name))
    (ASSETS / "VENDORED.md").write_text(HEAD + "".join(rows), encoding="utf-8")
    return 0


def _fetch(work: Path, spec: str) -> Path:
    """The unpacked package."""
    said = subprocess.run(["npm", "pack", "--silent", spec], cwd=work, check=True, capture_output=True, text=True)
    into = work / spec.replace("/", "_")
    with tarfile.open(work / said.stdout.split()[-1]) as archive:
        archive.extractall(into, filter="data")
    return into / "package"


def _fonts(name: str) -> tuple[str, str]:
    return f"{name}-latin-wght-normal.woff2", f"fonts/{name}-latin-wght-normal.woff2"


def _font(package: Path, spec: str) -> str:
    family = spec.split("/")[1].split("@")[0]
    source, target = _fonts(family)
    _copy(package / "files" / source, target)
    return _row(f"`{target}`", spec, "SIL Open Font License 1.1")


def _icons(package: Path, spec: str) -> str:
    for ours, theirs in ICONS.items():
        _copy(package / "icons" / f"{theirs}.svg", f"icons/{ours}.svg")
    return _row("`icons/*.svg`, without `brand.svg`", spec, "ISC")


def _map(package: Path, spec: str) -> str:
    """plotly.js ships the map as a module that assigns it; node reads that."""
    script = "globalThis.window = globalThis; console.log(JSON.stringify(require(process.argv[1]).topojson.world_110m))"
    assets = package / "dist" / "plotly-geo-assets.js"
    said = subprocess.run(["node", "-e", script, str(assets)], check=True, capture_output=True, text=True)
    _write("topojson/world_110m.json", json.dumps(json.loads(said.stdout), separators=(",", ":")).encode())
    return _row("`topojson/world_110m.json`", spec, "MIT")


def _ace(package: Path, spec: str) -> str:
    for name in ACE:
        _copy(package / "src-min-noconflict" / f"{name}.js", f"ace/{name}.js")
    return _row("`ace/*.js`", spec, "BSD 3-Clause")


def _cytoscape(package: Path, spec: str) -> str:
    _copy(package / "dist" / "cytoscape.min.js", "graph/cytoscape.min.js")
    return _row("`graph/cytoscape.min.js`", spec, "MIT")


COPIERS: Final = {
    "@fontsource-variable/inter@5.3.0": _font,
    "@fontsource-variable/jetbrains-mono@5.3.0": _font,
    "lucide-static@1.62.0": _icons,
    f"plotly.js@{PLOTLY_JS}": _map,
    "ace-builds@1.45.2": _ace,
    "cytoscape@3.34.4": _cytoscape,
}


def _row(files: str, spec: str, licence: str) -> str:
    name, version = spec.rsplit("@", 1)
    return f"| {files} | {name} {version} | {licence} |\n"


def _copy(source: Path, target: str) -> None:
    _write(target, source.read_bytes())


def _write(target: str, content: bytes) -> None:
    path = ASSETS / target
    path.parent.mkdir(exist_ok=True)
    path.write_bytes(content)


if __name__ == "__main__":
    sys.exit(main())
