"""What ipinfo.io has said about addresses, kept in the lake: <lake>/.settings/ipinfo.json.

    {"day": "2026-11-26", "asked": 17, "addresses": {"9.9.9.9": {"at": 1795651200, "country_code": "CH", ...}}}

An address it knows nothing of is there too, with `at` alone, so that nobody asks again. No token is in it.
"""

from __future__ import annotations

import contextlib
import json
import os
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final

from engine.errors import StoreError

MOST: Final = 50_000  # addresses, about 150 bytes each; the oldest go
MAX_AGE_S: Final = 30 * 86_400
_MAX_FILE: Final = 64 << 20
KEPT: Final = ("country_code", "city", "latitude", "longitude", "asn", "as_name")


def path_of(lake: Path) -> Path:
    return lake / ".settings" / "ipinfo.json"


@dataclass(slots=True)
class Cache:
    """`addresses`: when it was asked (`at`, seconds since the epoch) and what was answered. `asked`: on this `day`."""

    day: str = ""
    asked: int = 0
    addresses: dict[str, dict[str, Any]] = field(default_factory=dict)

    def add(self, ip: str, answer: dict[str, Any], now_s: float) -> None:
        self.addresses.pop(ip, None)  # the newest stand last
        self.addresses[ip] = {"at": int(now_s)} | answer
        while len(self.addresses) > MOST:
            del self.addresses[next(iter(self.addresses))]

    def forget(self, now_s: float) -> int:
        """Drop what is too old, or of the future. Returns how many."""
        old = [ip for ip, known in self.addresses.items() if not 0 <= now_s - known["at"] <= MAX_AGE_S]
        for ip in old:
            del self.addresses[ip]
        return len(old)


def load(lake: Path) -> Cache:
    """The cache; an empty one when there is none or it is damaged."""
    path = path_of(lake)
    try:
        if path.stat().st_size > _MAX_FILE:
            return Cache()
        document = json.loads(path.read_bytes())
        known = {
            ip: {k: v for k, v in answer.items() if k in ("at", *KEPT) and isinstance(v, int | float | str)}
            for ip, answer in document["addresses"].items()
            if type(answer["at"]) is int
        }
        return Cache(str(document["day"]), int(document["asked"]), known)
    except (OSError, ValueError, KeyError, TypeError, AttributeError, RecursionError):
        return Cache()


def save(lake: Path, cache: Cache) -> None:
    """Replace the file. Raises StoreError."""
    path = path_of(lake)
    partial = path.with_name(f".{path.name}-{os.getpid()}")
    document = {"day": cache.day, "asked": cache.asked, "addresses": cache.addresses}
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        with open(partial, "w", encoding="utf-8") as file:
            json.dump(document, file, separators=(",", ":"))
            file.flush()
            os.fsync(file.fileno())
        partial.chmod(0o644)
        partial.replace(path)
    except OSError as error:
        with contextlib.suppress(OSError):
            partial.unlink()
        raise StoreError(f"cannot write {path}: {error.strerror}; check the lake's rights and free space") from None
