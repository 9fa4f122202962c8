"""Probes, health and metrics."""

from __future__ import annotations

import pytest
from prometheus_client.parser import text_string_to_metric_families

from tests.unit.web.visitor import Visitor
from tests.unit.web.world import BEARER, NOW_MS, World


def test_the_probe_is_200_only_while_calls_are_taken(world: World, stranger: Visitor) -> None:
    answer = stranger.get("/healthz")
    assert (answer.status_code, answer.text) == (200, "ok\n")
    world.line = {"taking_calls": False, "alarms": [{"code": "disk_full", "text": "The disk is full."}]}
    answer = stranger.get("/healthz")
    assert (answer.status_code, answer.text) == (503, "disk_full\n")
    world.line = None
    answer = stranger.get("/healthz")
    assert (answer.status_code, answer.text) == (503, "line_down\n")
    assert stranger.head("/healthz").status_code == 503
    assert stranger.get("/livez").status_code == 200


def test_health_tells_of_roles_and_alarms(world: World, api: Visitor) -> None:
    answer = api.get("/api/v1/health").json()
    assert (answer["status"], answer["taking_calls"], answer["alarms"]) == ("ok", True, [])
    assert answer["line"] == {"up": True, "calls": 2}
    assert answer["accounts"] == [{"name": "home", "registered": True}]
    assert answer["sip_address"] == "sip:main@192.168.1.20"
    world.catalog.set_greeting("main", "greetings/gone.flac", "0" * 64)
    world.delivery = None
    answer = api.get("/api/v1/health").json()
    assert answer["status"] == "alarm"
    assert [alarm["code"] for alarm in answer["alarms"]] == ["delivery_down", "greeting_missing"]


def test_health_is_not_for_strangers(stranger: Visitor) -> None:
    assert stranger.get("/api/v1/health").status_code == 401


@pytest.mark.parametrize("path", ["/metrics", "/api/v1/metrics"])
def test_metrics_are_read_by_prometheus(world: World, api: Visitor, path: str) -> None:
    world.deliver(minutes_ago=90)
    world.deliver(minutes_ago=10)
    answer = api.get(path)
    assert answer.headers["content-type"].startswith("text/plain; version=0.0.4")
    samples = {
        (sample.name, *sorted(sample.labels.values())): sample.value
        for family in text_string_to_metric_families(answer.text)
        for sample in family.samples
    }
    assert samples["aftertone_role_up", "line"] == 1
    assert samples["aftertone_taking_calls",] == 1
    assert samples["aftertone_messages", "main", "new"] == 2
    assert samples["aftertone_oldest_unheard_age_seconds",] == 90 * 60
    assert samples["aftertone_line_packets_received_total",] == 1200
    assert samples["aftertone_line_tick_seconds_max",] == 0.004
    assert samples["aftertone_sip_account_registered", "home"] == 1
    assert samples["aftertone_sip_refused_total", "calls"] == 12
    assert not [name for name, *_ in samples if "bad" in name]


def test_metrics_without_messages_or_line(world: World, api: Visitor) -> None:
    world.line = None
    world.now_ms = NOW_MS
    text = api.get("/metrics").text
    assert 'aftertone_role_up{role="line"} 0.0' in text
    assert "aftertone_oldest_unheard_age_seconds 0.0" in text


def test_metrics_are_open_to_this_machine_only(world: World) -> None:
    app = world.app()
    with world.client(app, host="127.0.0.1") as inside, world.client(app, host="::1") as inside6:
        assert inside.get("/metrics").status_code == 200
        assert inside6.get("/metrics").status_code == 200
        assert inside.get("/metrics", headers={"X-Forwarded-For": "203.0.113.9"}).status_code == 401
        assert inside.get("/metrics", headers={"Forwarded": "for=203.0.113.9"}).status_code == 401
    with world.client(app, host="192.168.1.9") as outside:
        assert outside.get("/metrics").status_code == 401
        assert outside.get("/metrics", headers=BEARER).status_code == 200


def test_the_description_of_the_api_is_complete(stranger: Visitor) -> None:
    description = stranger.get("/api/v1/openapi.json").json()
    assert description["openapi"].startswith("3.1")
    operations = [
        (path, method) for path, methods in description["paths"].items() for method in methods if method != "parameters"
    ]
    assert ("/api/v1/messages/{message_id}/audio", "get") in operations
    assert ("/api/v1/mailboxes/{name}/greeting", "put") in operations
    assert not [path for path, _ in operations if not path.startswith("/api/v1/")]
    for path, method in operations:
        assert description["paths"][path][method]["description"], path
    for path in ("/docs", "/redoc"):
        assert stranger.get(path).status_code == 404
