"""Kamailio as a PBX: phones register and log in, Aftertone is its trunk, and its routes are those of our page about it.

Owns: that configuration. Refuses to know: who is called, and what comes of it.

Theory of operation: it listens on 127.0.0.2 and on ::1, so that a trunk is known by its address while phones that call the machine
directly come from 127.0.0.1. The blocks of docs/connect/kamailio.md stand in its configuration word for word; only the address of
Aftertone and the time of ringing are put in. So what the page says is what the tests run.
"""

from __future__ import annotations

import contextlib
import re
import shutil
import tempfile
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from tests.support.kamailio import BASICS, OPEN, REALM, TLS, Kamailio, require_modules

HOST: Final = "127.0.0.2"
PASSWORD: Final = "swordfish"
"""Everybody's; baresip takes no blanks in one."""
RINGS_MS: Final = 1500
PAGE: Final = Path(__file__).parents[2] / "docs" / "connect" / "kamailio.md"
AFTERTONE: Final = "192.0.2.20:5060"
"""How the page writes Aftertone's address."""

REQUESTS: Final = """\
tcp_source_ipv4=127.0.0.2
loadmodule "corex.so"

request_route {{
    force_rport();
    if (!mf_process_maxfwd_header("10")) {{ sl_send_reply("483", "Too Many Hops"); exit; }}
    if (is_method("CANCEL")) {{ xlog("L_NOTICE", "CANCELLED by $fU\\n"); if (t_check_trans()) t_relay(); exit; }}
    if (has_totag()) {{
        if (loose_route()) {{
            xlog("L_NOTICE", "INSIDE a call: $rm of $fU\\n");
            handle_ruri_alias();
            t_relay();
            exit;
        }}
        if (is_method("ACK") && t_check_trans()) {{ t_relay(); exit; }}
        if (!is_method("ACK")) sl_send_reply("404", "Not Here");
        exit;
    }}
    if (is_method("REGISTER")) {{
        if (!pv_www_authenticate("{realm}", "{password}", "0")) {{ www_challenge("{realm}", "1"); exit; }}
        if ($proto == "tls") fix_nated_register();
        xlog("L_NOTICE", "REGISTERED $au at $ct over $proto\\n");
        if (!save("location")) sl_reply_error();
        exit;
    }}
    if (is_method("INVITE|SUBSCRIBE")) {{
        if (!pv_proxy_authenticate("{realm}", "{password}", "0")) {{ proxy_challenge("{realm}", "1"); exit; }}
    }}
    remove_hf("Route");
    if ($proto == "tls") set_contact_alias();
{subscribe}
    consume_credentials();
    record_route();
    if ($rU == "forked") route(FORK);
    if (lookup("location")) route(TO_PHONES);
    if (!is_method("INVITE")) {{ sl_send_reply("404", "Not Registered"); exit; }}
    route(TO_AFTERTONE);
}}

{forward}

route[RELAY] {{
    xlog("L_NOTICE", "RELAYED $rm of $fU to $ru\\n");
    t_on_reply("FROM_PHONE");
    if (!t_relay()) sl_reply_error();
    exit;
}}

route[TO_AFTERTONE] {{
    $rd = "127.0.0.1";
    $rp = "{port}";
    if ($proto == "tls") $rp = "{tls_port}";
    $ru = "sip:" + $rU + "@" + $rd + ":" + $rp + ";transport=" + $proto;
    route(RELAY);
}}

route[FORK] {{
    $ru = "sip:main@127.0.0.1:{port};branch=1";
    append_branch("sip:main@127.0.0.1:{port};branch=2");
    route(RELAY);
}}

onreply_route[FROM_PHONE] {{
    xlog("L_NOTICE", "ANSWERED $rm of $fU with $rs\\n");
    if ($proto == "tls") set_contact_alias();
}}
"""


@dataclass
class Pbx(Kamailio):
    """One PBX before one machine."""

    aftertone: tuple[int, int] = (0, 0)
    """The machine's ports: in the open, and for TLS."""

    def configuration(self) -> str:
        """Return what it is told at its start."""
        assert self.certificate is not None
        certificate, key = self.certificate
        listen = "".join(OPEN.format(host=host, port=self.port) for host in (self.host, "[::1]"))
        listen += TLS.format(host=self.host, port=self.tls_port, certificate=certificate, key=key)
        listen += f"listen=tls:[::1]:{self.tls_port}\n"
        forward, subscribe = page_routes()
        here = f"127.0.0.1:{self.aftertone[0]}"
        requests = REQUESTS.format(
            realm=REALM,
            password=PASSWORD,
            port=self.aftertone[0],
            tls_port=self.aftertone[1],
            forward=forward.replace(AFTERTONE, here).replace("20000", str(RINGS_MS)),
            subscribe=subscribe.replace(AFTERTONE, here),
        )
        return BASICS.format(listen=listen, modules=self.modules, expires_s=self.expires_s) + requests

    def where(self, transport: str, host: str) -> str:
        """Return where a phone reaches it, for a URI: address, port and transport."""
        port = self.tls_port if transport == "tls" else self.port
        return f"{host}:{port};transport={transport}"

    def said(self, *words: str) -> list[str]:
        """Return the lines of its output that have all these words."""
        return [line for line in self.output().splitlines() if all(word in line for word in words)]


def page_routes() -> tuple[str, str]:
    """Return the page's routes that forward what nobody answers, and its lines about SUBSCRIBE."""
    blocks = re.findall(r"^```\w*\n(.*?)^```", PAGE.read_text(encoding="utf-8"), re.MULTILINE | re.DOTALL)
    [forward] = [block for block in blocks if "failure_route[NOBODY]" in block]
    [subscribe] = [block for block in blocks if "SUBSCRIBE" in block]
    assert AFTERTONE in forward and "20000" in forward and AFTERTONE in subscribe
    return forward, subscribe


@contextlib.contextmanager
def pbx(certificate: tuple[Path, Path], aftertone: tuple[int, int]) -> Iterator[Pbx]:
    """A running PBX before a machine with these ports (in the open, TLS); skips the test (fails in CI) where there is none."""
    modules = require_modules(tls=True)
    folder = Path(tempfile.mkdtemp(prefix="pbx-"))
    made = Pbx(folder, modules, 3600, certificate, host=HOST, aftertone=aftertone)
    try:
        made.start()
        yield made
    finally:
        made.kill()
        shutil.rmtree(folder, ignore_errors=True)
