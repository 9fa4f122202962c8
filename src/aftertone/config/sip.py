"""Settings of the telephone side: where we listen, where we register, who may call.

Owns: the section ``[sip]`` and its lists ``[[sip.accounts]]``, ``[[sip.trunks]]``, ``[[sip.phones]]``, ``[[sip.lamps]]``. Refuses
to know: what is done with them. Secrets are never part of a message.
"""

from __future__ import annotations

import ipaddress
from pathlib import Path
from typing import Annotated, Literal

from pydantic import Field, SecretStr, model_validator

from aftertone.config.section import TABLES, Port, Section
from aftertone.errors import ConfigError

Word = Annotated[str, Field(pattern=r"^[a-z0-9][a-z0-9_-]{0,31}$")]
"""A name that the operator gives: it stands in logs, metrics and environment names."""
Srtp = Literal["off", "optional", "required"]


class _Login(Section):
    """Somebody who proves with a secret who they are, or to whom we do."""

    secret: SecretStr = Field(default=SecretStr(""), description="Password. Better kept in secret_file.")
    secret_file: Path | None = Field(default=None, description="File that holds the password alone.")

    @model_validator(mode="after")
    def _one_secret(self) -> _Login:
        if self.secret.get_secret_value() and self.secret_file is not None:
            raise ValueError("give secret or secret_file, not both")
        return self

    def password(self) -> str:
        """Return the secret, read anew from its file, so that it can be changed without a restart. Raises ConfigError."""
        if self.secret_file is None:
            return self.secret.get_secret_value()
        try:
            return self.secret_file.read_text(encoding="utf-8").rstrip("\r\n")
        except (OSError, UnicodeDecodeError) as error:
            raise ConfigError(f"cannot read the secret file {self.secret_file}: {error}") from None


class Account(_Login):
    """A number at a provider, a FRITZ!Box or a PBX, where we register as a phone does."""

    name: Word = Field(description="Name of the account in logs, metrics and the desk.")
    registrar: str = Field(min_length=1, description="Host, host:port or SIP URI of the registrar.")
    user: str = Field(min_length=1, description="User name, often the number.")
    auth_user: str = Field(default="", description="User name of the login, when it is another.")
    proxy: str = Field(default="", description="Outbound proxy: host, host:port or SIP URI. Empty asks the registrar.")
    transport: Literal["auto", "udp", "tcp", "tls"] = Field(
        default="auto", description="Transport to the registrar; auto asks the DNS and falls back to UDP."
    )
    expires_s: Annotated[int, Field(ge=60, le=86_400)] = Field(
        default=3600, description="Length of a registration in seconds, as we ask for it."
    )
    retry_s: Annotated[int, Field(ge=1, le=1800)] = Field(
        default=30,
        description="First pause after a failed registration in seconds; it doubles with each failure, up to half an hour, or five minutes while nobody answers.",
    )
    mailbox: str = Field(default="", description="Mailbox of every call to this account; empty finds it by the call.")
    trust: bool = Field(
        default=True, description="Believe who the registrar's side says is calling (P-Asserted-Identity)."
    )
    srtp: Srtp | None = Field(default=None, description="SRTP of this account's calls, when it is not as in sip.srtp.")


class Trunk(_Login):
    """A PBX or carrier that sends us calls without our registering: known by its addresses, or by a login."""

    name: Word = Field(description="Name of the trunk in logs, metrics and the desk.")
    addresses: tuple[str, ...] = Field(
        default=(), description="Addresses or networks that its calls come from, for example 192.0.2.0/24."
    )
    user: str = Field(
        default="",
        description="User name with which it logs in; needs a secret. With addresses as well, both are needed.",
    )
    mailbox: str = Field(default="", description="Mailbox of every call of this trunk; empty finds it by the call.")
    trust: bool = Field(default=True, description="Believe who it says is calling (P-Asserted-Identity).")
    srtp: Srtp | None = Field(default=None, description="SRTP of this trunk's calls, when it is not as in sip.srtp.")
    calls_at_once: Annotated[int, Field(ge=0, le=20_000)] = Field(
        default=0,
        description="Calls of this trunk at the same time, wherever they come from; more are answered 503. 0 is no limit of its own.",
    )

    @model_validator(mode="after")
    def _known_somehow(self) -> Trunk:
        for text in self.addresses:
            try:
                ipaddress.ip_network(text)
            except ValueError as error:
                raise ValueError(f"addresses: {error}") from None
        if not self.addresses and not self.user:
            raise ValueError("a trunk needs addresses, or user and a secret")
        if self.user and not self.secret.get_secret_value() and self.secret_file is None:
            raise ValueError("user needs secret or secret_file")
        return self


class Phone(_Login):
    """A phone that registers with us, for its lamp."""

    user: Word = Field(description="User name with which the phone registers and logs in.")
    mailboxes: tuple[str, ...] = Field(min_length=1, description="Mailboxes whose new messages light its lamp.")

    @model_validator(mode="after")
    def _with_secret(self) -> Phone:
        if not self.secret.get_secret_value() and self.secret_file is None:
            raise ValueError("a phone needs secret or secret_file")
        return self


