"""Certificates for the login nodes' own keys, by an authority apart from that of people.

With one line of known_hosts for all of them, a new or reinstalled node needs no new line there.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from pathlib import Path

import asyncssh

from hpchub.errors import InvalidRequest
from hpchub.private_files import check_private_folder, write_private_file
from hpchub.signer.ca_keys import load_ca_key, new_ca_key
from hpchub.signer.certificate_bytes import Contents, Kind
from hpchub.signer.certificates import PublicKey, checked, line_of, sign_contents
from hpchub.signer.policy import BACKDATE_S

HOST_CA_KEY = "host_ca_key"

_MOST_NAMES = 16
_DAYS = range(1, 1096)

# In small letters: ssh and asyncssh compare with the name in small letters. No wildcards.
_NAME = re.compile(r"[a-z0-9](?:[a-z0-9.-]{0,251}[a-z0-9])?|[0-9a-f:]{2,39}", re.ASCII)
_PATTERN = re.compile(
    r"[A-Za-z0-9*?][A-Za-z0-9.*?:-]{0,252}|\[[A-Za-z0-9.*?:-]{1,252}\]:[0-9]{1,5}", re.ASCII
)


def make_host_ca_key(state_dir: Path) -> Path:
    """Make the hosts' authority. ConfigError where there is one already, or it cannot be written."""
    check_private_folder(state_dir)
    write_private_file(state_dir / HOST_CA_KEY, new_ca_key(), replace=False)
    return state_dir / HOST_CA_KEY


def load_host_ca_key(state_dir: Path) -> asyncssh.SSHKey:
    """The hosts' authority. ConfigError where it is missing, loose, or no key."""
    return load_ca_key(state_dir, HOST_CA_KEY)


def known_hosts_line(key: asyncssh.SSHKey, patterns: Sequence[str]) -> str:
    """One line for a cluster's known_hosts: this authority may vouch for these names.

    Raises:
        InvalidRequest: A pattern is none that known_hosts could have.
    """
    for pattern in patterns:
        if not _PATTERN.fullmatch(pattern):
            raise InvalidRequest(f"{pattern!r} is no host name or pattern of known_hosts.")
    return f"@cert-authority {','.join(patterns)} {line_of(key)} hpchub-hosts"


def plan_host_certificate(names: Sequence[str], *, days: int, now: int, serial: int) -> Contents:
    """What a host's certificate is to say.

    Raises:
        InvalidRequest: No name, too many, one that could stand for other hosts, or no such lifetime.
    """
    for name in names:
        if not _NAME.fullmatch(name):
            raise InvalidRequest(
                f"{name!r} is no name of one host.", "Write it in small letters, without wildcards."
            )
    if not 0 < len(names) <= _MOST_NAMES:
        raise InvalidRequest(f"Give 1 to {_MOST_NAMES} names.")
    if days not in _DAYS:
        raise InvalidRequest(f"Give {_DAYS.start} to {_DAYS.stop - 1} days.")
    return Contents(
        kind=Kind.HOST,
        serial=serial,
        key_id=f"hpchub:host:{names[0][:64]}:{serial:016x}",
        principals=tuple(names),
        valid_after=now - BACKDATE_S,
        valid_before=now + days * 24 * 3600,
        critical_options={},
        extensions=frozenset(),
    )


def sign_host_certificate(key: asyncssh.SSHKey, public_key: PublicKey, contents: Contents) -> str:
    """The certificate as one line, read back. SiteError where it is not as planned."""
    return checked(sign_contents(key, public_key, contents), line_of(key), public_key, contents)
