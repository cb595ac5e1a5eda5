"""What the browser loads: nothing from elsewhere, nothing that makes elements or code of texts, readable colours."""

from __future__ import annotations

import re
from pathlib import Path

import pytest
from plotly.offline import get_plotlyjs_version

from webui import pages, vendor

ASSETS = vendor.ASSETS
OURS = sorted([*ASSETS.glob("*.js"), *ASSETS.glob("boot/*.js")])
TEXTS = ("text", "text-2", "text-3", "accent", "critical", "high", "medium", "low", "ok")


def test_map__is_of_the_plotly_that_draws_it():
    assert get_plotlyjs_version() == vendor.PLOTLY_JS
    assert f"plotly.js {vendor.PLOTLY_JS} | MIT" in (ASSETS / "VENDORED.md").read_text()
    assert (ASSETS / "topojson" / "world_110m.json").stat().st_size > 200_000


def test_vendored__every_file_is_named_with_its_licence():
    told = (ASSETS / "VENDORED.md").read_text()
    for folder in ("ace", "graph", "fonts", "topojson"):
        for path in (ASSETS / folder).iterdir():
            assert f"{folder}/{path.name}" in told or f"{folder}/*.js" in told, path
    assert {p.stem for p in (ASSETS / "icons").glob("*.svg")} == {*vendor.ICONS, "brand"}


@pytest.mark.parametrize("path", OURS, ids=lambda p: p.name)
def test_scripts__make_no_html_no_code_and_no_outside_request(path: Path):
    text = path.read_text()
    for bad in ("innerHTML", "outerHTML", "insertAdjacentHTML", "document.write", "eval(", "new Function", "srcdoc"):
        assert bad not in text, bad
    assert set(re.findall(r"https?://[^\"'`\s]+", text)) <= {"http://www.w3.org/2000/svg"}


def test_icons__of_every_page_exist():
    for page in pages.all_pages():
        assert (ASSETS / "icons" / f"{page.icon}.svg").exists(), page


@pytest.mark.parametrize("theme", ["light", "dark"])
def test_contrast__of_texts_is_at_least_4_5(theme):
    css = (ASSETS / "10-app.css").read_text()
    block = css[css.index(f'[data-theme="{theme}"] {{') :].split("}")[0]
    light = {name: _luminance(value) for name, value in re.findall(r"--([\w-]+): #(\w{6})", block)}
    for text in TEXTS:
        for ground in ("bg", "surface", "hover"):
            assert _contrast(light[text], light[ground]) >= 4.5, (text, ground)
    for text, ground in (("accent", "selected"), ("critical", "critical-bg"), ("medium", "medium-bg"),
                         ("text-2", "surface-2"), ("text", "raised"), ("on-accent", "accent"), ("text", "bar"),
                         ("on-accent", "critical")):  # fmt: skip
        assert _contrast(light[text], light[ground]) >= 4.5, (text, ground)


def _contrast(one: float, other: float) -> float:
    return (max(one, other) + 0.05) / (min(one, other) + 0.05)


def _luminance(colour: str) -> float:
    channels = [int(colour[i : i + 2], 16) / 255 for i in (0, 2, 4)]
    linear = [c / 12.92 if c <= 0.04045 else ((c + 0.055) / 1.055) ** 2.4 for c in channels]
    return 0.2126 * linear[0] + 0.7152 * linear[1] + 0.0722 * linear[2]
