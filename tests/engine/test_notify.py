"""Notifications and EVE: real receivers here, dead and slow ones, bursts, restarts, and no secret anywhere."""

from __future__ import annotations

import json
import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from aiosmtpd.controller import Controller

from engine.alert_config import AlertsConfig, EveConfig, NotifyConfig, SuppressConfig, TargetConfig
from engine.config import EngineConfig, LakeConfig, load_config
from engine.detect.alert_stage import AlertStage
from engine.detect.eve import eve_record
from engine.detect.finding import Finding
from engine.errors import ConfigError
from engine.notify import process as notify_process
from engine.notify.apprise_sender import AppriseSender
from engine.notify.message import Message, digest, single
from engine.notify.outbox import FOLDER, Outbox
from engine.notify.sender import TargetSender
from tests.commands import ROOT, engine
from tests.receivers import Mailbox, Web, free_port, wait_for

NOON = 1_795_521_600_000_000
SECRET = "s3cr3tTokenOfOurs"


@pytest.fixture
def web() -> Iterator[Web]:
    endpoint = Web()
    yield endpoint
    endpoint.close()


def finding(n: int = 0, **given: Any) -> Finding:
    values = {
        "kind": "port_scan",
        "severity": "high",
        "why": "40 ports in 2 s",
        "src_ip": f"10.0.0.{n}",
        "dst_ip": "10.0.9.1",
    }
    return Finding(ts=NOON + n * 1000, **(values | {"evidence": {"ports": 40}} | given))


def stage_for(lake: Path, *targets: TargetConfig, **given: Any) -> AlertStage:
    lake.mkdir(exist_ok=True)
    notify = NotifyConfig(targets=targets)
    config = EngineConfig(lake=LakeConfig(sensor="s1"), notify=notify, **given)
    stage = AlertStage(lake, config, "run", lambda _: None, poll_s=0.05)
    stage.live = True
    return stage


def hook(web: Web, path: str = SECRET) -> str:
    return f"json://127.0.0.1:{web.port}/{path}"


def waiting(lake: Path, target: str) -> list[Path]:
    return sorted((lake / FOLDER / target).glob("*.json"))


def item(n: int = 0, **given: Any) -> dict[str, Any]:
    incident = {
        "incident_id": f"i-{n}", "kind": "port_scan", "severity": "high", "why": "40 ports", "src_ip": "10.0.0.1",
        "dst_ip": None, "first_seen": NOON, "last_seen": NOON, "count": 1, "evidence": '{"ports":40}',
    }  # fmt: skip
    return {"event": "opened", "sensor": "s1", "incident": incident | given}


# --- end to end --------------------------------------------------------------------------------------------------


def test_webhook_and_mail__routed_by_severity_and_kind(tmp_path: Path, web: Web) -> None:
    box = Mailbox()
    port = free_port()
    mail = Controller(box, hostname="127.0.0.1", port=port)
    mail.start()
    try:
        stage = stage_for(
            tmp_path,
            TargetConfig(name="hook", url=hook(web), min_severity="medium", on_close=True),
            TargetConfig(
                name="mail", url=f"mailto://127.0.0.1:{port}?from=engine@lake.test&to=ops@lake.test&mode=insecure",
                min_severity="critical",
            ),
            TargetConfig(name="beacons", url=hook(web, "beacons"), kinds=("beacon",)),
        )  # fmt: skip
        stage.take([finding(1), finding(2, severity="low"), finding(3, kind="syn_flood", severity="critical")], NOON)
        wait_for(lambda: len(web.got) == 2 and len(box.mails) == 1)
        stage.take([finding(2, severity="high")], NOON)  # it became graver: now it concerns the hook
        wait_for(lambda: len(web.got) == 3)
        stage.close()
        wait_for(lambda: len(web.got) == 6)
    finally:
        mail.stop()
    first = web.got[0]
    assert first["title"] == "HIGH port_scan 10.0.0.1 -> 10.0.9.1"
    assert "40 ports in 2 s" in first["message"]
    assert first["incidents"][0]["evidence"] == {"ports": 40}
    assert first["incidents"][0]["first_seen"] == "2026-11-24T12:00:00Z"
    assert sum(m["title"].startswith("over: ") for m in web.got) == 3
    assert "CRITICAL syn_flood" in box.mails[0]["subject"]
    assert not waiting(tmp_path, "hook")
    assert not waiting(tmp_path, "beacons")
    assert {m["path"] for m in web.got} == {f"/{SECRET}"}


