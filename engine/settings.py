"""What the dashboard may change of the configuration, where it is written, and what a running engine takes over.

The engine leaves `<lake>/.settings/engine.json` at its start: its process, and the file that its configuration is from.
Started without --config it reads `<lake>/.settings/engine.toml`, which only the dashboard writes. That file belongs to
the lake's owner while the engine may start as root, so it may hold nothing but what is editable: no paths.
"""

from __future__ import annotations

import json
import os
import re
import time
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Any, Final
from urllib.parse import unquote

from engine.config import EngineConfig, parse_config
from engine.errors import ConfigError

FOLDER: Final = ".settings"
# Section: its keys. Those of "rules" are the parameters of each rule.
EDITABLE: Final[dict[str, tuple[str, ...]]] = {
    "capture": ("interfaces", "bpf_filter", "snaplen", "promiscuous", "buffer_bytes", "nanoseconds", "fanout"),
    "lake": ("publish_s", "segment_rows"),
    "frames": ("mode", "head_bytes", "limit_bytes"),
    "flows": ("idle_s", "active_s", "linger_s", "max_flows"),
    "applications": ("enabled", "budget"),
    "detection": ("enabled",),
    "alerts": ("cooldown_s", "budget_per_hour", "low_budget_per_hour", "update_s", "min_severity", "kind", "suppress"),
    "scoring": ("enabled", "threshold", "alert", "alerts_per_hour", "retrain_minutes", "training", "window_minutes",
                "learn_during_incidents"),
    "anomaly": ("enabled", "method", "per_hour", "learn_minutes", "margin"),
    "signatures": ("enabled", "starter", "home", "budget", "join_bytes"),
    "intel": ("enabled", "refresh_minutes", "max_age_days", "repeat_s"),
    "notify": ("queue", "give_up_h", "targets"),
    "retention": tuple(f.name for f in fields(EngineConfig().retention)),
}  # fmt: skip
TABLES: Final = ("alerts.kind", "alerts.suppress", "notify.targets")
# What `engine run` takes over on SIGHUP; everything else waits for its next start.
LIVE: Final[dict[str, tuple[str, ...]]] = {
    "rules": ("given",),
    "alerts": tuple(f.name for f in fields(EngineConfig().alerts) if f.name != "max_open"),
    "notify": ("queue", "give_up_h", "targets"),
    "scoring": ("threshold", "alert", "alerts_per_hour"),
    "retention": tuple(f.name for f in fields(EngineConfig().retention)),  # upkeep reads what the engine leaves
}


# What makes apprise read a file of this machine, some of them to send what is in it.
_FILES: Final = re.compile(r"^\s*vapid:|\b(?:template|keyfile|subfile|pgp\w*)\s*=", re.IGNORECASE)


def names_file(url: str) -> bool:
    """Whether an apprise URL names a file of this machine."""
    return _FILES.search(unquote(url.replace("+", " "))) is not None


def is_live(section: str, key: str) -> bool:
    """Whether a running engine takes this over."""
    return section == "rules" or key in LIVE.get(section, ())


def of_lake(lake: Path) -> Path:
    """The file that an engine without --config reads."""
    return lake / FOLDER / "engine.toml"


def check_editable(text: str, path: str) -> EngineConfig:
    """The configuration of a file that the dashboard wrote. Raises ConfigError for whatever it may not hold."""
    config, usual = parse_config(text, path), EngineConfig()
    for section in fields(config):
        now, default = getattr(config, section.name), getattr(usual, section.name)
        names = EDITABLE.get(section.name, ("given",) if section.name == "rules" else ())
        for f in fields(now):
            if f.name not in names and getattr(now, f.name) != getattr(default, f.name):
                raise ConfigError(f"{path}: {section.name}.{f.name} can only be set in a file named with --config")
    if any(target.url_file for target in config.notify.targets):
        raise ConfigError(f"{path}: url_file of a target can only be set in a file named with --config")
    if any(names_file(target.url) for target in config.notify.targets):
        raise ConfigError(f"{path}: a url that names a file can only be set in a file named with --config")
    return config


def difference(old: EngineConfig, new: EngineConfig) -> tuple[list[str], list[str]]:
    """What differs, as names of keys: what a running engine takes over, and what waits for its next start."""
    live: list[str] = []
    later: list[str] = []
    for section in fields(new):
        before, after = getattr(old, section.name), getattr(new, section.name)
        for f in fields(after):
            if getattr(before, f.name) == getattr(after, f.name):
                continue
            if section.name == "rules" and f.name == "given":
                live += [f"rules.{n}" for n in _changed(before.given, after.given)]
            else:
                (live if is_live(section.name, f.name) else later).append(f"{section.name}.{f.name}")
    return live, later


def _changed(before: Any, after: Any) -> list[str]:
    return sorted(name for name in {*before, *after} if before.get(name) != after.get(name))


@dataclass(frozen=True, slots=True)
class Running:
    """The engine of a lake: its process and where its configuration is from ("": no file)."""

    pid: int
    config: str
    started_s: float


def announce(lake: Path, config: str) -> None:
    """Said by the engine at its start."""
    told = {"pid": os.getpid(), "born": _born(os.getpid()), "config": config, "started_s": time.time()}
    write(lake / FOLDER / "engine.json", json.dumps(told))


def running(lake: Path) -> Running | None:
    """The engine that captures into the lake now, if one does."""
    told = _told(lake)
    try:
        born = _born(told["pid"])
        alive = born is not None and born == told["born"]
        return Running(told["pid"], told["config"], told["started_s"]) if alive else None
    except (KeyError, TypeError):
        return None


def last_reload(lake: Path) -> dict[str, Any]:
    """{number, applied: [keys], waits: [keys], error}: what became of the last SIGHUP; empty before the first."""
    return _json(lake / FOLDER / "reload.json")


def last_file(lake: Path) -> Path:
    """The file that the engine of this lake read, now or when it last ran; else the lake's own."""
    named = _told(lake).get("config")
    return Path(named) if isinstance(named, str) and named else of_lake(lake)


def write(path: Path, text: str) -> None:
    """Replace a file of the settings, for the owner alone. Raises OSError."""
    path.parent.mkdir(exist_ok=True)
    partial = path.with_name(f".{path.name}.{os.getpid()}.inprogress")
    partial.write_text(text)
    partial.chmod(0o600)
    partial.replace(path)


def _told(lake: Path) -> dict[str, Any]:
    return _json(lake / FOLDER / "engine.json")


def _json(path: Path) -> dict[str, Any]:
    try:
        told = json.loads(path.read_bytes())
    except (OSError, ValueError):
        return {}
    return told if isinstance(told, dict) else {}


def _born(pid: int) -> str | None:
    """When the process began, as the kernel counts: another one of the same number began at another time."""
    try:
        stat = Path(f"/proc/{int(pid)}/stat").read_text()
    except (OSError, ValueError):
        return None
    return stat.rpartition(")")[2].split()[19]  # field 22 of proc(5)
