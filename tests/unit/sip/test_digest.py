"""aftertone.sip.digest: challenges and the arithmetic of their answers."""

from __future__ import annotations

import time

import pytest
from hypothesis import given
from hypothesis import strategies as st

from aftertone.sip.digest import digest_response, hashed_user, known_algorithm, parse_challenges, parse_elements
from aftertone.sip.faults import ParseError

BOB_BODY = (
    b"v=0\r\no=bob 2890844526 2890844526 IN IP4 media.biloxi.com\r\ns=-\r\nc=IN IP4 media.biloxi.com\r\nt=0 0\r\n"
    b"m=audio 49170 RTP/AVP 0\r\na=rtpmap:0 PCMU/8000\r\nm=video 51372 RTP/AVP 31\r\na=rtpmap:31 H261/90000\r\n"
    b"m=video 53000 RTP/AVP 32\r\na=rtpmap:32 MPV/90000\r\n"
)


@pytest.mark.parametrize(
    ("algorithm", "qop", "expected"),
    [
        ("MD5", "", "bf57e4e0d0bffc0fbaedce64d59add5e"),
        ("MD5", "auth", "89eb0059246c02b2f6ee02c7961d5ea3"),
        ("MD5", "auth-int", "bdbeebb2da6adb6bca02599c2239e192"),
        ("MD5-sess", "auth", "e4e4ea61d186d07a92c9e1f6919902e9"),
        ("MD5-sess", "auth-int", "91984da2d8663716e91554859c22ca70"),
    ],
)
def test_the_examples_of_the_sip_working_group(algorithm: str, qop: str, expected: str) -> None:
    # draft-smith-sipping-auth-examples-01, sections 3.1 to 3.6
    answer = digest_response(
        algorithm=algorithm,
        user="bob",
        realm="biloxi.com",
        password="zanzibar",
        method="INVITE",
        uri="sip:bob@biloxi.com",
        nonce="dcd98b7102dd2f0e8b11d0f600bfb0c093",
        qop=qop,
        nonce_count="00000001",
        cnonce="0a4f113b",
        body=BOB_BODY,
    )
    assert answer == expected


@pytest.mark.parametrize(
    ("algorithm", "expected"),
    [
        ("MD5", "8ca523f5e9506fed4657c9700eebdbec"),
        ("SHA-256", "753927fa0e85d155564e2e272a28d1802ca10daf4496794697cf8db5856cb6c1"),
    ],
)
def test_the_examples_of_rfc_7616(algorithm: str, expected: str) -> None:
    # RFC 7616 section 3.9.1
    answer = digest_response(
        algorithm=algorithm,
        user="Mufasa",
        realm="http-auth@example.org",
        password="Circle of Life",
        method="GET",
        uri="/dir/index.html",
        nonce="7ypf/xlj9XXwfDPEoM4URrv/xwf94BcCAzFZH4GiTo0v",
        qop="auth",
        nonce_count="00000001",
        cnonce="f2/wE4q74E6zIJEtWaHKaf5wv/H5QzzpXusqGemxURZJ",
    )
    assert answer == expected


def test_sha_512_256_is_no_truncated_sha_512() -> None:
    # The user hash of RFC 7616 section 3.9.2 with its erratum 4897.
    digest = hashed_user("SHA-512-256", "J\u00e4s\u00f8n Doe", "api@example.org")
    assert digest == "793263caabb707a56211940d90411ea4a575adeccb7e360aeb624ed06ece9b0b"


def test_several_challenges_on_one_line_and_on_several() -> None:
    found = parse_challenges(
        [
            'Basic realm="x", Digest realm="a, \\"b\\"", nonce="n1", algorithm=SHA-256, qop="auth,auth-int", opaque="", Digest realm=plain , nonce = "n2",,stale=TRUE',
            "Negotiate abc==, digest\trealm=c, nonce=n3, algorithm=md5-SESS, qop=auth-int, userhash=true",
        ]
    )
    assert [(one.realm, one.nonce, one.algorithm, one.named, one.qop) for one in found] == [
        ('a, "b"', "n1", "SHA-256", True, "auth"),
        ("plain", "n2", "MD5", False, ""),
        ("c", "n3", "MD5-sess", True, "auth-int"),
    ]
    assert [(one.opaque, one.stale, one.userhash) for one in found] == [
        ("", False, False),
        (None, True, False),
        (None, False, True),
    ]


@pytest.mark.parametrize(
    "value",
    [
        'Digest realm="a", nonce="n", algorithm=AKAv1-MD5',
        'Digest realm="a", nonce="n", qop="token"',
        'Digest realm="a", nonce="n", algorithm=MD5-sess',
        'Digest realm="a"',
        'Digest realm="a", nonce=""',
        'Digest nonce="a"',
        'Basic realm="a"',
        "Bearer",
        'Digest realm="a", nonce="n", realm="b"',
        'Digest realm="a, nonce="n"',
        "",
        ",,,",
        "=",
    ],
)
def test_what_we_cannot_answer_is_passed_over(value: str) -> None:
    assert parse_challenges([value]) == []
    assert len(parse_challenges([value, 'Digest realm="a", nonce="n"'])) == 1


def test_no_more_challenges_than_an_honest_server_has() -> None:
    assert len(parse_challenges([", ".join(['Digest realm="a", nonce="n"'] * 40)] * 3)) == 16


def test_an_algorithm_is_known_in_any_case_and_is_md5_without_a_name() -> None:
    assert [known_algorithm(name) for name in ("", "sha-512-256", "SHA-256-SESS", "SHA-1")] == [
        "MD5",
        "SHA-512-256",
        "SHA-256-sess",
        None,
    ]


@given(st.text(alphabet='Digest ,="\\rnoca-\t\udcff', max_size=200))
def test_any_text_is_read_or_refused(text: str) -> None:
    parse_challenges([text])
    try:
        parse_elements(text)
    except ParseError:
        return


@pytest.mark.parametrize("piece", ['"', "\\", '="\\"",', ",", "=", "Digest a=", 'a="b",', " "])
def test_hostile_values_cost_no_more_than_their_length(piece: str) -> None:
    value = "Digest realm=a, nonce=b, " + piece * (400_000 // len(piece))
    began = time.process_time()
    parse_challenges([value])
    assert time.process_time() - began < 5.0
