"""Every pair of colours that text is written in meets WCAG 2.2 AA in both themes.

Spec: WCAG 2.2, success criteria 1.4.3 (4.5:1 for text) and 1.4.11 (3:1 for what marks a control).
"""

from __future__ import annotations

import re

import pytest

from aftertone.web.templating import STATIC

STYLE = (STATIC / "desk.css").read_text(encoding="utf-8")
LIGHT, DARK = (
    dict(re.findall(r"--([a-z-]+): (#[0-9a-f]{6});", block))
    for block in re.findall(r":root \{(.*?)\}", STYLE, re.DOTALL)
)
TEXT = [
    ("ink", "bg"),
    ("ink", "card"),
    ("ink", "hover"),
    ("ink", "line"),
    ("soft", "bg"),
    ("soft", "card"),
    ("soft", "hover"),
    ("soft", "fresh"),
    ("accent", "bg"),
    ("accent", "card"),
    ("accent", "fresh"),
    ("on-accent", "accent"),
    ("on-warn", "warn"),
    ("on-bad", "bad"),
    ("on-bad", "bg"),
    ("bg", "ink"),
]
MARKS = [("edge", "bg"), ("edge", "card"), ("accent", "line"), ("accent", "card")]


def luminance(colour: str) -> float:
    """Return the relative luminance of ``#rrggbb``."""
    channels = [int(colour[at : at + 2], 16) / 255 for at in (1, 3, 5)]
    linear = [c / 12.92 if c <= 0.04045 else ((c + 0.055) / 1.055) ** 2.4 for c in channels]
    return 0.2126 * linear[0] + 0.7152 * linear[1] + 0.0722 * linear[2]


def contrast(one: str, other: str) -> float:
    """Return the contrast ratio of two colours."""
    light, dark = sorted((luminance(one), luminance(other)), reverse=True)
    return (light + 0.05) / (dark + 0.05)


@pytest.mark.parametrize("theme", [LIGHT, DARK], ids=["light", "dark"])
@pytest.mark.parametrize(("front", "back"), TEXT)
def test_text_can_be_read(theme: dict[str, str], front: str, back: str) -> None:
    assert contrast(theme[front], theme[back]) >= 4.5


@pytest.mark.parametrize("theme", [LIGHT, DARK], ids=["light", "dark"])
@pytest.mark.parametrize(("front", "back"), MARKS)
def test_marks_can_be_seen(theme: dict[str, str], front: str, back: str) -> None:
    assert contrast(theme[front], theme[back]) >= 3


def test_both_themes_name_the_same_colours() -> None:
    assert LIGHT.keys() == DARK.keys()
    assert contrast("#000000", "#ffffff") == pytest.approx(21)
