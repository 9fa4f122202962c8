"""SIP without I/O: bytes and the time go in; bytes, events and the next deadline come out.

Owns: messages, transactions, dialogs and the user agent on top of them. Refuses to know: sockets, clocks, randomness,
session descriptions (a body is bytes), mailboxes.

Specification: RFC 3261 with RFC 3581 (rport), RFC 4320, RFC 6026 (Accepted states), RFC 3311 (UPDATE), RFC 6086 (INFO).

Theory of operation: ``message`` over ``headers`` and ``uri`` parse; ``transaction`` holds the four machines as tables;
``dialog`` remembers one relation with a peer; ``server`` and ``client`` are the two halves of a user agent over the
shared tables in ``core``; ``agent`` is the face that everything outside talks to.
"""
