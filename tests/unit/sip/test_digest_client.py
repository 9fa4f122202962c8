"""aftertone.sip.digest_client: answering challenges, and knowing when to stop."""

from __future__ import annotations

import pytest

from aftertone.sip.builder import Fields
from aftertone.sip.digest import parse_elements
from aftertone.sip.digest_client import DigestClient, NoChallengeError, StaleError, WrongSecretError
from aftertone.sip.digest_server import DigestServer, Verdict
from aftertone.sip.message import Request, Response
from tests.unit.sip.kit import S, seeded

URI = "sip:registrar.example"


def client(password: str = "sesame") -> DigestClient:
    return DigestClient("ann", password, seeded())


def asked(*values: str, status: int = 401) -> Response:
    name = "www-authenticate" if status == 401 else "proxy-authenticate"
    return Response(status, "X", {name: list(values)})


def params(fields: Fields) -> dict[str, str]:
    """Return the parameters of the only field."""
    [(_, value)] = fields
    return parse_elements(value)[0][1]


def checked(server: DigestServer, fields: Fields, now_ns: int = 0, method: str = "REGISTER") -> Verdict:
    headers = {name.lower(): [value] for name, value in fields}
    return server.verify(Request(method, URI, headers), {"ann": "sesame"}.get, now_ns).verdict


def test_nothing_is_said_before_somebody_asks() -> None:
    assert client().authorize("REGISTER", URI) == ()


def test_a_server_of_ours_takes_each_answer_once() -> None:
    server, subject = DigestServer("home", b"k" * 16), client()
    subject.challenged(asked(*server.challenges(0)))
    first, second = subject.authorize("REGISTER", URI), subject.authorize("REGISTER", URI)
    assert [params(fields)["nc"] for fields in (first, second)] == ["00000001", "00000002"]
    assert params(first)["algorithm"] == "SHA-256"
    assert checked(server, first) is Verdict.OK
    assert checked(server, second) is Verdict.OK


def test_the_strongest_algorithm_is_taken_wherever_it_stands() -> None:
    subject = client()
    subject.challenged(
        asked(
            'Digest realm="a", nonce="1", algorithm=MD5',
            'Digest realm="a", nonce="2", algorithm=SHA-512-256, qop="auth"',
            'Digest realm="a", nonce="3", algorithm=SHA-256, qop="auth"',
        )
    )
    assert params(subject.authorize("REGISTER", URI))["nonce"] == "2"


def test_an_old_server_gets_no_more_than_it_knows() -> None:
    subject = client()
    subject.challenged(asked('Digest realm="a", nonce="1"'))
    assert set(params(subject.authorize("REGISTER", URI))) == {"username", "realm", "nonce", "uri", "response"}


def test_values_are_quoted_as_old_servers_insist() -> None:
    subject = DigestClient('an"n', "x", seeded())
    subject.challenged(
        asked('Digest realm="a\\\\b", nonce="1", algorithm=MD5, qop="auth-int", opaque="", userhash=false')
    )
    [(name, value)] = subject.authorize("REGISTER", URI, b"body")
    assert name == "Authorization"
    assert value.startswith(
        'Digest username="an\\"n", realm="a\\\\b", nonce="1", uri="sip:registrar.example", response="'
    )
    assert ', algorithm=MD5, cnonce="' in value
    assert value.endswith(', qop=auth-int, nc=00000001, opaque=""')


def test_auth_int_covers_the_body() -> None:
    subject = client()
    subject.challenged(asked('Digest realm="a", nonce="1", qop="auth-int"'))
    first = params(subject.authorize("MESSAGE", URI, b"one"))
    subject = client()
    subject.challenged(asked('Digest realm="a", nonce="1", qop="auth-int"'))
    assert params(subject.authorize("MESSAGE", URI, b"two"))["response"] != first["response"]


