"""Settings: what may be set, its default, where it came from.

Owns: the sections and keys of ``aftertone.toml``, their environment names, and the texts that explain them (the example
file and the reference page are made from here). Refuses to know: who uses a setting.

Theory of operation: defaults, then the file, then the environment (``AFTERTONE_<SECTION>__<KEY>``), each laid over the one
before; pydantic checks the result once. An unknown name is an error with the nearest known one, because a setting that is
silently ignored is a promise silently broken.
"""

from __future__ import annotations

import difflib
import os
import tomllib
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Annotated, Any, Final, Literal, get_args

from pydantic import Field, SecretStr, ValidationError
from pydantic.fields import FieldInfo

from aftertone.config.defence import Defence, Trace
from aftertone.config.section import TABLES, Port, PortRange, Ports, Section
from aftertone.config.sip import Account, Lamp, Phone, Sip, Trunk
from aftertone.errors import ConfigError

__all__ = [
    "Account",
    "Defence",
    "Lamp",
    "Phone",
    "PortRange",
    "Settings",
    "Sip",
    "Trace",
    "Trunk",
    "environment_name",
    "example",
    "load",
    "show",
]

ENVIRONMENT_PREFIX: Final = "AFTERTONE_"
NOT_SETTINGS: Final = frozenset({"AFTERTONE_DATA", "AFTERTONE_CONFIG", "AFTERTONE_REQUIRE_PEERS", "AFTERTONE_PICTURES"})
"""Environment names with our prefix that are no settings: the two folders, and two switches of the tests."""


class Rtp(Section):
    """Where the sound comes in."""

    ports: Ports = Field(
        default=PortRange(10000, 19999),
        description="UDP ports for the sound of calls: one even port a call, and the odd one above for reports.",
    )


class Web(Section):
    """The desk: pages and API."""

    host: str = Field(
        default="127.0.0.1", description="Address of the desk. Keep it on localhost unless a proxy adds HTTPS."
    )
    port: Port = Field(default=8080, description="TCP port of the desk. 0 takes any free port.")
    names: tuple[str, ...] = Field(
        default=(), description="Host names under which the desk is reached, besides localhost."
    )
    secure_cookies: bool = Field(default=False, description="Set to true when the desk is reached by HTTPS only.")


class Calls(Section):
    """How calls are taken."""

    default_mailbox: str = Field(
        default="main", description="Mailbox of calls that name none. It is made at the first start."
    )
    rings: Annotated[int, Field(ge=0, le=20)] = Field(
        default=3, description="Rings before a direct call is answered; 0 answers at once."
    )
    ring_s: Annotated[float, Field(gt=0, le=10)] = Field(
        default=5.0, description="Length of one ring in seconds, its pause included."
    )
    silence_s: Annotated[float, Field(ge=2, le=120)] = Field(
        default=10.0, description="Silence that ends a recording, in seconds."
    )
    tone_s: Annotated[float, Field(ge=1, le=60)] = Field(
        default=4.0, description="Dial or busy tone that ends a recording, in seconds."
    )
    longest_s: Annotated[float, Field(ge=5, le=14400)] = Field(
        default=600.0, description="Longest recording in seconds."
    )
    at_once: Annotated[int, Field(ge=1, le=20000)] = Field(
        default=1000, description="Calls taken at the same time; more are answered 503."
    )
    greeting_longest_s: Annotated[float, Field(ge=1, le=600)] = Field(
        default=120.0, description="Longest greeting that may be set, in seconds."
    )


class Journal(Section):
    """How what was said reaches the disk."""

    segment_mb: Annotated[int, Field(ge=1, le=1024)] = Field(
        default=16, description="Size of one journal file in megabytes."
    )
    commit_ms: Annotated[int, Field(ge=5, le=100)] = Field(
        default=50, description="Longest time between two commits, in milliseconds."
    )


class Storage(Section):
    """Room on the disk."""

    low_water_mb: Annotated[int, Field(ge=1)] = Field(
        default=200,
        description="With less free space than this, in megabytes, or than low_water_percent, whichever is less, new calls are refused.",
    )
    low_water_percent: Annotated[float, Field(gt=0, le=50)] = Field(
        default=2.0, description="The same as a share of the disk, in percent."
    )
    reserve_mb: Annotated[int, Field(ge=0, le=10_000)] = Field(
        default=32,
        description="Room in megabytes that is set aside for calls in progress when the disk is full all the same; 0 sets none aside.",
    )
    accept: bool = Field(
        default=False, description="No alarm about storage that cannot keep the promise (see aftertone doctor)."
    )


class Log(Section):
    """What the operator reads."""

    level: Literal["debug", "info", "warning", "error"] = Field(
        default="info", description="Least serious event that is logged."
    )
    format: Literal["text", "json"] = Field(default="text", description="Lines for people, or JSON for machines.")


