"""What a packet model sees of a row of `packets`: the features that `engine.kernels.forest` gives the live rows, from
the lake's columns. A test holds the two equal.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final

import numpy as np

if TYPE_CHECKING:
    import pyarrow as pa
    from numpy.typing import NDArray

COLUMNS: Final = ("wirelen", "payload_len", "entropy", "src_port", "dst_port", "proto", "ttl", "tcp_flags")
_ONE: Final = 127 << 23  # float32 1.0
_MOST: Final = (1 << 31) - 512


def features_of(rows: pa.Table) -> NDArray[np.int16]:
    """int16[n, n_features] of a table that has COLUMNS of `packets`."""
    columns = [_column(rows.column(name)) for name in COLUMNS]
    wirelen, payload_len, entropy, src_port, dst_port, *small = columns
    bits = np.nan_to_num(entropy.astype(np.float32), nan=-1.0)
    found: list[NDArray[Any]] = [
        _octaves(wirelen),
        _octaves(payload_len),
        ((bits + np.float32(1.0)) * np.float32(2048.0) + np.float32(0.5)).astype(np.int32),
        _octaves(src_port),
        _octaves(dst_port),
        *(np.nan_to_num(column, nan=-1.0) + 1 for column in small),
    ]
    return np.stack(found, axis=1).astype(np.int16)


def _column(values: Any) -> NDArray[np.float64]:
    """Float64 with NaN where the row has none: exact below 2**53."""
    import pyarrow as pa

    return np.asarray(values.cast(pa.float64(), safe=False).to_numpy(), np.float64)


def _octaves(values: NDArray[np.float64]) -> NDArray[np.int32]:
    whole = np.clip(np.nan_to_num(values, nan=-1.0), -1, _MOST).astype(np.int32) + np.int32(2)
    return (whole.astype(np.float32).view(np.int32) - np.int32(_ONE)) >> 13
