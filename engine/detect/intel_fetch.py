"""Fetching a list from a URL: only if it has changed, within bounds of time, size and redirects."""

from __future__ import annotations

import http.client
import time
import urllib.error
import urllib.request
from dataclasses import dataclass
from typing import Any, Final

from engine.detect.intel_lists import MAX_LIST

WAIT_S: Final = 20.0  # for a byte
WHOLE_S: Final = 120.0  # for the list
REDIRECTS: Final = 3
_CHUNK: Final = 1 << 16


@dataclass(frozen=True, slots=True)
class Version:
    """How the server names what it sent (RFC 9110, 8.8)."""

    etag: str = ""
    modified: str = ""


class _Redirects(urllib.request.HTTPRedirectHandler):
    max_redirections = REDIRECTS
    max_repeats = REDIRECTS

    def redirect_request(
        self, req: urllib.request.Request, fp: Any, code: int, msg: str, headers: Any, newurl: str
    ) -> urllib.request.Request | None:
        if not newurl.startswith("https://" if req.full_url.startswith("https://") else ("http://", "https://")):
            raise ValueError("redirected to an insecure address")
        return super().redirect_request(req, fp, code, msg, headers, newurl)


_OPENER: Final = urllib.request.build_opener(_Redirects)


def fetch(url: str, known: Version) -> tuple[str, Version] | None:
    """The list and its version, or None when it is still the known one. Raises OSError or ValueError, one line."""
    request = urllib.request.Request(url, headers={"User-Agent": "packetlake"})  # noqa: S310 — http(s), see _List
    if known.etag:
        request.add_header("If-None-Match", known.etag)
    if known.modified:
        request.add_header("If-Modified-Since", known.modified)
    ends = time.monotonic() + WHOLE_S
    try:
        with _OPENER.open(request, timeout=WAIT_S) as answer:
            kind = answer.headers.get_content_type()
            version = Version(answer.headers.get("ETag", ""), answer.headers.get("Last-Modified", ""))
            body = _read(answer, ends)
    except urllib.error.HTTPError as error:
        with error:
            if error.code == 304:
                return None
            redirected = "too many redirects" if error.code in (301, 302, 303, 307, 308) else error.reason
            raise ValueError(f"the server answered {error.code} {redirected}") from None
    except urllib.error.URLError as error:
        raise ValueError(f"not fetched: {error.reason}") from None
    except http.client.HTTPException as error:
        raise ValueError(f"not fetched: {type(error).__name__}") from None
    text = body.decode("utf-8", "replace")
    if kind == "text/html" or text.lstrip("\ufeff \r\n\t")[:1] == "<":
        raise ValueError("the answer is a web page, not a list")
    return text, version


def _read(answer: Any, ends: float) -> bytes:
    parts, size = [], 0
    while chunk := answer.read1(_CHUNK):
        parts.append(chunk)
        size += len(chunk)
        if size > MAX_LIST:
            raise ValueError(f"larger than {MAX_LIST >> 20} MiB")
        if time.monotonic() > ends:
            raise ValueError(f"not complete after {WHOLE_S:g} s")
    expected = answer.headers.get("Content-Length", "")
    if expected.isdecimal() and size < int(expected):
        raise ValueError(f"only {size} of {expected} bytes came")
    return b"".join(parts)