def test_burst__becomes_one_message(tmp_path: Path, web: Web) -> None:
    stage = stage_for(tmp_path, TargetConfig(name="hook", url=hook(web), burst=5))
    stage.take([finding(n) for n in range(50)], NOON)
    wait_for(lambda: sum(len(m["incidents"]) for m in web.got) == 50, timeout_s=90)
    stage.close()
    assert len(web.got) <= 7
    assert any(" incidents, the worst high" in m["title"] for m in web.got)


def test_slow_and_dead_endpoints__slow_nothing_down(tmp_path: Path, web: Web) -> None:
    slow = Web(delay_s=3.0)
    silent = socket.socket()
    silent.bind(("127.0.0.1", 0))
    silent.listen(1)  # takes connections and never answers
    dead = free_port()
    stage = stage_for(
        tmp_path,
        TargetConfig(name="slow", url=hook(slow)),
        TargetConfig(name="silent", url=f"json://127.0.0.1:{silent.getsockname()[1]}/"),
        TargetConfig(name="dead", url=f"json://127.0.0.1:{dead}/"),
        TargetConfig(name="nowhere", url="json://no.such.host.invalid/"),
        TargetConfig(name="good", url=hook(web)),
    )
    stage.take([], NOON)
    began = time.monotonic()
    cpu = time.thread_time()
    for n in range(200):
        stage.take([finding(n % 8)], NOON)
    assert time.thread_time() - cpu < 0.2
    assert time.monotonic() - began < 2
    wait_for(lambda: sum(len(m["incidents"]) for m in web.got) == 8)
    began = time.monotonic()
    stage.close()
    assert time.monotonic() - began < 2.5
    assert len(waiting(tmp_path, "dead")) == 8  # kept for the next start
    slow.close()
    silent.close()


def test_name_that_cannot_be_looked_up__keeps_nobody_waiting(
    tmp_path: Path, web: Web, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "site").mkdir()
    (tmp_path / "site" / "sitecustomize.py").write_text(
        "import socket, time\nlook_up = socket.getaddrinfo\n"
        "socket.getaddrinfo = lambda host, *a, **k: time.sleep(600) if 'hangs' in host else look_up(host, *a, **k)\n"
    )
    monkeypatch.setenv("PYTHONPATH", str(tmp_path / "site"))
    monkeypatch.setattr(notify_process, "LAST_TRY_S", 1.0)
    hanging = TargetConfig(name="hanging", url="json://hangs.test/")
    stage = stage_for(tmp_path / "lake", hanging, TargetConfig(name="good", url=hook(web)))
    stage.take([finding(1)], NOON)
    wait_for(lambda: len(web.got) == 1)
    notifier = stage._outlets._notifier  # type: ignore[union-attr]
    assert notifier is not None
    began = time.monotonic()
    stage.close()
    assert time.monotonic() - began < 2.5
    wait_for(lambda: not _runs(notifier.pid))
    assert len(waiting(tmp_path / "lake", "hanging")) == 1


def test_queue__survives_a_restart(tmp_path: Path, web: Web) -> None:
    port = web.port
    web.close()
    stage = stage_for(tmp_path, TargetConfig(name="hook", url=hook(web)))
    stage.take([finding(1), finding(2)], NOON)
    wait_for(lambda: len(waiting(tmp_path, "hook")) == 2)
    notifier = stage._outlets._notifier  # type: ignore[union-attr]
    assert notifier is not None
    os.kill(notifier.pid, signal.SIGKILL)  # ours: a crash of it loses nothing
    stage.close()
    assert len(waiting(tmp_path, "hook")) == 2
    again = Web()
    target = TargetConfig(name="hook", url=hook(again))
    assert port != again.port
    following = stage_for(tmp_path, target)
    following.take([], NOON)
    wait_for(lambda: len(again.got) == 2)
    following.close()
    again.close()
    wait_for(lambda: not waiting(tmp_path, "hook"))


def test_notifier__ends_with_its_parent(tmp_path: Path) -> None:
    code = (
        "import sys, time; from pathlib import Path\n"
        "from engine.alert_config import *; from engine.notify import process\n"
        "p = process.start(Path(sys.argv[1]), NotifyConfig(targets=(TargetConfig(name='a', url='json://127.0.0.1:9/'),)))\n"
        "print(p.pid, flush=True); time.sleep(60)"
    )
    parent = subprocess.Popen([sys.executable, "-c", code, tmp_path], stdout=subprocess.PIPE, text=True, cwd=ROOT)
    assert parent.stdout is not None
    pid = int(parent.stdout.readline())
    parent.kill()
    parent.wait()
    parent.stdout.close()
    wait_for(lambda: not _runs(pid))


