"""The API over HTTP, behind the real gate with real tokens: roles, formats, SQL that must not escape, capture files."""

from __future__ import annotations

import gzip
import io
import json
import re
import resource
import shutil
import threading
import time
from pathlib import Path
from typing import Any

import flask
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

import analytics
from analytics.watch import export, registry, sql_worker, sqlrun
from engine.capture.savefile import SavefileSource
from engine.packets import FrameBatch
from tests.analytics.small_lake import make_lake, segment
from webui import api, audit, security, users

ROLES = ("viewer", "operator", "admin")


class Site:
    """The API of a lake and a client for each role."""

    def __init__(self, lake: Path) -> None:
        self.lake = lake
        server = flask.Flask("test")
        api.register(server, lake)
        security.protect(server, security.Access(lake), [])
        users.add(lake, "ann", "correct horse battery", "admin")
        self.tokens = {role: users.add_token(lake, "ann", role, 1, role) for role in ROLES}
        self.client = server.test_client()

    def get(self, path: str, role: str | None = "operator", headers: dict[str, str] | None = None, **query: Any) -> Any:
        return self.client.get(f"/api/v1/{path}", query_string=query, headers=self._headers(role, headers))

    def post(self, path: str, role: str | None = "operator", **body: Any) -> Any:
        return self.client.post(f"/api/v1/{path}", json=body, headers=self._headers(role))

    def sql(self, text: str, **more: Any) -> Any:
        return self.post("sql", sql=text, **more)

    def _headers(self, role: str | None, headers: dict[str, str] | None = None) -> dict[str, str]:
        own = {} if role is None else {"Authorization": f"Bearer {self.tokens[role]}"}
        return {"Host": "127.0.0.1", **own, **(headers or {})}


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory, real_lake: Path) -> Site:
    lake = tmp_path_factory.mktemp("api") / "lake"
    shutil.copytree(real_lake, lake)
    return Site(lake)


# --- who may what ----------------------------------------------------------------------------------------------------


def test_every_question_by_role(site: Site) -> None:
    needed = {"host": {"ip": "10.0.0.1"}, "flow": {"flow_id": 1}, "alert": {"id": "x"},
              "packet": {"sensor": "s1", "source": "x", "frame": 1, "ts": 1}}  # fmt: skip
    for q in registry.every():
        for role in (None, *ROLES):
            allowed = role is not None and registry.may(role, q.role)
            found = site.get(q.name, role, range="all", **needed.get(q.name, {})).status_code
            assert found in (
                ((200, 404) if q.name in needed else (200,)) if allowed else ((401,) if role is None else (403,))
            ), (q.name, role)


@pytest.mark.parametrize(
    "path", ["sql", "sql/cancel", "alerts", "alerts/x/ack", "alerts/x/note", "mutes", "mutes/remove"]
)
def test_changes_need_an_operator(site: Site, path: str) -> None:
    assert site.post(path, None).status_code in (401, 403)
    assert site.post(path, "viewer").status_code == 403
    assert site.post(path, "operator").status_code == 400
    assert site.get("pcap", "viewer").status_code == 403


def test_without_a_role_everything_is_refused(tmp_path: Path) -> None:
    server = flask.Flask("bare")  # without the gate
    api.register(server, make_lake(tmp_path / "lake"))
    client = server.test_client()
    for rule in server.url_map.iter_rules():
        if rule.rule.startswith("/api/"):
            path = rule.rule.replace("<name>", "overview").replace("<incident>/", "x/")
            path = path.replace("<any(ack, reopen):word>", "ack").replace("<word>", "ack")
            method = "GET" if "GET" in (rule.methods or ()) else "POST"
            assert client.open(path, method=method, json={} if method == "POST" else None).status_code == 403


# --- answers ---------------------------------------------------------------------------------------------------------


def test_answers_are_compressed_and_tagged(site: Site) -> None:
    answer = site.get("overview", range="all", headers={"Accept-Encoding": "gzip"})
    assert answer.headers["Content-Encoding"] == "gzip"
    assert json.loads(gzip.decompress(answer.data))["question"] == "overview"
    assert "lake;dur=" in answer.headers["Server-Timing"]
    again = site.get("overview", range="all", headers={"If-None-Match": answer.headers["ETag"]})
    assert (again.status_code, again.data) == (304, b"")
    assert site.get("overview", range="all", filter="proto=udp").headers["ETag"] != answer.headers["ETag"]
    assert site.get("overview", range="all").json["kpi"]["packets"] > 3000


