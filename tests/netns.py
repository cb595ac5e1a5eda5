"""The private wire of `benchmarks.wire` for tests that capture live traffic: two namespaces, one veth pair."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from benchmarks.wire import CLONE_NEWNET, Wire, inside, ip, usable, wire

__all__ = ["CLONE_NEWNET", "Wire", "inside", "ip", "usable", "wire", "wire_fixture"]


@pytest.fixture(name="wire")
def wire_fixture() -> Iterator[Wire]:
    """A wire with MTU 1500; the test is skipped, visibly, where none can be built."""
    reason = usable()
    if reason:
        pytest.skip(f"no veth pair: {reason}")
    with wire() as pair:
        yield pair
