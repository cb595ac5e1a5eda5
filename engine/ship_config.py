"""What the operator can set about shipping: where closed segments go, how often, and how much waits here meanwhile."""

from __future__ import annotations

import os
import re
from dataclasses import dataclass
from pathlib import PurePosixPath
from typing import Final

from engine.errors import ConfigError
from engine.toml_values import check

_BUCKET: Final = re.compile(r"[a-z0-9][a-z0-9.-]{1,61}[a-z0-9]")
_KINDS: Final = "use an absolute path, or s3://BUCKET/PREFIX"


@dataclass(frozen=True, slots=True, kw_only=True)
class ShipConfig:
    """Closed segments also go to `url`, a directory that sensors share or s3://BUCKET/PREFIX, every `every_s` seconds;
    only of `tables`, when some are named. What cannot go waits in the lake, at most `spool_gib` of it. There, segments
    older than `keep_days` go (0: any age), and the oldest beyond `keep_gib` of this sensor (0: any size). Keys come
    from the environment or ~/.aws, as for other S3 programs."""

    url: str = ""
    every_s: float = 10.0
    tables: tuple[str, ...] = ()
    spool_gib: float = 10.0
    keep_days: float = 0.0
    keep_gib: float = 0.0

    def __post_init__(self) -> None:
        if self.url:
            check_url(self.url, "ship.url")
        check(1 <= self.every_s <= 3_600, "ship.every_s", self.every_s, "use 1 to 3600 seconds")
        check(0.001 <= self.spool_gib <= 1 << 20, "ship.spool_gib", self.spool_gib, "use 0.001 to 1048576 GiB")
        check(0 <= self.keep_days <= 36_500, "ship.keep_days", self.keep_days, "use 0 (any age) to 36500 days")
        check(0 <= self.keep_gib <= 1 << 30, "ship.keep_gib", self.keep_gib, "use 0 (any size) or more GiB")


def check_url(url: str, name: str) -> None:
    """Raises ConfigError, one line that shows nothing secret, when segments cannot go there."""
    scheme, mark, rest = url.partition("://")
    if not mark:
        check(os.path.isabs(url), name, url, _KINDS)
    elif scheme == "file":
        check(os.path.isabs(rest), name, url, _KINDS)
    elif scheme != "s3":
        raise ConfigError(f"{name}: segments cannot go to {scheme}://...; {_KINDS}")
    elif any(mark in rest for mark in "@?#"):  # of user names, options and the like: keys may stand there
        raise ConfigError(f"{name}: an s3:// URL holds no keys and options; put them into the environment or ~/.aws")
    else:
        bucket, _, prefix = rest.partition("/")
        check(_BUCKET.fullmatch(bucket) is not None, name, url, "s3://BUCKET/PREFIX needs the name of a bucket")
        check(".." not in PurePosixPath(prefix).parts, name, url, "a prefix has no ..")


def is_remote(lake: str) -> bool:
    """Whether a lake is in an object store, so that it has no directory here."""
    return lake.startswith("s3://")
