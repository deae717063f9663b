"""Accounts and argon2id hashes in one file of mode 0600: `name:hash`, or `name:!hash` where locked.

The demo uses it, and small sites may. It is looked at for each login, so a change counts at once.
"""

from __future__ import annotations

import base64
import fcntl
import os
import re
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path

import argon2

from hpchub.core.secret import Secret
from hpchub.core.slugs import is_safe_account_name
from hpchub.errors import ConfigError, InvalidRequest, SiteError
from hpchub.private_files import read_private_file, write_private_file
from hpchub.signer.proofs import MAX_PASSWORD_LENGTH, Accepted, Refused, unusable_reason

# RFC 9106, section 4, second recommended option: 64 MiB, 3 passes, 4 lanes.
_HASHER = argon2.PasswordHasher.from_parameters(argon2.profiles.RFC_9106_LOW_MEMORY)
_USUAL_COST = "$argon2id$v=19$m=65536,t=3,p=4"

_SETTLED_NS = 2 * 10**9

_DIGEST = re.compile(
    r"(?P<cost>\$argon2id\$v=19\$m=[1-9][0-9]{0,7},t=[1-9][0-9]{0,3},p=[1-9][0-9]{0,2})"
    r"\$[A-Za-z0-9+/]{11,86}\$[A-Za-z0-9+/]{22,86}",
    re.ASCII,
)


@dataclass(frozen=True, slots=True)
class Entry:
    """What one line says of its account."""

    digest: str = field(repr=False)
    locked: bool


class PasswordFileProof:
    """Checks passwords against the file, with one argon2 computation per attempt, whoever asks."""

    workers = 2  # 64 MiB of memory and four lanes each
    refusal_s = 0.0

    def __init__(self, path: Path) -> None:
        self.path = path
        # One value, because several threads ask: the file's state, and what was in it then.
        self._kept: tuple[tuple[int, ...], dict[str, Entry]] = ((), {})

    def verify(self, username: str, password: Secret) -> Accepted | Refused:
        """Who this is, or why not. SiteError where the file is wrong."""
        try:
            entries = self._load()
            entry = entries.get(username)
            matches = self._matches(entry.digest if entry else _dummy(entries), password)
        except ConfigError as error:
            # Whoever logs in is not told paths and lines; the audit log is.
            raise SiteError("Passwords cannot be checked now.", "Tell the site's staff.") from error
        reason = unusable_reason(username, password)
        if not reason and entry is None:
            reason = "unknown user"
        if not reason and not matches:
            reason = "wrong password"
        if not reason and entry is not None and entry.locked:
            reason = "locked account"
        return Refused(reason) if reason else Accepted(username, "password")

    def account_problem(self, account: str) -> str:
        """Whether the file still has the account, and not locked. SiteError where the file is wrong."""
        try:
            entry = self._load().get(account)
        except ConfigError as error:
            raise SiteError("Accounts cannot be checked now.", "Tell the site's staff.") from error
        if entry is None:
            return "unknown user"
        return "locked account" if entry.locked else ""

    def check(self) -> None:
        """The file can be read. ConfigError where it cannot."""
        load_password_file(self.path)

    def _load(self) -> dict[str, Entry]:
        """The file's entries, read again unless it is certainly the one that was read.

        With 10,000 accounts to read it takes 28 ms, and each certificate of each login may ask.
        """
        state = _state_of(self.path)
        kept, entries = self._kept
        if state and state == kept:
            return entries
        entries = load_password_file(self.path)
        # One that has just been written may be written again without a later time to show for it.
        is_settled = bool(state) and time.time_ns() - max(state[:2]) > _SETTLED_NS
        if is_settled and _state_of(self.path) == state:
            self._kept = (state, entries)
        return entries

    def _matches(self, digest: str, password: Secret) -> bool:
        try:
            # The digest says itself what it costs; whatever text comes, it must not stop the work.
            typed = password.reveal()[:MAX_PASSWORD_LENGTH].encode("utf-8", "surrogatepass")
            return _HASHER.verify(digest, typed)
        except argon2.exceptions.VerifyMismatchError:
            return False
        except (argon2.exceptions.VerificationError, argon2.exceptions.InvalidHashError) as error:
            raise ConfigError(f"{self.path} holds a hash that cannot be read.") from error


