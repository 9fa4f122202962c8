"""Answering machines without sound, one of each library: ``python bench/sip_servers.py aftertone 5999``.

Owns: the least program with which each library answers an INVITE with 200 and a description, takes the ACK, and answers BYE. Refuses
to know: who calls, and what is measured. Each prints ``ready`` when it listens on 127.0.0.1.
"""

from __future__ import annotations

import asyncio
import gc
import sys
from dataclasses import replace
from typing import Any

BODY = (
    b"v=0\r\no=- 1 1 IN IP4 127.0.0.1\r\ns=-\r\nc=IN IP4 127.0.0.1\r\nt=0 0\r\nm=audio 4000 RTP/AVP 0 101\r\n"
    b"a=rtpmap:0 PCMU/8000\r\na=rtpmap:101 telephone-event/8000\r\na=fmtp:101 0-15\r\na=ptime:20\r\n"
)


async def aftertone(port: int) -> None:
    """Ours: the endpoint that the line uses."""
    from aftertone.net.endpoint import SipEndpoint
    from aftertone.sip.events import DialogEnded, Event, IncomingCall
    from aftertone.sip.settings import AgentSettings

    def on_event(event: Event) -> None:
        if isinstance(event, IncomingCall):
            endpoint.respond(event.transaction_id, 200, body=BODY, content_type="application/sdp")
        elif isinstance(event, DialogEnded):
            endpoint.respond(event.transaction_id, 200)

    # A transaction is remembered for 32 s; the default is sized for the calls that one line records, not for a flood.
    settings = replace(AgentSettings(), max_transactions=1_000_000, max_dialogs=1_000_000)
    endpoint = SipEndpoint(settings, on_event, hosts=("127.0.0.1",), port=port)
    await endpoint.start()
    gc.freeze()
    print("ready", flush=True)
    await asyncio.Event().wait()


async def aiosipua(port: int) -> None:
    """aiosipua's UAS, 2xx resent as it does by default."""
    import aiosipua as library

    transport = library.UdpSipTransport(local_addr=("127.0.0.1", port))
    uas = library.SipUAS(transport)
    answer = library.parse_sdp(BODY.decode())

    def on_invite(call: Any) -> None:
        call.accept(answer)

    uas.on_invite = on_invite
    uas.on_bye = lambda call, request: None
    await uas.start()
    gc.freeze()
    print("ready", flush=True)
    await asyncio.Event().wait()


def sippy(port: int) -> None:
    """sippy's user agent over its transaction manager, without its log."""
    from sippy.CCEvents import CCEventConnect, CCEventTry
    from sippy.Core.EventDispatcher import ED2
    from sippy.MsgBody import MsgBody
    from sippy.SipTransactionManager import SipTransactionManager
    from sippy.UA import UA

    class Silence:
        def write(self, *what: object, **how: object) -> None:
            pass

    class Address(str):
        __slots__ = ()

    config: dict[str, Any] = {"_sip_address": Address("127.0.0.1"), "_sip_port": port, "_sip_logger": Silence()}

    def on_event(event: Any, agent: Any) -> None:
        if isinstance(event, CCEventTry):
            agent.recvEvent(CCEventConnect((200, "OK", MsgBody(BODY.decode())), origin="switch"))

    def on_request(request: Any, transaction: Any) -> Any:
        if request.getHFBody("to").getTag() is None and request.getMethod() == "INVITE":
            return UA(config, on_event, nh_address=("127.0.0.1", 5060)).recvRequest(request, transaction)
        return request.genResponse(481, "Call Leg/Transaction Does Not Exist"), None, None

    config["_sip_tm"] = SipTransactionManager(config, on_request)
    print("ready", flush=True)
    ED2.loop()


def main() -> None:
    """Run the one that is asked for."""
    name, port = sys.argv[1], int(sys.argv[2])
    if name == "sippy":
        sippy(port)
    else:
        asyncio.run({"aftertone": aftertone, "aiosipua": aiosipua}[name](port))


if __name__ == "__main__":
    main()