def _runs(pid: int) -> bool:
    try:
        return Path(f"/proc/{pid}/stat").read_text().rsplit(")", 1)[1].split()[0] != "Z"
    except OSError:
        return False


def test_secrets__stand_nowhere(tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    web = Web(status=500)
    target = TargetConfig(name="hook", url=hook(web))
    stage = stage_for(tmp_path / "lake", target)
    stage.take([finding(1)], NOON)
    wait_for(lambda: waiting(tmp_path / "lake", "hook"))
    notifier = stage._outlets._notifier  # type: ignore[union-attr]
    assert notifier is not None
    shown = Path(f"/proc/{notifier.pid}/cmdline").read_bytes() + Path(f"/proc/{notifier.pid}/environ").read_bytes()
    wait_for(lambda: web.refused)
    stage.close()
    web.close()
    said = "".join(capfd.readouterr())
    assert "notify target hook: not sent" in said
    stored = b"".join(path.read_bytes() for path in (tmp_path / "lake").rglob("*") if path.is_file())
    for text in (shown, said.encode(), stored, repr(target).encode(), repr(stage._config).encode()):
        assert SECRET.encode() not in text
    assert (tmp_path / "lake" / FOLDER / "hook").stat().st_mode & 0o077 == 0


def test_secrets__configuration_is_printed_masked(tmp_path: Path) -> None:
    (tmp_path / "url").write_text(f"slack://{SECRET}/B/C\n")
    config = tmp_path / "engine.toml"
    config.write_text(
        f'[[notify.targets]]\nname = "a"\nurl = "discord://{SECRET}/x"\n'
        f'[[notify.targets]]\nname = "b"\nurl_file = "{tmp_path}/url"\n'
    )
    assert load_config(str(config)).notify.targets[1].url == f"slack://{SECRET}/B/C"
    done = engine("config", "--config", config)
    assert done.returncode == 0
    assert SECRET not in done.stdout
    assert 'url = "discord://***"' in done.stdout
    config.write_text(done.stdout)
    done = engine("config", "--config", config)  # the masked one given back
    assert done.returncode == 2
    assert "***" in done.stderr
    config.write_text(f'[[notify.targets]]\nname = "a"\nurl = ["{SECRET}"]\n')
    assert SECRET not in engine("config", "--config", config).stderr


# --- parts -----------------------------------------------------------------------------------------------------------


class Fake:
    """A clock that a test moves, and an endpoint that it breaks."""

    def __init__(self, folder: Path, burst: int = 3, give_up_s: float = 3600) -> None:
        self.now = 1000.0
        self.problem: str | None = None
        self.sent: list[Message] = []
        self.said: list[str] = []
        self.tries = 0
        self.sender = TargetSender(folder, "t", self, burst, give_up_s, self.said.append, lambda: self.now, 0.0)

    def send(self, message: Message) -> str | None:
        self.tries += 1
        if self.problem is None:
            self.sent.append(message)
        return self.problem

    def drain(self) -> None:
        while self.sender.step():
            pass


def fill(folder: Path, count: int, begin: int = 0) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    for n in range(begin, begin + count):
        (folder / f"{time.time_ns():020d}-1-{n:05}.json").write_text(json.dumps(item(n)))


def test_sender__digest_only_beyond_the_burst_and_once_a_minute(tmp_path: Path) -> None:
    fake = Fake(tmp_path)
    fill(tmp_path, 3)
    fake.drain()
    assert len(fake.sent) == 3
    fill(tmp_path, 5, 10)
    fake.drain()
    assert [len(m.incidents) for m in fake.sent] == [1, 1, 1, 5]
    fill(tmp_path, 7, 20)
    fake.drain()
    assert len(fake.sent) == 4
    fake.now += 61
    fake.drain()
    assert len(fake.sent[-1].incidents) == 7
    fill(tmp_path, 9, 40)
    assert not fake.sender.step()
    assert fake.sender.step(last=True)
    assert len(fake.sent[-1].incidents) == 9
    fake.now += 61
    fill(tmp_path, 1, 30)
    fake.drain()
    assert len(fake.sent) == 7


def test_sender__backs_off_says_it_once_and_recovers(tmp_path: Path) -> None:
    fake = Fake(tmp_path)
    fake.problem = "not sent: refused"
    fill(tmp_path, 2)
    for _ in range(200):
        fake.sender.step()
        fake.now += 1
    assert 5 <= fake.tries <= 9
    assert len(fake.said) == 1
    fake.problem = None
    fake.now += 400
    fake.drain()
    assert len(fake.sent) == 2
    assert fake.said[-1] == "notify target t: works again"
    assert not list(tmp_path.glob("*.json"))


def test_sender__gives_up_what_is_too_old_and_says_so(tmp_path: Path) -> None:
    fake = Fake(tmp_path, give_up_s=100)
    (tmp_path / f"{time.time_ns() - 200_000_000_000:020d}-1-1.json").write_text(json.dumps(item()))
    (tmp_path / f"{time.time_ns():020d}-1-2.json").write_text("{not json")
    fill(tmp_path, 1)
    fake.drain()
    assert len(fake.sent) == 1
    assert "2 messages before this one were given up" in fake.sent[0].text
    fill(tmp_path, 1)
    fake.drain()
    assert "given up" not in fake.sent[1].text


def test_outbox__is_bounded_and_counts(tmp_path: Path) -> None:
    outbox = Outbox(tmp_path, NotifyConfig(queue=5, targets=(TargetConfig(name="t", url="json://x/"),)), "s1")
    for n in range(12):
        outbox.put(item(n)["incident"] | {"event": "opened"})
    assert len(waiting(tmp_path, "t")) == 5
    assert (tmp_path / FOLDER / "t" / "dropped").stat().st_size == 7
    fake = Fake(tmp_path / FOLDER / "t")
    fake.drain()
    assert "7 messages" in fake.sent[0].text


def test_message__hostile_text_calls_nobody() -> None:
    nasty = "@everyone <!channel> <@U123> <b>x</b> @here [your bank](http://evil.test) <http://evil.test|your bank>"
    for message in (single(item(why=nasty)), digest([item(1, why=nasty), item(2)])):
        assert "@everyone" not in message.text
        assert "<!channel" not in message.text
        assert "<@U" not in message.text
        assert "](" not in message.text
        assert "<http" not in message.text
    assert single(item(evidence="not json", first_seen=1 << 62)).text


@pytest.mark.filterwarnings("ignore::DeprecationWarning")  # of apprise's plugins
def test_apprise__what_it_does_not_take_is_a_line() -> None:
    assert "does not take" in (AppriseSender("nosuch://x/y").send(Message("a", "b", "info", [])) or "")
    problem = AppriseSender(f"json://{SECRET}.invalid/").send(Message("a", "b", "info", [])) or ""
    assert problem.startswith("not sent")
    assert SECRET not in problem


def test_command__notify_test(tmp_path: Path, web: Web) -> None:
    config = tmp_path / "engine.toml"
    config.write_text(
        f'[[notify.targets]]\nname = "good"\nurl = "{hook(web)}"\n'
        f'[[notify.targets]]\nname = "bad"\nurl = "json://127.0.0.1:1/{SECRET}"\n'
    )
    done = engine("notify", "test", "--config", config, "--to", "good")
    assert (done.returncode, done.stdout, done.stderr) == (0, "notify target good: sent\n", "")
    assert web.got[0]["title"] == "PacketLake: test"
    done = engine("notify", "test", "--config", config)
    assert done.returncode == 2
    assert done.stderr.startswith("notify target bad: not sent")
    assert SECRET not in done.stderr + done.stdout
    done = engine("notify", "test", "--config", config, "--to", "nobody")
    assert (done.returncode, done.stderr.count("\n")) == (2, 1)
    assert "good, bad" in done.stderr


def test_help_and_config__do_not_import_apprise() -> None:
    code = "import sys, engine.cli; engine.cli.main(['config']); print('apprise' in sys.modules)"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, cwd=ROOT, check=True)
    assert done.stdout.splitlines()[-1] == "False"
    assert notify_process.LAST_TRY_S < 10


