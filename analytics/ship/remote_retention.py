"""What is too old, or too much, leaves the destination: of this sensor's segments, the oldest first.

As in a lake (`analytics.retention`): a note in `.retired/` takes segments out of every new listing, and when no query
can be reading them they are deleted, then the note. All times are the store's, so no sensor's clock decides.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from typing import Final

from analytics.listing import RETIRED
from analytics.ship.destination import Destination, Item
from analytics.ship.names import shipped
from engine.ship_config import ShipConfig
from engine.tables import TABLES

GRACE_S: Final = 300.0
DAY_S: Final = 86_400.0
NOTE_SEGMENTS: Final = 2_000
_GIB: Final = 1 << 30


class RemoteRetention:
    """Keeps what one lake ships within its limits."""

    def __init__(self, destination: Destination, config: ShipConfig, grace_s: float = GRACE_S) -> None:
        self._destination = destination
        self._config = config
        self._grace_s = grace_s

    def round(self, sensors: Sequence[str], ledger: str, now: float) -> list[str]:
        """Delete what was retired long enough ago, then retire what is due. Returns the places that this changed.

        `now` is the store's clock. Raises StoreError.
        """
        changed, noted = self._finish(ledger, now)
        held = [
            item
            for table in TABLES
            for sensor in sensors
            for item in self._destination.list(f"{table}/sensor={sensor}")
            if item.place not in noted and shipped(item.place.rpartition("/")[2]) is not None
        ]
        due = self._due(held, now)
        for table in TABLES:
            places = [item.place.partition("/")[2] for item in due if item.place.partition("/")[0] == table]
            for at in range(0, len(places), NOTE_SEGMENTS):
                note = f"{RETIRED}/{table}@{ledger}-{int(now * 1000):x}-{at:x}"
                self._destination.put(json.dumps(places[at : at + NOTE_SEGMENTS]).encode(), note)
        return changed + [item.place for item in due]

    def _due(self, held: list[Item], now: float) -> list[Item]:
        held = sorted(held, key=lambda item: (item.written, item.place))
        most = self._config.keep_gib * _GIB or float("inf")
        over, due = sum(item.size for item in held) - most, list[Item]()
        for item in held:
            old = 0 < self._config.keep_days * DAY_S < now - item.written
            if not old and over <= 0:
                break
            over -= item.size
            due.append(item)
        return due

    def _finish(self, ledger: str, now: float) -> tuple[list[str], set[str]]:
        """Places deleted, and places that still wait, of other notes too."""
        gone, waiting = list[str](), set[str]()
        for note in self._destination.list(RETIRED):
            table, _, rest = note.place.rpartition("/")[2].partition("@")
            if table not in TABLES:
                continue
            data = self._destination.get(note.place)
            try:
                places = [f"{table}/{place}" for place in json.loads(data or b"[]")]
            except (ValueError, TypeError):
                places = []
            # Others' notes are theirs; what a compaction is about would count twice (`remote_compaction`).
            if not rest.startswith(f"{ledger}-") or now - note.written < self._grace_s:
                waiting.update(places)
                continue
            for place in places:
                self._destination.delete(place)
            self._destination.delete(note.place)
            gone += places
        return gone, waiting
