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
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any, Final, Literal

from pydantic import BaseModel, BeforeValidator, ConfigDict, Field, ValidationError

from aftertone.errors import ConfigError

ENVIRONMENT_PREFIX: Final = "AFTERTONE_"
NOT_SETTINGS: Final = frozenset({"AFTERTONE_DATA", "AFTERTONE_CONFIG", "AFTERTONE_REQUIRE_PEERS", "AFTERTONE_PICTURES"})
"""Environment names with our prefix that are no settings: the two folders, and two switches of the tests."""

Port = Annotated[int, Field(ge=0, le=65535)]


@dataclass(frozen=True, slots=True)
class PortRange:
    """An inclusive range of UDP ports."""

    first: int
    last: int

    def __str__(self) -> str:
        return f"{self.first}-{self.last}"


def _port_range(value: object) -> PortRange:
    if isinstance(value, PortRange):
        return value
    first, dash, last = str(value).partition("-")
    if not (dash and first.strip().isdigit() and last.strip().isdigit()):
        raise ValueError("a port range is written first-last, for example 10000-19999")
    ports = PortRange(int(first), int(last))
    if not 1024 <= ports.first < ports.last <= 65535:
        raise ValueError("a port range lies between 1024 and 65535 and its first port is below its last")
    return ports


class _Section(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True, arbitrary_types_allowed=True, validate_default=True)


class Sip(_Section):
    """Where calls come in."""

    host: str = Field(
        default="0.0.0.0",  # noqa: S104 - a telephone line is there to be called from outside
        description="Address to listen on. 0.0.0.0 is every IPv4 interface, :: every interface.",
    )
    port: Port = Field(default=5060, description="UDP and TCP port for SIP. 0 takes any free port.")
    public_address: str = Field(
        default="", description="Address to put into SIP and SDP when a router translates ours."
    )


class Rtp(_Section):
    """Where the sound comes in."""

    ports: Annotated[PortRange, BeforeValidator(_port_range)] = Field(
        default=PortRange(10000, 19999), description="UDP ports for the sound of calls: one even port a call."
    )


class Web(_Section):
    """The desk: pages and API."""

    host: str = Field(
        default="127.0.0.1", description="Address of the desk. Keep it on localhost unless a proxy adds HTTPS."
    )
    port: Port = Field(default=8080, description="TCP port of the desk. 0 takes any free port.")
    names: tuple[str, ...] = Field(
        default=(), description="Host names under which the desk is reached, besides localhost."
    )
    secure_cookies: bool = Field(default=False, description="Set to true when the desk is reached by HTTPS only.")


class Calls(_Section):
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


class Journal(_Section):
    """How what was said reaches the disk."""

    segment_mb: Annotated[int, Field(ge=1, le=1024)] = Field(
        default=16, description="Size of one journal file in megabytes."
    )
    commit_ms: Annotated[int, Field(ge=5, le=100)] = Field(
        default=50, description="Longest time between two commits, in milliseconds."
    )


class Storage(_Section):
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


class Log(_Section):
    """What the operator reads."""

    level: Literal["debug", "info", "warning", "error"] = Field(
        default="info", description="Least serious event that is logged."
    )
    format: Literal["text", "json"] = Field(default="text", description="Lines for people, or JSON for machines.")


class Settings(_Section):
    """All settings of one machine."""

    sip: Sip = Sip()
    rtp: Rtp = Rtp()
    web: Web = Web()
    calls: Calls = Calls()
    journal: Journal = Journal()
    storage: Storage = Storage()
    log: Log = Log()


def _sections() -> Iterator[tuple[str, type[_Section]]]:
    for name, info in Settings.model_fields.items():
        kind = info.annotation
        if isinstance(kind, type) and issubclass(kind, _Section):
            yield name, kind


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
        first = error.errors()[0]
        section, key = (str(part) for part in (*first["loc"], "", "")[:2])
        source = sources.get((section, key), "the settings")
        what = first["msg"].removeprefix("Value error, ")
        raise ConfigError(f"{section}.{key} in {source}: {what} (got {first['input']!r})") from None


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
            values.setdefault(section, {})[key] = value
            sources[section, key] = str(path)


def _lay_environment(
    environment: Mapping[str, str], values: dict[str, dict[str, Any]], sources: dict[tuple[str, str], str]
) -> None:
    for name, text in sorted(environment.items()):
        if not name.startswith(ENVIRONMENT_PREFIX) or name in NOT_SETTINGS:
            continue
        section, _, key = name.removeprefix(ENVIRONMENT_PREFIX).lower().partition("__")
        source = f"the environment variable {name}"
        _check_known(section, key, source)
        value: object = tuple(part.strip() for part in text.split(",") if part.strip()) if key == "names" else text
        values.setdefault(section, {})[key] = value
        sources[section, key] = source


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
    text = str(value).replace("\\", "\\\\").replace('"', '\\"')
    return f'"{text}"'


def example() -> str:
    """Return an ``aftertone.toml`` that sets everything to its default and says what it is for."""
    lines = ["# Aftertone's settings. Every line shows a default; each can also be set by the environment,", ""]
    lines[1:1] = [f"# for example {environment_name('sip', 'port')}=5070."]
    for section, kind in _sections():
        lines += [f"# {kind.__doc__}", f"[{section}]"]
        for key, info in kind.model_fields.items():
            lines += [f"# {info.description}", f"{key} = {to_toml(info.default)}"]
        lines.append("")
    return "\n".join(lines)


def show(settings: Settings) -> str:
    """Return the settings in force as TOML, without the explanations."""
    lines: list[str] = []
    for section, kind in _sections():
        lines.append(f"[{section}]")
        part = getattr(settings, section)
        lines += [f"{key} = {to_toml(getattr(part, key))}" for key in kind.model_fields]
        lines.append("")
    return "\n".join(lines)
