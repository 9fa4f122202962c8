"""What tests count and people want to read: said once, below the results of a run.

Owns: the list. Refuses to know: who adds to it.
"""

from __future__ import annotations

_lines: list[str] = []


def tell(line: str) -> None:
    """Show a line at the end of this run."""
    _lines.append(line)


def told() -> tuple[str, ...]:
    """Return the lines so far."""
    return tuple(_lines)
