"""Application protocols, one file each. `APPLICATIONS` holds them in the order their files are named."""

from __future__ import annotations

import pkgutil
from importlib import import_module
from typing import Final

from engine.dissect.base import Application

APPLICATIONS: Final[tuple[Application, ...]] = tuple(
    module.APPLICATION
    for info in sorted(pkgutil.iter_modules(__path__), key=lambda i: i.name)
    if hasattr(module := import_module(f"{__name__}.{info.name}"), "APPLICATION")
)

# Values of `app`: its number in kernels is the position, 0 is none.
APP_NAMES: Final = ("", *(name for a in APPLICATIONS for name in a.names))
ENCRYPTED: Final = frozenset(name for a in APPLICATIONS if a.encrypted for name in a.names)
