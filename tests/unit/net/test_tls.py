"""aftertone.net.tls: renewal, and which names a certificate stands for."""

from __future__ import annotations

import ssl
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from aftertone.errors import ConfigError
from aftertone.net.tls import Tls, local_names, stands_for
from tests.support.certificates import Authority


def certificate(*names: tuple[str, str]) -> dict[str, object]:
    return {"subject": ((("commonName", "cn.example.org"),),), "subjectAltName": names}


@pytest.mark.parametrize(
    ("names", "host", "stands"),
    [
        ([("DNS", "pbx.example.org")], "pbx.example.org", True),
        ([("DNS", "PBX.example.org.")], "pbx.EXAMPLE.org", True),
        ([("DNS", "pbx.example.org")], "example.org", False),
        ([("DNS", "example.org")], "pbx.example.org", False),
        ([("DNS", "*.example.org")], "pbx.example.org", True),
        ([("DNS", "*.example.org")], "a.pbx.example.org", False),
        ([("DNS", "*.example.org")], "example.org", False),
        ([("DNS", "*.org")], "example.org", False),
        ([("DNS", "p*.example.org")], "pbx.example.org", False),
        ([("DNS", "*")], "localhost", False),
        ([("URI", "sip:example.org")], "example.org", True),
        ([("URI", "SIP:Example.org;transport=tls")], "example.org", True),
        ([("URI", "sip:example.org"), ("DNS", "other.example.org")], "other.example.org", False),
        ([("URI", "sip:bob@example.org"), ("DNS", "example.org")], "example.org", True),
        ([("URI", "sip:bob@example.org")], "example.org", False),
        ([("URI", "https://example.org")], "example.org", False),
        ([("IP Address", "192.0.2.1")], "192.0.2.1", True),
        ([("IP Address", "2001:DB8:0:0:0:0:0:1")], "2001:db8::1", True),
        ([("IP Address", "2001:db8::1")], "[2001:db8::1]", True),
        ([("DNS", "192.0.2.1")], "192.0.2.1", False),
        ([("IP Address", "192.0.2.1"), ("DNS", "a.example")], "192.0.2.2", False),
        ([("IP Address", "nonsense")], "192.0.2.2", False),
        ([], "cn.example.org", False),
        ([("DNS", "")], "", False),
    ],
)
def test_which_names_a_certificate_stands_for(names: list[tuple[str, str]], host: str, stands: bool) -> None:
    assert stands_for(certificate(*names), host) is stands


LABELS = st.lists(st.text("ab*", min_size=1, max_size=2), min_size=1, max_size=4).map(".".join)


@given(names=st.lists(st.tuples(st.sampled_from(["DNS", "URI", "IP Address"]), LABELS), max_size=4), host=LABELS)
def test_only_a_name_that_is_there_counts(names: list[tuple[str, str]], host: str) -> None:
    if stands_for(certificate(*names), host):
        wild = "*." + host.partition(".")[2]
        assert {value for kind, value in names if kind == "DNS"} & {host, wild}


def test_who_must_prove_nothing_and_who_must(tmp_path: Path) -> None:
    assert Tls(verify=False).accepts(None, "anybody")
    assert not Tls().accepts(None, "anybody")
    assert not Tls().accepts({}, "anybody")
    assert Tls().accepts(certificate(("DNS", "a.example.org")), "a.example.org")


def test_a_renewal_is_taken_into_use(tmp_path: Path) -> None:
    authority = Authority(tmp_path)
    tls = Tls(*authority.issue("pbx", ["one.example.org"], days=5))
    first, ends = tls.server, tls.ends
    assert not tls.look()
    authority.issue("pbx", ["two.example.org"], days=90)
    assert tls.look()
    assert tls.server is not first
    assert tls.ends is not None
    assert ends is not None
    assert tls.ends > ends
    assert not tls.look()


def test_half_a_renewal_is_waited_for(tmp_path: Path) -> None:
    authority = Authority(tmp_path)
    paths = authority.issue("pbx", ["one.example.org"])
    tls = Tls(*paths)
    first = tls.server
    new = [path.read_bytes() for path in authority.issue("new", ["one.example.org"])]
    paths[0].write_bytes(new[0])
    assert not tls.look()
    assert (tls.fault, tls.server) == ("", first)
    paths[1].write_bytes(new[1])
    assert tls.look()
    assert tls.fault == ""


def test_a_broken_renewal_keeps_the_old_one_and_says_so_until_it_is_mended(tmp_path: Path) -> None:
    authority = Authority(tmp_path)
    paths = authority.issue("pbx", ["one.example.org"])
    tls = Tls(*paths)
    first, good = tls.server, paths[0].read_bytes()
    paths[0].write_text("garbage")
    for _ in range(3):
        assert not tls.look()
    assert "cannot be used for TLS" in tls.fault
    assert str(paths[0]) in tls.fault
    assert tls.server is first
    paths[0].unlink()
    tls.look()
    tls.look()
    assert "No such file" in tls.fault
    paths[0].write_bytes(good)
    assert tls.look()
    assert tls.fault == ""


@pytest.mark.parametrize("what", ["missing", "garbage", "encrypted"])
def test_what_is_wrong_from_the_start_is_said_and_tried_again(tmp_path: Path, what: str) -> None:
    authority = Authority(tmp_path)
    paths = authority.issue("pbx", ["a.example.org"], password=b"secret" if what == "encrypted" else b"")
    if what == "missing":
        paths[1].unlink()
    elif what == "garbage":
        paths[1].write_text("garbage")
    tls = Tls(*paths)
    assert tls.server is None
    assert "cannot be used for TLS" in tls.fault
    assert ("encrypted" in tls.fault) is (what == "encrypted")
    authority.issue("pbx", ["a.example.org"])
    assert tls.look()
    assert tls.server is not None


def test_authorities_that_cannot_be_read_are_a_setting_that_is_wrong(tmp_path: Path) -> None:
    for path in (tmp_path / "none.pem", tmp_path / "garbage.pem"):
        if path.name == "garbage.pem":
            path.write_text("garbage")
        with pytest.raises(ConfigError, match=r"sip\.tls_authorities"):
            Tls(authorities=path)


def test_old_versions_are_not_spoken(tmp_path: Path) -> None:
    tls = Tls(*Authority(tmp_path).issue("pbx", ["a.example.org"]))
    assert tls.server is not None
    for context in (tls.server, tls.client):
        assert context.minimum_version is ssl.TLSVersion.TLSv1_2


def test_the_names_of_a_certificate_of_our_own() -> None:
    assert local_names(["0.0.0.0", "192.0.2.1", "::", "192.0.2.1"], "phone") == ["phone", "192.0.2.1"]
