"""What the operator can set: one frozen dataclass per part, checked where it is made.

Order of precedence: defaults, then the TOML file, then command-line flags. `engine config` prints the outcome.
"""

from __future__ import annotations

import ipaddress
import os
import pwd
import re
import tomllib
from dataclasses import dataclass, field, fields, replace
from pathlib import Path
from typing import Any

from engine.alert_config import AlertsConfig, EveConfig, NotifyConfig, TargetConfig
from engine.anomaly_config import AnomalyConfig, WindowsConfig
from engine.companion_config import GeoConfig, SigmaConfig
from engine.constants import MAX_CAPLEN
from engine.errors import ConfigError
from engine.retention_config import RetentionConfig
from engine.rule_config import RulesConfig, rules_of
from engine.ship_config import ShipConfig
from engine.toml_values import check as _check
from engine.toml_values import section_lines, values_of
from engine.watchdog_config import WatchdogConfig


@dataclass(frozen=True, slots=True, kw_only=True)
class CaptureConfig:
    """Live capture. `buffer_bytes` is the kernel's ring per interface, and per thread of `fanout`."""

    interfaces: tuple[str, ...] = ()
    bpf_filter: str = ""
    snaplen: int = MAX_CAPLEN
    promiscuous: bool = True
    buffer_bytes: int = 64 << 20
    nanoseconds: bool = True
    driver: str = "libpcap"
    fanout: int = 1

    def __post_init__(self) -> None:
        _check(14 <= self.snaplen <= MAX_CAPLEN, "capture.snaplen", self.snaplen, f"use 14 to {MAX_CAPLEN} bytes")
        _check(
            1 << 20 <= self.buffer_bytes <= 2047 << 20,
            "capture.buffer_bytes",
            self.buffer_bytes,
            "use 1 MiB to 2047 MiB",
        )
        _check(self.driver in ("libpcap", "pypcap"), "capture.driver", self.driver, "use libpcap or pypcap")
        _check(1 <= self.fanout <= 64, "capture.fanout", self.fanout, "use 1 to 64 threads per interface")
        _check(
            self.fanout == 1 or self.driver == "libpcap", "capture.fanout", self.fanout, "driver pypcap has one only"
        )


@dataclass(frozen=True, slots=True, kw_only=True)
class LakeConfig:
    """Where segments go. A segment is published when it is `publish_s` old or has `segment_rows` rows. `packets`
    false: they become flows, application rows, alerts and rollups, but no rows of their own, and are not scored unless
    scores make alerts."""

    path: str = ""
    packets: bool = True
    sensor: str = field(default_factory=lambda: re.sub(r"[^A-Za-z0-9_.-]", "-", os.uname().nodename) or "sensor")
    publish_s: float = 0.7
    segment_rows: int = 1_000_000

    def __post_init__(self) -> None:
        ok = re.fullmatch(r"[A-Za-z0-9_.-]{1,64}", self.sensor) is not None
        _check(ok, "lake.sensor", self.sensor, "use 1 to 64 letters, digits, dots, dashes, underscores")
        _check(0.1 <= self.publish_s <= 60, "lake.publish_s", self.publish_s, "use 0.1 to 60 seconds")
        _check(1_000 <= self.segment_rows <= 10_000_000, "lake.segment_rows", self.segment_rows, "use 1000 to 10000000")


@dataclass(frozen=True, slots=True, kw_only=True)
class FramesConfig:
    """Raw frames beside the rows: whole ("full"), their first `head_bytes` ("head") or none ("off"), in a ring of
    `limit_bytes` for each sensor of a lake."""

    mode: str = "full"
    head_bytes: int = 128
    limit_bytes: int = 1 << 30

    def __post_init__(self) -> None:
        _check(self.mode in ("full", "head", "off"), "frames.mode", self.mode, "use full, head or off")
        _check(
            14 <= self.head_bytes <= MAX_CAPLEN, "frames.head_bytes", self.head_bytes, f"use 14 to {MAX_CAPLEN} bytes"
        )
        _check(
            16 << 20 <= self.limit_bytes <= 1 << 50, "frames.limit_bytes", self.limit_bytes, "use 16 MiB to 1024 TiB"
        )