@pytest.mark.parametrize(
    ("text", "parts"),
    [
        ("[[alerts.suppress]]\nkinds = ['a']\n[[alerts.suppress]]\nsrc = ['10.0.0.300']", ["number 2", "10.0.0.300"]),
        ("[[alerts.suppress]]\nreason = 'x'", ["number 1", "give kinds"]),
        ("[[alerts.suppress]]\nport = [1]", ["number 1", "unknown key 'port'", "ports"]),
        ("[[alerts.suppress]]\nports = ['a']", ["ports", "list of whole numbers"]),
        ("[[alerts.suppress]]\nports = [true]", ["ports", "list of whole numbers"]),
        ("[[alerts.suppress]]\nports = [70000]", ["70000", "0 to 65535"]),
        ("[[alerts.suppress]]\ntime = '25:00-26:00'", ["25:00-26:00", "HH:MM"]),
        ("[[alerts.suppress]]\ntime = '01:00-02:00'\ntimezone = 'Mars/Base'", ["Mars/Base"]),
        ("[alerts]\nsuppress = ['x']", ["alerts.suppress", "list of tables"]),
        ("[alerts]\nsuppress = 1", ["alerts.suppress", "list of tables"]),
        ("[[alerts.kind]]\ncooldown_s = 5", ["alerts.kind number 1", "name"]),
        ("[[alerts]]\ncooldown_s = 5", ["unknown section 'alerts'"]),
        ("[alerts]\nmin_severity = 'bad'", ["alerts.min_severity", "'bad'", "critical"]),
        ("[[notify.targets]]\nname = 'a'", ["notify.targets", "url"]),
        ("[[notify.targets]]\nname = 'a b'\nurl = 'json://x'", ["notify.targets.name", "a b"]),
        (
            "[[notify.targets]]\nname='a'\nurl='json://x'\n[[notify.targets]]\nname='a'\nurl='json://y'",
            ["name of its own"],
        ),
        ("[[notify.targets]]\nname='a'\nurl_file='/nonexistent'", ["/nonexistent", "no such file"]),
        ("[eve]\nsyslog = 'tcp://x:1'", ["eve.syslog", "tcp://x:1", "udp://"]),
        ("[eve]\nfacility = 'x'", ["eve.facility", "local0"]),
    ],
)
def test_configuration__mistake_is_one_line(tmp_path: Path, text: str, parts: list[str]) -> None:
    path = tmp_path / "engine.toml"
    path.write_text(text)
    with pytest.raises(ConfigError) as caught:
        load_config(str(path))
    message = str(caught.value)
    assert "\n" not in message
    for part in parts:
        assert part in message


