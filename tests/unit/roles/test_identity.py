"""aftertone.roles.identity: the same machine after a restart, and one for the day where nothing can be kept."""

from __future__ import annotations

from pathlib import Path

import pytest

from aftertone.roles.identity import identity


def test_it_is_the_same_after_a_restart(tmp_path: Path) -> None:
    first, second = identity(tmp_path / "instance.id"), identity(tmp_path / "instance.id")
    assert first == second
    assert first[1] == ""
    assert (tmp_path / "instance.id").stat().st_mode & 0o777 == 0o600
    assert [path.name for path in tmp_path.iterdir()] == ["instance.id"]


def test_accounts_have_marks_that_nobody_guesses(tmp_path: Path) -> None:
    one, other = identity(tmp_path / "one")[0], identity(tmp_path / "other")[0]
    assert one.line("provider") == one.line("provider")
    assert len({one.line("provider"), one.line("pbx"), other.line("provider")}) == 3
    assert len(one.line("provider")) == 16
    assert one.instance.startswith("urn:uuid:")
    assert one.secret.hex() not in repr(one)


@pytest.mark.parametrize("content", [b"", b"x", b"\xff\xfe", b"9f1b7d1e-0000-4000-8000-000000000000 abcd", b"a b"])
def test_what_a_power_cut_left_is_replaced(tmp_path: Path, content: bytes) -> None:
    file = tmp_path / "instance.id"
    file.write_bytes(content)
    made, why = identity(file)
    assert why == ""
    assert identity(file)[0] == made


def test_where_nothing_can_be_kept_there_is_one_for_this_start(tmp_path: Path) -> None:
    made, why = identity(tmp_path / "nowhere" / "instance.id")
    assert "cannot write" in why
    assert made.instance.startswith("urn:uuid:")
    (tmp_path / "folder").mkdir()
    assert "cannot read" in identity(tmp_path / "folder")[1]
