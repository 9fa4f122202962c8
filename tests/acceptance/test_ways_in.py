"""Calls by every transport and address family, on a machine as its user starts it."""

from __future__ import annotations

import ssl
from dataclasses import replace
from pathlib import Path

from tests.support.callers import Party, wish
from tests.support.certificates import Authority
from tests.support.machine import free_port, machine, speech_file, wait_until


def test_a_call_by_every_way_ends_as_a_message(tmp_path: Path) -> None:
    """UDP, TCP, TLS and sips, over IPv4 and IPv6, with the certificate that the machine made for itself."""
    port, tls_port = free_port(), free_port()
    settings = {"SIP__HOST": "127.0.0.1, ::1", "SIP__PORT": str(port), "SIP__TLS_PORT": str(tls_port)}
    with machine(tmp_path / "var", SIP__TLS="true", **settings) as made:
        made.run("mailbox", "greeting", "set", "main", str(speech_file(tmp_path / "greeting.wav", 0.3)))
        trusted = made.data / "tls" / "certificate.pem"
        assert (made.data / "tls" / "key.pem").stat().st_mode & 0o777 == 0o600
        ways = [
            way
            for host in ("127.0.0.1", "[::1]")
            for way in (
                f"sip:main@{host}:{port}",
                f"sip:main@{host}:{port};transport=tcp",
                f"sip:main@{host}:{tls_port};transport=tls",
                f"sips:main@{host}:{tls_port}",
            )
        ]
        wishes = [replace(wish(uri, f"way-{n}", 1.0), authorities=trusted) for n, uri in enumerate(ways)]
        with Party(wishes) as party:
            assert [(o.bye_status, o.failure) for o in party.outcomes()] == [(200, "")] * len(ways)
        rows = made.wait_for_messages(len(ways))
        assert {row["caller"]["number"] for row in rows} == {f"way-{n}" for n in range(len(ways))}
        assert {row["audio_ms"] for row in rows} == {1000}


def test_the_command_calls_over_tls_and_believes_nobody_unasked(tmp_path: Path) -> None:
    tls_port = free_port()
    with machine(tmp_path / "var", SIP__TLS="true", SIP__TLS_PORT=str(tls_port)) as made:
        uri, speech = f"sips:main@127.0.0.1:{tls_port}", str(speech_file(tmp_path / "some.wav", 1.0))
        made.run("mailbox", "greeting", "set", "main", str(speech_file(tmp_path / "greeting.wav", 0.3)))
        refused = made.run("call", uri, "--play", speech, check=False)
        assert refused.returncode == 1
        assert "is not trusted" in refused.stdout
        assert made.messages() == []
        trusted = str(made.data / "tls" / "certificate.pem")
        assert "hung up" in made.run("call", uri, "--play", speech, "--authorities", trusted).stdout
        assert "hung up" in made.run("call", uri, "--play", speech, "--insecure").stdout
        made.wait_for_messages(2)


def test_a_certificate_is_renewed_under_a_machine_that_runs(tmp_path: Path) -> None:
    authority, tls_port = Authority(tmp_path), free_port()
    certificate, key = authority.issue("pbx", ["127.0.0.1"])

    def shown() -> str:
        return ssl.get_server_certificate(("127.0.0.1", tls_port))

    settings = {"SIP__TLS_CERTIFICATE": str(certificate), "SIP__TLS_KEY": str(key), "SIP__TLS_PORT": str(tls_port)}
    with machine(tmp_path / "var", SIP__TLS="true", **settings) as made:
        first = shown()
        assert first.strip() == certificate.read_text().strip()
        good = certificate.read_bytes()
        certificate.write_text("broken")

        def alarms() -> list[str]:
            with made.client() as desk:
                return [alarm["code"] for alarm in desk.get("/health").json()["alarms"]]

        wait_until(lambda: "tls" in alarms(), "the alarm of a broken certificate")
        assert shown() == first
        certificate.write_bytes(good)
        wait_until(lambda: "tls" not in alarms(), "the end of the alarm")
        authority.issue("pbx", ["127.0.0.1"])
        wait_until(lambda: shown() != first, "the new certificate")
