"""How logins end before their ceiling: revoked by staff, logged out, or the account locked at the site.

From then on nothing is minted for what was taken back, and the KRL names what sshd would still take.
`Ends` decides and writes; `Authority` records.
"""

from __future__ import annotations

import logging
import re
import time
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path

from hpchub.core.slugs import is_safe_account_name
from hpchub.errors import ConfigError, InvalidRequest, SiteError
from hpchub.private_files import write_private_file
from hpchub.signer.certificates import parse_public_key
from hpchub.signer.krl import Revoked, render_krl
from hpchub.signer.ledger import HeldCertificate, HeldGrant, Ledger, Refuse, TakeBack

_log = logging.getLogger(__name__)

# A login node's clock may be behind ours: a certificate stays in the KRL for this much longer.
_SKEW_S = 300

# No grant lives longer (settings.py), so none from before a revocation is left after this.
_LONGEST_CEILING_S = 7 * 24 * 3600

_FINGERPRINT = re.compile(r"SHA256:[A-Za-z0-9+/]{43}", re.ASCII)

REVOKED, LOGGED_OUT, LOCKED = "revoked", "logged out", "locked"


@dataclass(frozen=True, slots=True)
class Taken:
    """What was taken back: whose, which logins, how many certificates that were still valid, since when.

    `krl_error` says why the KRL file is as it was before; empty where it was written, or there is none.
    """

    account: str
    grants: list[HeldGrant] = field(default_factory=list)
    certificates: list[HeldCertificate] = field(default_factory=list)
    krl_error: str = ""


