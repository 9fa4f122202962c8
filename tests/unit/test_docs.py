"""The documents against the code: what they name exists, what exists is named, what is generated is current."""

from __future__ import annotations

import inspect
import re
import tomllib
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Final

import pytest
import typer.main
from tools import docs

import aftertone
from aftertone import config
from aftertone.audio.prompts import BEEP_HZ, BEEP_MS
from aftertone.cli import app
from aftertone.media.plane import STRIPES, TICK_NS
from aftertone.media.reports import Reports
from aftertone.model import EndReason
from aftertone.roles.accounts import Accounts
from aftertone.roles.folder import STALE_AFTER_S
from aftertone.roles.lamps import Lamps
from aftertone.roles.line import Line
from aftertone.roles.switchboard import END_WITHIN_S
from aftertone.sip.budgets import Why
from aftertone.voicemail.deposit import DURABLE_WITHIN_S

ROOT: Final = Path(__file__).parents[2]
DOCUMENTS: Final = sorted(
    [*ROOT.glob("*.md"), *ROOT.glob("docs/**/*.md"), *ROOT.glob("tools/**/*.md"), *ROOT.glob("bench/*.md")]
)
DECISIONS: Final = sorted((ROOT / "docs" / "decisions").glob("*.md"))
SOURCES: Final = ROOT / "src" / "aftertone"

each_document = pytest.mark.parametrize("document", DOCUMENTS, ids=lambda path: str(path.relative_to(ROOT)))


def read(*parts: str) -> str:
    return ROOT.joinpath(*parts).read_text(encoding="utf-8")


def code_in(text: str) -> list[str]:
    """Return all that a document sets as code: the lines of blocks, and the pieces between backticks."""
    blocks = re.findall(r"^```.*?\n(.*?)^```", text, re.MULTILINE | re.DOTALL)
    rest = re.sub(r"^```.*?^```", "", text, flags=re.MULTILINE | re.DOTALL)
    return [line for block in blocks for line in block.splitlines()] + re.findall(r"`([^`]+)`", rest)


def anchors_of(text: str) -> set[str]:
    """Return the anchors that GitHub makes of a document's headings."""
    headings = re.findall(r"^#+ (.*)$", re.sub(r"^```.*?^```", "", text, flags=re.MULTILINE | re.DOTALL), re.MULTILINE)
    return {re.sub(r"[^\w -]", "", heading.lower()).replace(" ", "-") for heading in headings}


def leaves(command: Any, path: tuple[str, ...] = ()) -> Iterator[tuple[tuple[str, ...], Any]]:
    """Yield every command that does something, with its words."""
    below = getattr(command, "commands", None)
    if below is None:
        yield path, command
    else:
        for name, child in below.items():
            yield from leaves(child, (*path, name))


COMMANDS: Final = dict(leaves(typer.main.get_command(app)))


def test_the_page_of_settings_is_current() -> None:
    assert docs.PAGE.read_text(encoding="utf-8") == docs.configuration(), "run: python tools/docs.py"


