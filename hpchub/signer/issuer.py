"""Who signs: a key of our own, or an authority elsewhere. Whatever comes back is compared with the plan."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Protocol

import asyncssh

from hpchub.errors import ConfigError, SiteError
from hpchub.signer.certificate_bytes import Contents
from hpchub.signer.certificates import (
    PublicKey,
    checked,
    contents_of,
    is_pair,
    line_of,
    read_bounds,
    sign_contents,
)
from hpchub.signer.policy import Plan

# How far an authority that picks times itself may be off at the start: its clock, and how much it dates back.
# At the end not at all: no certificate outlives its login's ceiling.
_LATER_S = 60
_EARLIER_S = 300


class Issuer(Protocol):
    """An authority. What it returns has been checked by nobody: only `issue` may call `sign`."""

    @property
    def public_key(self) -> str:
        """One line without a comment: what the clusters trust."""

    @property
    def adjusts(self) -> bool:
        """Whether it picks serial and times itself, as near as it likes to what was asked for."""

    @property
    def own_key(self) -> asyncssh.SSHKey | None:
        """Its private key, where that is in our own memory."""

    async def sign(self, public_key: PublicKey, contents: Contents) -> str:
        """A certificate as one line, within `issuer_http.ANSWER_S`.

        Raises:
            RemoteError: It is away or slow; it may pass.
            SiteError: It refuses, or cannot prove who it is.
        """

    async def check(self) -> None:
        """Return where it is there and has the key that is trusted; the errors of `sign` otherwise."""


@dataclass(frozen=True, slots=True)
class Issued:
    """A certificate that is as planned, and the plan with the serial and times that it really has."""

    certificate: str
    plan: Plan


async def issue(issuer: Issuer, public_key: PublicKey, plan: Plan, now: int) -> Issued:
    """The certificate that `plan` describes.

    Raises:
        RemoteError: The issuer is away or slow.
        SiteError: It refuses, or what it signed is not what was planned; nothing leaves.
    """
    if public_key.fingerprint != plan.fingerprint:
        raise SiteError("A certificate was planned for another key.")
    contents = contents_of(plan)
    line = await issuer.sign(public_key, contents)
    if issuer.adjusts:
        plan = _as_made(line, plan, now)
        contents = contents_of(plan)
    return Issued(checked(line, issuer.public_key, public_key, contents, issuer.own_key), plan)


class KeyIssuer:
    """A private key in our own memory, from the state folder."""

    adjusts = False

    def __init__(self, key: asyncssh.SSHKey) -> None:
        """ConfigError where the private key and its public half do not belong together."""
        if not is_pair(key):
            raise ConfigError("The authority's private key does not fit its public key.")
        self.own_key = key
        self.public_key = line_of(key)

    async def sign(self, public_key: PublicKey, contents: Contents) -> str:
        """At once."""
        return sign_contents(self.own_key, public_key, contents)

    async def check(self) -> None:
        """It was loaded, so it is there."""


def _as_made(line: str, plan: Plan, now: int) -> Plan:
    """The plan with the serial and times of the certificate, where these are within bounds."""
    found = read_bounds(line)
    if found is None:
        return plan  # and the comparison says what it is instead
    serial, valid_after, valid_before = found
    if (
        not 0 < serial < 2**64
        or not plan.valid_after - _EARLIER_S <= valid_after <= now + _LATER_S
        or not now < valid_before <= plan.valid_before
    ):
        raise SiteError("A signed certificate differs from its plan in serial or times by too much.")
    return replace(plan, serial=serial, valid_after=valid_after, valid_before=valid_before)
