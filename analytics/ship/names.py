"""Names of shipped segments, which say what is inside."""

from __future__ import annotations

import hashlib
import re
from dataclasses import dataclass
from pathlib import Path
from typing import Final

SHIPPED_NAME: Final = re.compile(r"(\d{16,20})-(\d{16,20})-r(\d{1,12})-b(\d{1,12})-([0-9a-f]{32})\.parquet")
FLEET: Final = ".fleet"
OWNERS: Final = f"{FLEET}/owners"
LAKES: Final = f"{FLEET}/lakes"
SERVED: Final = re.compile(r"sensor=[A-Za-z0-9_.-]{1,80}/date=\d{4}-\d\d-\d\d/hour=\d\d")


@dataclass(frozen=True, slots=True)
class Shipped:
    """What a name promises: microseconds since the epoch of the first and last row, rows, bytes, hash."""

    start: int
    end: int
    rows: int
    size: int
    digest: str


def shipped(name: str) -> Shipped | None:
    """None for a name that shipping has not given."""
    match = SHIPPED_NAME.fullmatch(name)
    if match is None:
        return None
    start, end, rows, size = (int(match[n]) for n in (1, 2, 3, 4))
    return Shipped(start, end, rows, size, match[5])


def name_for(path: Path, start: int, end: int, rows: int) -> str:
    """The name under which a segment is shipped; reads the file once."""
    with open(path, "rb") as file:
        digest = hashlib.file_digest(file, "sha256").hexdigest()
    size = path.stat().st_size
    return f"{max(0, start):016d}-{max(0, end):016d}-r{rows}-b{size}-{digest[:32]}.parquet"


def matches(data: bytes, promised: Shipped) -> bool:
    """Whether these bytes are those that were shipped."""
    return len(data) == promised.size and hashlib.sha256(data).hexdigest()[:32] == promised.digest