@dataclass(frozen=True, slots=True, kw_only=True)
class FlowsConfig:
    """When a flow ends. It is quiet for `idle_s` (`linger_s` once both sides have closed it), or lives for `active_s`,
    after which it goes on as the next part. At `max_flows` (384 bytes each) the quietest ones end early.
    """

    idle_s: float = 60.0
    active_s: float = 300.0
    linger_s: float = 5.0
    max_flows: int = 500_000

    def __post_init__(self) -> None:
        _check(1 <= self.idle_s <= 86_400, "flows.idle_s", self.idle_s, "use 1 to 86400 seconds")
        _check(1 <= self.active_s <= 86_400, "flows.active_s", self.active_s, "use 1 to 86400 seconds")
        _check(0 <= self.linger_s <= 3_600, "flows.linger_s", self.linger_s, "use 0 to 3600 seconds")
        _check(1_000 <= self.max_flows <= 50_000_000, "flows.max_flows", self.max_flows, "use 1000 to 50000000")


@dataclass(frozen=True, slots=True, kw_only=True)
class ApplicationsConfig:
    """Recognising applications. During live capture parsers may use `budget` of one core, averaged over half a second;
    1 is no limit. A replay is not limited."""

    enabled: bool = True
    budget: float = 0.5

    def __post_init__(self) -> None:
        _check(0 < self.budget <= 1, "applications.budget", self.budget, "use more than 0, up to 1")


@dataclass(frozen=True, slots=True, kw_only=True)
class ScoringConfig:
    """The model behind `anomaly`: `trees`, each grown from `samples` of at most `training_rows` packets. The first is
    trained after `first_after_rows` packets; later ones when the last is `retrain_minutes` old (0: never, the model is
    frozen) and as many packets have come since it was begun. `training` draws them from all packets since then
    ("reservoir") or from the last `window_minutes` ("window"), but not while an incident above low is open, unless
    `learn_during_incidents`. Packets from `threshold` on are counted, and with `alert` become incidents of kind
    packet_score, low, of at most `alerts_per_hour` sources. Drift compares `drift_minutes` with the training rows."""

    enabled: bool = True
    trees: int = 100
    samples: int = 256
    training_rows: int = 50_000
    first_after_rows: int = 20_000
    retrain_minutes: int = 60
    training: str = "reservoir"
    window_minutes: int = 60
    learn_during_incidents: bool = False
    threshold: float = 0.99
    alert: bool = False
    alerts_per_hour: int = 10
    drift_minutes: int = 10

    def __post_init__(self) -> None:
        _check(1 <= self.trees <= 1_000, "scoring.trees", self.trees, "use 1 to 1000")
        _check(16 <= self.samples <= 1_024, "scoring.samples", self.samples, "use 16 to 1024")
        _check(
            1_000 <= self.training_rows <= 10_000_000,
            "scoring.training_rows",
            self.training_rows,
            "use 1000 to 10000000",
        )
        _check(
            1_000 <= self.first_after_rows <= 1_000_000_000,
            "scoring.first_after_rows",
            self.first_after_rows,
            "use 1000 to 1000000000",
        )
        _check(0 <= self.retrain_minutes <= 525_600, "scoring.retrain_minutes", self.retrain_minutes, "use 0 to 525600")
        _check(self.training in ("reservoir", "window"), "scoring.training", self.training, "use reservoir or window")
        _check(1 <= self.window_minutes <= 10_080, "scoring.window_minutes", self.window_minutes, "use 1 to 10080")
        _check(0 < self.threshold <= 1, "scoring.threshold", self.threshold, "use more than 0, up to 1")
        _check(0 <= self.alerts_per_hour <= 1_000, "scoring.alerts_per_hour", self.alerts_per_hour, "use 0 to 1000")
        _check(1 <= self.drift_minutes <= 1_440, "scoring.drift_minutes", self.drift_minutes, "use 1 to 1440")


