"""Kamailio as a registrar and proxy: one number, one password, calls routed with Record-Route.

Owns: its configuration, starting it, killing it and starting it again on the same port. Refuses to know: who registers.
"""

from __future__ import annotations

import contextlib
import os
import shutil
import signal
import socket
import subprocess
import tempfile
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final

import pytest

from tests.support.machine import free_port, wait_until
from tests.support.peers import missing, require

FOLDERS: Final = tuple(Path(p) for p in ("/usr/lib/x86_64-linux-gnu/kamailio/modules", "/usr/lib/kamailio/modules"))
"""Where Debian keeps the modules; on other processors the triplet is another."""
REALM: Final = "kamailio.test"
PASSWORD: Final = "open sesame"

BASICS: Final = """\
debug=2
log_stderror=yes
children=1
tcp_children=1
disable_core_dump=yes
auto_aliases=no
mpath="{modules}"
{listen}loadmodule "tm.so"
loadmodule "sl.so"
loadmodule "rr.so"
loadmodule "pv.so"
loadmodule "maxfwd.so"
loadmodule "textops.so"
loadmodule "siputils.so"
loadmodule "usrloc.so"
loadmodule "registrar.so"
loadmodule "auth.so"
loadmodule "nathelper.so"
loadmodule "xlog.so"
modparam("usrloc", "db_mode", 0)
modparam("registrar", "max_expires", {expires_s})
modparam("registrar", "min_expires", 1)
modparam("registrar", "path_mode", 0)
modparam("nathelper|registrar", "received_avp", "$avp(RECEIVED)")
modparam("auth", "nonce_expire", 30)
modparam("auth", "nonce_count", 1)
modparam("auth", "qop", "auth")
modparam("rr", "append_fromtag", 1)

"""
"""What every configuration here begins with."""
ROUTES: Final = """\
request_route {{
    force_rport();
    if (!mf_process_maxfwd_header("10")) {{ sl_send_reply("483", "Too Many Hops"); exit; }}
    if (is_method("CANCEL")) {{ if (t_check_trans()) t_relay(); exit; }}
    if (has_totag()) {{
        if (loose_route()) {{ handle_ruri_alias(); t_relay(); exit; }}
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
    if (is_method("INVITE") && $fU == "guarded") {{
        if (!pv_proxy_authenticate("{realm}", "{password}", "0")) {{ proxy_challenge("{realm}", "1"); exit; }}
        consume_credentials();
    }}
    record_route();
    if (!lookup("location")) {{ sl_send_reply("404", "Not Registered"); exit; }}
    t_on_reply("FROM_PHONE");
    t_relay();
}}

onreply_route[FROM_PHONE] {{
    if ($proto == "tls") set_contact_alias();
}}
"""
OPEN: Final = """\
listen=udp:{host}:{port}
listen=tcp:{host}:{port}
"""
TLS: Final = """\
enable_tls=yes
listen=tls:{host}:{port}
loadmodule "tls.so"
modparam("tls", "certificate", "{certificate}")
modparam("tls", "private_key", "{key}")
modparam("tls", "tls_method", "TLSv1.2+")
"""
"""A phone behind TLS is reached over the connection that it made, as providers do it."""


@dataclass
class Kamailio:
    """One registrar; ``start`` may be called again after ``kill``, and then it has forgotten everybody."""

    folder: Path
    modules: Path
    expires_s: int
    certificate: tuple[Path, Path] | None = None
    """Certificate and key for TLS; None listens in the open alone."""
    port: int = field(default_factory=free_port)
    tls_port: int = field(default_factory=free_port)
    process: subprocess.Popen[bytes] | None = None
    host: str = "127.0.0.1"

    def start(self) -> Kamailio:
        """Start it and wait until it listens."""
        file = self.folder / "kamailio.cfg"
        file.write_text(self.configuration())
        # Its sockets for control have a short path, whatever the test's folder is called.
        command = ["kamailio", "-f", str(file), "-DD", "-E", "-m", "32", "-M", "4", "-Y", str(self.folder)]
        with (self.folder / "output").open("ab") as output:
            self.process = subprocess.Popen(
                command, stdin=subprocess.DEVNULL, stdout=output, stderr=output, start_new_session=True
            )
        wait_until(self._listens, f"Kamailio\n{self.output()}")
        return self

    def configuration(self) -> str:
        """Return what it is told at its start."""
        listen = OPEN.format(host=self.host, port=self.port)
        if self.certificate is not None:
            certificate, key = self.certificate
            listen += TLS.format(host=self.host, port=self.tls_port, certificate=certificate, key=key)
        basics = BASICS.format(listen=listen, modules=self.modules, expires_s=self.expires_s)
        return basics + ROUTES.format(realm=REALM, password=PASSWORD)

    def kill(self) -> None:
        """End it with all its processes, as a power cut does."""
        if self.process is not None:
            with contextlib.suppress(ProcessLookupError):
                os.killpg(self.process.pid, signal.SIGKILL)
            self.process.wait()
            self.process = None

    def output(self) -> str:
        """Return what it said."""
        file = self.folder / "output"
        return file.read_text(errors="replace") if file.exists() else ""

    def registrations(self) -> list[str]:
        """Return a line for each REGISTER with the right password."""
        return [line for line in self.output().splitlines() if "REGISTERED" in line]

    def _listens(self) -> bool:
        if self.process is None or self.process.poll() is not None:
            pytest.fail(f"Kamailio ended:\n{self.output()}")
        with socket.socket() as probe:
            return probe.connect_ex((self.host, self.port)) == 0


@contextlib.contextmanager
def kamailio(*, expires_s: int = 3600, certificate: tuple[Path, Path] | None = None) -> Iterator[Kamailio]:
    """A running registrar that grants at most ``expires_s``; skips the test (fails in CI) where there is none.

    ``certificate``: certificate and key, to listen for TLS as well.
    """
    modules = require_modules(tls=certificate is not None)
    folder = Path(tempfile.mkdtemp(prefix="kam-"))
    made = Kamailio(folder, modules, expires_s, certificate)
    try:
        yield made.start()
    finally:
        made.kill()
        shutil.rmtree(folder, ignore_errors=True)


def require_modules(*, tls: bool) -> Path:
    """Return the folder of Kamailio's modules; skip the test (fail in CI) without Kamailio, or without its TLS where that is wanted."""
    require("kamailio")
    modules = next((folder for folder in FOLDERS if (folder / "registrar.so").exists()), None)
    if modules is None:
        modules = next(iter(Path("/usr/lib").glob("*/kamailio/modules")), None)
    assert modules is not None, "Kamailio is installed without its modules"
    if tls and not (modules / "tls.so").exists():
        missing(f"Kamailio has no tls.so in {modules}")
    return modules
