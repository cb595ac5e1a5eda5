"""What the operator can set about processes beside the engine: Sigma rules over the lake, asking ipinfo.io."""

from __future__ import annotations

import os
import re
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Final

from engine.errors import ConfigError
from engine.toml_values import MASK, check, secret

_SAFE_URL: Final = re.compile(r"https://[^/@\s]+/\S+\Z|http://(127\.0\.0\.1|\[::1\]|localhost)(:\d{1,5})?/\S+\Z")


@dataclass(frozen=True, slots=True, kw_only=True)
class SigmaConfig:
    """Sigma rules, of files and directories, run over the new part of the lake every `every_s` by a process beside
    the engine."""

    files: tuple[str, ...] = ()
    every_s: float = 60.0

    def __post_init__(self) -> None:
        check(1 <= self.every_s <= 86_400, "sigma.every_s", self.every_s, "use 1 to 86400 seconds")


@dataclass(frozen=True, slots=True, kw_only=True)
class GeoConfig:
    """Asking ipinfo.io about public addresses that the GeoIP database does not know: these addresses leave this
    machine. The token is in `token_file`, or else in the environment, PACKETLAKE_IPINFO_TOKEN."""

    ipinfo: bool = False
    token_file: str = ""
    token: str = field(default="", metadata=secret())
    ipinfo_url: str = "https://api.ipinfo.io/lite/{ip}"
    per_second: float = 2.0
    per_day: int = 1_000

    def __post_init__(self) -> None:
        ok = _SAFE_URL.match(self.ipinfo_url) is not None and "{ip}" in self.ipinfo_url
        check(ok, "geo.ipinfo_url", self.ipinfo_url, "use https://HOST/PATH with {ip} where the address goes")
        plain = self.token.isascii() and self.token.isprintable() and self.token != MASK
        check(plain, "geo.token", MASK, "put the real one in, better in geo.token_file")
        check(0.01 <= self.per_second <= 100, "geo.per_second", self.per_second, "use 0.01 to 100 addresses")
        check(1 <= self.per_day <= 10_000_000, "geo.per_day", self.per_day, "use 1 to 10000000 addresses")


def with_token(geo: GeoConfig) -> GeoConfig:
    """The section `geo` with its token, from the file or the environment. Raises ConfigError when one is missing."""
    if geo.token_file:
        try:
            token = Path(geo.token_file).expanduser().read_text(encoding="utf-8").strip()
        except (OSError, UnicodeDecodeError) as error:
            reason = (getattr(error, "strerror", None) or "it is not text").lower()
            raise ConfigError(f"geo.token_file {geo.token_file}: {reason}; name a readable file") from None
        if not token or not token.isascii() or not token.isprintable():
            raise ConfigError(f"geo.token_file {geo.token_file} does not hold one token; put it there, alone")
    else:
        token = geo.token or os.environ.get("PACKETLAKE_IPINFO_TOKEN", "").strip()
    if not token and geo.ipinfo_url == GeoConfig().ipinfo_url:
        raise ConfigError("geo.ipinfo needs a token: set geo.token_file, or PACKETLAKE_IPINFO_TOKEN in the environment")
    return replace(geo, token=token)
