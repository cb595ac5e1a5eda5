"""Which files a query reads: the segments of a table as they are at its start.

    <lake>/<table>/sensor=/date=/hour=/*.parquet
    <lake>/.merging/<table>@<id>.open       segments of one of these directories are about to be merged, see
    <lake>/.merging/<table>@<id>/kept/      `analytics.compaction`; here are second names of them
    <lake>/.retired/<table>@<id>            segments that will be deleted, see `analytics.retention`

A merge swaps a directory of segments for one that holds them as one file. A query lists its files first and opens them
as it goes, so those it has listed must stay: while a merge is open, a query reads the merged segments by their second
names, which outlive the swap. Whichever side of it a query lists, it sees every row once.
"""

from __future__ import annotations

import contextlib
import json
import os
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Final

MERGING: Final = ".merging"
OPEN: Final = ".open"
KEPT: Final = "kept"
SUFFIX: Final = ".parquet"
RETIRED: Final = ".retired"


@dataclass(frozen=True, slots=True)
class OpenMerge:
    """A merge that queries have to know of: its partition (relative to the table), where the segments' second names
    are, these names, and those of the files that replace them."""

    partition: str
    kept: str
    originals: frozenset[str]
    merged: frozenset[str]


def live_segments(lake: Path, table: str) -> list[str]:
    """Paths of the segments that a query that begins now reads."""
    gone = retired_segments(lake, table)
    merges = {merge.partition: merge for merge in open_merges(lake, table)}
    base = lake / table
    found: list[str] = []
    for partition in partitions(base):
        directory = f"{base}/{partition}"
        names = [name for name in names_in(directory) if name.endswith(SUFFIX)]
        merge = merges.pop(partition, None)
        if merge is not None:
            found += [f"{merge.kept}/{name}" for name in sorted(merge.originals)]
            names = [name for name in names if name not in merge.originals and name not in merge.merged]
        found += [f"{directory}/{name}" for name in sorted(names) if f"{partition}/{name}" not in gone]
    return found


def retired_segments(lake: Path, table: str) -> frozenset[str]:
    """Segments that a query which begins now does not read, as `sensor=/date=/hour=/name`: they will be deleted.

    Ask before you list a directory: when a note goes, its segments have gone before.
    """
    found: set[str] = set()
    for name in names_in(lake / RETIRED):
        if name.startswith(f"{table}@"):
            with contextlib.suppress(OSError, ValueError):  # finished meanwhile; damaged, and then nothing goes
                found.update(noted(lake / RETIRED / name))
    return frozenset(found)


def noted(note: Path) -> list[str]:
    """The segments that a note in `.retired/` names. Raises ValueError when it is damaged."""
    places = json.loads(note.read_text())
    if not isinstance(places, list) or not all(isinstance(place, str) for place in places):
        raise ValueError("it is no list of names")
    return places


def partitions(base: Path | str) -> Iterator[str]:
    """The directories that hold a table's segments, as `sensor=/date=/hour=`."""
    for sensor in sorted(names_in(base)):
        for date in sorted(names_in(f"{base}/{sensor}")):
            for hour in sorted(names_in(f"{base}/{sensor}/{date}")):
                yield f"{sensor}/{date}/{hour}"


def open_merges(lake: Path, table: str) -> Iterator[OpenMerge]:
    """The merges of a table whose segments must be read by their second names."""
    for name in names_in(lake / MERGING):
        if name.startswith(f"{table}@") and name.endswith(OPEN):
            try:
                note = json.loads((lake / MERGING / name).read_text())
                kept = f"{lake}/{MERGING}/{name.removesuffix(OPEN)}/{KEPT}/{note['partition']}"
                yield OpenMerge(note["partition"], kept, frozenset(os.listdir(kept)), frozenset(note["merged"]))
            except FileNotFoundError:  # it was closed since it was listed: long after its swap
                continue


def names_in(directory: Path | str) -> list[str]:
    """What is in a directory; nothing when there is none."""
    try:
        return os.listdir(directory)
    except (FileNotFoundError, NotADirectoryError):
        return []
