"""Shipping to a real S3 server, and SQL over what is there."""

from __future__ import annotations

import json
from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest

import analytics
from analytics.ship import remote
from analytics.ship.destination import Destination
from analytics.ship.remote import remote_lake
from analytics.ship.remote_retention import RemoteRetention
from analytics.ship.shipper import Shipper
from engine.errors import StoreError
from engine.ship_config import ShipConfig
from tests.analytics.small_lake import make_lake
from tests.analytics.test_ship import books, packets
from tests.commands import engine
from tests.lakes import write_lake
from tests.s3 import BUCKET, SECRET, S3Server, serving


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[S3Server]:
    with serving(tmp_path_factory.mktemp("s3")) as running:
        yield running


@pytest.fixture
def url(server: S3Server, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> str:
    """A place of the test's own."""
    for name in ("AWS_ENDPOINT_URL", "AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY"):
        monkeypatch.setenv(name, server.environment[name])
    monkeypatch.setattr(remote, "LOOK_S", 0.0)
    return f"s3://{BUCKET}/{tmp_path.name}"


def ship(lake: Path, url: str, **values: Any) -> None:
    with Shipper(lake, ShipConfig(url=url, **values), pytest.fail) as shipper:
        shipper.round()


def test_sql__every_table_as_in_the_lake_itself(url: str, tmp_path: Path) -> None:
    lake = tmp_path / "lake"
    write_lake(lake, 100_000, 40, datetime(2026, 11, 24, 12, 0, 20, tzinfo=UTC), kernel_drops=7)  # two hours
    done = engine("ship", lake, url)
    assert done.returncode == 0, done
    assert books(url) == books(lake)
    query = "SELECT src_ip, count(*) AS n, sum(wirelen) FROM packets WHERE hour = 12 GROUP BY ALL ORDER BY ALL"
    with analytics.connect(lake) as here, analytics.connect(url, untrusted=True) as there:
        assert there.execute(query).fetchall() == here.execute(query).fetchall()
        assert there.execute("SELECT count(*) FROM flows").fetchall() == [(0,)]
    shown = engine("sql", "--lake", url, "--format", "csv", "SELECT count(*) AS n, min(sensor) AS s FROM packets")
    assert (shown.returncode, shown.stdout) == (0, "n,s\n100000,test\n")


def test_sql__a_condition_on_the_date_opens_nothing_else(url: str, tmp_path: Path) -> None:
    lake = tmp_path / "lake"
    write_lake(lake, 2_000, 40, datetime(2026, 11, 24, 12, 0, 20, tzinfo=UTC))
    ship(lake, url)
    known, opened = remote_lake(url), list[str]()
    usual = known.files.open
    known.files.open = lambda path, *a, **k: (opened.append(path), usual(path, *a, **k))[1]  # type: ignore[method-assign]
    with analytics.connect(url) as con:
        con.execute("SELECT count(*) FROM packets WHERE date = '2026-11-24' AND hour = 11").fetchall()
    assert opened
    assert all("/hour=11/" in path for path in opened)


def test_sql__what_arrives_later_is_seen_without_listing_everything(url: str, tmp_path: Path) -> None:
    lake = make_lake(tmp_path / "lake")
    packets(lake, 1)
    ship(lake, url)
    with analytics.connect(url) as con:
        assert con.execute("SELECT count(*) FROM packets").fetchall() == [(3,)]
        listed = list[str]()
        there = remote_lake(url).destination
        usual = there.list
        there.list = lambda place: (listed.append(place), usual(place))[1]  # type: ignore[method-assign]
        packets(lake, 2)
        ship(lake, url)
        assert con.execute("SELECT count(*) FROM packets").fetchall() == [(6,)]
        assert "packets" not in listed
        assert "packets/sensor=s1/date=2026-11-24" in listed


def test_sql__retired_objects_are_left_out_and_then_deleted(url: str, tmp_path: Path) -> None:
    lake = make_lake(tmp_path / "lake")
    packets(lake, 1)
    ship(lake, url)
    there = Destination(url)
    now = max(item.written for item in there.list("packets"))
    rule = RemoteRetention(there, ShipConfig(url=url, keep_days=1))
    assert len(rule.round(["s1"], "x", now + 2 * 86_400)) == 1
    with analytics.connect(url) as con:
        assert con.execute("SELECT count(*) FROM packets").fetchall() == [(0,)]
    assert len(rule.round(["s1"], "x", now + 2 * 86_400 + 400)) == 1
    assert there.list("packets") == []


def test_sql__a_truncated_object_is_said_and_left_out(
    url: str, tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    lake = make_lake(tmp_path / "lake")
    packets(lake, 1)
    ship(lake, url)
    packets(lake, 2)
    ship(lake, url)
    there = Destination(url)
    place = sorted(item.place for item in there.list("packets"))[0]
    data = there.get(place)
    assert data is not None
    there.put(data[:100], place)
    with analytics.connect(url) as con:
        for _ in range(2):
            assert con.execute("SELECT count(*) FROM packets").fetchall() == [(3,)]
    said = [line for line in capfd.readouterr().err.splitlines() if line]
    assert len(said) == 1
    assert f"{place} has 100 of {len(data):,} bytes and is left out, with its 3 rows" in said[0]


def test_refusals__one_line_each_and_no_secret(url: str, server: S3Server, tmp_path: Path) -> None:
    lake = make_lake(tmp_path / "lake")
    packets(lake, 1)
    bad = dict(server.environment) | {"AWS_SECRET_ACCESS_KEY": "wrong-wrong-wrong"}
    nowhere = dict(server.environment) | {"AWS_ENDPOINT_URL": "http://127.0.0.1:9"}
    Destination(f"{url}-99").put(b'{"format": 99}', "lake.json")
    for words, environment, text in (
        (("ship", lake, url), bad, "the keys are refused; check AWS_ACCESS_KEY_ID"),
        (("sql", "--lake", url, "SELECT 1"), bad, "the keys are refused; check AWS_ACCESS_KEY_ID"),
        (("ship", lake, "s3://no-such-bucket/x"), server.environment, "the bucket does not exist"),
        (("sql", "--lake", "s3://no-such-bucket/x", "SELECT 1"), server.environment, "the bucket does not exist"),
        (("ship", lake, url, "--patience", "0"), nowhere, "the store cannot be reached"),
        (("sql", "--lake", url, "SELECT 1"), nowhere, "the store cannot be reached"),
        (("ship", lake, f"{url}-99"), server.environment, "has format 99"),
        (("sql", "--lake", f"{url}-99", "SELECT 1"), server.environment, "has format 99"),
        (("sql", "--lake", f"s3://{BUCKET}/nothing-here", "SELECT 1"), server.environment, "is not a lake"),
        (("status", "--lake", url), server.environment, "this command needs a lake on this machine"),
    ):
        done = engine(*words, env=dict(environment))
        lines = [line for line in done.stderr.splitlines() if line.startswith("engine: ")]
        assert (done.returncode, len(lines)) == (2, 1), done
        assert text in lines[0]
        assert "Traceback" not in done.stderr
        assert SECRET not in done.stderr
        assert "wrong-wrong" not in done.stderr


def test_ship__a_short_object_is_written_again(url: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A store that kept half of it, the first time."""
    lake = make_lake(tmp_path / "lake")
    packets(lake, 1)
    with Shipper(lake, ShipConfig(url=url), pytest.fail) as shipper:
        there = shipper._destination
        usual, cut = there.put, list[str]()

        def put(data: bytes, place: str) -> None:
            short = place.startswith("packets/") and not cut
            cut.extend([place] * short)
            usual(data[: len(data) // 2] if short else data, place)

        monkeypatch.setattr(there, "put", put)
        with pytest.raises(StoreError, match="bytes arrived"):
            shipper.round()
        assert shipper.round() >= 1
    assert books(url)["packets"][0] == 3


def test_state__tells_lag_and_counts(url: str, tmp_path: Path) -> None:
    lake = make_lake(tmp_path / "lake")
    packets(lake, 1)
    ship(lake, url)
    (said,) = remote_lake(url).states()
    here = json.loads((lake / ".ship" / "state.json").read_text())
    assert (said["sensors"], said["shipped_rows"], said["lag_s"], said["lost_rows"]) == (["s1"], 3, 0.0, 0)
    assert said["id"] == here["id"]
