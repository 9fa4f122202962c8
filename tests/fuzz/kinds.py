"""What a batch of datagrams turned out to be, told by branches.

Owns: the branches, which the fuzzer watches instead of those of ``rtp.batch``: that module works on columns and has none, and the
fuzzer's way of watching comparisons never gives back the columns that it saw. Refuses to know: bytes.
"""

from __future__ import annotations

from aftertone.rtp.batch import Headers


def kinds_of(headers: Headers) -> str:
    """Name every kind that is in a batch."""
    found = ""
    if int(headers.refusals.length):
        found += "length "
    if int(headers.refusals.version):
        found += "version "
    if int(headers.refusals.rtcp):
        found += "rtcp "
    if int(headers.refusals.shape):
        found += "shape "
    for row in range(len(headers.valid)):
        if not bool(headers.valid[row]):
            continue
        found += "valid "
        start, end = int(headers.payload_start[row]), int(headers.payload_end[row])
        if start == end:
            found += "empty "
        if start > 12:
            found += "long head "
        if start > 16:
            found += "longer head "
        if start > 72:
            found += "extension "
        if bool(headers.marker[row]):
            found += "marker "
        if int(headers.payload_type[row]) > 95:
            found += "dynamic "
    return found
