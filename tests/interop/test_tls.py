"""baresip calls the machine over TLS, with the certificate that the machine made for itself."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from aftertone.model import Codec
from tests.support.baresip import baresip
from tests.support.machine import free_port, machine, speech, speech_file


def test_a_softphone_leaves_a_message_over_tls(tmp_path: Path) -> None:
    tls_port = free_port()
    said = np.concatenate([np.zeros(12_000, np.int16), speech(2.5), np.zeros(4_000, np.int16)])
    with machine(tmp_path / "var", SIP__TLS="true", SIP__TLS_PORT=str(tls_port)) as made:
        made.run("mailbox", "greeting", "set", "main", str(speech_file(tmp_path / "greeting.wav", 0.3)))
        # A line reads its directory before it takes calls: the greeting is the short one.
        made.stop()
        made.start()
        with baresip(
            made,
            tmp_path / "phone",
            Codec.PCMU,
            said,
            caller="encrypted",
            uri=f"sip:main@127.0.0.1:{tls_port};transport=tls",
            settings=f"sip_cafile {made.data / 'tls' / 'certificate.pem'}\nsip_verify_server yes\n",
        ) as phone:
            phone.finish()
            assert "Via: SIP/2.0/TLS" in phone.output()
        (row,) = made.wait_for_messages(1)
        assert row["kind"] == "message", row
        assert row["caller"]["number"] == "encrypted"