def test_configuration__lists_of_tables_are_printed_as_read(tmp_path: Path) -> None:
    path = tmp_path / "engine.toml"
    path.write_text(
        "[alerts]\ncooldown_s = 90\n[[alerts.kind]]\nname = 'beacon'\ncooldown_s = 3600\n"
        "[[alerts.suppress]]\nsrc = ['10.0.0.0/8']\nports = [22, 443]\ntime = '22:00-06:00'\nreason = 'a \"b\"'\n"
    )
    config = load_config(str(path))
    assert config.alerts.suppress == (
        SuppressConfig(src=("10.0.0.0/8",), ports=(22, 443), time="22:00-06:00", reason='a "b"'),
    )
    path.write_text(config.to_toml())
    assert load_config(str(path)) == config


# --- EVE -------------------------------------------------------------------------------------------------------------


def test_eve__file_rotates_and_is_bounded(tmp_path: Path) -> None:
    path = tmp_path / "log" / "eve.json"
    eve = EveConfig(file=str(path), rotate_mib=1, keep=2, closed=True)
    stage = stage_for(tmp_path / "lake", eve=eve, alerts=AlertsConfig(budget_per_hour=100_000, max_open=100_000))
    text = "x" * 900
    for first in range(0, 3000, 500):
        stage.take([finding(why=text, src_ip=f"10.{n >> 8}.{n & 255}.1") for n in range(first, first + 500)], NOON)
        wait_for(stage._outlets._queue.empty)  # type: ignore[union-attr]
    stage.close()
    assert stage.not_told == 0
    files = sorted(p.name for p in path.parent.iterdir())
    assert files == ["eve.json", "eve.json.1", "eve.json.2"]
    assert all(p.stat().st_size <= 1 << 20 for p in path.parent.iterdir())
    record = json.loads(path.read_text().splitlines()[0])
    assert record["event_type"] == "alert"
    assert (record["src_ip"][:3], record["dest_ip"]) == ("10.", "10.0.9.1")
    assert record["alert"]["severity"] == 1
    assert record["alert"]["signature"] == "PacketLake port_scan"
    assert record["timestamp"].startswith("2026-11-24T12:0")