@pytest.mark.parametrize(
    ("query", "status", "said"),
    [
        ({"filter": "nope=1"}, 400, "field 'nope'"), ({"range": "x"}, 400, "range 'x'"), ({"top": "x"}, 400, "top 'x'"),
        ({"evil": "1"}, 400, "has no parameter 'evil'"), ({"format": "xml"}, 400, "format 'xml'"),
        ({"format": "csv", "part": "nope"}, 400, "has no part 'nope'"),
    ],
)  # fmt: skip
def test_what_is_wrong_is_said_in_a_line(site: Site, query: dict[str, str], status: int, said: str) -> None:
    answer = site.get("overview", **query)
    assert answer.status_code == status
    assert said in answer.json["error"]
    assert "\n" not in answer.json["error"]


def test_unknown_question(site: Site) -> None:
    assert site.get("nope").status_code == 404


def test_files_hold_what_the_question_shows(site: Site) -> None:
    with analytics.connect(site.lake) as con:
        [(rows,)] = con.execute("SELECT count(*) FROM packets WHERE proto = 17 OR inner_proto = 17").fetchall()
    query = {"range": "all", "filter": "proto=udp"}
    parquet = pq.read_table(io.BytesIO(site.get("packets", format="parquet", **query).data))
    with pa.ipc.open_stream(site.get("packets", format="arrow", **query).data) as reader:
        arrow = reader.read_all()
    text = site.get("packets", format="csv", **query)
    assert text.headers["Content-Disposition"] == 'attachment; filename="packets.csv"'
    assert parquet.num_rows == arrow.num_rows == len(text.text.splitlines()) - 1 == rows > 0
    assert site.get("packets", format="csv", rows=10, **query).text.count("\n") == 11
    assert {"event": "export", "user": "ann", "format": "csv"}.items() <= audit.read(site.lake)[0].items()


def test_shown_sql_is_for_the_engine(site: Site) -> None:
    sql = site.get("packets", explain="sql", range="all", filter='sni="o\'x"').json["sql"]["packets"]
    assert "'o''x'" in sql
    assert site.sql(sql).status_code == 200


def test_spreadsheets_get_no_formulas(tmp_path: Path) -> None:
    lake = make_lake(tmp_path / "lake")
    names = ["=cmd|' /C calc'!A0", "+1", "-1", "@x", "\tx", "\n=1", "plain", "a=b", '=1,"2"']
    segment(lake, "packets", [
        {"src_ip": "10.0.0.1", "dst_ip": "10.0.0.2", "server_name": n, "frame_no": i} for i, n in enumerate(names)
    ])  # fmt: skip
    answer = Site(lake).get("packets", format="csv", range="all")
    import csv

    table = list(csv.DictReader(io.StringIO(answer.text, newline="")))
    assert [row["server_name"] for row in table] == ["'" + n if n[0] in "=+-@\t\n" else n for n in names]


def test_description_names_every_question(site: Site) -> None:
    document = site.get("openapi.json", "viewer").json
    assert document["openapi"] == "3.1.0"
    assert {f"/{q.name}" for q in registry.every()} <= set(document["paths"])
    for path, methods in document["paths"].items():
        for method, about in methods.items():
            assert {"summary", "description", "responses"} <= set(about), (path, method)
            assert all({"name", "in", "schema"} <= set(p) for p in about["parameters"])
    assert "kpi" in document["paths"]["/overview"]["get"]["description"]


# --- SQL -------------------------------------------------------------------------------------------------------------


def test_sql_reads_the_lake(site: Site) -> None:
    answer = site.sql("SELECT app, count(*) AS n FROM packets GROUP BY app ORDER BY n DESC LIMIT 3").json
    assert [c["name"] for c in answer["columns"]] == ["app", "n"]
    assert (answer["count"], answer["truncated"]) == (3, False)
    assert site.sql("FROM range(20000)").json["truncated"] is True
    parquet = pq.read_table(io.BytesIO(site.sql("FROM range(20000)", format="parquet").data))
    assert parquet.num_rows == 20000


