"""``aftertone config``: what holds, what is wrong, what there is."""

from __future__ import annotations

import tomllib
from pathlib import Path

import pytest

from aftertone.config import KNOWN, tables
from tests.unit.cli.shell import Shell


def test_check_without_a_file(shell: Shell) -> None:
    assert shell("config", "check").out == "no settings file: good\n"


def test_the_file_here_goes_before_the_file_in_the_data_folder(shell: Shell, tmp_path: Path) -> None:
    (shell.data / "aftertone.toml").write_text("[sip]\nport = 5071\n")
    assert "port = 5071" in shell("config", "show").out
    (tmp_path / "aftertone.toml").write_text("[sip]\nport = 5072\n")
    assert "port = 5072" in shell("config", "show").out
    (tmp_path / "other.toml").write_text("[sip]\nport = 5073\n")
    assert "port = 5073" in shell("config", "show", "--config", tmp_path / "other.toml").out
    assert shell("config", "check").out == "aftertone.toml: good\n"


def test_the_environment_goes_before_every_file(shell: Shell, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "aftertone.toml").write_text("[sip]\nport = 5072\n")
    monkeypatch.setenv("AFTERTONE_SIP__PORT", "5080")
    assert "port = 5080" in shell("config", "show").out


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("[sip]\nprot = 5060\n", "did you mean 'port'"),
        ("[spi]\nport = 5060\n", "did you mean 'sip'"),
        ("[sip]\nport = 70000\n", "sip.port"),
        ("sip = 3\n", "[sip]"),
        ("[sip\n", "not valid TOML"),
    ],
)
def test_what_is_wrong_is_one_line_with_the_file_and_status_2(
    shell: Shell, tmp_path: Path, text: str, said: str
) -> None:
    (tmp_path / "aftertone.toml").write_text(text)
    complaint = shell.fails("config", "check")
    assert said in complaint
    assert "aftertone.toml" in complaint
    assert shell.fails("message", "list") == complaint, "and every other command says the same"


def test_a_file_that_is_not_there(shell: Shell) -> None:
    assert "nowhere.toml" in shell.fails("config", "check", "--config", "nowhere.toml")


def test_what_is_shown_and_the_example_can_be_read_back(shell: Shell, tmp_path: Path) -> None:
    for command in ("show", "example"):
        text = shell("config", command).out
        shown = {section: set(keys) for section, keys in tomllib.loads(text).items()}
        optional = {"sip": {key for _, key in tables()} | {"tls_certificate", "tls_key", "tls_authorities"}}
        assert shown == {section: set(keys) - optional.get(section, set()) for section, keys in KNOWN.items()}
        (tmp_path / "aftertone.toml").write_text(text)
        assert shell("config", "check").status == 0
