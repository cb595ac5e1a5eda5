"""A model as a file: written once and never changed, and it says of itself all that is known about it.

It can be read with `head -2`; nothing in it is ever executed (no pickle):

    packetlake-model 1 SHA256    of everything after this line
    {"kind": ...}                the header, JSON on one line: the fields of `Model`; name, dtype, shape of each array
    ...                          the arrays' elements, back to back in that order, little endian, in C order

The container knows nothing of methods: a forest over packets keeps its steps in it, a scorer over windows medians and
quantiles. What reads a model checks features, version and arrays itself; what it cannot use is a ConfigError.
"""

from __future__ import annotations

import hashlib
import json
import math
import re
from dataclasses import dataclass, field, fields
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

import numpy as np

from engine import __version__
from engine.errors import ConfigError

if TYPE_CHECKING:
    from numpy.typing import NDArray

ENGINE: Final = "engine"  # `made_by` of models that a running engine made
_MAGIC: Final = b"packetlake-model 1 "
_MOST_BYTES: Final = 64 << 20
_MOST_HEADER: Final = 1 << 20
_DTYPES: Final = ("int16", "int32", "int64", "float32", "float64", "uint8")
NAME: Final = re.compile(r"[A-Za-z0-9_.-]{1,64}")


@dataclass(frozen=True, slots=True, eq=False, kw_only=True)
class Model:
    """Something learned.

    Attributes:
        kind: what it scores, and the name of its directory: packet, window. method: how.
        features, feature_version: what each number given to it means; a reader refuses others than its own.
        rows: what it learned from, `first_us` to `last_us` (microseconds UTC). made_s: seconds since the epoch.
        parameters: how it was trained. metrics: how it did on rows that were held out, and what training cost.
        made_by: `engine`, or the operator. note: the operator's words.
        number: of the version within its sensor and kind, 0 before it is in a lake. where: its file, for messages.
    """

    kind: str
    method: str
    features: tuple[str, ...]
    feature_version: int = 1
    sensor: str = ""
    rows: int = 0
    first_us: int = 0
    last_us: int = 0
    made_s: float = 0.0
    made_by: str = ENGINE
    note: str = ""
    engine_version: str = __version__
    parameters: dict[str, Any] = field(default_factory=dict)
    metrics: dict[str, Any] = field(default_factory=dict)
    arrays: dict[str, NDArray[Any]] = field(default_factory=dict)
    number: int = 0
    where: str = ""

    def header(self) -> dict[str, Any]:
        """Everything but the arrays' elements, as JSON has it."""
        shown: dict[str, Any] = {f.name: getattr(self, f.name) for f in fields(self) if f.name not in _OUTSIDE}
        shown["features"] = list(self.features)
        shown["arrays"] = [
            {"name": name, "dtype": array.dtype.name, "shape": list(array.shape)} for name, array in self.arrays.items()
        ]
        return shown

    def to_bytes(self) -> bytes:
        """The file."""
        parts = [json.dumps(self.header(), allow_nan=False).encode() + b"\n"]
        parts += [a.astype(a.dtype.newbyteorder("<"), copy=False).tobytes() for a in self.arrays.values()]
        body = b"".join(parts)
        return _MAGIC + hashlib.sha256(body).hexdigest().encode() + b"\n" + body

    @staticmethod
    def from_bytes(data: bytes, where: str = "") -> Model:
        """Read and check a file. Raises ConfigError, one line."""
        line, _, body = data.partition(b"\n")
        if not line.startswith(_MAGIC):
            raise ConfigError(f"{where} is no model of this format; name a file that `engine model export` wrote")
        if hashlib.sha256(body).hexdigest().encode() != line.removeprefix(_MAGIC):
            raise ConfigError(f"model {where} is damaged (checksum); delete it, or use another version")
        try:
            return _parsed(body, where)
        except Exception as error:  # noqa: BLE001 — the checksum proves no honesty: JSON may hold anything
            reason = str(error) if isinstance(error, _Wrong) else type(error).__name__
            raise ConfigError(f"model {where} is damaged ({reason}); delete it, or use another version") from None

    @staticmethod
    def read(path: Path) -> Model:
        """As `from_bytes`, of a file of at most 64 MiB."""
        try:
            with path.open("rb") as file:
                data = file.read(_MOST_BYTES + 1)
        except OSError as error:
            reason = (error.strerror or str(error)).lower()
            raise ConfigError(f"model {path}: {reason}; `engine model list` names those there are") from None
        if len(data) > _MOST_BYTES:
            raise ConfigError(f"model {path} is larger than {_MOST_BYTES >> 20} MiB; name one that the engine made")
        return Model.from_bytes(data, str(path))


_OUTSIDE: Final = ("arrays", "number", "where")


class _Wrong(Exception):  # noqa: N818
    """What is wrong with a file, in a few words."""


def _parsed(body: bytes, where: str) -> Model:
    text, _, payload = body.partition(b"\n")
    if len(text) > _MOST_HEADER:
        raise _Wrong("header too long")
    header = json.loads(text)
    described = header.pop("arrays")
    kinds = {f.name: f.type for f in fields(Model) if f.name not in _OUTSIDE}
    if set(header) != set(kinds):
        raise _Wrong("fields of the header")
    values: dict[str, Any] = {}
    for name, kind in kinds.items():
        value: Any = header[name]
        if kind == "float" and type(value) is int:
            value = float(value)
        wanted = {"str": str, "int": int, "float": float}.get(str(kind), list if name == "features" else dict)
        if type(value) is not wanted or (isinstance(value, float) and not math.isfinite(value)):
            raise _Wrong(f"header: {name}")
        values[name] = value
    if not all(isinstance(f, str) and f.isprintable() for f in values["features"]):
        raise _Wrong("header: features")
    if not all(NAME.fullmatch(values[name]) for name in ("kind", "method")):
        raise _Wrong("header: kind")
    values["features"] = tuple(values["features"])
    return Model(**values, arrays=_arrays(described, payload), where=where)


def _arrays(described: list[dict[str, Any]], payload: bytes) -> dict[str, NDArray[Any]]:
    arrays: dict[str, NDArray[Any]] = {}
    at = 0
    for one in described:
        name, dtype, shape = one["name"], one["dtype"], one["shape"]
        if type(name) is not str or dtype not in _DTYPES or name in arrays or len(shape) > 4:
            raise _Wrong("description of an array")
        if not all(type(n) is int and n >= 0 for n in shape):
            raise _Wrong(f"shape of {name}")
        size = math.prod(shape) * np.dtype(dtype).itemsize
        if size > len(payload) - at:
            raise _Wrong("too short")
        little = np.frombuffer(payload, np.dtype(dtype).newbyteorder("<"), math.prod(shape), at)
        arrays[name] = little.astype(dtype).reshape(shape)  # a copy: aligned and writable
        at += size
    if at != len(payload):
        raise _Wrong("too long")
    return arrays
