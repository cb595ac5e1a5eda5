"""Sending through apprise. Imported only where messages are sent."""

from __future__ import annotations

import logging
import re
from typing import Any, Final
from urllib.parse import unquote, urlsplit

import apprise

from engine.notify.message import Message
from engine.toml_values import MASK

_LOGGER: Final = logging.getLogger("apprise")
_WORDS: Final = re.compile(r"[^/?&=:@#]{5,}")


class _LastWarning(logging.Handler):
    """Keeps the last thing that apprise complained about."""

    def __init__(self) -> None:
        super().__init__(logging.WARNING)
        self.text = ""

    def emit(self, record: logging.LogRecord) -> None:
        self.text = record.getMessage()


class AppriseSender:
    """One target. `send` returns None, or why it failed, in words without secrets."""

    def __init__(self, url: str) -> None:
        self._url = url
        self._plugin: Any = None

    def send(self, message: Message) -> str | None:
        """Send; blocks for as long as the endpoint takes, seconds when it is dead."""
        warning = _LastWarning()
        _LOGGER.addHandler(warning)
        _LOGGER.propagate = False
        try:
            if self._plugin is None:
                asset = apprise.AppriseAsset(app_id="PacketLake", app_desc="PacketLake", async_mode=False)
                self._plugin = apprise.Apprise.instantiate(self._url, asset=asset, suppress_exceptions=True)
            if self._plugin is None:
                return "apprise does not take its url; see https://github.com/caronc/apprise/wiki"
            self._add_incidents(message)
            sent = self._plugin.notify(
                title=message.title, body=message.text, notify_type=apprise.NotifyType(message.kind),
                body_format=apprise.NotifyFormat.TEXT,
            )  # fmt: skip
            return None if sent else f"not sent: {self._scrubbed(warning.text) or 'the endpoint refused it'}"
        except Exception as error:  # noqa: BLE001 — a plugin's fault must not end the process; its text may hold the URL
            return f"not sent: {type(error).__name__} in apprise"
        finally:
            _LOGGER.removeHandler(warning)

    def _add_incidents(self, message: Message) -> None:
        """A JSON webhook gets the incidents as such beside the text."""
        extras = getattr(self._plugin, "payload_extras", None)
        if isinstance(extras, dict) and getattr(self._plugin, "protocol", "") == "json":
            extras["incidents"] = message.incidents

    def _scrubbed(self, text: str) -> str:
        """The text without whatever stands in the URL."""
        parts = urlsplit(self._url)
        secrets = {self._url, *_WORDS.findall(unquote(self._url)), *_WORDS.findall(self._url)}
        secrets -= {parts.scheme}
        for secret in sorted(secrets, key=len, reverse=True):
            text = text.replace(secret, MASK)
        return " ".join(text.split())[:200]
