"""What was said on the wire: live beside a real call, and kept with its message."""

from __future__ import annotations

import json
import signal
import subprocess
import sys
from pathlib import Path

from tests.support.callers import Party, wish
from tests.support.captures import read_pcap
from tests.support.machine import Machine, machine, wait_until


def watch(made: Machine, out: Path, *arguments: str) -> subprocess.Popen[bytes]:
    with out.open("wb") as file:
        return subprocess.Popen(
            [sys.executable, "-m", "aftertone", "sip", "trace", *arguments],
            env=made.environment,
            stdout=file,
            stderr=subprocess.STDOUT,
            cwd=made.data.parent,
        )


def test_a_call_is_seen_as_it_happens_and_afterwards_with_its_message(tmp_path: Path) -> None:
    with machine(tmp_path / "var") as made:
        ladder, lines = tmp_path / "ladder.txt", tmp_path / "lines.jsonl"
        watchers = [watch(made, ladder), watch(made, lines, "--json", "--number", "ada")]
        wait_until((made.data / "run" / "trace.json").exists, "somebody to watch")
        with Party([wish(made.uri, "ada", 1.0), wish(made.uri, "bob", 1.0)]) as party:
            assert [outcome.bye_status for outcome in party.outcomes()] == [200, 200]
        wait_until(lambda: ladder.read_text().count("200 OK (BYE)") == 2, "the ends of both calls on the screen")
        wait_until(lambda: lines.read_text().count("\n") >= 5, "the lines of one call")
        for watcher in watchers:
            watcher.send_signal(signal.SIGINT)
            assert watcher.wait(10) == 0
        text = ladder.read_text()
        assert text.count(" INVITE sip:main@") == 2
        for step in ("200 OK (INVITE)", " ACK sip:", " BYE sip:"):
            assert text.count(step) >= 2, step
        passed = [json.loads(line) for line in lines.read_text().splitlines()]
        assert len({one["call_id"] for one in passed}) == 1
        assert all("ada" in one["data"] for one in passed)
        wait_until(lambda: not (made.data / "run" / "trace.jsonl").exists(), "the line to stop writing", 20)

        message = next(one for one in made.wait_for_messages(2) if one["caller"]["number"] == "ada")
        wait_until(lambda: made.run("sip", "trace", message["id"], check=False).returncode == 0, "what was kept")
        shown = made.run("sip", "trace", message["id"]).stdout
        assert " ms |" in shown.splitlines()[1]
        assert "200 OK (BYE)" in shown.splitlines()[-1]
        file = tmp_path / "call.pcap"
        made.run("sip", "trace", message["id"], "--pcap", str(file))
        packets = read_pcap(file.read_bytes())
        assert packets[0].data.startswith(b"INVITE sip:main@")
        assert packets[0].target == ("127.0.0.1", made.sip_port)
        assert packets[-1].data.startswith(b"SIP/2.0 200 OK")
        assert packets[-1].source == ("127.0.0.1", made.sip_port)
        assert [packet.unix_us for packet in packets] == sorted(packet.unix_us for packet in packets)
        made.books()


def test_nothing_is_kept_where_the_owner_does_not_want_it(tmp_path: Path) -> None:
    with machine(tmp_path / "var", TRACE__KEEP="false") as made:
        with Party([wish(made.uri, "ada", 1.0)]) as party:
            party.outcomes()
        (message,) = made.wait_for_messages(1)
        assert not list((made.data / "blobs").rglob("*.sip.json"))
        assert "no signalling was kept" in made.run("sip", "trace", message["id"], check=False).stderr
