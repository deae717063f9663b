"""What a person's ~/.ssh/config says, as the real `ssh -G` reads it."""

from __future__ import annotations

from pathlib import Path

import pytest

from slurm_magics import SlurmError
from slurm_magics.ssh_config import Route, parse_target, resolve


@pytest.fixture
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Where `~` and variables lead to."""
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.setenv("KEYS", f"{tmp_path}/keys")
    monkeypatch.setenv("MY_AGENT", f"{tmp_path}/agent")
    monkeypatch.delenv("NO_AGENT", raising=False)
    return tmp_path


def route(home: Path, text: str, host: str = "alpha") -> Route:
    """What a configuration makes of a host."""
    (home / "config").write_text(text)
    return resolve(parse_target(host, ("-F", f"{home}/config")))


def test_paths_may_have_tokens_variables_and_a_home(home: Path) -> None:
    """`ssh -G` leaves these to ssh."""
    found = route(
        home,
        "Host alpha\n  User river\n  IdentityFile ${KEYS}/%r@%h\n  CertificateFile ${KEYS}/%n-cert.pub\n"
        "  IdentityFile %d/second\n  ProxyCommand nc ${HOME} %h\n  UserKnownHostsFile ${KEYS}/known\n",
    )
    assert found.keys == (home / "keys" / "river@alpha", Path.home() / "second")
    assert found.certificates == (home / "keys" / "alpha-cert.pub",)
    assert found.proxy_command == "nc ${HOME} alpha"  # the shell's
    assert home / "keys" / "known" in found.known_hosts


def test_paths_may_have_blanks(home: Path) -> None:
    """`ssh -G` prints a list without its quotes. No other file is believed instead."""
    found = route(
        home,
        'Host *\n  UserKnownHostsFile "${KEYS}/a b/known  hosts" "${KEYS}/c d" /e\n'
        '  GlobalKnownHostsFile "/f g/h"\n  IdentityFile "~/a b/key"\n',
    )
    there = (home / "keys" / "a b" / "known  hosts", home / "keys" / "c d", Path("/e"), Path("/f g/h"))
    assert found.known_hosts == there
    assert found.keys == (home / "a b" / "key",)


@pytest.mark.parametrize(
    ("word", "socket"),
    [
        ("$MY_AGENT", "{home}/agent"),
        ("${MY_AGENT}", "{home}/agent"),
        ("$NO_AGENT", "none"),
        ("$SSH_AUTH_SOCK", "SSH_AUTH_SOCK"),
        ("SSH_AUTH_SOCK", "SSH_AUTH_SOCK"),
        ("none", "none"),
        ("/run/agent", "/run/agent"),
    ],
)
def test_the_agent_may_be_named_by_a_variable(home: Path, word: str, socket: str) -> None:
    """As ssh_config(5) has it."""
    assert route(home, f"Host alpha\n  IdentityAgent {word}\n").agent == socket.format(home=home)


def test_what_is_included_and_matched_counts(home: Path) -> None:
    """Include, Match host and Match exec; first come, first served."""
    (home / "more").write_text("Match originalhost alpha exec true\n  HostName 192.0.2.7\n  Port 2222\n")
    found = route(home, f"Include {home}/more\nHost *\n  Port 22\n  ProxyJump hop1:2200,a@hop2\n")
    assert (found.host, found.port) == ("192.0.2.7", 2222)
    assert [jump.host for jump in found.jumps] == ["hop1", "hop2"]
    assert [jump.options[2:] for jump in found.jumps] == [("-p", "2200"), ("-l", "a")]


def test_a_configuration_that_is_wrong(home: Path) -> None:
    """Is told in ssh's words."""
    with pytest.raises(SlurmError, match=r"ssh refuses its configuration for alpha: .*nonsense"):
        route(home, "Host alpha\n  Nonsense yes\n")
