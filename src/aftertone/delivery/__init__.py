"""Delivery: recordings in the journal become messages in the store.

Owns: putting packets in order, filling what was lost, deciding what a recording is, and the idempotent steps from journal to
catalog. Refuses to know: SIP, live calls, web pages.

Theory of operation: ``assemble`` and ``conceal`` are pure; ``deliver`` is the one place with effects. Every step is keyed by
the message id and may be repeated, so a start after a crash runs the same code as the ordinary case.
"""
