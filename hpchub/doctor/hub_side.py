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
from hpchub.errors import EnrolmentRequired, NotAllowed, RemoteError, UnexpectedOutput
from hpchub.signer.answers import GrantedLogin
from hpchub.signer.client import SignerClient

# What the audit log has as the browser's address.
SOURCE = "hpchub doctor"

_LOGGED_IN = "Or log in at the hub in a browser, and try a job with that login: --logged-in."


@dataclass(frozen=True, slots=True)
class Person:
    """Who the doctor acts as: a test account of the site's staff.

    Without a password it is the login that the person has at the hub, in a browser.
    """

    name: str
    password: Secret | None


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


async def check_hubs_login(
    report: Report, signer: SignerClient, bridge: BridgeClient, person: Person
) -> bool:
    """Signer, bridge, and whether the running bridge has a login of the person."""
    if not await report.check("signer", _signer(signer)) or not await report.check("bridge", _bridge(bridge)):
        return False
    return await report.check(f"login of {person.name}", _hubs_login(bridge, person.name))


async def _hubs_login(bridge: BridgeClient, user: str) -> str:
    try:
        until = await bridge.session(user)
    except NotAllowed as error:
        raise NotAllowed(
            f"{user} is not logged in at the hub.", "Log in there, in a browser, and try again."
        ) from error
    return f"the one at the hub, until {_clock(until)}"


async def log_in(signer: SignerClient, person: Person, public_key: str) -> GrantedLogin:
    """The grant that the person's password earns. NotAllowed where there is none, or it is refused."""
    if person.password is None:
        raise NotAllowed(f"There is no password of {person.name} to log in with.")
    return await signer.grant(person.name, person.password, public_key, SOURCE)


async def _explained(signer: SignerClient, refusal: NotAllowed) -> NotAllowed:
    """What a refused password means here: it may be right, and not be all that a login takes."""
    if await _asks_provider(signer):
        return NotAllowed(
            "People log in at an OpenID provider here, so that no password can be tried.", _LOGGED_IN
        )
    kinds = ", ".join(await signer.factor_kinds())
    if isinstance(refusal, EnrolmentRequired):
        return NotAllowed(
            f"The password is right; this account has to set up a second factor ({kinds}), which the doctor "
            "has no way to show.",
            f"Take an account of which none is asked. {_LOGGED_IN}",
        )
    if kinds:
        return NotAllowed(
            f"Refused: the password is wrong, or a second factor ({kinds}) is asked of this account, which "
            "the doctor has no way to show.",
            "The signer's audit log has the true reason. Take an account of which none is asked. "
            + _LOGGED_IN,
        )
    return NotAllowed(refusal.message, "The signer's audit log has the true reason.")


async def _asks_provider(signer: SignerClient) -> bool:
    try:
        await signer.oidc_request()
    except NotAllowed:
        return False
    except RemoteError:  # there is one; it does not answer
        return True
    return True


async def _login(signer: SignerClient, sessions: Sessions, person: Person) -> str:
    key_id, public_key = sessions.new_key()
    try:
        login = await log_in(signer, person, public_key)
    except NotAllowed as error:
        raise await _explained(signer, error) from error
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
