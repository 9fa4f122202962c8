"""The conversation with a caller, and what the line knows about mailboxes."""