class Settings(Section):
    """All settings of one machine."""

    sip: Sip = Sip()
    rtp: Rtp = Rtp()
    web: Web = Web()
    calls: Calls = Calls()
    defence: Defence = Defence()
    trace: Trace = Trace()
    journal: Journal = Journal()
    storage: Storage = Storage()
    log: Log = Log()


def _sections() -> Iterator[tuple[str, type[Section]]]:
    for name, info in Settings.model_fields.items():
        kind = info.annotation
        if isinstance(kind, type) and issubclass(kind, Section):
            yield name, kind


def tables() -> Mapping[tuple[str, str], str]:
    """Return the lists of tables as (section, key), with the key that names an entry."""
    return {
        (section, key): str(info.json_schema_extra[TABLES])
        for section, kind in _sections()
        for key, info in kind.model_fields.items()
        if isinstance(info.json_schema_extra, dict) and TABLES in info.json_schema_extra
    }


def entry_kind(section: str, key: str) -> type[Section]:
    """Return the class of one entry of a list of tables."""
    kind = dict(_sections())[section].model_fields[key].annotation
    entry: type[Section] = get_args(kind)[0]
    return entry


_LISTS: Final = frozenset({"names", "addresses", "mailboxes", "digest"})
"""Settings that hold several values: separated by commas in the environment."""
KNOWN: Final[Mapping[str, frozenset[str]]] = {name: frozenset(kind.model_fields) for name, kind in _sections()}
"""Section name to its keys."""


def load(path: Path | None, environment: Mapping[str, str] | None = None) -> Settings:
    """Read the settings: defaults, then the TOML file at ``path`` (None: no file), then the environment.

    Raises ConfigError naming the setting, its source and the nearest known name or the allowed values.
    """
    values: dict[str, dict[str, Any]] = {}
    sources: dict[tuple[str, str], str] = {}
    if path is not None:
        _lay_file(path, values, sources)
    _lay_environment(os.environ if environment is None else environment, values, sources)
    try:
        return Settings.model_validate(values)
    except ValidationError as error:
        raise ConfigError(_explain(error, values, sources)) from None


def _explain(
    error: ValidationError, values: Mapping[str, Mapping[str, Any]], sources: Mapping[tuple[str, str], str]
) -> str:
    """Say what is wrong with which setting, and where it was set. Never shows a secret."""
    first = error.errors()[0]
    section, key, *deeper = (*first["loc"], "", "")
    where: str = f"{section}.{key}".rstrip(".")
    place: list[Any] = [part for part in deeper if part != ""]
    entries = values.get(str(section), {}).get(str(key))
    if place and isinstance(place[0], int) and isinstance(entries, list):
        named = tables()[str(section), str(key)]
        where += f"[{entries[place[0]].get(named) or place[0] + 1}]" if isinstance(entries[place[0]], dict) else ""
        where = ".".join((where, *map(str, place[1:])))
    source = sources.get((str(section), str(key)), "the settings")
    what = first["msg"].removeprefix("Value error, ")
    plain = isinstance(first["input"], (str, int, float, bool)) and "secret" not in where
    return f"{where} in {source}: {what}" + (f" (got {first['input']!r})" if plain else "")


def _lay_file(path: Path, values: dict[str, dict[str, Any]], sources: dict[tuple[str, str], str]) -> None:
    try:
        data = tomllib.loads(path.read_text(encoding="utf-8"))
    except OSError as error:
        raise ConfigError(f"cannot read the settings file {path}: {error.strerror}") from None
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise ConfigError(f"{path} is not valid TOML: {error}") from None
    for section, keys in data.items():
        _check_known(section, None, str(path))
        if not isinstance(keys, dict):
            raise ConfigError(f"{path}: write {section} as a section: [{section}]")
        for key, value in keys.items():
            _check_known(section, key, str(path))
            if (section, key) in tables():
                _check_entries(section, key, value, path)
            values.setdefault(section, {})[key] = value
            sources[section, key] = str(path)


def _check_entries(section: str, key: str, value: object, path: Path) -> None:
    if not isinstance(value, list) or not all(isinstance(entry, dict) for entry in value):
        raise ConfigError(f"{path}: write each of {section}.{key} as a table of its own: [[{section}.{key}]]")
    known = entry_kind(section, key).model_fields
    for entry in value:
        for name in entry:
            if name not in known:
                raise ConfigError(f"{path}: there is no setting {section}.{key}.{name}{_nearest(name, known)}")


def _lay_environment(
    environment: Mapping[str, str], values: dict[str, dict[str, Any]], sources: dict[tuple[str, str], str]
) -> None:
    for name, text in sorted(environment.items()):
        if not name.startswith(ENVIRONMENT_PREFIX) or name in NOT_SETTINGS:
            continue
        section, _, key = name.removeprefix(ENVIRONMENT_PREFIX).lower().partition("__")
        source = f"the environment variable {name}"
        key, _, entry = key.partition("__")
        _check_known(section, key, source)
        if (section, key) in tables():
            _lay_entry(section, key, entry, text, values, source)
        else:
            _check_known(section, f"{key}__{entry}" if entry else key, source)
            many = key in _LISTS
            values.setdefault(section, {})[key] = (
                tuple(part.strip() for part in text.split(",") if part.strip()) if many else text
            )
        sources[section, key] = source