def load_password_file(path: Path) -> dict[str, Entry]:
    """Entries by name.

    Raises:
        ConfigError: The file is missing, loose or malformed; `problems` names each line.
    """
    return _parse(path, _read(path))


def set_password(
    path: Path, username: str, password: Secret, hasher: argon2.PasswordHasher = _HASHER
) -> None:
    """Give a user a password; a locked account stays locked. Makes the file where there is none.

    Raises:
        InvalidRequest: The name is no safe account name, or the password is empty or too long.
        ConfigError: The file cannot be read or written.
    """
    unusable = unusable_reason(username, password)
    if unusable:
        raise InvalidRequest(f"Nothing was changed: {unusable}.")
    with _locked_folder(path.parent):
        text = _read(path) if path.exists() or path.is_symlink() else ""
        entry = _parse(path, text).get(username)
        was_locked = entry is not None and entry.locked
        fresh = f"{username}:{'!' if was_locked else ''}{hasher.hash(password.reveal())}"
        kept = [line for line in text.split("\n") if line and line.partition(":")[0] != username]
        write_private_file(path, ("\n".join([*kept, fresh]) + "\n").encode(), replace=True)


def _state_of(path: Path) -> tuple[int, ...]:
    """What changes with a file's content, place, owner or mode, its times first; empty where it is gone."""
    try:
        found = path.lstat()
    except OSError:
        return ()
    return (
        found.st_mtime_ns,
        found.st_ctime_ns,
        found.st_dev,
        found.st_ino,
        found.st_size,
        found.st_mode,
        found.st_uid,
    )


def _read(path: Path) -> str:
    try:
        return read_private_file(path).decode("utf-8")
    except UnicodeDecodeError as error:
        raise ConfigError(f"{path} is not text.") from error


def _parse(path: Path, text: str) -> dict[str, Entry]:
    entries: dict[str, Entry] = {}
    problems = []
    for number, line in enumerate(text.split("\n"), start=1):
        if not line or line.startswith("#"):
            continue
        name, colon, digest = line.partition(":")
        locked = digest.startswith("!")
        digest = digest.removeprefix("!")
        fault = _fault(name, colon, digest, entries)
        if fault:
            problems.append(f"{path}:{number}: {fault}")
        else:
            entries[name] = Entry(digest, locked)
    if problems:
        raise ConfigError(f"The password file {path.name} is wrong:", problems=problems)
    return entries


def _fault(name: str, colon: str, digest: str, entries: dict[str, Entry]) -> str:
    if not colon:
        return "is not name:hash"
    if not is_safe_account_name(name):
        return f"{name!r} is not a safe account name"
    if name in entries:
        return f"{name} has a line already"
    return "" if _DIGEST.fullmatch(digest) else f"{name} has no argon2id hash"


def _dummy(entries: dict[str, Entry]) -> str:
    """A digest that costs as much to verify as the file's first, and that no password matches."""
    first = next(iter(entries.values()), None)
    match = _DIGEST.fullmatch(first.digest) if first else None
    cost = match["cost"] if match else _USUAL_COST
    salt, digest = (base64.b64encode(os.urandom(size)).decode().rstrip("=") for size in (16, 32))
    return f"{cost}${salt}${digest}"


@contextmanager
def _locked_folder(folder: Path) -> Iterator[None]:
    """Held while the file is read and replaced: two who set passwords at once lose neither."""
    try:
        descriptor = os.open(folder, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    except OSError as error:
        raise ConfigError(f"The folder {folder} cannot be used: {error.strerror}.") from error
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX)
        yield
    finally:
        os.close(descriptor)
