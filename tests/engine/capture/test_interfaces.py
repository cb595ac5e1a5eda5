"""What `engine interfaces` shows."""

from __future__ import annotations

import subprocess
import sys

import pytest

from engine.capture import interfaces
from engine.errors import CaptureError
from tests import netns
from tests.netns import Wire, wire_fixture  # noqa: F401 — a fixture


def test_interfaces__loopback_is_listed_with_its_address() -> None:
    found = {i.name: i for i in interfaces.list_interfaces()}
    assert found["lo"].loopback
    if found["lo"].up:
        assert "127.0.0.1" in found["lo"].addresses
    assert not any(name.startswith(("nflog", "nfqueue", "usbmon", "dbus", "bluetooth")) for name in found)


@pytest.mark.root
def test_interfaces__a_private_namespace(wire: Wire) -> None:
    with wire.inside():
        found = {i.name: i for i in interfaces.list_interfaces()}
        assert set(found) >= {"cap0", "lo"}
        assert found["cap0"].up
        assert found["cap0"].addresses == ()
        assert not found["cap0"].default_route
        assert not found["lo"].up
        assert interfaces.default_interface() == "cap0"  # the only one running
    netns.ip("-n", wire.here, "addr", "add", "192.0.2.1/24", "dev", "cap0")
    netns.ip("-n", wire.here, "link", "add", "other0", "type", "veth", "peer", "name", "other1")
    for name in ("other0", "other1"):
        netns.ip("-n", wire.here, "link", "set", name, "up")
    with wire.inside():
        with pytest.raises(CaptureError, match=r"--iface \(present: cap0, other0, other1\)"):
            interfaces.default_interface()
        assert {i.name: i.addresses for i in interfaces.list_interfaces()}["cap0"] == ("192.0.2.1",)
    netns.ip("-n", wire.here, "route", "add", "default", "via", "192.0.2.2", "dev", "cap0", "metric", "50")
    with wire.inside():
        assert interfaces.default_interface() == "cap0"
        assert interfaces.list_interfaces()[0].name == "cap0"
        assert interfaces.list_interfaces()[0].default_route


@pytest.mark.root
def test_interfaces__the_lowest_metric_wins(wire: Wire) -> None:
    netns.ip("-n", wire.here, "link", "add", "aaa0", "type", "veth", "peer", "name", "aaa1")
    netns.ip("-n", wire.here, "link", "set", "aaa0", "up")
    netns.ip("-n", wire.here, "link", "set", "aaa1", "up")
    netns.ip("-n", wire.here, "route", "add", "default", "dev", "aaa0", "metric", "200")
    netns.ip("-n", wire.here, "route", "add", "default", "dev", "cap0", "metric", "100")
    with wire.inside():
        assert interfaces.default_interface() == "cap0"


@pytest.mark.root
def test_interfaces__only_loopback_is_an_error(wire: Wire) -> None:
    netns.ip("-n", wire.here, "link", "del", "cap0")
    with wire.inside(), pytest.raises(CaptureError, match="name one with --iface"):
        interfaces.default_interface()


@pytest.mark.parametrize("module", ["interfaces", "privileges", "libpcap"])
def test_interfaces__light_modules_import_neither_numba_nor_numpy(module: str) -> None:
    code = (
        f"import engine.capture.{module}, sys; sys.exit(str({{'numba', 'numpy', 'libpcap'}} & set(sys.modules) or ''))"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert done.stderr.strip() == ""
