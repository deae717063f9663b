"""Takes a Kerberos ticket instead of a password: what browsers send as `Authorization: Negotiate` (RFC 4559).

The hub carries it and is not believed. A ticket counts where the site's KDC made it for our HTTP service, for
somebody of our own realm, and where it was not presented before.
"""

from __future__ import annotations

import base64
import binascii
from dataclasses import dataclass
from pathlib import Path

from hpchub.core.secret import Secret
from hpchub.core.slugs import is_safe_account_name
from hpchub.errors import ConfigError, NotAllowed, RemoteError, SiteError
from hpchub.private_files import read_private_file
from hpchub.signer.child import Answer, ask_child
from hpchub.signer.kerberos_proof import KerberosSettings, SpnegoSettings
from hpchub.signer.proofs import Accepted, Refused
from hpchub.signer.second_factor import SecondFactors
from hpchub.signer.server_proof import CannotTell

REPLAYS = "spnego_replays"
"""The file in `state_dir` in which MIT's library keeps which tickets were presented."""

# Active Directory puts a person's groups into the ticket: some ten thousand characters are usual.
MAX_TOKEN_LENGTH = 48 * 1024

_FACTOR = "kerberos"


@dataclass(frozen=True, slots=True, kw_only=True)
class Ticket:
    """What stood behind `Negotiate`, and the browser's address as the hub reports it."""

    token: Secret
    source: str


class SpnegoProof:
    """Each look is a process of its own, as with passwords. It asks no server: the keytab suffices."""

    def __init__(self, kerberos: KerberosSettings, spnego: SpnegoSettings, replays: Path) -> None:
        self._kerberos = kerberos
        self._spnego = spnego
        self._replays = replays

    def check(self) -> None:
        """The keytab is private and has the service's key. ConfigError otherwise."""
        read_private_file(self._spnego.keytab)
        try:
            answer = self._ask("")
        except RemoteError as error:
            raise ConfigError(f"SPNEGO cannot be used: {error.message}") from error
        if not answer.ok:
            raise ConfigError(f"SPNEGO cannot be used: {answer.said}.")

    def verify(self, token: Secret) -> Accepted | Refused:
        """Whose ticket it is, the first time that it is presented. Blocks.

        Raises:
            SiteError: The keytab or the replay cache cannot be used.
            RemoteError: There was no answer in time.
        """
        if why := _unusable_reason(token.reveal()):
            return Refused(f"Kerberos: {why}")
        answer = self._ask(token.reveal())
        if answer.ok is None:
            cause = CannotTell(f"Kerberos: {answer.said}")
            raise SiteError("Kerberos tickets cannot be checked now.", "Tell the site's staff.") from cause
        if not answer.ok:
            return Refused(f"Kerberos: {answer.said}")
        if not is_safe_account_name(answer.said):
            return Refused("Kerberos: unsafe account name")
        if self._kerberos.lower_case_only and answer.said != answer.said.lower():
            return Refused("Kerberos: a name with capitals")
        return Accepted(answer.said, _FACTOR)

    def _ask(self, token: str) -> Answer:
        question = {
            "realm": self._kerberos.realm,
            "service": self._spnego.service,
            "keytab": str(self._spnego.keytab),
            "krb5_conf": str(self._kerberos.krb5_conf),
            "replays": str(self._replays),
            "token": token,
        }
        return ask_child(Path(__file__).with_name("spnego_child.py"), question, self._kerberos.timeout_s)


def refuse_without_second_factor(
    verdict: Accepted | Refused, second_factors: SecondFactors | None, purpose: str
) -> None:
    """Return where a ticket alone will do. A browser cannot send a code along with it.

    Raises:
        NotAllowed: The person has a second factor, or has to set one up. The words say what to do: who hears
            them has proven who they are.
        SiteError: It cannot be told.
    """
    if second_factors is None or isinstance(verdict, Refused):
        return
    alone = second_factors.judge(verdict.account, Secret(""), verdict, may_use_up=False, purpose=purpose)
    if isinstance(alone, Refused) or alone.must_enrol:
        raise NotAllowed(
            "This hub wants a second factor from you, and a Kerberos ticket has none.",
            "Log in with the form: your password and your second factor.",
        ) from CannotTell(f"Kerberos: {verdict.account} has to give a second factor")


def _unusable_reason(token: str) -> str:
    """Why a token can never be right; empty where it might. No process is started for such a one."""
    if len(token) > MAX_TOKEN_LENGTH:
        return "a token that is too long"
    try:
        content = base64.b64decode(token, validate=True)
    except (binascii.Error, ValueError):
        return "a token that is not base64"
    if content.startswith(b"NTLMSSP\0"):
        return "NTLM"
    # RFC 2743, section 3.1: how every first token of a mechanism begins.
    return "" if content.startswith(b"\x60") else "a token that is not SPNEGO's"
