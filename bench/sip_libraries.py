"""The same INVITE in the hands of other libraries.

Owns: reading the fields that answering a call takes, and building the 200 with a description, with sippy and aiosipua. Refuses to know:
timing. A library that is not installed is None in ``OTHERS``: `make bench-sip` installs what bench/requirements.txt names.
"""

from __future__ import annotations

import importlib.util
from collections.abc import Callable, Mapping
from typing import Any, Final, NamedTuple


class Hands(NamedTuple):
    """What one library does with a datagram."""

    read: Callable[[bytes], Any]
    build: Callable[[Any, bytes], bytes]


def _sippy() -> Hands:
    from sippy.MsgBody import MsgBody
    from sippy.SipRequest import SipRequest

    def read(data: bytes) -> Any:
        request = SipRequest(data.decode())
        request.getTId(True, True)
        for name in ("from", "to", "cseq", "contact", "via", "p-asserted-identity", "diversion"):
            request.getHFBody(name)
        return request

    def build(request: Any, body: bytes) -> bytes:
        response = request.genResponse(200, "OK", MsgBody(body.decode()))
        response.getHFBody("to").genTag()
        text: str = response.localStr((("203.0.113.9", 5060), "udp"))
        return text.encode()

    return Hands(read, build)


def _aiosipua() -> Hands:
    import aiosipua
    from aiosipua.dialog import create_dialog_from_request

    def read(data: bytes) -> Any:
        request = aiosipua.SipMessage.parse(data)
        for value in (request.via, request.from_addr, request.to_addr, request.cseq, request.call_id, request.contact):
            assert value
        request.get_header_values("P-Asserted-Identity")
        request.get_header_values("Diversion")
        return request

    def build(request: Any, body: bytes) -> bytes:
        dialog = create_dialog_from_request(request)
        response = dialog.create_response(request, 200, "OK", contact="<sip:203.0.113.9:5060>")
        response.text = body.decode()
        response.headers.set_single("Content-Type", "application/sdp")
        return bytes(response)

    return Hands(read, build)


OTHERS: Final[Mapping[str, Callable[[], Hands] | None]] = {
    name: made if importlib.util.find_spec(name) else None
    for name, made in (("sippy", _sippy), ("aiosipua", _aiosipua))
}
