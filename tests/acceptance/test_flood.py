"""Somebody floods the line: the calls of others do not notice, and nothing grows."""

from __future__ import annotations

import json
import re
import subprocess
import sys
from pathlib import Path

import httpx

from tests.support.callers import Party, wish
from tests.support.machine import Machine, machine, wait_until

ROOT = Path(__file__).parents[2]
SOURCE = "127.0.0.2"
SECONDS, A_SECOND = 8.0, 3000


def refused(made: Machine) -> dict[str, float]:
    text = httpx.get(f"{made.base}/metrics").text
    return {
        name: float(count)
        for name, count in re.findall(r'^aftertone_sip_refused_total\{reason="(\w+)"\} (\S+)', text, re.MULTILINE)
    }


def metric(made: Machine, name: str) -> float:
    (value,) = re.findall(rf"^{name} (\S+)", httpx.get(f"{made.base}/metrics").text, re.MULTILINE)
    return float(value)


def alarm(made: Machine) -> str:
    with made.client() as client:
        return " ".join(one["text"] for one in client.get("/health").json()["alarms"] if one["code"] == "attack")


def resident_kb(pid: int) -> int:
    (value,) = re.findall(r"^VmRSS:\s+(\d+) kB", Path(f"/proc/{pid}/status").read_text(), re.MULTILINE)
    return int(value)


def test_a_call_is_recorded_whole_while_somebody_else_floods_the_line(tmp_path: Path) -> None:
    with machine(tmp_path / "var", DEFENCE__REGISTRATIONS_A_MINUTE="60") as made:
        with Party([wish(made.uri, "before", 1.0)]) as party:
            party.outcomes()
        made.wait_for_messages(1)
        pid = made.role_pid("line")
        before_kb, log_lines = resident_kb(pid), made.log().count("\n")
        flood = subprocess.Popen(
            [
                sys.executable,
                "-m",
                "tests.support.flood",
                "127.0.0.1",
                str(made.sip_port),
                SOURCE,
                str(SECONDS),
                str(A_SECOND),
            ],
            stdout=subprocess.PIPE,
            cwd=ROOT,
        )
        wait_until(lambda: refused(made).get("messages", 0) > 1000, "the flood to be noticed")
        with Party([wish(made.uri, "ada", 3.0), wish(made.uri, "bob", 3.0)]) as party:
            outcomes = party.outcomes()
        out, _ = flood.communicate(timeout=60)
        facts = json.loads(out)
        assert [outcome.bye_status for outcome in outcomes] == [200, 200]

        def whole() -> bool:
            rows = {row["caller"]["number"]: row for row in made.messages()}
            return {"ada", "bob"} <= set(rows)

        wait_until(whole, "the messages of the others")
        for row in made.messages():
            if row["caller"]["number"] in ("ada", "bob"):
                assert (row["audio_ms"], row["lost_packets"], row["cut_off"]) == (3000, 0, False)
        counts = refused(made)
        assert counts["messages"] > facts["sent"] / 3
        assert counts["scanners"] > 0
        assert counts["registrations"] > 0
        assert counts["calls"] + counts["unanswered_calls"] > 0
        assert facts["received_bytes"] < facts["sent_bytes"] / 2, "no amplification"
        assert SOURCE in alarm(made)
        # 50 of the flood that were never confirmed, and, in figures a second old, the two of the others.
        assert metric(made, "aftertone_line_live_calls") + metric(made, "aftertone_line_ringing_calls") <= 52
        assert resident_kb(pid) - before_kb < 40_000
        assert made.log().count("\n") - log_lines < 400
        assert made.role_pid("line") == pid
