"""Aftertone: an answering machine that never loses a message."""

__version__ = "0.1.0"
