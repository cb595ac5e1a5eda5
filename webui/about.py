"""What the program is made of: the packages it needs, with versions and licences, and the files in assets/."""

from __future__ import annotations

import re
from functools import cache
from importlib import metadata
from pathlib import Path
from typing import Any, Final

_NAME: Final = re.compile(r"[A-Za-z0-9._-]+")
_TABLE: Final = re.compile(r"^\| (.+?) \| (\S+) (\S+) \| (.+?) \|$", re.MULTILINE)
_TROVE: Final = "License :: OSI Approved :: "


@cache
def parts() -> list[dict[str, str]]:
    """[{name, version, licence, kind: package|file}], by name; extras of ours that are not installed are left out."""
    found = {}
    for requirement in metadata.requires("packetlake") or ():
        name = _NAME.match(requirement)
        if name is None or "extra ==" in requirement:
            continue
        try:
            about = metadata.metadata(name[0])
        except metadata.PackageNotFoundError:
            continue
        found[name[0].lower()] = {
            "name": name[0],
            "version": about["Version"],
            "licence": _licence(about),
            "kind": "package",
        }
    text = (Path(__file__).parent / "assets" / "VENDORED.md").read_text(encoding="utf-8")
    for _, name, version, licence in _TABLE.findall(text):
        if name != "package":
            found[name.lower()] = {"name": name, "version": version, "licence": licence, "kind": "file"}
    return [found[key] for key in sorted(found)]


def _licence(about: Any) -> str:
    if about.get("License-Expression"):
        return str(about["License-Expression"])
    names = [c.removeprefix(_TROVE) for c in about.get_all("Classifier") or () if c.startswith(_TROVE)]
    line = str(about.get("License") or "").strip().splitlines()
    return ", ".join(names) or (line[0][:60] if line else "see its files")
