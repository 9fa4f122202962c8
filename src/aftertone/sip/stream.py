"""Whole SIP messages out of a byte stream.

Owns: finding where one message ends and the next begins, and the keepalives between them. Refuses to know: sockets, and
what a message says beyond its Content-Length.

Specification: RFC 3261 section 18.3; RFC 5626 sections 3.5.1 and 4.4.1 (CRLF CRLF is a ping, CRLF the pong).

Theory of operation: bytes gather in one buffer. The search for the end of the head resumes where it stopped, so a peer
that sends byte by byte costs no more than one that does not. After the first head whose length cannot be known the
stream is lost for good: that head is still handed out, so that the agent can answer it, and the caller then closes.
"""

from __future__ import annotations

from aftertone.sip.faults import ParseError
from aftertone.sip.headers import BLANK, parse_number
from aftertone.sip.message import MAX_MESSAGE_BYTES

PING = b"\r\n\r\n"
PONG = b"\r\n"


class StreamSplitter:
    """Cuts what one connection delivers into messages.

    ``failed`` says why the stream cannot be followed any more (empty as long as it can): answer what came, then close.
    ``pings`` counts the keepalives so far; ``feed`` leaves the answering (``PONG``) to the caller. ``awaits_pong`` is
    set by who sent a ``PING``; the next line end between messages is its pong then, and clears it.
    """

    def __init__(self) -> None:
        self.failed = ""
        self.pings = 0
        self.awaits_pong = False
        self._buffer = bytearray()
        self._searched = 0
        self._whole = 0

    @property
    def pending(self) -> int:
        """Return how many bytes wait for the rest of their message; never more than one message and one read.

        Line ends alone are none: they are a pong, or the beginning of a ping.
        """
        return 0 if PING.startswith(self._buffer) else len(self._buffer)

    def feed(self, data: bytes) -> list[bytes]:
        """Take what was read and return the messages that are complete now, in order."""
        if self.failed:
            return []
        self._buffer += data
        messages: list[bytes] = []
        begin = 0
        while True:
            if not self._whole:
                begin = self._skip_keepalives(begin)
                found = self._find_head(begin)
                if found is None:
                    messages.append(bytes(self._buffer[begin : self._searched]))
                if not found:
                    break
            if len(self._buffer) - begin < self._whole:
                break
            messages.append(bytes(self._buffer[begin : begin + self._whole]))
            begin += self._whole
            self._whole = 0
            self._searched = begin
        del self._buffer[:begin]
        self._searched = max(0, self._searched - begin)
        return messages

    def _skip_keepalives(self, begin: int) -> int:
        """Return where the next message begins, behind pings and stray line ends."""
        buffer = self._buffer
        while buffer.startswith(b"\r\n", begin):
            if self.awaits_pong:
                self.awaits_pong = False
                begin += 2
            elif buffer.startswith(b"\r\n\r\n", begin):
                self.pings += 1
                begin += 4
            elif len(buffer) - begin < 4 and b"\r\n\r\n".startswith(buffer[begin:]):
                return begin
            else:
                begin += 2
        return begin

    def _find_head(self, begin: int) -> bool | None:
        """Look for the end of the head and set ``_whole``; None when the stream is lost, its last head found or not."""
        buffer = self._buffer
        end = buffer.find(b"\r\n\r\n", max(begin, self._searched - 3))
        if end < 0:
            self._searched = len(buffer)
            if len(buffer) - begin <= MAX_MESSAGE_BYTES:
                return False
            self.failed = "the head of a message is too long"
            return None
        end += 4
        self._searched = end
        try:
            whole = end - begin + announced_length(bytes(buffer[begin : end - 4]))
        except ParseError as error:
            self.failed = str(error)
            return None
        if whole > MAX_MESSAGE_BYTES:
            self.failed = f"a message of {whole} bytes"
            return None
        self._whole = whole
        return True


def announced_length(head: bytes) -> int:
    """Return the Content-Length of a head; raise ParseError when it is missing, doubled or no number."""
    found: str | None = None
    for line in head.split(b"\r\n"):
        name, colon, value = line.partition(b":")
        if colon and name.strip().lower() in (b"content-length", b"l"):
            if found is not None:
                raise ParseError("Content-Length stands more than once")
            found = value.decode("latin-1").strip(BLANK)
    if found is None:
        raise ParseError("no Content-Length on a connection")
    return parse_number(found, 2**32)
