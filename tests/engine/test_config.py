"""Configuration: defaults, the file over them, flags over both; every mistake is one line naming key and value."""

from __future__ import annotations

import tempfile
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from engine.config import CaptureConfig, EngineConfig, LakeConfig, WebConfig, default_lake, load_config
from engine.errors import ConfigError


def load(text: str | bytes, tmp_path: Path) -> EngineConfig:
    path = tmp_path / "engine.toml"
    path.write_bytes(text if isinstance(text, bytes) else text.encode())
    return load_config(str(path))


def test_precedence__file_over_defaults_flags_over_file(tmp_path: Path) -> None:
    assert load_config(None) == EngineConfig()
    config = load('[capture]\ninterfaces = ["eth0", "eth1"]\nsnaplen = 128\n[lake]\npublish_s = 2\n', tmp_path)
    assert config.capture.interfaces == ("eth0", "eth1")
    assert config.lake.publish_s == 2.0
    assert isinstance(config.lake.publish_s, float)
    assert config.web == WebConfig()
    flags = config.override("capture", snaplen=96, bpf_filter=None, promiscuous=None)
    assert (flags.capture.snaplen, flags.capture.interfaces, flags.capture.promiscuous) == (96, ("eth0", "eth1"), True)
    assert flags.lake is config.lake
    assert config.override("web", port=None) is config


@settings(max_examples=100, deadline=None)
@given(st.text(), st.lists(st.text()), st.integers(14, 262_144), st.floats(0.1, 60), st.booleans())
def test_toml__prints_what_it_reads(text: str, names: list[str], snaplen: int, publish_s: float, web: bool) -> None:
    config = EngineConfig(
        capture=CaptureConfig(interfaces=tuple(names), bpf_filter=text, snaplen=snaplen),
        lake=LakeConfig(path=text, publish_s=publish_s),
        web=WebConfig(enabled=web),
    )
    with tempfile.TemporaryDirectory() as folder:
        assert load(config.to_toml(), Path(folder)) == config


@pytest.mark.parametrize(
    ("text", "parts"),
    [
        ("[capture]\nsnaplen = 13", ["capture.snaplen", "13", "14 to 262144"]),
        ("[capture]\nsnaplen = 262145", ["capture.snaplen", "262145"]),
        ("[capture]\nbuffer_bytes = 4096", ["capture.buffer_bytes", "4096", "1 MiB"]),
        ('[capture]\ndriver = "afpacket"', ["capture.driver", "afpacket", "libpcap or pypcap"]),
        ('[capture]\nsnaplen = "big"', ["capture.snaplen", "'big'", "int"]),
        ("[capture]\nsnaplen = true", ["capture.snaplen", "True", "int"]),
        ("[capture]\npromiscuous = 1", ["capture.promiscuous", "1", "bool"]),
        ('[capture]\ninterfaces = "eth0"', ["capture.interfaces", "'eth0'"]),
        ("[capture]\ninterfaces = [1]", ["capture.interfaces", "[1]"]),
        ("[capture]\nsnaplenn = 1", ["unknown key capture.snaplenn"]),
        ('[lake]\nsensor = "a/b"', ["lake.sensor", "a/b"]),
        ('[lake]\nsensor = "a\\n"', ["lake.sensor", "a\\n"]),
        ('[lake]\nsensor = ""', ["lake.sensor", "''"]),
        ("[lake]\npublish_s = nan", ["lake.publish_s", "nan", "0.1 to 60"]),
        ("[lake]\npublish_s = inf", ["lake.publish_s", "inf"]),
        ("[lake]\nsegment_rows = 999", ["lake.segment_rows", "999"]),
        ("[web]\nport = 65536", ["web.port", "65536"]),
        ("[web]\nport = -1", ["web.port", "-1"]),
        ("[wbe]\nport = 1", ["unknown section 'wbe'", "[web]"]),
        ("override = 1", ["unknown section 'override'"]),
        ("web = 1", ["unknown section 'web'"]),
        ("[web\n", ["is not TOML"]),
        (b"\xff\xfe", ["is not TOML"]),
    ],
)
def test_error__one_line_naming_key_and_value(tmp_path: Path, text: str | bytes, parts: list[str]) -> None:
    with pytest.raises(ConfigError) as caught:
        load(text, tmp_path)
    message = str(caught.value)
    assert "\n" not in message
    for part in parts:
        assert part in message


def test_error__missing_file_and_directory(tmp_path: Path) -> None:
    for path in (tmp_path / "none.toml", tmp_path):
        with pytest.raises(ConfigError, match="give a readable TOML file") as caught:
            load_config(str(path))
        assert str(path) in str(caught.value)


def test_default_lake__belongs_to_the_invoking_user(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("os.geteuid", lambda: 0)
    for uid in ("", "0", "x", "4000000000"):
        monkeypatch.setenv("SUDO_UID", uid)
        assert default_lake() == Path("/var/lib/packetlake/lake")
    monkeypatch.setattr("os.geteuid", lambda: 1000)
    monkeypatch.setenv("XDG_DATA_HOME", "/data")
    assert default_lake() == Path("/data/packetlake/lake")
    monkeypatch.delenv("XDG_DATA_HOME")
    monkeypatch.setenv("HOME", "/home/x")
    assert default_lake() == Path("/home/x/.local/share/packetlake/lake")
