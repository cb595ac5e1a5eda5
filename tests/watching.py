"""A lake made by the engine from captures of the corpus, for the tests of what watches lakes."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.commands import ROOT, engine

CAPTURES = ROOT.parent / "shared" / "corpus" / "captures"
NAMES = (
    "ja4--tls-handshake.pcapng",
    "pktvisor--dns_ipv6_tcp.pcap",
    "wireshark--http2_follow_multistream.pcapng",
    "mercury--geneve.pcap",
    "nDPI--openvpn_nohmac.pcapng",
    "arkime--http-301-get.pcap",
    "arkime--http-basicauth.pcap",
)


def replayed_lake(path: Path) -> Path:
    """A lake with packets, flows, application rows, rollups and raw frames. Skips without the corpus."""
    files = [CAPTURES / name for name in NAMES]
    if not all(file.exists() for file in files):
        pytest.skip(f"no corpus at {CAPTURES}")
    done = engine(
        "replay", "--lake", path, "--sensor", "s1", *files, timeout=280
    )  # kernels may have to be compiled first
    assert done.returncode == 0, done.stderr
    return path


@pytest.fixture(scope="session")
def real_lake(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """One for all tests that do not write into it."""
    return replayed_lake(tmp_path_factory.mktemp("real"))