ESCAPES = (
    "ATTACH '{out}' AS x", "COPY packets TO '{out}'", "COPY (SELECT 1) TO '{lake}/packets/x.parquet'",
    "EXPORT DATABASE '{out}'", "INSTALL httpfs", "LOAD httpfs", "PRAGMA database_list", "SET threads = 8",
    "SET enable_external_access = true", "RESET lock_configuration", "CALL pragma_version()",
    "PREPARE x AS COPY packets TO '{out}'", "EXPLAIN ANALYZE COPY packets TO '{out}'",
    "SELECT 1; COPY packets TO '{out}'", "SELECT * FROM read_csv('/etc/passwd')",
    "SELECT * FROM read_text('/etc/passwd')",
    "SELECT * FROM read_blob('{lake}/frames/*/*')", "SELECT * FROM read_text('{lake}/.dashboard/users.json')",
    "SELECT * FROM read_text('{lake}/packets/../.dashboard/users.json')", "SELECT * FROM glob('/etc/*')",
    "SELECT * FROM glob('{lake}/.dashboard/*')", "SELECT * FROM '/etc/passwd'",
    "SELECT * FROM read_parquet('https://example.org/x.parquet')", "CREATE SECRET x (TYPE s3)",
    "SELECT * FROM site", "SELECT getenv('HOME')", "CHECKPOINT", "VACUUM", "USE temp", "DETACH memory",
    "CREATE TABLE t AS SELECT * FROM sniff_csv('/etc/passwd')", "IMPORT DATABASE '/tmp'", "SELECT FROM WHERE", "",
)  # fmt: skip


@pytest.mark.parametrize("text", ESCAPES)
def test_sql_cannot_leave_the_lake(site: Site, tmp_path: Path, text: str) -> None:
    out = tmp_path / "out"
    before = sorted(p for p in site.lake.rglob("*") if ".dashboard" not in p.parts)
    answer = site.sql(text.format(out=out, lake=site.lake))
    assert answer.status_code == 400, answer.data
    assert "\n" not in answer.json["error"]
    assert str(site.lake) not in answer.json["error"]
    assert not out.exists()
    assert sorted(p for p in site.lake.rglob("*") if ".dashboard" not in p.parts) == before


def test_nothing_that_sql_creates_stays(site: Site) -> None:
    assert site.sql("CREATE VIEW packets2 AS FROM packets; SELECT count(*) FROM packets2").status_code == 200
    assert site.sql("SELECT count(*) FROM packets2").status_code == 400


ENDLESS = "SELECT count(*) FROM range(100000000) a, range(100000000) b WHERE a.range + b.range = -1"


def test_endless_sql_ends(site: Site, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sqlrun, "LIMIT_S", 0.5)
    answer = site.sql(ENDLESS)
    assert answer.status_code == 504, answer.data
    assert "took longer than 0.5 s" in answer.json["error"]


def test_rows_that_nobody_sees_are_not_held(site: Site, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sqlrun, "LIMIT_S", 0.5)
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    assert site.sql("FROM range(100000000000); SELECT 1").status_code == 504
    assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before < 100 << 10  # KiB


def test_sql_without_a_result(site: Site) -> None:
    answer = site.sql("CREATE TABLE t AS PIVOT (SELECT 1 AS a, 2 AS b) ON a USING sum(b)")
    assert (answer.status_code, answer.json["rows"]) == (200, [])


@pytest.mark.parametrize(
    ("path", "body"),
    [("sql", '{"sql": "SELECT \'\\ud800\'"}'), ("alerts/ack", '{"ids": ["\\ud800"]}'), ("sql", "[" * 99_999)],
)
def test_json_that_is_no_text_is_refused_in_a_line(site: Site, path: str, body: str) -> None:
    headers = site._headers("operator") | {"Content-Type": "application/json"}
    answer = site.client.post(f"/api/v1/{path}", data=body, headers=headers)
    assert answer.status_code == 400
    assert re.fullmatch("a text holds half a character; type it again|the JSON goes too deep", answer.json["error"])


def test_file_that_is_not_taken_ends_its_thread(site: Site, monkeypatch: pytest.MonkeyPatch) -> None:
    def ended() -> bool:
        deadline = time.monotonic() + 10
        while any(t.name == "export" for t in threading.enumerate()) and time.monotonic() < deadline:
            time.sleep(0.05)
        return not any(t.name == "export" for t in threading.enumerate())

    def numbers(use: Any) -> None:
        schema = pa.schema([("n", pa.int64())])
        use(pa.RecordBatchReader.from_batches(schema, (pa.record_batch({"n": [i]}) for i in range(1000))))

    assert site.client.head("/api/v1/packets?format=csv&range=all", headers=site._headers("viewer")).status_code == 200
    assert ended()
    stream = export.Stream(numbers, "csv")
    stream.close()
    assert ended()
    monkeypatch.setattr(export, "STALL_S", 0.1)
    parts = export.Stream(numbers, "csv").parts()
    next(parts)
    assert ended()
    with pytest.raises(TimeoutError):
        list(parts)