@dataclass(frozen=True, slots=True, kw_only=True)
class SignaturesConfig:
    """Rules about what payloads hold: the starter set, `files` in Suricata's syntax, `patterns` of plain regular
    expressions. `home` is $HOME_NET, `variables` are more of the form NAME=value. Candidates are evaluated within
    `budget` of one core; `join_bytes` of each direction are searched across segments, of the newest `flows` flows."""

    enabled: bool = True
    starter: bool = True
    files: tuple[str, ...] = ()
    patterns: tuple[str, ...] = ()
    home: tuple[str, ...] = ("10.0.0.0/8", "172.16.0.0/12", "192.168.0.0/16", "fc00::/7", "fe80::/10")
    variables: tuple[str, ...] = ()
    engine: str = "auto"
    budget: float = 0.25
    join_bytes: int = 8192
    flows: int = 32_768

    def __post_init__(self) -> None:
        engines = ("auto", "hyperscan", "re2")
        _check(self.engine in engines, "signatures.engine", self.engine, "use auto, hyperscan or re2")
        _check(0 < self.budget <= 1, "signatures.budget", self.budget, "use more than 0, up to 1")
        _check(0 <= self.join_bytes <= 1 << 20, "signatures.join_bytes", self.join_bytes, "use 0 to 1048576 bytes")
        _check(8 <= self.flows <= 1 << 22, "signatures.flows", self.flows, "use 8 to 4194304")
        _check(bool(self.home), "signatures.home", self.home, "give at least one network")


@dataclass(frozen=True, slots=True, kw_only=True)
class IntelConfig:
    """Lists of addresses, networks, domains and JA3 or JA4 fingerprints. Files are read again when they change; a URL
    is fetched only with `refresh_minutes` above 0. A list older than `max_age_days` is not used (0: any age)."""

    enabled: bool = True
    lists: tuple[str, ...] = ()
    refresh_minutes: int = 0
    max_age_days: int = 0
    repeat_s: int = 60

    def __post_init__(self) -> None:
        _check(0 <= self.refresh_minutes <= 525_600, "intel.refresh_minutes", self.refresh_minutes, "use 0 to 525600")
        _check(0 <= self.max_age_days <= 36_500, "intel.max_age_days", self.max_age_days, "use 0 to 36500 days")
        _check(1 <= self.repeat_s <= 86_400, "intel.repeat_s", self.repeat_s, "use 1 to 86400 seconds")


@dataclass(frozen=True, slots=True, kw_only=True)
class DetectionConfig:
    """Rules, signatures, lists and alerts, all together."""

    enabled: bool = True


@dataclass(frozen=True, slots=True, kw_only=True)
class PipelineConfig:
    """Threads. 0 chooses by the number of cores."""

    decode_threads: int = 0

    def __post_init__(self) -> None:
        _check(0 <= self.decode_threads <= 64, "pipeline.decode_threads", self.decode_threads, "use 0 to 64")


@dataclass(frozen=True, slots=True, kw_only=True)
class SecurityConfig:
    """sandbox: files and system calls that a run does not need are out of its reach (SECURITY.md)."""

    sandbox: bool = True


@dataclass(frozen=True, slots=True, kw_only=True)
class WebConfig:
    """The dashboard. Beyond loopback it needs a user with a password; `allow_hosts` are names it is reached by there.
    Without `login` whoever reaches it on loopback is an operator."""

    host: str = "127.0.0.1"
    port: int = 8050
    enabled: bool = True
    tls_cert: str = ""
    tls_key: str = ""
    allow_hosts: tuple[str, ...] = ()
    login: bool = True

    def __post_init__(self) -> None:
        _check(0 <= self.port <= 65535, "web.port", self.port, "use 1 to 65535, or 0 for any free port")
        _check(_is_address(self.host), "web.host", self.host, "use an address of this machine, 0.0.0.0 or ::")
        _check(bool(self.tls_cert) == bool(self.tls_key), "web.tls_cert", self.tls_cert, "give certificate and key")