class Lamp(Section):
    """A lamp at another server's phone, told without being asked."""

    mailbox: Word = Field(description="Mailbox that it shows.")
    uri: str = Field(pattern=r"^sips?:.+", description="Where to: sip:100@pbx.example.net, the phone or its PBX.")
    account: str = Field(
        default="", description="Account whose registrar and login it is sent with; empty sends it plainly."
    )


class Sip(Section):
    """Where calls come in."""

    host: str = Field(
        default="0.0.0.0",  # noqa: S104 - a telephone line is there to be called from outside
        description="Address to listen on, or several with commas between them. "
        "0.0.0.0 is every IPv4 interface, :: every interface.",
    )
    port: Port = Field(default=5060, description="UDP and TCP port for SIP. 0 takes any free port.")
    public_address: str = Field(
        default="",
        description="Address to put into SIP and SDP when a router translates ours; peers in private networks get ours.",
    )
    tls: bool = Field(default=False, description="Listen for SIP over TLS as well.")
    tls_port: Port = Field(default=5061, description="TCP port for SIP over TLS. 0 takes any free port.")
    tls_certificate: Path | None = Field(
        default=None,
        description="Certificate chain (PEM) for TLS; without one a certificate is made at the first start.",
    )
    tls_key: Path | None = Field(default=None, description="Private key (PEM) of that certificate.")
    tls_authorities: Path | None = Field(
        default=None,
        description="Certificates (PEM) that are trusted besides the system's, for a PBX that made its own.",
    )
    tls_verify: bool = Field(default=True, description="Check the certificates of servers that we connect to.")
    srtp: Srtp = Field(
        default="optional", description="SRTP: off, optional (taken when the caller offers it) or required."
    )
    callers: Literal["anyone", "known"] = Field(
        default="anyone", description="Who may leave a message: anyone, or only accounts, trunks and phones."
    )
    scanners: Literal["ignore", "answer"] = Field(
        default="ignore",
        description="Programs that are known to look for systems to break into: give them no answer at all, or answer as to anybody.",
    )
    digest: tuple[Literal["SHA-512-256", "SHA-256", "MD5"], ...] = Field(
        default=("MD5",),
        min_length=1,
        description="Algorithms of the logins that we ask for, the best first. Many peers give up at a second challenge, or at any but MD5.",
    )
    early_media: bool = Field(
        default=False,
        description="Play the greeting before the call is answered, where the caller's side lets it through.",
    )
    accounts: tuple[Account, ...] = Field(
        default=(), json_schema_extra={TABLES: "name"}, description="Numbers that we register for."
    )
    trunks: tuple[Trunk, ...] = Field(
        default=(), json_schema_extra={TABLES: "name"}, description="PBXs and carriers that send us calls."
    )
    phones: tuple[Phone, ...] = Field(
        default=(), json_schema_extra={TABLES: "user"}, description="Phones that register with us."
    )
    lamps: tuple[Lamp, ...] = Field(
        default=(), json_schema_extra={TABLES: "mailbox"}, description="Lamps at other servers' phones."
    )

    @property
    def hosts(self) -> tuple[str, ...]:
        """Return the addresses to listen on, each once; ``::`` brings IPv4 along, as it always did."""
        hosts = tuple(dict.fromkeys(part.strip().strip("[]") for part in self.host.split(",") if part.strip()))
        return ("0.0.0.0", "::") if hosts == ("::",) else hosts  # noqa: S104

    @model_validator(mode="after")
    def _consistent(self) -> Sip:
        if not self.hosts:
            raise ValueError("host names no address to listen on")
        for what, names in (
            ("accounts", [one.name for one in self.accounts]),
            ("trunks", [one.name for one in self.trunks]),
            ("phones", [one.user for one in self.phones]),
        ):
            for name in names:
                if names.count(name) > 1:
                    raise ValueError(f"two of the {what} are called {name!r}")
        users = [trunk.user for trunk in self.trunks if trunk.user] + [phone.user for phone in self.phones]
        for user in users:
            if users.count(user) > 1:
                raise ValueError(f"two of the trunks and phones log in as {user!r}")
        for trunk in self.trunks:
            if trunk.user and not trunk.addresses and self.callers == "anyone":
                raise ValueError(
                    f'nobody would ask the trunk {trunk.name!r} for its login: say callers = "known", or give its addresses'
                )
        if (self.tls_certificate is None) != (self.tls_key is None):
            raise ValueError("tls_certificate and tls_key are given together")
        known = {one.name for one in self.accounts}
        for lamp in self.lamps:
            if lamp.account and lamp.account not in known:
                raise ValueError(f"a lamp names the account {lamp.account!r}, and there is none of that name")
        return self
