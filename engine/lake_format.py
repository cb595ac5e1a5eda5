"""Which layout a lake has: `<lake>/lake.json`, so that a version that does not know it keeps its hands off.

    {"format": 1, "made_by": "0.3.0"}

What changes the number: a layout of directories, or a meaning of a column, that an older version would get wrong. New
columns and tables do not: older segments show NULL, older versions do not read what they do not know. A lake without
the file is of format 1 and before it was written down.
"""

from __future__ import annotations

import json
import os
from collections.abc import Callable
from pathlib import Path
from typing import Final

from engine import __version__
from engine.errors import StoreError

FORMAT: Final = 1
FILE: Final = "lake.json"
# From a format to the next, by the number it leads to; each may be killed at any moment and run again.
MIGRATIONS: Final[dict[int, Callable[[Path], None]]] = {}


def check(lake: Path) -> int:
    """The lake's format, at most ours. Raises StoreError, one line."""
    path = lake / FILE
    try:
        text = path.read_text(encoding="utf-8")[:4096]
    except (FileNotFoundError, NotADirectoryError):
        return 1
    except (OSError, UnicodeDecodeError) as error:
        reason = (getattr(error, "strerror", None) or "it is not text").lower()
        raise StoreError(f"lake {lake}: {path} cannot be read: {reason}") from None
    try:
        found = json.loads(text)
        number, maker = int(found["format"]), str(found.get("made_by", "another version"))[:40]
    except (ValueError, TypeError, KeyError, AttributeError, OverflowError, RecursionError):
        raise StoreError(f'lake {lake}: {path} is damaged; put {{"format": {FORMAT}}} there if we wrote it') from None
    if not 1 <= number <= FORMAT:
        raise StoreError(
            f"lake {lake} has format {number}, made by {maker!r}; packetlake {__version__} knows formats "
            f"up to {FORMAT}: use a newer one, or another --lake"
        )
    return number


def prepare(lake: Path) -> None:
    """Before we write: bring an older lake to our format, and write down which it is. Raises StoreError, OSError."""
    number = check(lake)
    for following in range(number + 1, FORMAT + 1):
        MIGRATIONS[following](lake)
        _write(lake, following)
    if not (lake / FILE).exists():
        _write(lake, FORMAT)


def _write(lake: Path, number: int) -> None:
    partial = lake / f".{FILE}.{os.getpid()}"
    with open(partial, "w", encoding="utf-8") as file:
        file.write(json.dumps({"format": number, "made_by": __version__}) + "\n")
        file.flush()
        os.fsync(file.fileno())
    partial.rename(lake / FILE)
