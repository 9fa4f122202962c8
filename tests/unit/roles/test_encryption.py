"""aftertone.roles.encryption: where the line's certificate comes from, and what an operator hears."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
from cryptography import x509

from aftertone.config.sip import Sip
from aftertone.errors import ConfigError
from aftertone.roles.encryption import Encryption
from tests.support.certificates import Authority


class Log:
    """Remembers what was said, and how loudly."""

    def __init__(self) -> None:
        self.said: list[tuple[str, str]] = []

    def info(self, event: str, **_: object) -> None:
        self.said.append(("info", event))

    def error(self, event: str, **_: object) -> None:
        self.said.append(("error", event))


def encryption(tmp_path: Path, **sip: Any) -> tuple[Encryption, Log]:
    log = Log()
    return Encryption(Sip.model_validate({"tls": True, **sip}), tmp_path, log), log


def shows(made: Encryption) -> bool:
    return made.tls.server is not None


def test_without_tls_nothing_is_made(tmp_path: Path) -> None:
    made, log = encryption(tmp_path, tls=False)
    made.look()
    assert (made.tls.server, made.alarm(datetime.now(UTC)), log.said) == (None, "", [])
    assert list(tmp_path.iterdir()) == []


def test_a_machine_makes_its_own_certificate_for_its_addresses(tmp_path: Path) -> None:
    made, log = encryption(tmp_path, host="127.0.0.2, ::1", public_address="192.0.2.1")
    assert made.tls.server is not None
    assert made.alarm(datetime.now(UTC)) == ""
    found = x509.load_pem_x509_certificate((tmp_path / "tls" / "certificate.pem").read_bytes())
    names = found.extensions.get_extension_for_class(x509.SubjectAlternativeName).value
    addresses = [str(address) for address in names.get_values_for_type(x509.IPAddress)]
    assert addresses == ["127.0.0.2", "::1", "192.0.2.1"]
    again, _ = encryption(tmp_path, host="127.0.0.2")
    assert x509.load_pem_x509_certificate((tmp_path / "tls" / "certificate.pem").read_bytes()) == found
    assert again.tls.server is not None
    assert log.said == []


def test_a_disk_that_takes_nothing_is_an_alarm_until_it_does(tmp_path: Path) -> None:
    (tmp_path / "tls").write_text("in the way")
    made, log = encryption(tmp_path)
    made.look()
    assert not shows(made)
    assert "no certificate can be made" in made.alarm(None)
    assert "TLS connections are refused" in made.alarm(None)
    (tmp_path / "tls").unlink()
    made.look()
    assert shows(made)
    assert made.alarm(datetime.now(UTC)) == ""
    assert log.said == [
        ("error", "the certificate for TLS cannot be used"),
        ("info", "the certificate for TLS is in use"),
    ]


def test_a_certificate_that_is_given_is_watched(tmp_path: Path) -> None:
    authority = Authority(tmp_path)
    certificate, key = authority.issue("pbx", ["pbx.example.org"])
    made, log = encryption(tmp_path, tls_certificate=str(certificate), tls_key=str(key))
    assert not (tmp_path / "tls").exists()
    good = certificate.read_bytes()
    certificate.write_text("garbage")
    for _ in range(3):
        made.look()
    assert "the one before it is shown" in made.alarm(None)
    certificate.write_bytes(good)
    made.look()
    assert made.alarm(datetime.now(UTC)) == ""
    assert [level for level, _ in log.said] == ["error", "info"]


def test_a_certificate_that_ends_soon_is_an_alarm_if_the_clock_is_believed(tmp_path: Path) -> None:
    certificate, key = Authority(tmp_path).issue("pbx", ["pbx.example.org"], days=20)
    made, _ = encryption(tmp_path, tls_certificate=str(certificate), tls_key=str(key))
    now = datetime.now(UTC)
    assert made.alarm(now) == ""
    assert "ends on" in made.alarm(now + timedelta(days=11))
    assert made.alarm(None) == ""


def test_authorities_that_are_not_there_stop_the_start(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="tls_authorities"):
        encryption(tmp_path, tls_authorities=str(tmp_path / "none.pem"))
