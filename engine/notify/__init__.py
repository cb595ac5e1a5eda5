"""Notifications: messages about incidents, to Slack, Discord, e-mail, webhooks and whatever else apprise knows.

    outbox.py    the engine's side: a file in <lake>/.notify/TARGET/ for each message
    process.py   a process of its own, which sends them and retries; a dead or slow endpoint is its trouble alone
    sender.py    one target: bursts, back-off, giving up
    message.py   what is said

Secrets reach that process through a pipe: they are in no argument, no file of the lake and no message of ours.
"""

from __future__ import annotations

import sys

from engine.alert_config import NotifyConfig
from engine.errors import ConfigError


def send_test(config: NotifyConfig, to: str | None) -> int:
    """`engine notify test`: one message to each target, or to one. Exit code 2 when any could not be sent."""
    from engine.notify.apprise_sender import AppriseSender
    from engine.notify.message import Message

    known = [t.name for t in config.targets]
    if not known:
        raise ConfigError("no [[notify.targets]] in the configuration; add one with name and url")
    if to is not None and to not in known:
        raise ConfigError(f"--to {to} is no target; known are {', '.join(known)}")
    failed = 0
    for target in config.targets:
        if to not in (None, target.name):
            continue
        text = "A test of notifications: this target works."
        problem = AppriseSender(target.url).send(Message("PacketLake: test", text, "info", []))
        failed += problem is not None
        where = sys.stdout if problem is None else sys.stderr
        print(f"notify target {target.name}: {problem or 'sent'}", file=where)
    return 2 if failed else 0