def _lay_entry(section: str, key: str, rest: str, text: str, values: dict[str, dict[str, Any]], source: str) -> None:
    """Set one key of one entry: AFTERTONE_SIP__ACCOUNTS__HOME__SECRET; the entry is made when the file has none of that name."""
    name, _, field = rest.partition("__")
    kind, named = entry_kind(section, key), tables()[section, key]
    if not name or field not in kind.model_fields:
        near = _nearest(field, kind.model_fields)
        raise ConfigError(
            f"{source}: there is no setting {section}.{key}.{name or '<name>'}.{field or '<setting>'}{near}"
        )
    # The file's values stay as they are: entries are copied before they are changed.
    entries = [dict(entry) for entry in values.get(section, {}).get(key, ())]
    values.setdefault(section, {})[key] = entries
    found = next((entry for entry in entries if str(entry.get(named, "")).lower().replace("-", "_") == name), None)
    if found is None:
        found = {named: name}
        entries.append(found)
    many = field in _LISTS
    found[field] = tuple(part.strip() for part in text.split(",") if part.strip()) if many else text


def _check_known(section: str, key: str | None, source: str) -> None:
    if section not in KNOWN:
        raise ConfigError(f"{source}: there is no section {section!r}{_nearest(section, KNOWN)}")
    if key is not None and key not in KNOWN[section]:
        everywhere = {f"{s}.{k}": None for s, keys in KNOWN.items() for k in keys}
        near = _nearest(key, dict.fromkeys(KNOWN[section])) or _nearest(f"{section}.{key}", everywhere)
        raise ConfigError(f"{source}: there is no setting {section}.{key}{near}")


def _nearest(name: str, known: Mapping[str, object]) -> str:
    close = difflib.get_close_matches(name, list(known), n=1, cutoff=0.5)
    return f"; did you mean {close[0]!r}?" if close else ""


def environment_name(section: str, key: str) -> str:
    """Return the environment variable that overrides ``section.key``."""
    return f"{ENVIRONMENT_PREFIX}{section.upper()}__{key.upper()}"


def to_toml(value: object) -> str:
    """Return one setting's value as TOML."""
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, (int, float)):
        return str(value)
    if isinstance(value, (tuple, list)):
        return "[" + ", ".join(to_toml(item) for item in value) + "]"
    if isinstance(value, SecretStr):
        value = "***" if value.get_secret_value() else ""
    text = str(value).replace("\\", "\\\\").replace('"', '\\"')
    return f'"{text}"'


def example() -> str:
    """Return an ``aftertone.toml`` that sets everything to its default and says what it is for.

    Lists of tables are shown as comments, because an entry has no default.
    """
    lines = ["# Aftertone's settings. Every line shows a default; each can also be set by the environment,", ""]
    lines[1:1] = [f"# for example {environment_name('sip', 'port')}=5070."]
    for section, kind in _sections():
        lines += [f"# {kind.__doc__}", f"[{section}]"]
        for key, info in _plain(section, kind):
            lines += [f"# {info.description}"]
            lines += [f"{key} = {to_toml(info.default)}" if info.default is not None else f'# {key} = ""']
        lines.append("")
        for owner, key in tables():
            if owner == section:
                lines += _entry_example(section, key)
    return "\n".join(lines)


def _plain(section: str, kind: type[Section]) -> list[tuple[str, FieldInfo]]:
    return [(key, info) for key, info in kind.model_fields.items() if (section, key) not in tables()]


def _entry_example(section: str, key: str) -> list[str]:
    kind = entry_kind(section, key)
    lines = [f"# {kind.__doc__}", f"# [[{section}.{key}]]"]
    for name, info in kind.model_fields.items():
        default = "" if info.is_required() or info.default is None else info.default
        lines.append(f"# {name} = {to_toml(default)}  # {info.description}")
    return [*lines, ""]


def show(settings: Settings) -> str:
    """Return the settings in force as TOML, without the explanations; secrets are starred out."""
    lines: list[str] = []
    for section, kind in _sections():
        lines.append(f"[{section}]")
        part = getattr(settings, section)
        values = {key: getattr(part, key) for key, _ in _plain(section, kind)}
        lines += [f"{key} = {to_toml(value)}" for key, value in values.items() if value is not None]
        lines.append("")
        for owner, key in tables():
            for entry in getattr(part, key) if owner == section else ():
                lines.append(f"[[{section}.{key}]]")
                each = {name: getattr(entry, name) for name in type(entry).model_fields}
                lines += [f"{name} = {to_toml(value)}" for name, value in each.items() if value is not None]
                lines.append("")
    return "\n".join(lines)
