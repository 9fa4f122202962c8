"""How the machine stands, judged from what its roles wrote."""

from __future__ import annotations

from aftertone.web.standing import MAX_ALARMS, MAX_METRICS, Alarm, LineUse, judge


def test_all_well() -> None:
    standing = judge({"taking_calls": True, "calls": 3, "sip_address": "sip:main@host", "alarms": []}, {})
    assert (standing.status, standing.reason, standing.calls, standing.alarms) == ("ok", "ok", 3, ())


def test_a_line_that_says_nothing_is_down() -> None:
    standing = judge(None, {})
    assert (standing.status, standing.reason) == ("down", "line_down")
    assert standing.alarms[0].code == "line_down"


def test_the_reason_is_the_first_alarm() -> None:
    line = {"taking_calls": False, "alarms": [{"code": "disk_full", "text": "The disk is full."}]}
    standing = judge(line, {})
    assert standing.reason == "disk_full"
    assert standing.alarms == (Alarm("disk_full", "The disk is full."),)
    assert judge({"taking_calls": False}, {}).reason == "not_taking_calls"
    assert judge({"taking_calls": False, "alarms": [{"code": "Bad\nWord"}]}, {}).reason == "not_taking_calls"


def test_delivery_that_says_nothing_is_an_alarm_but_calls_are_taken() -> None:
    standing = judge({"taking_calls": True}, None)
    assert (standing.status, standing.taking_calls) == ("alarm", True)


def test_nonsense_counts_as_not_said() -> None:
    line: dict[str, object] = {
        "taking_calls": "yes",
        "alarms": ["x", {"code": 1, "text": None}] * 100,
        "calls": "many",
        "metrics": {"ok": 1, 5: 2, "no spaces": 3, "text": "4"} | {f"m{number}": number for number in range(1000)},
        "sip_address": ["x"],
        "lines": ["x", {"kind": "trunk", "name": 5, "calls": 1, "last_call_unix_ms": 0}, {}],
        "accounts": ["x", {"state": "registered"}, {"name": "a b"}, {"name": "home", "state": 1}],
    }
    standing = judge(line, {})
    assert not standing.taking_calls
    assert len(standing.alarms) == MAX_ALARMS
    assert len(standing.line_metrics) == MAX_METRICS
    assert (standing.calls, standing.sip_address, standing.lines) == (0, "", ())
    assert standing.accounts == (("home", False),)


def test_lines_are_told_with_their_use() -> None:
    said = [{"kind": "trunk", "name": "pbx", "calls": 2, "last_call_unix_ms": 7}]
    assert judge({"lines": said}, {}).lines == (LineUse("trunk", "pbx", 2, 7),)


def test_accounts_by_name_and_whether_they_are_registered() -> None:
    said = [{"name": "home", "state": "registered"}, {"name": "pbx", "state": "failing"}]
    assert judge({"taking_calls": True, "accounts": said}, {}).accounts == (("home", True), ("pbx", False))
    assert judge(None, {}).accounts == ()


def test_the_mark_changes_with_what_is_shown_only() -> None:
    quiet = judge({"taking_calls": True, "calls": 1}, {})
    assert quiet.mark == judge({"taking_calls": True, "calls": 2}, {}).mark
    assert quiet.mark != judge({"taking_calls": True, "alarms": [{"code": "a", "text": "b"}]}, {}).mark