def test_a_huge_value_is_cut(site: Site) -> None:
    answer = site.sql("SELECT repeat('x', 50000000) AS x")
    assert len(answer.json["rows"][0][0]) == sql_worker.MAX_CELL + 1


def test_sql_is_cancelled_by_its_id(site: Site) -> None:
    found: list[Any] = []
    thread = threading.Thread(target=lambda: found.append(site.sql(ENDLESS, id="mine")))
    thread.start()
    deadline = time.monotonic() + 20
    while not site.post("sql/cancel", id="mine").json["cancelled"] and time.monotonic() < deadline:
        time.sleep(0.05)
    thread.join(20)
    assert found[0].status_code == 504
    assert "cancelled" in found[0].json["error"]
    assert site.post("sql/cancel", id="mine").json == {"cancelled": False}


# --- alerts and capture files ----------------------------------------------------------------------------------------


def test_an_alert_from_its_entry_to_its_acknowledgement(site: Site) -> None:
    made = site.post("alerts", kind="phishing", severity="high", why="<b>a user called</b>", src="10.0.0.7")
    assert made.status_code == 201
    name = made.json["id"]
    assert site.post(f"alerts/{name}/note", note="looking").status_code == 200
    assert site.post(f"alerts/{name}/ack", note="done").status_code == 200
    time.sleep(1.1)  # the pace of this question
    one = site.get("alert", id=name).json
    assert one["history"]["event"] == ["manual", "note", "acknowledged"]
    assert one["history"]["actor"] == ["ann"] * 3
    assert b"<b>" not in site.get("alert", id=name).data
    assert site.post(f"alerts/{name}/reopen").status_code == 200
    assert site.post(f"alerts/{name}/delete").status_code == 404
    assert site.post("alerts/nope/ack").status_code == 400
    assert site.post("alerts", kind="x", severity="loud", why="y").status_code == 400
    assert site.post("mutes", kind="phishing", hours=24).json["until"] > time.time() * 1e6
    assert site.get("mutes").json["rows"]["kind"] == ["phishing"]
    assert site.post("mutes", kind="x", hours=-1).status_code == 400
    assert site.post("mutes").status_code == 400
    assert site.post("mutes/remove", kind="phishing").status_code == 200
    events = [line["event"] for line in audit.read(site.lake, 20)]
    assert {"alert added", "alert ack", "mute", "unmute"} <= set(events)


def test_capture_file_of_a_filter(site: Site, tmp_path: Path) -> None:
    query = {"range": "all", "filter": "app=dns"}
    with analytics.connect(site.lake) as con:
        [(frames,)] = con.execute("SELECT count(*) FROM packets WHERE app = 'dns'").fetchall()
    assert site.get("pcap", estimate=1, **query).json["frames"] == frames
    answer = site.get("pcap", **query)
    assert answer.status_code == 200
    file = tmp_path / "dns.pcapng"
    file.write_bytes(answer.data)
    source, batch, count = SavefileSource(str(file)), FrameBatch(), 0
    source.open()
    for _ in range(100):
        batch.clear()
        source.read(batch)
        count += batch.count
    source.close()
    assert count == frames > 0
    few = site.get("pcap", range="all", limit=3, filter="app=dns")
    assert 0 < len(few.data) < len(answer.data) / 2
    for bad in ({"filter": "app=dns status=open"}, {"filter": "country=DE"}):
        assert site.get("pcap", estimate=1, range="all", **bad).status_code == 400


def test_capture_files_at_a_time_are_few(site: Site) -> None:
    query = {"range": "all", "filter": "proto=udp", "limit": "5"}
    held = [site.get("pcap", **query) for _ in range(api.MAX_PCAPS)]
    assert [answer.status_code for answer in held] == [200] * api.MAX_PCAPS
    refused = site.get("pcap", **query)
    assert (refused.status_code, "under way already" in refused.json["error"]) == (504, True)
    for answer in held:
        answer.close()
    del held, answer
    for _ in range(api.MAX_PCAPS + 1):
        assert site.get("pcap", **query).data


def test_a_capture_file_that_is_too_large_is_refused(site: Site, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(api, "MAX_PCAP", 1000)
    for _ in range(api.MAX_PCAPS + 1):  # a refused one leaves its place to the next
        answer = site.get("pcap", range="all")
        assert answer.status_code == 400
        assert "choose a shorter range" in answer.json["error"]


def test_sql__half_a_character_is_an_error_of_one_line(site: Site) -> None:
    """JSON can hold what UTF-8 cannot."""
    answer = site.sql("SELECT '\ud800'")
    assert answer.status_code == 400
    assert "half a character" in answer.json["error"]
