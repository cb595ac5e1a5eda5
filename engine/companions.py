"""Processes beside the engine: the dashboard, with its socket and one-time links, and the merger of small segments."""

from __future__ import annotations

import json
import os
import pickle
import socket
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Any

from engine.errors import ConfigError
from engine.log import report
from engine.supervise import Companion

if TYPE_CHECKING:
    from engine.companion_config import GeoConfig
    from engine.config import EngineConfig, WebConfig
    from engine.retention_config import RetentionConfig


def listen(web: WebConfig, lake: Path) -> socket.socket:
    """Bound before anything else starts, so that a port in use, or a dashboard left open, is said at once."""
    try:
        family = socket.AF_INET6 if ":" in web.host else socket.AF_INET
        listener = socket.create_server((web.host, web.port), family=family, backlog=128)
    except OSError as error:
        reason = (os.strerror(error.errno) if error.errno else str(error)).lower()
        raise ConfigError(
            f"dashboard port {web.host}:{web.port}: {reason}; choose another with --port, or --no-dashboard"
        ) from None
    from webui import serving

    try:
        loopback = serving.check(lake, listener, web.login)
        serving.tls_context(web.tls_cert, web.tls_key)
    except ConfigError as error:
        listener.close()
        raise ConfigError(f"dashboard: {error}") from None
    if not loopback and not web.tls_cert:
        report(
            "warning",
            f"the dashboard on {web.host} is not encrypted, and passwords can be read on the way; "
            f"give --tls-cert and --tls-key, or stay on 127.0.0.1 and use `ssh -L {web.port}:localhost:{web.port}`",
        )
    return listener


def start_dashboard(lake: Path, listener: socket.socket, web: WebConfig) -> Any:
    """The dashboard as a process of its own; it inherits the listening socket and our (dropped) rights."""
    from engine.run import Dashboard

    descriptor = listener.fileno()
    given = [f"--allow-host={host}" for host in web.allow_hosts]
    given += [f"--tls-cert={web.tls_cert}", f"--tls-key={web.tls_key}"] if web.tls_cert else []
    given += [] if web.login else ["--no-login"]
    words = ["webui", "--lake", str(lake), "--fd", str(descriptor), "--with-parent", str(os.getpid()), *given]
    process = Companion("the dashboard", words, fds=[descriptor])
    host, port = listener.getsockname()[:2]
    name = {"0.0.0.0": socket.gethostname(), "::": socket.gethostname()}.get(host, f"[{host}]" if ":" in host else host)  # noqa: S104
    address = f"http{'s' if web.tls_cert else ''}://{name}:{port}"
    return Dashboard(process, listener, first_link(lake, address, web.login))


def start_upkeep(lake: Path, retention: RetentionConfig) -> None:
    """What merges small segments and deletes old ones: a process of the lowest priority that ends with us."""
    given = ["--with-parent", str(os.getpid()), "--retention", json.dumps(asdict(retention))]
    Companion("what merges and deletes segments", ["analytics.compaction", "--lake", str(lake), *given])


def first_link(lake: Path, address: str, login: bool) -> str:
    """What to open after a start: the page to set up the first user while there is none, else just the address."""
    from webui import serving, users

    _remember(lake, address)
    return f"{address}/" if not login or users.listing(lake) or serving.password_file() else new_link(lake)


def check_rules(config: EngineConfig) -> None:
    """Files of rules over the lake that are not there are said before the capture starts."""
    for path in config.sigma.files:
        if not os.path.exists(path):
            raise ConfigError(f"sigma.files: {path} does not exist; name a file or directory of Sigma rules")
    if config.rules.files.sql:
        from analytics import sql_rules

        sql_rules.check_all(sql_rules.rules_of(config.rules.files.sql))


def start_rules(lake: Path, config: EngineConfig) -> None:
    """What runs rules over the lake, when there are any, as a process of its own; it ends with us."""
    if not (config.sigma.files or config.rules.files.sql) or not config.detection.enabled:
        return
    words = ["analytics.rule_process", "--lake", str(lake), "--with-parent", str(os.getpid())]
    Companion("what runs rules over the lake", words, pickle.dumps(config))


def start_ipinfo(lake: Path, geo: GeoConfig) -> None:
    """What asks ipinfo.io about addresses, as a process of its own; it ends with us."""
    words = ["analytics.ipinfo", "--lake", str(lake), "--with-parent", str(os.getpid())]
    Companion("what asks ipinfo.io", words, json.dumps(asdict(geo)).encode())


def new_link(lake: Path, user: str | None = None) -> str:
    """A one-time link: to set up the first user, or to sign in without a password, by default as the first admin."""
    from webui import auth, users

    try:
        known = users.listing(lake)
        name = user or next((name for name, role in known.items() if role == "admin"), "")
        if user is not None and user not in known:
            raise ConfigError(f"user {user!r} is unknown; there is {', '.join(known) or 'nobody yet'}")
        token = auth.issue_token(lake, name)
        address = (lake / ".dashboard" / "address").read_text().strip()
        return f"{address}/{'login' if known else 'setup'}#token={token}"
    except OSError as error:
        raise _no_dashboard(lake, error) from None


def _remember(lake: Path, address: str) -> None:
    """Beside the users, for `engine link`."""
    from webui import auth

    try:
        (auth.directory(lake, "") / "address").write_text(address + "\n")
    except OSError as error:
        raise _no_dashboard(lake, error) from None


def _no_dashboard(lake: Path, error: OSError) -> ConfigError:
    if isinstance(error, PermissionError):
        return ConfigError(
            f"dashboard of lake {lake}: permission denied; become the lake's owner, for example with `sudo -u NAME`"
        )
    return ConfigError(
        f"no dashboard has served lake {lake} ({(error.strerror or str(error)).lower()}); "
        "start one with `engine run` or `engine dashboard`"
    )