def test_a_hidden_user_name() -> None:
    subject = client()
    subject.challenged(asked('Digest realm="a", nonce="1", algorithm=SHA-256, qop="auth", userhash=true'))
    found = params(subject.authorize("REGISTER", URI))
    assert (len(found["username"]), found["userhash"]) == (64, "true")


def test_registrar_and_proxy_are_both_answered() -> None:
    subject = client()
    subject.challenged(asked('Digest realm="p", nonce="1"', status=407))
    subject.challenged(asked('Digest realm="r", nonce="2"'), subject.authorize("REGISTER", URI))
    assert [name for name, _ in subject.authorize("REGISTER", URI)] == ["Proxy-Authorization", "Authorization"]


@pytest.mark.parametrize("nonce", ["1", "2"])
def test_a_refused_answer_is_a_wrong_secret_and_never_a_loop(nonce: str) -> None:
    subject = client()
    subject.challenged(asked('Digest realm="a", nonce="1", qop="auth"'))
    sent = subject.authorize("REGISTER", URI)
    with pytest.raises(WrongSecretError, match="user name or password"):
        subject.challenged(asked(f'Digest realm="a", nonce="{nonce}", qop="auth"'), sent)
    assert subject.authorize("REGISTER", URI) == (), "nothing is guessed next time"


def test_a_nonce_that_served_before_may_be_replaced_without_being_called_stale() -> None:
    subject = client()
    subject.challenged(asked('Digest realm="a", nonce="1", qop="auth"'))
    subject.authorize("REGISTER", URI)
    subject.accepted()
    sent = subject.authorize("REGISTER", URI)
    subject.challenged(asked('Digest realm="a", nonce="2", qop="auth"'), sent)
    assert params(subject.authorize("REGISTER", URI))["nc"] == "00000001"


def test_a_stale_nonce_is_replaced_but_not_for_ever() -> None:
    subject = client()
    subject.challenged(asked('Digest realm="a", nonce="0"'))
    for number in range(1, 4):
        subject.challenged(asked(f'Digest realm="a", nonce="{number}", stale=true'), subject.authorize("REGISTER", URI))
    with pytest.raises(StaleError, match="stale"):
        subject.challenged(asked('Digest realm="a", nonce="9", stale=true'), subject.authorize("REGISTER", URI))


def test_success_forgives_the_stale_ones() -> None:
    subject = client()
    subject.challenged(asked('Digest realm="a", nonce="0"'))
    for number in range(1, 9):
        subject.challenged(asked(f'Digest realm="a", nonce="{number}", stale=true'), subject.authorize("REGISTER", URI))
        subject.accepted()
    assert params(subject.authorize("REGISTER", URI))["nonce"] == "8"


def test_two_requests_that_were_asked_at_once_do_not_accuse_each_other() -> None:
    subject = client()
    one, other = subject.authorize("REGISTER", URI), subject.authorize("OPTIONS", URI)
    subject.challenged(asked('Digest realm="a", nonce="1"'), one)
    subject.authorize("REGISTER", URI)
    subject.challenged(asked('Digest realm="a", nonce="2"'), other)
    assert params(subject.authorize("OPTIONS", URI))["nonce"] == "2"


@pytest.mark.parametrize("response", [asked(), asked("Basic x=y"), asked('Digest realm="a", nonce="1"', status=401)])
def test_a_login_of_another_kind_is_told(response: Response) -> None:
    response = Response(407, "X", response.headers)
    with pytest.raises(NoChallengeError, match="of a kind that we do not know"):
        client().challenged(response)


def test_realms_are_bounded() -> None:
    subject = client()
    for number in range(40):
        subject.challenged(asked(f'Digest realm="{number}", nonce="1"'))
    assert len(subject.authorize("REGISTER", URI)) == 4


def test_a_secret_is_not_shown() -> None:
    subject, server = client(), DigestServer("a", b"secret of sixteen")
    subject.challenged(asked(*server.challenges(S)))
    assert "sesame" not in repr(subject) + repr(vars(server))
    assert "ann" not in repr(subject)
