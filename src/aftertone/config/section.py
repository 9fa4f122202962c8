"""What every section of the settings is made of.

Owns: the base class, and the kinds of values that several sections share. Refuses to know: the settings.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated, Final

from pydantic import BaseModel, BeforeValidator, ConfigDict, Field

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


Ports = Annotated[PortRange, BeforeValidator(_port_range)]


class Section(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True, arbitrary_types_allowed=True, validate_default=True)


TABLES: Final = "tables"
"""Marks, in a field's ``json_schema_extra``, a list of tables ([[sip.accounts]]); its value is the key that names an entry."""
