"""The models of a lake: numbered versions for each sensor and kind, and which of them is in use.

<lake>/models/sensor=NAME/kind=KIND/000017.model    version 17, see `engine.model_file`
<lake>/models/sensor=NAME/kind=KIND/use             the number that an operator chose; absent: the newest is used
"""

from __future__ import annotations

import contextlib
import os
import re
import secrets
import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Final, Generic, TypeVar

from engine.errors import ConfigError
from engine.model_file import ENGINE, NAME, Model
from engine.segment_file import make_directories, store_error, sync

DIRECTORY: Final = "models"
KEEP: Final = 24  # versions that an engine made by itself; those of operators stay
_FILE: Final = re.compile(r"(\d{6,9})\.model")
_USE: Final = "use"
_UNFINISHED: Final = ".inprogress"
_ABANDONED_S: Final = 3_600.0
_SETTLED_S: Final = 2.0  # a directory that changed so recently may change again with the same time stamp


class ModelStore:
    """The versions of one sensor's models of one kind. Any number of processes may add and choose at once."""

    def __init__(self, lake: Path, sensor: str, kind: str) -> None:
        self.sensor, self.kind = sensor, kind
        self.folder = lake / DIRECTORY / f"sensor={sensor}" / f"kind={kind}"

    def path(self, number: int) -> Path:
        return self.folder / f"{number:06d}.model"

    def numbers(self) -> list[int]:
        """The versions there are, oldest first."""
        found = (_FILE.fullmatch(name) for name in _names(self.folder))
        return sorted(int(match[1]) for match in found if match is not None)

    def load(self, number: int) -> Model:
        """Raises ConfigError, one line."""
        model = Model.read(self.path(number))
        if model.kind != self.kind:
            raise ConfigError(f"model {model.where} is of kind {model.kind}, not {self.kind}; delete it")
        return replace(model, number=number)

    def add(self, model: Model) -> int:
        """Write the model as the next version, and forget the oldest that engines made. Raises StoreError."""
        data = replace(model, sensor=model.sensor or self.sensor, made_s=model.made_s or time.time()).to_bytes()
        partial = self.folder / f".{secrets.token_hex(8)}{_UNFINISHED}"
        try:
            make_directories(self.folder)
            try:
                with partial.open("wb") as file:
                    file.write(data)
                    file.flush()
                    os.fsync(file.fileno())
                number = self._link(partial)
            finally:
                with contextlib.suppress(FileNotFoundError):
                    partial.unlink()
            sync(str(self.folder))
        except OSError as error:
            raise store_error(self.folder, error) from None
        self._prune()
        return number

    def _link(self, partial: Path) -> int:
        while True:
            number = max(self.numbers(), default=0) + 1
            with contextlib.suppress(FileExistsError):  # another process was faster
                os.link(partial, self.path(number))
                return number

    def _sweep(self) -> None:
        """Remove what a writer that was killed has left."""
        for name in _names(self.folder):
            path = self.folder / name
            with contextlib.suppress(OSError):
                if name.endswith(_UNFINISHED) and time.time() - path.stat().st_mtime > _ABANDONED_S:
                    path.unlink()

    def _prune(self) -> None:
        self._sweep()
        numbers = self.numbers()
        if len(numbers) <= KEEP:
            return
        chosen, own = self.chosen(), []
        for number in numbers:
            try:
                own += [number] if self.load(number).made_by == ENGINE else []
            except ConfigError:  # damaged: whoever asks for it is told; it goes in its turn
                own.append(number)
        for number in own[:-KEEP]:
            if number != chosen:
                with contextlib.suppress(OSError):
                    self.path(number).unlink()

    def chosen(self) -> int | None:
        """The version that an operator chose, None for the newest."""
        try:
            text = (self.folder / _USE).read_text()[:32].strip()
        except (OSError, UnicodeDecodeError):
            return None
        return int(text) if text.isascii() and text.isdigit() else None

    def choose(self, number: int | None) -> None:
        """Have a version used from now on; None: always the newest. Raises ConfigError, StoreError."""
        if number is not None:
            self.load(number)
        try:
            if number is None:
                with contextlib.suppress(FileNotFoundError):
                    (self.folder / _USE).unlink()
                return
            partial = self.folder / f".{secrets.token_hex(8)}{_UNFINISHED}"
            partial.write_text(f"{number}\n")
            partial.rename(self.folder / _USE)
        except OSError as error:
            raise store_error(self.folder, error) from None

    def newest_first(self) -> list[int]:
        """The versions in the order in which they are to be tried: the chosen one, then from the newest on."""
        chosen, numbers = self.chosen(), self.numbers()[::-1]
        return [n for n in numbers if n == chosen] + [n for n in numbers if n != chosen]


_T = TypeVar("_T")


class Follower(Generic[_T]):
    """Which version is in use, as operators and trainers change it. Cheap: a look at one directory's time.

    Args:
        build: makes of a model what scores with it. Raises ConfigError for one that it cannot use.
        report: told once of each version that cannot be used, "warning" first.

    Attributes:
        number: of the version in use, 0 for none. refused: versions that could not be used.
    """

    def __init__(self, store: ModelStore, build: Callable[[Model], _T], report: Callable[[str, str], None]) -> None:
        self.store = store
        self._build = build
        self._report = report
        self._looked_at_ns = -1
        self._bad: dict[int, int] = {}  # number: the file's time, so that one put in its place is tried
        self.number = 0
        self.refused = 0

    @property
    def chosen(self) -> bool:
        """An operator chose the version in use: nothing newer will be used."""
        return self.store.chosen() is not None

    def poll(self) -> _T | None:
        """What is to be used from now on, when that is another version than before. What is in use stays in use when
        nothing better can be read."""
        try:
            changed_ns = self.store.folder.stat().st_mtime_ns
        except OSError:
            return None
        if changed_ns == self._looked_at_ns:
            return None
        self._looked_at_ns = changed_ns if time.time() - changed_ns / 1e9 > _SETTLED_S else -1
        for number in self.store.newest_first():
            if number == self.number:
                return None
            built = self._try(number)
            if built is not None:
                self.number = number
                return built
        return None

    def _try(self, number: int) -> _T | None:
        try:
            changed_ns = self.store.path(number).stat().st_mtime_ns
            if self._bad.get(number) == changed_ns:
                return None
            self._bad[number] = changed_ns
            built = self._build(self.store.load(number))
        except OSError:  # gone since it was listed
            return None
        except ConfigError as error:
            self.refused += 1
            self._report("warning", str(error))
            return None
        del self._bad[number]
        return built


def stores(lake: Path) -> list[ModelStore]:
    """Every sensor and kind that has models in the lake."""
    found = []
    for sensor in sorted(_names(lake / DIRECTORY)):
        for kind in sorted(_names(lake / DIRECTORY / sensor)):
            names = sensor.removeprefix("sensor="), kind.removeprefix("kind=")
            if all(NAME.fullmatch(n) for n in names):
                found.append(ModelStore(lake, *names))
    return found


def _names(folder: Path) -> list[str]:
    try:
        return os.listdir(folder)
    except OSError:
        return []


__all__ = ["DIRECTORY", "ENGINE", "KEEP", "Follower", "Model", "ModelStore", "stores"]
