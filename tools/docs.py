"""Write docs/configuration.md from the settings that the code knows: ``python tools/docs.py``.

Owns: the words around the generated tables. Refuses to know: the settings; their names, defaults, bounds and texts are those
of ``aftertone.config``. ``tests/unit/test_docs.py`` fails while the page and the code disagree.
"""

from __future__ import annotations

import sys
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, Final, Literal, get_args, get_origin

from pydantic import SecretStr
from pydantic.fields import FieldInfo

from aftertone.config import PortRange, Settings, entry_kind, environment_name, tables, to_toml

PAGE: Final = Path(__file__).parents[1] / "docs" / "configuration.md"

HEAD: Final = """\
# Settings

<!-- Made by `python tools/docs.py` from src/aftertone/config. Change it there. -->

Aftertone runs without any settings. What you want otherwise goes into `aftertone.toml` or into the environment.

## Where they come from

1. The defaults below.
2. One settings file: the one named with `--config` or `AFTERTONE_CONFIG`; without these `aftertone.toml` in the current
   folder; without that `aftertone.toml` in the data folder.
3. The environment: `AFTERTONE_<SECTION>__<KEY>`, with two underscores. It wins over the file.

A setting that does not exist is an error that names the nearest one that does, and the machine does not start. Settings are
read at the start: restart Aftertone after a change.

```
aftertone config check      is everything valid?
aftertone config show       what is in force now
aftertone config example    a file with every setting and its default
```

For example:

```toml
[sip]
port = 5070

[calls]
rings = 2
```

The data folder itself is no setting: name it with `--data` or `AFTERTONE_DATA`. The default is `var` in the current folder.
"""

NOTES: Final = {
    (
        "storage",
        "low_water_mb",
    ): "Never less than `reserve_mb` and one file of `journal.segment_mb`, whatever is set here. Callers hear why and get 480 with Retry-After, the desk shows an alarm, and calls in progress go on.",
    (
        "storage",
        "reserve_mb",
    ): "It is the file `journal/reserve`; it is made only of room above the mark of the two settings before.",
    (
        "storage",
        "accept",
    ): "The machine starts on any storage; what is wrong with it is told in the log, the desk and `aftertone doctor`.",
}
"""What a description of one line cannot say."""

BOUNDS: Final = (("ge", "at least {}"), ("gt", "more than {}"), ("le", "at most {}"), ("lt", "less than {}"))


def allowed(info: FieldInfo) -> str:
    """Say in words which values a setting takes."""
    kind: Any = info.annotation
    if type(None) in get_args(kind):
        kind = next(one for one in get_args(kind) if one is not type(None))
    if kind is bool:
        return "`true` or `false`"
    if kind is PortRange:
        return "`first-last`, between 1024 and 65535"
    if get_origin(kind) is Literal:
        return ", ".join(f"`{choice}`" for choice in get_args(kind))
    if get_origin(kind) is tuple:
        return "a list of texts; in the environment with commas between"
    word = {int: "whole number", float: "number", str: "text", Path: "path of a file", SecretStr: "text"}[kind]
    found = {name: getattr(bound, name) for bound in info.metadata for name, _ in BOUNDS if hasattr(bound, name)}
    if "ge" in found and "le" in found:
        return f"{word}, {found['ge']} to {found['le']}"
    return ", ".join([word, *(text.format(found[name]) for name, text in BOUNDS if name in found)])


def section(name: str, kind: type) -> Iterator[str]:
    """Yield the lines of one section, then those of its lists of tables."""
    yield from ("", f"## `[{name}]`", "", str(kind.__doc__), "")
    fields: dict[str, FieldInfo] = kind.model_fields  # type: ignore[attr-defined]
    plain = {key: info for key, info in fields.items() if (name, key) not in tables()}
    yield from table(plain, environment_name(name, ""))
    yield from explained(name, plain)
    for owner, key in tables():
        if owner == name:
            entry = entry_kind(name, key)
            called = f"{environment_name(name, key)}__<{tables()[owner, key].upper()}>__"
            yield from ("", f"### `[[{name}.{key}]]`", "", f"{entry.__doc__} Any number of them.", "")
            yield from table(entry.model_fields, called)
            yield from explained(f"{name}.{key}", entry.model_fields)


def table(fields: Mapping[str, FieldInfo], prefix: str) -> Iterator[str]:
    """Yield a table of settings."""
    yield from ("| setting | default | takes | environment |", "|---|---|---|---|")
    for key, info in fields.items():
        default = (
            "must be given" if info.is_required() else "none" if info.default is None else f"`{to_toml(info.default)}`"
        )
        yield f"| `{key}` | {default} | {allowed(info)} | `{prefix}{key.upper()}` |"


def explained(name: str, fields: Mapping[str, FieldInfo]) -> Iterator[str]:
    """Yield what each setting is for."""
    yield ""
    for key, info in fields.items():
        yield " ".join(filter(None, (f"- `{key}`: {info.description}", NOTES.get((name, key)))))


def configuration() -> str:
    """Return the text of docs/configuration.md."""
    lines = HEAD.splitlines()
    for name, info in Settings.model_fields.items():
        if isinstance(info.annotation, type):
            lines += section(name, info.annotation)
    return "\n".join(lines) + "\n"


def main() -> None:
    """Write the page."""
    PAGE.write_text(configuration(), encoding="utf-8")
    sys.stdout.write(f"{PAGE}\n")


if __name__ == "__main__":
    main()
