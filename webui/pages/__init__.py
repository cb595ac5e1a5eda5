"""The pages of the dashboard, and how to add one.

A page is two files and nothing else: `webui/pages/<name>.py` with `PAGE`, and `webui/assets/6x-<name>.js` which
fills its elements. Navigation, routing, titles and keys follow from `PAGE`; a page whose role the viewer lacks is not
shown to them. (What the questions answer must be guarded by the API itself: a page only shows.)

    # webui/pages/hosts.py
    from dash import html
    from webui import parts
    from webui.pages import Context, Page

    def layout(context: Context) -> list:
        return [parts.card("Hosts", html.Div(id="hosts-table"), question="hosts", exports=("csv", "parquet", "arrow"))]

    PAGE = Page(path="/hosts", title="Hosts", icon="hosts", key="h", order=40, layout=layout, feeds=("hosts",))

    // webui/assets/63-hosts.js
    packetlake.page("hosts", {
      params: (question, page) => ({ sort: page.query.sort || "bytes" }),   // optional: parameters of a feed
      mount: (page) => {},                              // its elements are there: listeners, once for each visit
      paint: (answers, page) => packetlake.table("hosts-table", { rows: answers.hosts.rows, columns: [...] }),
      unmount: (page) => {},                            // optional: what must stop
    });

`path` is also the beginning of deeper ones: `/hosts/10.0.0.7` is the page "hosts" with `page.rest == "10.0.0.7"`.
`page.query` are the address's own parameters, `packetlake.url.set({sort: "packets"})` changes them (a step of history),
and every question of `feeds` is asked at once when the range, the filter or these change, and each second while live.
Ids begin with the page's name. `webui/assets/README.md` lists what the toolkit offers.
"""

from __future__ import annotations

import importlib
import pkgutil
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

from webui import users


@dataclass(frozen=True, slots=True)
class Context:
    """Whom and what a page is for."""

    lake: Path
    user: str
    role: str
    rest: str = ""  # of the path, after the page's own

    def may(self, role: str) -> bool:
        """Whether the viewer's role includes this one."""
        return users.at_least(self.role, role)


@dataclass(frozen=True, slots=True, kw_only=True)
class Page:
    """One page. `feeds` are questions of the API, asked with the shell's range and filter; `every_s` slows one down."""

    path: str
    title: str
    icon: str  # a file of assets/icons
    layout: Callable[[Context], Sequence[Any]]
    order: int
    key: str = ""  # pressed after g
    feeds: tuple[str, ...] = ()
    every_s: Mapping[str, float] | None = None
    role: str = "viewer"
    ranged: bool = True  # whether range and filter mean something here

    @property
    def name(self) -> str:
        """What `packetlake.page()` calls it, and how its ids begin."""
        return self.path.strip("/") or "overview"


@cache
def all_pages() -> tuple[Page, ...]:
    """Every module of this package that defines PAGE, in the order of the navigation."""
    found = []
    for module in pkgutil.iter_modules(__path__):
        page = getattr(importlib.import_module(f"{__name__}.{module.name}"), "PAGE", None)
        if isinstance(page, Page):
            found.append(page)
    return tuple(sorted(found, key=lambda page: page.order))


def find(path: str) -> tuple[Page, str] | None:
    """The page of an address, and the rest of it."""
    for page in all_pages():
        if path.rstrip("/") == page.path.rstrip("/"):
            return page, ""
        if page.path != "/" and path.startswith(page.path + "/"):
            return page, path[len(page.path) + 1 :]
    return None
