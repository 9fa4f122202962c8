"""The documentation of the catalog is the catalog."""

from __future__ import annotations

import runpy
from pathlib import Path

import pytest

from aftertone.store.reference import schema_markdown

PAGE = Path(__file__).parents[3] / "docs" / "storage.md"


def test_the_page_holds_the_schema() -> None:
    _, _, schema = PAGE.read_text(encoding="utf-8").partition(
        "<!-- schema: python -m aftertone.store.reference -->\n\n"
    )
    assert schema == schema_markdown()


@pytest.mark.filterwarnings("ignore:.*found in sys.modules:RuntimeWarning")
def test_the_page_can_be_made_again(capsys: pytest.CaptureFixture[str]) -> None:
    runpy.run_module("aftertone.store.reference", run_name="__main__")
    assert capsys.readouterr().out == schema_markdown()
