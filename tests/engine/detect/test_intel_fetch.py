"""Intel lists from a URL, by a real HTTP server: refresh, versions, bounds, and answers that are no list."""

from __future__ import annotations

import contextlib
import threading
import time
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

import pytest

from engine.config import IntelConfig
from engine.detect import intel as module
from engine.detect import intel_fetch
from engine.detect.intel import Intel
from tests.engine.detect.signing import Bench, datagram

LISTED = b"# head\n192.0.2.200 # c2\n"


class Feed:
    """Serves `body` at /list; redirects /hop/N to /hop/N-1 and /hop/0 to /list."""

    def __init__(self) -> None:
        self.asked: list[tuple[str, str | None, str | None]] = []
        self.status, self.body, self.headers = 200, LISTED, dict[str, str]()
        self.claimed: int | None = None
        self.drip_s = 0.0
        outer = self

        class Handler(BaseHTTPRequestHandler):
            def do_GET(self) -> None:
                outer.asked.append((self.path, self.headers["If-None-Match"], self.headers["If-Modified-Since"]))
                if self.path.startswith("/hop/"):
                    left = int(self.path.rsplit("/", 1)[1])
                    self.send_response(302)
                    self.send_header("Location", f"/hop/{left - 1}" if left else "/list")
                    self.end_headers()
                    return
                etag = outer.headers.get("ETag")
                if etag is not None and self.headers["If-None-Match"] == etag:
                    self.send_response(304)
                    self.end_headers()
                    return
                self.send_response(outer.status)
                for name, value in outer.headers.items():
                    self.send_header(name, value)
                self.send_header("Content-Length", str(len(outer.body) if outer.claimed is None else outer.claimed))
                self.end_headers()
                with contextlib.suppress(ConnectionError):  # whoever asked has given up
                    for at in range(0, len(outer.body), 8 if outer.drip_s else len(outer.body) or 1):
                        self.wfile.write(outer.body[at : at + 8] if outer.drip_s else outer.body)
                        time.sleep(outer.drip_s)

            def log_message(self, *args: object) -> None:
                pass

        self._http = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self._http.daemon_threads = True
        self._thread = threading.Thread(target=self._http.serve_forever, daemon=True)
        self._thread.start()
        self.url = f"http://127.0.0.1:{self._http.server_port}"

    def close(self) -> None:
        self._http.shutdown()
        self._thread.join()
        self._http.server_close()


@pytest.fixture
def feed() -> Iterator[Feed]:
    feed = Feed()
    yield feed
    feed.close()


class Clock:
    """The module's monotonic time, which tests move on."""

    def __init__(self) -> None:
        self.ahead = 0.0

    def monotonic(self) -> float:
        return time.monotonic() + self.ahead

    def __getattr__(self, name: str) -> Any:
        return getattr(time, name)


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> Clock:
    made = Clock()
    monkeypatch.setattr(module, "time", made)
    monkeypatch.setattr(module, "_CHECK_S", 3_600.0)  # the test says when
    return made


@pytest.fixture
def intel(feed: Feed, clock: Clock) -> Iterator[Intel]:
    made = Intel(IntelConfig(lists=(f"{feed.url}/list",), refresh_minutes=5, max_age_days=1))
    assert feed.asked == []  # not while the capture waits to start
    assert "not fetched yet" in made.report()[0]
    made._start()
    yield made
    made.close()


def holds(intel: Intel) -> int:
    return len(intel._lists[0].entries)


def test_fetch__hits_are_found_and_counted(intel: Intel) -> None:
    assert intel.refresh()
    found = Bench(intel).send([datagram(b"x"), datagram(b"y")]).close()
    assert [f.evidence["indicator"] for f in found] == ["192.0.2.200"]
    assert "1 ip; 2 hits" in intel.report()[0]


def test_fetch__only_when_due_and_only_what_changed(intel: Intel, feed: Feed, clock: Clock) -> None:
    feed.headers = {"ETag": '"1"', "Last-Modified": "Wed, 25 Nov 2026 00:00:00 GMT"}
    assert intel.refresh()
    clock.ahead += 299
    assert not intel.refresh()
    assert len(feed.asked) == 1
    clock.ahead += 2
    assert not intel.refresh()  # 304
    assert feed.asked[1] == ("/list", '"1"', "Wed, 25 Nov 2026 00:00:00 GMT")
    assert (holds(intel), intel.report()[0].endswith("0 hits")) == (1, True)
    feed.headers, feed.body = {"ETag": '"2"'}, LISTED + b"192.0.2.3\n"
    clock.ahead += 301
    assert intel.refresh()
    assert holds(intel) == 2


