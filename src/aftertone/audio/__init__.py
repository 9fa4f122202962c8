"""Audio as arrays: codecs, prompts, containers, and what can be heard in a frame.

Owns: everything between a payload's bytes and int16 samples, and the files samples are kept in. Refuses to know: packets,
calls, mailboxes and the journal.

Samples are always mono int16 arrays with their rate beside them. FFmpeg (through PyAV) and the speech detector are loaded
inside the functions that need them, so that importing ``g711``, ``listen`` or ``watch`` costs NumPy and nothing else.
"""
