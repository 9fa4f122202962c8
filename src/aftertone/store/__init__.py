"""Where finished things are kept: the catalog (rows) and the blobs (audio).

Owns: the only code that opens the database or the blob folder. Refuses to know: the journal, audio formats, HTTP.

Theory of operation: the journal is the truth until a message is delivered; then the blob is, because each audio file
carries its own envelope. The catalog is a view that can be rebuilt from the blobs (``rebuild``), except for what owners
did to their messages. docs/storage.md describes everything on disk.
"""
