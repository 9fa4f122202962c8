"""aftertone.net.certificate: what a machine makes for itself."""

from __future__ import annotations

import ssl
from pathlib import Path

import pytest
from cryptography import x509

from aftertone.errors import StorageError
from aftertone.files import OsFiles
from aftertone.net.certificate import own_certificate
from aftertone.net.tls import Tls, client_context


def names_of(path: Path) -> set[str]:
    found = x509.load_pem_x509_certificate(path.read_bytes()).extensions.get_extension_for_class(
        x509.SubjectAlternativeName
    )
    return {str(name.value) for name in found.value}


def test_a_certificate_is_made_once_and_kept(tmp_path: Path) -> None:
    folder = tmp_path / "tls"
    certificate, key = own_certificate(
        OsFiles(), folder, ["phone", "192.0.2.1", "2001:db8::1", "fe80::1%eth0", "phone"]
    )
    assert names_of(certificate) == {"phone", "192.0.2.1", "2001:db8::1", "fe80::1", "localhost"}
    assert [path.stat().st_mode & 0o777 for path in (folder, key, certificate)] == [0o700, 0o600, 0o600]
    before = certificate.read_bytes(), key.read_bytes()
    own_certificate(OsFiles(), folder, ["other"])
    assert (certificate.read_bytes(), key.read_bytes()) == before
    assert Tls(certificate, key).fault == ""
    client_context(certificate, verify=True)


def test_a_lost_certificate_is_made_from_the_key_that_is_there(tmp_path: Path) -> None:
    certificate, key = own_certificate(OsFiles(), tmp_path, ["one"])
    kept = key.read_bytes()
    certificate.unlink()
    own_certificate(OsFiles(), tmp_path, ["two"])
    assert key.read_bytes() == kept
    assert "two" in names_of(certificate)
    key.unlink()
    own_certificate(OsFiles(), tmp_path, ["three"])
    assert "three" in names_of(certificate)
    assert Tls(certificate, key).server is not None


def test_a_key_that_is_none_and_a_disk_that_refuses_are_said(tmp_path: Path) -> None:
    (tmp_path / "key.pem").write_text("no key")
    with pytest.raises(StorageError, match="no certificate can be made"):
        own_certificate(OsFiles(), tmp_path, ["one"])
    (tmp_path / "file").write_text("")
    with pytest.raises(StorageError, match="see to the disk"):
        own_certificate(OsFiles(), tmp_path / "file" / "tls", ["one"])


def test_a_phone_that_trusts_the_file_believes_the_machine(tmp_path: Path) -> None:
    certificate, key = own_certificate(OsFiles(), tmp_path, ["phone.example.org"])
    server = Tls(certificate, key).server
    assert server is not None
    phone = ssl.create_default_context(cafile=str(certificate))
    to_server, to_phone = ssl.MemoryBIO(), ssl.MemoryBIO()
    there = phone.wrap_bio(to_phone, to_server, server_hostname="phone.example.org")
    here = server.wrap_bio(to_server, to_phone, server_side=True)
    for side in (there, here, there, here):
        try:
            side.do_handshake()
        except ssl.SSLWantReadError:
            continue
    assert there.version() == "TLSv1.3"