class Ends:
    """One signer's. `krl_file` None: the list can be fetched, and is in no file."""

    def __init__(
        self, ledger: Ledger, authorities: Sequence[str], lifetime_s: int, krl_file: Path | None
    ) -> None:
        self._ledger = ledger
        self._authorities = authorities
        self._lifetime_s = lifetime_s
        self._file = krl_file
        self._written: bytes | None = None
        self._krl_error = ""

    def revoke(self, target: str) -> Taken:
        """Take back all that a target names: an account, a serial, a key id, a key or its fingerprint.

        An account may not log in either, and a key may not be used again, until that is undone.

        Raises:
            InvalidRequest: The target is none of these, or the ledger has no such certificate.
        """
        now = int(time.time())
        if target.isascii() and target.isdecimal():
            return self._revoke_certificate(now, target, serial=target)
        if target.startswith("hpchub:"):
            return self._revoke_certificate(now, target, key_id=target)
        if _is_key(target):
            return self._revoke_key(now, target)
        if not is_safe_account_name(target):
            raise InvalidRequest(
                f"{target!r} is no user, serial, key id, key or fingerprint.",
                "Give an account name, a decimal serial, hpchub:…, ssh-ed25519 …, or SHA256:….",
            )
        with self._ledger.taking_back() as take:
            taken = self._end_account(take, now, target, REVOKED)
            take.refuse(Refuse.ACCOUNT, target, REVOKED, at=now, until=None)
        return self._with_krl(taken)

    def undo(self, target: str) -> str:
        """Let an account log in again, or a key be used again; what it held before stays ended. Whose, or "".

        Raises:
            InvalidRequest: That was not revoked, or cannot be undone.
        """
        key = _is_key(target)
        if not key and not is_safe_account_name(target):
            raise InvalidRequest(
                "Only the revocation of a user or a key can be undone.",
                "A login that was ended by a serial stays so: the person logs in again.",
            )
        value = _parse_key(target)[0] if key else target
        lines = self._ledger.revoked(int(time.time())).get("key", ()) if key else ()
        with self._ledger.taking_back() as take:
            if not take.allow(Refuse.KEY if key else Refuse.ACCOUNT, value):
                raise InvalidRequest(f"{target} is not revoked.")
            for line in lines:
                if _parse_key(line)[0] == value:
                    take.unrevoke(line)
            take.unrevoke(value)
        self.write_krl()
        return "" if key else target

    def end_account(self, account: str, why: str) -> Taken:
        """End all that an account holds; it may log in again where the site lets it."""
        now = int(time.time())
        with self._ledger.taking_back() as take:
            taken = self._end_account(take, now, account, why)
        return self._with_krl(taken)

    def log_out(self, account: str, grant_id: str, fingerprint: str, ceiling: int) -> bool:
        """End one login. False where it had ended already. Its key is gone, so the KRL need not name it."""
        now = int(time.time())
        if self._ledger.refusal("", grant_id):
            return False
        with self._ledger.taking_back() as take:
            take.refuse(Refuse.GRANT, grant_id, LOGGED_OUT, at=now, until=ceiling)
            take.end(fingerprint, LOGGED_OUT, ceiling)
        return True

    def log_out_terminal(self, terminal: HeldGrant) -> None:
        """End what a person's own terminal holds. The KRL names it: nobody can tell who has the key now."""
        now = int(time.time())
        certificates = self._ledger.certificates(now, grant_id=terminal.grant_id)
        with self._ledger.taking_back() as take:
            take.refuse(Refuse.GRANT, terminal.grant_id, LOGGED_OUT, at=now, until=terminal.ceiling)
            self._name_in_krl(take, now, certificates)
        self.write_krl()

    @property
    def has_file(self) -> bool:
        """Whether the list is written into a file."""
        return self._file is not None

    # -- the list -------------------------------------------------------------------------------

    def krl(self) -> bytes:
        """The list as it is now. SiteError where the ledger cannot be read."""
        now = int(time.time())
        held = self._ledger.revoked(now)
        revoked = Revoked(
            serials=[int(serial) for serial in held.get("serial", ())],
            key_ids=held.get("key_id", ()),
            public_keys=held.get("key", ()),
            fingerprints=held.get("fingerprint", ()),
        )
        return render_krl(self._authorities, revoked, version=time.time_ns() // 1_000_000, now=now)

    def write_krl(self) -> str:
        """Write the file, if there is to be one; why it could not be, or "". An old one stays then."""
        if self._file is None:
            return ""
        try:
            content = self.krl()
            if (
                self._written is None
                or _entries(content) != _entries(self._written)
                or not self._file.exists()
            ):
                write_private_file(self._file, content, replace=True, mode=0o644)
                self._written = content
                _log.info("krl.written path=%s bytes=%d", self._file, len(content))
            self._krl_error = ""
        except (ConfigError, SiteError) as error:
            if not self._krl_error:
                _log.error("krl.not_written path=%s reason=%s", self._file, error.message)
            self._krl_error = error.message
        return self._krl_error

    def check(self) -> None:
        """Return where the KRL file is as it should be; SiteError with the reason where it is not."""
        if self._krl_error:
            raise SiteError(f"The revocation list is old: {self._krl_error}")

    def tidy(self) -> None:
        """Forget what has expired, and write the list anew where that changes it."""
        self._ledger.prune(int(time.time()))
        self.write_krl()

    # -- how ------------------------------------------------------------------------------------

    def _revoke_certificate(self, now: int, target: str, **where: str) -> Taken:
        """The login that earned a certificate, with all that it has earned."""
        found = self._ledger.certificates(0, **where)
        if not found:
            raise InvalidRequest(
                f"The signer knows no certificate {target} that matters any more.",
                "Look it up in the audit log (hpchub audit --serial), and revoke its user or key.",
            )
        (made,) = found
        if not made.grant_id:  # earned by no login: its key is all there is to refuse
            return self._revoke_key(now, made.public_key)
        until = now + _LONGEST_CEILING_S
        grants, certificates = self._earned(now, made.account, made.grant_id)
        with self._ledger.taking_back() as take:
            take.end(made.fingerprint, REVOKED, until)
            self._refuse_grants(take, now, [made, *grants])
            self._name_in_krl(take, now, certificates)
            if "key_id" in where:
                take.revoke("key_id", made.key_id, self._until(now, certificates))
        return self._with_krl(Taken(made.account, grants, certificates))

    def _revoke_key(self, now: int, target: str) -> Taken:
        """Every login with a key, and the key itself."""
        fingerprint, line = _parse_key(target)
        grants = self._ledger.grants(now, fingerprint=fingerprint)
        certificates = self._ledger.certificates(now, fingerprint=fingerprint)
        for login in tuple(grants):
            earned = self._earned(now, login.account, login.grant_id)
            grants += [one for one in earned[0] if one not in grants]
            certificates += [one for one in earned[1] if one not in certificates]
        held: list[HeldGrant | HeldCertificate] = [*grants, *certificates]
        line = line or next((one.public_key for one in held), "")
        with self._ledger.taking_back() as take:
            take.refuse(Refuse.KEY, fingerprint, REVOKED, at=now, until=None)
            take.end(fingerprint, REVOKED, now + _LONGEST_CEILING_S)
            self._refuse_grants(take, now, held)  # undoing it must not bring them back
            self._name_in_krl(take, now, certificates)
            take.revoke("key" if line else "fingerprint", line or fingerprint, self._until(now, certificates))
        accounts = sorted({one.account for one in held})
        return self._with_krl(Taken(",".join(accounts), grants, certificates))

    def _earned(self, now: int, account: str, grant_id: str) -> tuple[list[HeldGrant], list[HeldCertificate]]:
        """A login and the terminals that came of it, as far as they live, and all their certificates."""
        grants = self._ledger.grants(now, account=account)
        certificates = self._ledger.certificates(now, account=account)
        return (
            [one for one in grants if one.grant_id.startswith(grant_id)],
            [one for one in certificates if one.grant_id.startswith(grant_id)],
        )

    @staticmethod
    def _refuse_grants(take: TakeBack, now: int, held: Iterable[HeldGrant | HeldCertificate]) -> None:
        for grant_id in sorted({one.grant_id for one in held if one.grant_id}):
            take.refuse(Refuse.GRANT, grant_id, REVOKED, at=now, until=now + _LONGEST_CEILING_S)

    def _end_account(self, take: TakeBack, now: int, account: str, why: str) -> Taken:
        grants = self._ledger.grants(now, account=account)
        certificates = self._ledger.certificates(now, account=account)
        take.refuse(Refuse.BEFORE, account, why, at=now, until=now + _LONGEST_CEILING_S)
        for grant in grants:  # by name too: one of this very second is not before it
            take.refuse(Refuse.GRANT, grant.grant_id, why, at=now, until=grant.ceiling)
            take.end(grant.fingerprint, why, grant.ceiling)
        for fingerprint in sorted({made.fingerprint for made in certificates if not made.grant_id}):
            take.end(fingerprint, why, now + _LONGEST_CEILING_S)  # a service account's
        self._name_in_krl(take, now, certificates)
        return Taken(account, grants, certificates)

    def _name_in_krl(self, take: TakeBack, now: int, certificates: Iterable[HeldCertificate]) -> None:
        """Each by its serial, and by its key: a key belongs to one login."""
        for made in certificates:
            until = self._until(now, [made])
            take.revoke("serial", made.serial, until)
            take.revoke("key", made.public_key, until)

    def _until(self, now: int, certificates: Iterable[HeldCertificate]) -> int:
        """When the last of them has expired everywhere; others of that key may have been minted just now."""
        return max(now + self._lifetime_s, *(made.valid_before for made in certificates), 0) + _SKEW_S

    def _with_krl(self, taken: Taken) -> Taken:
        return replace(taken, krl_error=self.write_krl())


def fingerprint_in(target: str) -> str:
    """The fingerprint of the key that a target names; empty where it names none."""
    try:
        return _parse_key(target)[0] if _is_key(target) else ""
    except InvalidRequest:
        return ""


def _is_key(target: str) -> bool:
    return target.startswith(("SHA256:", "ssh-", "ecdsa-"))


def _parse_key(target: str) -> tuple[str, str]:
    """Fingerprint and line of a key; the line is empty where a fingerprint was given."""
    if not target.startswith("SHA256:"):
        key = parse_public_key(target)
        return key.fingerprint, key.line
    if not _FINGERPRINT.fullmatch(target):
        raise InvalidRequest("That is no fingerprint: SHA256: and 43 characters.")
    return target, ""


def _entries(krl: bytes) -> bytes:
    """A list without its version and date."""
    return krl[:12] + krl[28:]
