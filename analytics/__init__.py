"""SQL over the lake: `analytics.connect(lake)` gives a DuckDB connection with the views.

Importing this package loads neither DuckDB nor Arrow; the first use does.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from analytics.store import connect

__all__ = ["connect"]


def __getattr__(name: str) -> Any:
    if name == "connect":
        from analytics.store import connect

        return connect
    raise AttributeError(f"module 'analytics' has no attribute {name!r}")
