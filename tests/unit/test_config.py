"""Settings: defaults, file, environment, and errors that name what to change."""

from __future__ import annotations

from pathlib import Path

import pytest

from aftertone import config
from aftertone.errors import ConfigError


def test_defaults_are_the_documented_ones() -> None:
    settings = config.load(None, {})
    assert (settings.sip.port, settings.web.host, settings.web.port) == (5060, "127.0.0.1", 8080)
    assert str(settings.rtp.ports) == "10000-19999"
    assert (settings.calls.rings, settings.calls.silence_s, settings.calls.longest_s) == (3, 10.0, 600.0)


def test_environment_wins_over_the_file(tmp_path: Path) -> None:
    file = tmp_path / "aftertone.toml"
    file.write_text("[sip]\nport = 5070\n[calls]\nrings = 1\n")
    settings = config.load(file, {"AFTERTONE_SIP__PORT": "5080", "AFTERTONE_RTP__PORTS": "20000-20100"})
    assert (settings.sip.port, settings.calls.rings, settings.rtp.ports.last) == (5080, 1, 20100)


@pytest.mark.parametrize(
    ("environment", "parts"),
    [
        ({"AFTERTONE_SIP__PRT": "1"}, ["AFTERTONE_SIP__PRT", "sip.prt", "'port'"]),
        ({"AFTERTONE_SIPP__PORT": "1"}, ["'sipp'", "'sip'"]),
        ({"AFTERTONE_SIP__PORT": "70000"}, ["sip.port", "AFTERTONE_SIP__PORT", "65535", "'70000'"]),
        ({"AFTERTONE_RTP__PORTS": "7"}, ["rtp.ports", "first-last"]),
        ({"AFTERTONE_RTP__PORTS": "20000-10000"}, ["rtp.ports", "below"]),
        ({"AFTERTONE_CALLS__RINGS": "many"}, ["calls.rings", "integer"]),
    ],
)
def test_a_wrong_setting_is_named_with_its_source_and_the_nearest(
    environment: dict[str, str], parts: list[str]
) -> None:
    with pytest.raises(ConfigError) as caught:
        config.load(None, environment)
    for part in parts:
        assert part in str(caught.value)


@pytest.mark.parametrize(
    ("text", "part"),
    [
        ("[sip]\nprot = 1\n", "'port'"),
        ("sip = 1\n", "[sip]"),
        ("[sip\n", "not valid TOML"),
        ("[spi]\nport=1\n", "'sip'"),
    ],
)
def test_a_wrong_file_is_named(tmp_path: Path, text: str, part: str) -> None:
    file = tmp_path / "aftertone.toml"
    file.write_text(text)
    with pytest.raises(ConfigError) as caught:
        config.load(file, {})
    assert part in str(caught.value)
    assert str(file) in str(caught.value)


def test_a_missing_file_is_named(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"cannot read .*nowhere\.toml"):
        config.load(tmp_path / "nowhere.toml", {})


def test_the_example_and_the_shown_settings_load_as_the_defaults(tmp_path: Path) -> None:
    defaults = config.load(None, {})
    for text in (config.example(), config.show(defaults)):
        file = tmp_path / "a.toml"
        file.write_text(text)
        assert config.load(file, {}) == defaults


def test_names_of_the_folders_are_no_settings() -> None:
    assert config.load(None, {"AFTERTONE_DATA": "/x", "AFTERTONE_CONFIG": "y"}) == config.load(None, {})


def test_host_names_by_environment_are_a_list() -> None:
    assert config.load(None, {"AFTERTONE_WEB__NAMES": "a.example, b.example"}).web.names == ("a.example", "b.example")


ACCOUNT = """
[[sip.accounts]]
name = "my-home"
registrar = "fritz.box"
user = "620"
"""


def test_accounts_come_from_the_file_and_their_secrets_from_elsewhere(tmp_path: Path) -> None:
    (tmp_path / "secret").write_text("of the file\n")
    file = tmp_path / "aftertone.toml"
    file.write_text(ACCOUNT + ACCOUNT.replace("my-home", "work") + f'secret_file = "{tmp_path / "secret"}"\n')
    settings = config.load(file, {"AFTERTONE_SIP__ACCOUNTS__MY_HOME__SECRET": "of the environment"})
    home, work = settings.sip.accounts
    assert (home.name, home.registrar, home.password()) == ("my-home", "fritz.box", "of the environment")
    assert (work.name, work.password()) == ("work", "of the file")
    (tmp_path / "secret").write_text("another")
    assert work.password() == "another", "a secret can be changed without a restart"
    (tmp_path / "secret").unlink()
    with pytest.raises(ConfigError, match="secret"):
        work.password()