@dataclass(frozen=True, slots=True, kw_only=True)
class EngineConfig:
    """Everything together, in the sections of the TOML file."""

    capture: CaptureConfig = field(default_factory=CaptureConfig)
    lake: LakeConfig = field(default_factory=LakeConfig)
    frames: FramesConfig = field(default_factory=FramesConfig)
    retention: RetentionConfig = field(default_factory=RetentionConfig)
    ship: ShipConfig = field(default_factory=ShipConfig)
    flows: FlowsConfig = field(default_factory=FlowsConfig)
    applications: ApplicationsConfig = field(default_factory=ApplicationsConfig)
    scoring: ScoringConfig = field(default_factory=ScoringConfig)
    detection: DetectionConfig = field(default_factory=DetectionConfig)
    signatures: SignaturesConfig = field(default_factory=SignaturesConfig)
    intel: IntelConfig = field(default_factory=IntelConfig)
    sigma: SigmaConfig = field(default_factory=SigmaConfig)
    geo: GeoConfig = field(default_factory=GeoConfig)
    rules: RulesConfig = field(default_factory=RulesConfig)
    windows: WindowsConfig = field(default_factory=WindowsConfig)
    anomaly: AnomalyConfig = field(default_factory=AnomalyConfig)
    pipeline: PipelineConfig = field(default_factory=PipelineConfig)
    watchdog: WatchdogConfig = field(default_factory=WatchdogConfig)
    security: SecurityConfig = field(default_factory=SecurityConfig)
    web: WebConfig = field(default_factory=WebConfig)
    alerts: AlertsConfig = field(default_factory=AlertsConfig)
    eve: EveConfig = field(default_factory=EveConfig)
    notify: NotifyConfig = field(default_factory=NotifyConfig)

    def override(self, section: str, **values: Any) -> EngineConfig:
        """A copy with the given values of one section; None means not given."""
        given = {k: v for k, v in values.items() if v is not None}
        return replace(self, **{section: replace(getattr(self, section), **given)}) if given else self

    def to_toml(self) -> str:
        """The configuration as TOML text, secrets masked."""
        lines = []
        for section in fields(self):
            if section.name == "rules":
                lines += self.rules.lines()
                continue
            lines += [*section_lines(section.name, getattr(self, section.name)), ""]
        return "\n".join(lines)


def _is_address(text: str) -> bool:
    try:
        ipaddress.ip_address(text)
    except ValueError:
        return False
    return True


def load_config(path: str | None) -> EngineConfig:
    """Defaults, overlaid with the TOML file when one is given. Raises ConfigError naming section, key and value."""
    if path is None:
        return EngineConfig()
    try:
        text = Path(path).read_text(encoding="utf-8")
    except OSError as error:
        raise ConfigError(f"configuration file {path}: {error.strerror}; give a readable TOML file") from None
    except UnicodeDecodeError as error:
        raise ConfigError(f"configuration file {path} is not TOML: {error}") from None
    config = parse_config(text, path)
    return config.override("notify", targets=tuple(_with_url(t) for t in config.notify.targets))


def parse_config(text: str, path: str) -> EngineConfig:
    """Defaults, overlaid with a TOML text; `path` is how messages call it. Opens no file."""
    config = EngineConfig()
    try:
        document = tomllib.loads(text)
    except tomllib.TOMLDecodeError as error:
        raise ConfigError(f"configuration file {path} is not TOML: {error}") from None
    for section, values in document.items():
        part = getattr(config, section, None) if section in {f.name for f in fields(config)} else None
        if part is None or not isinstance(values, dict):
            known = ", ".join(f"[{f.name}]" for f in fields(config))
            raise ConfigError(f"configuration file {path}: unknown section {section!r}; known are {known}")
        if section == "rules":
            config = replace(config, rules=rules_of(path, values))
            continue
        config = config.override(section, **values_of(path, section, part, values))
    return config


def _with_url(target: TargetConfig) -> TargetConfig:
    """The target with the URL that its file holds."""
    if not target.url_file:
        return target
    where = f"notify target {target.name}: url_file {target.url_file}"
    try:
        url = Path(target.url_file).expanduser().read_text(encoding="utf-8").strip()
    except (OSError, UnicodeDecodeError) as error:
        reason = getattr(error, "strerror", None) or "it is not text"
        raise ConfigError(f"{where}: {reason.lower()}; name a readable file with one URL") from None
    if "://" not in url or "\n" in url:
        raise ConfigError(f"{where} does not hold one apprise URL; put slack://TOKENS or the like there, alone")
    return replace(target, url=url)


def default_lake() -> Path:
    """The invoking user's data directory, also under sudo; /var/lib for plain root."""
    if os.geteuid() == 0:
        uid = os.environ.get("SUDO_UID", "")
        if not uid.isdigit() or int(uid) == 0:
            return Path("/var/lib/packetlake/lake")
        try:
            return Path(pwd.getpwuid(int(uid)).pw_dir) / ".local/share/packetlake/lake"
        except KeyError:
            return Path("/var/lib/packetlake/lake")
    base = os.environ.get("XDG_DATA_HOME")
    return (Path(base) if base else Path.home() / ".local/share") / "packetlake/lake"