def test_eve__a_file_that_was_moved_is_made_anew(tmp_path: Path) -> None:
    path, moved = tmp_path / "eve.json", tmp_path / "eve.json-20261124"
    stage = stage_for(tmp_path / "lake", eve=EveConfig(file=str(path)))
    stage.take([finding(1)], NOON)
    wait_for(lambda: path.exists() and path.read_text().endswith("\n"))
    path.rename(moved)  # as logrotate does
    stage.take([finding(2)], NOON)
    wait_for(lambda: path.exists() and path.read_text().endswith("\n"))
    path.unlink()
    stage.take([finding(3)], NOON)
    stage.close()
    assert [json.loads(p.read_text())["src_ip"] for p in (moved, path)] == ["10.0.0.1", "10.0.0.3"]


def test_eve__syslog_receiver_that_was_restarted(tmp_path: Path) -> None:
    said: list[str] = []
    (tmp_path / "lake").mkdir()
    config = EngineConfig(eve=EveConfig(syslog=f"unix://{tmp_path}/log"))
    stage = AlertStage(tmp_path / "lake", config, "run", lambda _: None, lambda _level, text: said.append(text), 0.05)
    for n in (1, 2):
        with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as receiver:
            receiver.bind(str(tmp_path / "log"))
            receiver.settimeout(10)
            stage.take([finding(n)], NOON)
            assert f'"src_ip":"10.0.0.{n}"' in receiver.recv(65_536).decode()
        (tmp_path / "log").unlink()
    stage.close()
    assert (stage.not_told, said) == (0, [])


def test_eve__layout_of_a_signature() -> None:
    row = item(dst_port=80, proto=6, flow_ids=[7], source="eth0", event="opened", ts=NOON)["incident"]
    row["evidence"] = json.dumps(
        {"sid": 2001219, "signature": "ET SCAN", "category": "Attempted Recon", "community_id": "1:x"}
    )
    record = eve_record(row, "s1")
    assert record["alert"] | {"severity": 1} == record["alert"]
    assert (record["alert"]["signature_id"], record["alert"]["signature"]) == (2001219, "ET SCAN")
    assert (record["flow_id"], record["community_id"], record["proto"], record["dest_port"]) == (7, "1:x", "TCP", 80)
    assert record["timestamp"] == "2026-11-24T12:00:00.000000+0000"
    assert "src_port" not in record


def test_eve__syslog_over_udp_and_unix(tmp_path: Path) -> None:
    udp = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
    udp.bind(("127.0.0.1", 0))
    unix = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
    unix.bind(str(tmp_path / "log"))
    for target, receiver in ((f"udp://127.0.0.1:{udp.getsockname()[1]}", udp), (f"unix://{tmp_path}/log", unix)):
        receiver.settimeout(10)
        stage = stage_for(tmp_path / "lake", eve=EveConfig(syslog=target, facility="local3"))
        stage.take([finding(why='<b>\n"x"')], NOON)
        head, _, body = receiver.recv(65_536).decode().partition(" - ")
        assert head.startswith(f"<{19 * 8 + 3}>1 2026-11-24T12:00:00.000000Z s1 packetlake ")
        assert json.loads(body)["packetlake"]["why"] == '<b>·"x"'
        stage.close()
        receiver.close()


def test_eve__a_place_that_cannot_be_written_is_said_once(tmp_path: Path) -> None:
    said: list[str] = []
    lake = tmp_path / "lake"
    lake.mkdir()
    (tmp_path / "file").write_text("")
    config = EngineConfig(eve=EveConfig(file=str(tmp_path / "file" / "eve.json"), syslog=f"unix://{tmp_path}/none"))
    stage = AlertStage(lake, config, "run", lambda _: None, lambda _level, text: said.append(text))
    stage.take([finding(n) for n in range(5)], NOON)
    stage.close()
    assert stage.not_told == 10
    assert len(said) == 2
    assert all("\n" not in text and "eve." in text for text in said)


def test_replay__notifies_nobody(tmp_path: Path, web: Web) -> None:
    stage = stage_for(tmp_path, TargetConfig(name="hook", url=hook(web)))
    stage.live = False
    stage.take([finding(1)], NOON)
    stage.close()
    assert not (tmp_path / FOLDER).exists()