def test_the_page_of_settings_is_written_by_its_tool(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr(docs, "PAGE", tmp_path / "configuration.md")
    docs.main()
    text = (tmp_path / "configuration.md").read_text(encoding="utf-8")
    for section, keys in config.KNOWN.items():
        assert f"## `[{section}]`" in text
        for key in keys:
            assert (f"### `[[{section}.{key}]]`" if (section, key) in config.tables() else f"| `{key}` |") in text
            assert config.environment_name(section, key) in text


@each_document
def test_every_example_of_settings_can_be_loaded(document: Path, tmp_path: Path) -> None:
    for block in re.findall(r"^```toml\n(.*?)^```", document.read_text(encoding="utf-8"), re.MULTILINE | re.DOTALL):
        (tmp_path / "aftertone.toml").write_text(block)
        config.load(tmp_path / "aftertone.toml", {})


@each_document
def test_every_link_leads_somewhere(document: Path) -> None:
    for target in re.findall(r"\]\(([^)\s]+)\)", document.read_text(encoding="utf-8")):
        if target.startswith(("http://", "https://")):
            continue
        name, _, anchor = target.partition("#")
        found = (document.parent / name).resolve() if name else document
        assert found.exists(), f"{document.name} links to {target}"
        assert found.is_relative_to(ROOT), f"{document.name} links out of the project: {target}"
        if anchor:
            assert anchor in anchors_of(found.read_text(encoding="utf-8")), f"{document.name} links to {target}"


@each_document
def test_every_file_and_test_that_is_named_exists(document: Path) -> None:
    folders = ("src/", "tests/", "docs/", "bench/", "tools/")
    packages = tuple(f"{path.name}/" for path in SOURCES.iterdir() if path.is_dir())
    for piece in code_in(document.read_text(encoding="utf-8")):
        name, _, test = piece.partition("::")
        if not re.fullmatch(r"[\w./-]+", name) or "/" not in name:
            continue
        if name.startswith(packages) and name.endswith(".py"):
            assert (SOURCES / name).exists(), f"{document.name} names {piece}"
        elif name.startswith(folders):
            assert (ROOT / name).exists(), f"{document.name} names {piece}"
            assert not test or f"def {test}(" in read(name), f"{document.name} names {piece}"


@each_document
def test_every_command_that_is_named_exists(document: Path) -> None:
    for piece in code_in(document.read_text(encoding="utf-8")):
        for words in re.findall(r"(?:^|[ /])aftertone ((?:[a-z][a-z-]*(?: |$))+)", piece):
            known = any(tuple(words.split())[: len(path)] == path for path in COMMANDS)
            part = any(path[: len(words.split())] == tuple(words.split()) for path in COMMANDS)
            assert known or part, f"{document.name}: there is no command {piece!r}"


def test_the_readme_lists_every_command() -> None:
    listed = re.findall(r"^\| `aftertone ([a-z -]+?)(?: [A-Z ]+)?` \|", read("README.md"), re.MULTILINE)
    assert sorted(tuple(words.split()) for words in listed) == sorted(COMMANDS)


@each_document
def test_every_option_after_a_command_exists(document: Path) -> None:
    for piece in code_in(document.read_text(encoding="utf-8")):
        for line in re.findall(r"(?:^|[ /])aftertone ([a-z].*)$", piece):
            words = tuple(line.split())
            command = next((COMMANDS[words[:n]] for n in (3, 2, 1) if words[:n] in COMMANDS), None)
            if command is not None:
                known = {option for parameter in command.params for option in parameter.opts} | {"--help"}
                assert set(re.findall(r"--[a-z-]+", line)) <= known, f"{document.name}: {piece!r}"


@each_document
def test_every_setting_that_is_named_exists(document: Path) -> None:
    sections = "|".join(config.KNOWN)
    tags = {"AFTERTONE_ENVELOPE", "AFTERTONE_DELIVERY"}
    known = {config.environment_name(section, key) for section, keys in config.KNOWN.items() for key in keys}
    text = document.read_text(encoding="utf-8")
    for piece in code_in(text):
        for section, key in re.findall(rf"^({sections})\.([a-z_]+)(?: = .*)?$", piece):
            assert key in config.KNOWN[section] or key in ("py", "db"), f"{document.name} names {piece}"
    for name in re.findall(r"AFTERTONE_[A-Z_]+", text):
        base = "__".join(name.split("__")[:2])  # AFTERTONE_SIP__ACCOUNTS__HOME__SECRET sets a part of sip.accounts
        assert base in known | config.NOT_SETTINGS | tags | {"AFTERTONE_"}, f"{document.name} names {name}"


@each_document
def test_every_make_target_that_is_named_exists(document: Path) -> None:
    targets = set(re.findall(r"^([a-z]+):", read("Makefile"), re.MULTILINE)) | {".venv/installed"}
    for piece in code_in(document.read_text(encoding="utf-8")):
        for target in re.findall(r"(?:^|[A-Z0-9] )make ([a-z./]+)", piece):
            assert target in targets, f"{document.name} names make {target}"


def test_the_changelog_has_this_version() -> None:
    version = tomllib.loads(read("pyproject.toml"))["project"]["version"]
    assert version == aftertone.__version__
    assert re.search(rf"^## {re.escape(version)} \(.+\)$", read("CHANGELOG.md"), re.MULTILINE)


def test_decisions_have_a_number_each_are_complete_and_in_the_index() -> None:
    index = read("docs", "README.md")
    numbers = [path.name[:4] for path in DECISIONS]
    assert numbers == [f"{number:04}" for number in range(1, len(numbers) + 1)]
    for path in DECISIONS:
        text = path.read_text(encoding="utf-8")
        assert text.startswith(f"# {path.name[:4]} ")
        for part in ("**Context.**", "**Decision.**", "**Rejected.**", "**How we would know that we were wrong.**"):
            assert text.count(part) == 1, f"{path.name} has no {part}"
        assert f"decisions/{path.name})" in index


def test_every_document_is_in_the_index() -> None:
    index = read("docs", "README.md")
    for path in (ROOT / "docs").glob("*.md"):
        assert path.name == "README.md" or f"({path.name})" in index


def test_every_alarm_is_explained_and_no_other() -> None:
    sources = "".join(path.read_text(encoding="utf-8") for path in SOURCES.rglob("*.py"))
    raised = set(re.findall(r'"code": "(\w+)"', sources)) | set(re.findall(r'\b_?[Aa]larm\(\s*"(\w+)"', sources))
    part = read("docs", "operation.md").partition("## Alarms")[2].partition("\n## ")[0]
    assert set(re.findall(r"^\| `(\w+)` \|", part, re.MULTILINE)) == raised


def test_every_metric_is_explained_and_no_other() -> None:
    part = read("docs", "operation.md").partition("## Metrics")[2]
    explained = set(re.findall(r"`aftertone_(\w+?)(?:\{[a-z,]+\})?`", part))
    web = (SOURCES / "web" / "metrics.py").read_text(encoding="utf-8")
    desk = set(re.findall(r'_gauge\("(\w+)"', web)) | set(re.findall(r'Family\(\s*"aftertone_(\w+)"', web))
    line = set(re.findall(r'"([a-z_]+)": ', inspect.getsource(Line._metrics)))
    line |= set(re.findall(r'"([a-z_]+)": ', inspect.getsource(Reports.figures)))
    line |= set(re.findall(r'"([a-z_]+)": ', inspect.getsource(Accounts.metrics)))
    line |= set(re.findall(r'"([a-z_]+)": ', inspect.getsource(Lamps.metrics)))
    line |= set(re.findall(r'"(oldest_audio_not_durable_ms)"', inspect.getsource(Line)))
    assert line, "the line's metrics are counted elsewhere now"
    made_by_name = {name for name in explained if re.search(r"_[A-Z]+", name)}
    dropped = {name for name in explained if name.startswith("line_rtp_dropped_")}
    counted = {name for name in explained if name.startswith("line_calls_")} - made_by_name
    desk |= {f"{name}_total" for name in re.findall(r'CounterMetricFamily\("aftertone_(\w+)"', web)}
    desk -= {name.removesuffix("_total") for name in desk if name.endswith("_total")}
    assert explained - made_by_name - dropped - counted == desk | {f"line_{name}" for name in line}
    for why in Why:
        assert f"`{why.value}`" in part
    board = "".join((SOURCES / "roles" / name).read_text("utf-8") for name in ("switchboard.py", "refusals.py"))
    for name in counted:
        assert f'counters["{name.removeprefix("line_calls_").removesuffix("_total")}"]' in board
    plane = (SOURCES / "media" / "plane.py").read_text(encoding="utf-8")
    for name in dropped:
        assert f'"{name.removeprefix("line_rtp_dropped_").removesuffix("_packets_total")}": 0' in plane
    for reason in set(EndReason) - {EndReason.CUT_OFF}:
        assert f"`{reason.value}`" in part


def test_what_the_pages_say_an_account_says_is_what_it_says() -> None:
    """``*failing: fritz.box has no address*``: names, addresses and what stands for them aside, the words are the code's."""
    sources = "".join(path.read_text(encoding="utf-8") for path in SOURCES.rglob("*.py"))
    quoted = [
        (page.name, words)
        for page in (ROOT / "docs" / "connect").glob("*.md")
        for cell in re.findall(r"^\| (\*failing: .*?\*) \|", page.read_text(encoding="utf-8"), re.MULTILINE)
        for words in re.findall(r"\*(?:failing: )?(.*?)\*", cell)
    ]
    assert len(quoted) > 5
    for page, words in quoted:
        plain = re.sub(r"\.\.\.|\bfritz\.box\b", "", words).strip()
        assert plain and plain in sources, f"{page}: nothing says {words!r}"


def test_the_figures_in_the_text_are_those_of_the_code() -> None:
    settings = config.Settings()
    readme = read("README.md")
    ring_s = settings.calls.rings * settings.calls.ring_s
    for text, figure in [
        (readme, f"so {ring_s:.0f} s pass before the answer"),
        (readme, f"{settings.calls.silence_s:.0f} s of\nsilence"),
        (readme, f"after {settings.calls.longest_s / 60:.0f} minutes"),
        (readme, f"UDP {settings.rtp.ports}"),
        (readme, f"localhost:{settings.web.port}"),
        (read("docs", "glossary.md"), f"{BEEP_MS} ms of {BEEP_HZ} Hz"),
        (read("docs", "decisions", "0004-one-port-a-call.md"), f"emptied every {STRIPES * TICK_NS // 10**6} ms"),
        (read("docs", "decisions", "0004-one-port-a-call.md"), f"up to {settings.journal.commit_ms} ms until the next"),
    ]:
        assert figure in text
    assert (DURABLE_WITHIN_S, END_WITHIN_S, STALE_AFTER_S) == (3, 4, 5), (
        "decisions 0007 and 0012, and operation.md, say so"
    )
