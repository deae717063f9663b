"""The checks on the hub's own machine: signer, bridge, login, certificates."""

from __future__ import annotations

import time
from dataclasses import dataclass
from datetime import UTC, datetime

from asyncssh.public_key import SSHOpenSSHCertificate

from hpchub.bridge.client import BridgeClient
from hpchub.bridge.sessions import Sessions
from hpchub.core.certificate import Profile
from hpchub.core.secret import Secret
from hpchub.doctor.report import Report
from hpchub.errors import NotAllowed, UnexpectedOutput
from hpchub.signer.client import SignerClient

# What the audit log has as the browser's address.
SOURCE = "hpchub doctor"


@dataclass(frozen=True, slots=True)
class Person:
    """Who the doctor acts as: a test account of the site's staff."""

    name: str
    password: Secret


async def check_hub_side(
    report: Report, signer: SignerClient, bridge: BridgeClient, sessions: Sessions, person: Person
) -> bool:
    """Everything up to the certificates, which `sessions` then has; whether there are any."""
    if not await report.check("signer", _signer(signer)):
        return False
    await report.check("bridge", _bridge(bridge))
    if not await report.check(f"login of {person.name}", _login(signer, sessions, person)):
        return False
    good = [
        await report.check(f"certificate {one}", _certificate(sessions, person.name, one))
        for one in (Profile.CONTROL, Profile.TUNNEL)
    ]
    return all(good)


async def _signer(signer: SignerClient) -> str:
    await signer.ready()
    kind, key, *_ = (await signer.ca_public_key()).split()
    return f"answers on {signer.socket_path}; its authority is {kind} …{key[-12:]}"


async def _bridge(bridge: BridgeClient) -> str:
    await bridge.ready()
    return "answers, and reaches its store and the signer"


async def _login(signer: SignerClient, sessions: Sessions, person: Person) -> str:
    key_id, public_key = sessions.new_key()
    try:
        login = await signer.grant(person.name, person.password, public_key, SOURCE)
    except NotAllowed as error:
        raise NotAllowed(error.message, "The signer's audit log has the true reason.") from error
    if login.username != person.name:
        raise UnexpectedOutput("the signer", f"a login of {login.username}")
    ceiling = await sessions.open(person.name, key_id, login.grant)
    return f"accepted, until {_clock(ceiling)}"


async def _certificate(sessions: Sessions, user: str, profile: Profile) -> str:
    credential = await sessions.credential(user, profile)
    certificate = credential.certificate
    if not isinstance(certificate, SSHOpenSSHCertificate):
        raise UnexpectedOutput("the signer", "a certificate of another kind")
    options = ", ".join(_option(name, value) for name, value in sorted(certificate.options.items()))
    left_s = credential.valid_before - time.time()
    return (
        f"principal {', '.join(certificate.principals)}, valid until {_clock(credential.valid_before)} "
        f"({left_s / 60:.0f} min), options: {options or 'none'}"
    )


def _option(name: str, value: object) -> str:
    if value is True:
        return name
    return f"{name}={','.join(map(str, value)) if isinstance(value, list) else value}"


def _clock(at: float) -> str:
    return datetime.fromtimestamp(at, UTC).strftime("%Y-%m-%d %H:%M:%SZ")
