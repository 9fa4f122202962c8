"""aftertone.sip.digest_server: who is believed, who is asked again, who is refused."""

from __future__ import annotations

import pytest

import aftertone.sip.digest_server as module
from aftertone.sip.digest import digest_response, parse_challenges
from aftertone.sip.digest_client import DigestClient
from aftertone.sip.digest_server import Checked, DigestServer, Verdict
from aftertone.sip.message import Request, Response
from tests.unit.sip.kit import S, seeded

URI = "sip:us.example"
SECRETS = {"ann": "sesame", "nobody": ""}


def server() -> DigestServer:
    return DigestServer("home", b"k" * 16)


def check(subject: DigestServer, value: str, now_ns: int = 0, *, method: str = "REGISTER") -> Checked:
    headers = {"authorization": [value]} if value else {}
    return subject.verify(Request(method, URI, headers), SECRETS.get, now_ns)


def answer(subject: DigestServer, now_ns: int = 0, *, user: str = "ann", password: str = "sesame") -> str:
    """Return the first answer of a client to a fresh challenge."""
    client = DigestClient(user, password, seeded())
    client.challenged(Response(401, "X", {"www-authenticate": list(subject.challenges(now_ns))}))
    return client.authorize("REGISTER", URI)[0][1]


def test_the_challenges_offer_a_strong_algorithm_and_the_common_one() -> None:
    found = parse_challenges(server().challenges(0, stale=True))
    assert [(one.algorithm, one.qop, one.stale) for one in found] == [("SHA-256", "auth", True), ("MD5", "auth", True)]
    assert len({one.nonce for one in found} | {one.nonce for one in parse_challenges(server().challenges(0))}) == 2


def test_right_wrong_and_nobody() -> None:
    subject = server()
    assert check(subject, "") == Checked(Verdict.ABSENT)
    assert check(subject, 'Digest realm="elsewhere", username="ann"') == Checked(Verdict.ABSENT)
    assert check(subject, answer(subject)) == Checked(Verdict.OK, "ann")
    assert check(subject, answer(subject, password="other")) == Checked(Verdict.WRONG, "ann")
    assert check(subject, answer(subject, user="eve")) == Checked(Verdict.WRONG, "eve")
    assert check(subject, answer(subject), method="INVITE") == Checked(Verdict.WRONG, "ann")


def test_an_empty_secret_opens_nothing() -> None:
    subject = server()
    assert check(subject, answer(subject, user="nobody", password="")).verdict is Verdict.WRONG


def test_an_answer_serves_once() -> None:
    subject = server()
    value = answer(subject)
    assert check(subject, value).verdict is Verdict.OK
    assert check(subject, value).verdict is Verdict.STALE


def test_an_answer_without_a_count_serves_once_too() -> None:
    subject = server()
    [_, md5] = parse_challenges(subject.challenges(0))
    response = digest_response(
        algorithm="MD5", user="ann", realm="home", password="sesame", method="REGISTER", uri=URI, nonce=md5.nonce
    )
    value = f'Digest username="ann", realm="home", nonce="{md5.nonce}", uri="{URI}", response="{response.upper()}"'
    assert [check(subject, value).verdict for _ in range(2)] == [Verdict.OK, Verdict.STALE]


def test_a_nonce_expires() -> None:
    subject = server()
    value = answer(subject, 7 * S)
    assert check(subject, value, 307 * S).verdict is Verdict.STALE
    assert check(subject, value, 306 * S).verdict is Verdict.OK


def test_a_nonce_of_another_process_or_of_the_future_is_stale() -> None:
    subject = server()
    assert check(subject, answer(DigestServer("home", b"x" * 16))).verdict is Verdict.STALE
    assert check(subject, answer(subject, 5 * S), 4 * S).verdict is Verdict.STALE


@pytest.mark.parametrize(
    ("old", "new"),
    [
        ("algorithm=SHA-256", "algorithm=SHA-512-256"),
        ("algorithm=SHA-256", "algorithm=none"),
        ("nc=00000001", "nc=1"),
        ("nc=00000001", "nc=0000000\u0661"),
        ("qop=auth", "qop=auth-int"),
        ("cnonce=", "other="),
        ("username=", "other="),
        ("response=", "other="),
        ("uri=", "other="),
        ('realm="home"', 'realm="home'),
    ],
)
def test_what_answers_no_challenge_of_ours_is_malformed(old: str, new: str) -> None:
    subject = server()
    value = answer(subject)
    assert old in value
    assert check(subject, value.replace(old, new)).verdict is Verdict.MALFORMED


def test_the_table_is_bounded_and_forgetting_allows_no_replay(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "MAX_USED", 8)
    subject, taken = server(), []
    for second in range(40):
        taken.append(answer(subject, second * S))
        assert check(subject, taken[-1], second * S).verdict is Verdict.OK
    assert len(subject._used) <= 8
    assert {check(subject, value, 40 * S).verdict for value in taken} == {Verdict.STALE}


def test_an_odd_seal_or_response_is_no_exception() -> None:
    subject = server()
    value = answer(subject)
    nonce = parse_challenges([value.replace("uri", "x")])[0].nonce
    assert check(subject, value.replace(nonce, "\udcff" * 56)).verdict is Verdict.STALE
    odd = f'Digest username="ann", realm="home", nonce="{nonce}", uri="", response="\u00e9"'
    assert check(subject, odd.replace("uri", "algorithm=SHA-256, uri")).verdict is Verdict.WRONG


def test_a_challenge_is_for_one_source() -> None:
    subject = server()
    client = DigestClient("ann", "sesame", seeded())
    challenges = list(subject.challenges(0, source="192.0.2.1"))
    client.challenged(Response(401, "X", {"www-authenticate": challenges}))
    asked = Request("REGISTER", URI, {"authorization": [client.authorize("REGISTER", URI)[0][1]]})
    for other in ("192.0.2.2", ""):
        assert subject.verify(asked, SECRETS.get, 0, source=other).verdict is Verdict.STALE
    assert subject.verify(asked, SECRETS.get, 0, source="192.0.2.1").verdict is Verdict.OK


def test_a_password_is_not_looked_at_for_a_nonce_that_is_not_ours() -> None:
    subject = server()
    guess = answer(DigestServer("home", b"x" * 16), password="guess")
    asked = Request("REGISTER", URI, {"authorization": [guess]})

    def secret_of(_: str) -> str | None:
        raise AssertionError("nothing is to be learned by guessing without a challenge of ours")

    assert subject.verify(asked, secret_of, 0).verdict is Verdict.STALE
