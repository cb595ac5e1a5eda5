"""Two results of `engine bench` beside each other: better, worse, or within noise."""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from benchmarks.measure import HIGHER, LOWER, Figure, is_figure
from engine.errors import ConfigError

FORMAT = 1
OURS = "ours, packets/CPU s"  # among the peers of an input: our own rates
BETTER, WORSE, NOISE, CHANGED = "better", "worse", "within noise", "changed"
# A change below this share is noise whatever the runs say; figures of one or two runs say little about their spread.
_LEAST, _LEAST_FEW_RUNS, _FEW = 0.03, 0.10, 3


@dataclass(frozen=True, slots=True)
class Verdict:
    """One figure in both results. `ratio` is new / old, None when the old one is 0."""

    name: str
    unit: str
    old: float
    new: float
    ratio: float | None
    verdict: str


def read_result(path: Path) -> dict[str, Any]:
    """A file that `engine bench --json` wrote. Raises ConfigError for anything else."""
    try:
        document = json.loads(path.read_text())
    except OSError as error:
        raise ConfigError(f"result {path}: {(error.strerror or str(error)).lower()}") from None
    except (ValueError, RecursionError):
        raise ConfigError(f"result {path} is not JSON; give a file that `engine bench --json` wrote") from None
    if not isinstance(document, dict) or not isinstance(document.get("sections"), dict):
        raise ConfigError(f"result {path} is no result of `engine bench`; give a file that `engine bench --json` wrote")
    if document.get("format") != FORMAT:
        raise ConfigError(f"result {path} has format {document.get('format')!r}; this version compares {FORMAT}")
    return document


def figures(part: Any, name: str = "") -> Iterator[tuple[str, Figure]]:
    """Every figure below a part of a result, with the way to it."""
    if is_figure(part):
        yield name, part
    elif isinstance(part, dict):
        for key, value in part.items():
            yield from figures(value, f"{name} / {key}" if name else str(key))


def skips(part: Any, name: str = "all of it") -> list[tuple[str, str]]:
    """What was not measured, and why."""
    if not isinstance(part, dict):
        return []
    if "skipped" in part:
        return [(name, str(part["skipped"]))]
    return [skip for key, value in part.items() for skip in skips(value, str(key))]


def judge(old: Figure, new: Figure) -> str:
    """A change counts when the runs of one side lie all beyond those of the other, and it is not tiny."""
    least = _LEAST if min(old["runs"], new["runs"]) >= _FEW else _LEAST_FEW_RUNS
    apart = new["min"] > old["max"] or new["max"] < old["min"]
    if not apart or abs(new["median"] - old["median"]) <= least * abs(old["median"]):
        return NOISE
    if old["better"] not in (LOWER, HIGHER):
        return CHANGED
    return BETTER if (new["median"] < old["median"]) == (old["better"] == LOWER) else WORSE


def compare(old: dict[str, Any], new: dict[str, Any]) -> list[Verdict]:
    """The figures that both results have, in the order of the new one."""
    before = dict(figures(old["sections"]))
    verdicts = []
    for name, now in figures(new["sections"]):
        was = before.get(name)
        if was is None or was["unit"] != now["unit"]:
            continue
        ratio = now["median"] / was["median"] if was["median"] else None
        verdicts.append(Verdict(name, now["unit"], was["median"], now["median"], ratio, judge(was, now)))
    return verdicts


def run(old_path: Path, new_path: Path) -> int:
    """Print the verdicts; the exit code does not depend on them."""
    old, new = read_result(old_path), read_result(new_path)
    for key in ("machine", "versions", "short"):
        if old.get(key) != new.get(key):
            print(f"the results differ in {key}: {_short(old.get(key), new.get(key))}")
    print(f"load before: {old.get('load_before')} and {new.get('load_before')}")
    verdicts = compare(old, new)
    if not verdicts:
        raise ConfigError(
            f"results {old_path} and {new_path} have no figure in common; use the same sections and inputs"
        )
    for v in verdicts:
        ratio = "     -" if v.ratio is None else f"{v.ratio:6.2f}"
        print(f"{v.verdict:<13} {ratio}  {number(v.old):>12} -> {number(v.new):>12} {v.unit:<16} {v.name}")
    counts = {verdict: sum(v.verdict == verdict for v in verdicts) for verdict in (BETTER, WORSE, NOISE, CHANGED)}
    print(", ".join(f"{count} {verdict}" for verdict, count in counts.items() if count))
    return 0


def _short(old: Any, new: Any) -> str:
    if not (isinstance(old, dict) and isinstance(new, dict)):
        return f"{old} and {new}"
    keys = [key for key in {**old, **new} if old.get(key) != new.get(key)]
    return ", ".join(f"{key} {old.get(key)} and {new.get(key)}" for key in keys)


def number(value: float) -> str:
    """With thousands separators, and as many digits as say something."""
    return f"{value:,.0f}" if abs(value) >= 100 else f"{value:,.3g}"