def test_an_entry_can_be_made_by_the_environment_alone() -> None:
    prefix = "AFTERTONE_SIP__TRUNKS__PBX__"
    settings = config.load(None, {f"{prefix}ADDRESSES": "192.0.2.0/24, 2001:db8::/32", f"{prefix}TRUST": "false"})
    (trunk,) = settings.sip.trunks
    assert (trunk.name, trunk.addresses, trunk.trust) == ("pbx", ("192.0.2.0/24", "2001:db8::/32"), False)


@pytest.mark.parametrize(
    ("text", "said"),
    [
        (ACCOUNT + "usr = 1", "'user'"),
        (ACCOUNT + ACCOUNT, "two of the accounts are called 'my-home'"),
        (ACCOUNT + "expires_s = 5", "sip.accounts[my-home].expires_s"),
        (ACCOUNT + "expires_s = 5", "aftertone.toml"),
        ('[sip]\naccounts = "home"\n', "[[sip.accounts]]"),
        ('[[sip.trunks]]\nname = "pbx"\n', "needs addresses, or user and a secret"),
        ('[[sip.trunks]]\nname = "pbx"\naddresses = ["10.0.0.1/8"]\n', "host bits"),
        ('[[sip.trunks]]\nname = "pbx"\nuser = "pbx"\nsecret = "s"\n', "nobody would ask the trunk 'pbx'"),
        (
            (
                '[[sip.trunks]]\nname = "a"\nuser = "x"\nsecret = "s"\naddresses = ["192.0.2.1"]\n'
                '[[sip.phones]]\nuser = "x"\nsecret = "s"\nmailboxes = ["main"]\n'
            ),
            "log in as 'x'",
        ),
        ('[[sip.lamps]]\nmailbox = "main"\nuri = "sip:1@b"\naccount = "nowhere"\n', "'nowhere'"),
        ('[[sip.phones]]\nuser = "desk"\nmailboxes = ["main"]\n', "a phone needs secret"),
    ],
)
def test_a_wrong_entry_is_named(tmp_path: Path, text: str, said: str) -> None:
    file = tmp_path / "aftertone.toml"
    file.write_text(text)
    with pytest.raises(ConfigError) as caught:
        config.load(file, {})
    assert said in str(caught.value)


@pytest.mark.parametrize("variable", ["AFTERTONE_SIP__ACCOUNTS", "AFTERTONE_SIP__ACCOUNTS__HOME__SECRTE"])
def test_a_variable_of_an_entry_that_names_nothing_is_an_error(variable: str) -> None:
    with pytest.raises(ConfigError, match=r"there is no setting sip\.accounts"):
        config.load(None, {variable: "x"})


def test_a_secret_is_never_shown(tmp_path: Path) -> None:
    file = tmp_path / "aftertone.toml"
    file.write_text(ACCOUNT + 'secret = "hunter2"\nsecret_file = "x"\n')
    with pytest.raises(ConfigError) as caught:
        config.load(file, {})
    assert "hunter2" not in str(caught.value)
    file.write_text(ACCOUNT + 'secret = "hunter2"\n')
    settings = config.load(file, {})
    assert "hunter2" not in config.show(settings) + repr(settings)
    assert 'secret = "***"' in config.show(settings)


@pytest.mark.parametrize(
    ("host", "hosts"),
    [
        ("0.0.0.0", ("0.0.0.0",)),
        ("::", ("0.0.0.0", "::")),
        ("192.0.2.1, [2001:db8::1],192.0.2.1", ("192.0.2.1", "2001:db8::1")),
        ("localhost", ("localhost",)),
    ],
)
def test_addresses_to_listen_on(host: str, hosts: tuple[str, ...]) -> None:
    assert config.Settings.model_validate({"sip": {"host": host}}).sip.hosts == hosts


def test_no_address_to_listen_on_is_refused() -> None:
    with pytest.raises(ValueError, match="names no address"):
        config.Settings.model_validate({"sip": {"host": " , "}})