@pytest.mark.parametrize(
    ("status", "body", "headers", "claimed", "said"),
    [
        (500, b"", {}, None, "answered 500"),
        (404, b"192.0.2.3\n", {}, None, "answered 404"),
        (200, b"", {}, None, "holds no address"),
        (200, b"# nothing\n", {}, None, "holds no address"),
        (200, b"192.0.2.3\n", {"Content-Type": "text/html; charset=utf-8"}, None, "web page"),
        (200, b"\n <html>\n192.0.2.3\n", {}, None, "web page"),
        (200, b"192.0.2.3\n", {}, 99, "bytes came"),
        (200, b"192.0.2.3\n" * 300, {}, None, "larger than"),
    ],
)  # fmt: skip
def test_a_bad_answer__keeps_the_list_of_before(
    status: int, body: bytes, headers: dict[str, str], claimed: int | None, said: str,
    intel: Intel, feed: Feed, clock: Clock, monkeypatch: pytest.MonkeyPatch,
) -> None:  # fmt: skip
    assert intel.refresh()
    monkeypatch.setattr(intel_fetch, "MAX_LIST", 2_000)
    feed.status, feed.body, feed.headers, feed.claimed = status, body, headers, claimed
    clock.ahead += 301
    assert not intel.refresh()
    assert holds(intel) == 1
    assert said in intel.report()[0]
    feed.status, feed.body, feed.headers, feed.claimed = 200, b"192.0.2.3\n192.0.2.4\n", {}, None
    clock.ahead += 301
    assert intel.refresh()
    assert (holds(intel), "(" in intel.report()[0]) == (2, False)


def test_expiry__a_list_that_was_not_confirmed_for_too_long_is_not_used(intel: Intel, feed: Feed, clock: Clock) -> None:
    feed.headers = {"ETag": '"1"'}
    assert intel.refresh()
    clock.ahead += 86_000
    assert not intel.refresh()  # confirmed: 304
    feed.status, feed.headers = 503, {}
    clock.ahead += 86_000
    assert not intel.refresh()
    assert holds(intel) == 1
    clock.ahead += 1_000
    assert intel.refresh()
    assert holds(intel) == 0
    assert "not fetched for 1 days, not used" in intel.report()[0]
    feed.status = 200
    clock.ahead += 301
    assert intel.refresh()
    assert feed.asked[-1][1] is None  # what is not used any more is asked for whole
    assert holds(intel) == 1


def test_redirects__are_followed_three_times(feed: Feed) -> None:
    for hops, url in ((3, f"{feed.url}/hop/2"), (2, f"{feed.url}/hop/1")):
        answer = intel_fetch.fetch(url, intel_fetch.Version())
        assert answer is not None
        assert (answer[0], len(feed.asked)) == (LISTED.decode(), hops + 1)
        feed.asked.clear()
    with pytest.raises(ValueError, match="too many redirects"):
        intel_fetch.fetch(f"{feed.url}/hop/3", intel_fetch.Version())


@pytest.mark.parametrize("target", ["file:///etc/passwd", "ftp://127.0.0.1/x", "data:text/plain,192.0.2.1"])
def test_redirects__elsewhere_are_refused(target: str, feed: Feed) -> None:
    feed.status, feed.headers = 302, {"Location": target}
    with pytest.raises(ValueError, match=r"insecure|302"):
        intel_fetch.fetch(f"{feed.url}/list", intel_fetch.Version())


def test_time__a_server_that_drips_is_given_up(feed: Feed, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(intel_fetch, "WHOLE_S", 0.2)
    feed.body, feed.drip_s = LISTED * 100, 0.05
    with pytest.raises(ValueError, match="not complete after"):
        intel_fetch.fetch(f"{feed.url}/list", intel_fetch.Version())


def test_time__a_server_that_says_nothing_is_given_up(feed: Feed, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(intel_fetch, "WAIT_S", 0.2)
    feed.body, feed.drip_s = LISTED, 2.0
    with pytest.raises((OSError, ValueError), match="timed out"):
        intel_fetch.fetch(f"{feed.url}/list", intel_fetch.Version())


def test_nobody_there__is_one_line() -> None:
    with pytest.raises(ValueError, match=r"^not fetched: [^\n]*refused[^\n]*$"):
        intel_fetch.fetch("http://127.0.0.1:1/list", intel_fetch.Version())
