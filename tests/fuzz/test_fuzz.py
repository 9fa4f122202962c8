"""Each parser takes its whole corpus, and a few seconds of new input, and raises nothing but its own kind of error."""

from __future__ import annotations

import importlib.util
import subprocess
import sys
from pathlib import Path

import pytest

from tests.fuzz import corpus
from tests.fuzz.targets import TARGETS
from tests.support.peers import missing

SECONDS = 2
"""Long enough to notice that a parser was broken; `make fuzz` is the long run."""
ROOT = Path(__file__).parents[2]


@pytest.mark.parametrize("name", TARGETS)
def test_the_corpus(name: str) -> None:
    inputs = corpus.read(name)
    assert len(inputs) > len(corpus.seeds(name)), "the corpus holds what earlier runs found"
    for data in inputs:
        TARGETS[name](data)


@pytest.mark.parametrize("name", TARGETS)
def test_new_input(name: str) -> None:
    if importlib.util.find_spec("atheris") is None:
        missing("atheris is not installed")
    command = [sys.executable, "-m", "tests.fuzz.run", name, "--seconds", str(SECONDS)]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=120)
    assert done.returncode == 0, done.stderr[-4000:]
    assert "Done " in done.stderr, "the fuzzer came to its end"
