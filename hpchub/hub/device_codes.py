"""Logins of people's own machines that wait for somebody to confirm them: RFC 8628's device and user codes.

In the hub's memory, for a few minutes: a hub that restarts forgets them, and people ask again.
"""

from __future__ import annotations

import secrets
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from enum import StrEnum
from hashlib import sha256
from typing import Any

from hpchub.core.terminal import fingerprint_of
from hpchub.errors import InvalidRequest, NotAllowed, RemoteError

LIFETIME_S = 300
INTERVAL_S = 1

# RFC 8628, section 6.1: no vowels, so no words, and nothing that looks like something else.
_LETTERS = "BCDFGHJKLMNPQRSTVWXZ"
_CODE_LENGTH = 8

_MOST = 2000
_MOST_OF_AN_ADDRESS = 20
_WRONG_CODES = 10
_NAME_LENGTH = 64


class Answer(StrEnum):
    """What a poll is told, in RFC 8628's own words (section 3.5). `GRANTED` comes with what was granted."""

    GRANTED = "granted"
    PENDING = "authorization_pending"
    SLOW_DOWN = "slow_down"
    DENIED = "access_denied"
    EXPIRED = "expired_token"
    UNKNOWN = "invalid_grant"


@dataclass(slots=True, kw_only=True)
class Asked:
    """One machine that asks. `name` is what it says of itself, `source` the address it asked from."""

    user_code: str
    public_key: str
    fingerprint: str
    name: str
    source: str
    expires_at: float
    next_poll_at: float = 0
    answer: Answer = Answer.PENDING
    claimed: bool = False
    granted: Mapping[str, Any] = field(default_factory=dict, repr=False)


class DeviceCodes:
    """All that wait. Codes are used once: by one person to answer, and by one poll to collect."""

    def __init__(self, now: Callable[[], float] = time.monotonic) -> None:
        self._now = now
        self._asked: dict[bytes, Asked] = {}
        self._wrong: dict[str, tuple[int, float]] = {}

    def begin(self, public_key: str, name: str, source: str) -> tuple[str, Asked]:
        """A device code, for whoever asks alone, and what was noted.

        Raises:
            InvalidRequest: That is no public key.
            RemoteError: Too many wait, from that address or altogether.
        """
        fingerprint = fingerprint_of(public_key)
        self._forget()
        now = self._now()
        waiting = [
            one.source
            for one in self._asked.values()
            if one.answer is Answer.PENDING and one.expires_at > now
        ]
        if len(self._asked) >= _MOST or waiting.count(source) >= _MOST_OF_AN_ADDRESS:
            raise RemoteError("Too many logins wait to be confirmed.", "Try again in a few minutes.")
        device_code = secrets.token_urlsafe(32)
        asked = Asked(
            user_code=self._new_user_code(),
            public_key=public_key,
            fingerprint=fingerprint,
            name="".join(char if char.isprintable() else " " for char in name)[:_NAME_LENGTH].strip(),
            source=source,
            expires_at=now + LIFETIME_S,
            next_poll_at=now,
        )
        self._asked[_digest(device_code)] = asked
        return device_code, asked

    def find(self, user: str, typed: str) -> Asked:
        """What waits under the code that a person has typed; case, blanks and dashes do not count.

        Raises:
            InvalidRequest: Nothing does, any more.
            NotAllowed: That person has typed too many wrong codes.
        """
        now = self._now()
        count, since = self._wrong.get(user, (0, now))
        if now - since > LIFETIME_S:
            count, since = 0, now
        if count >= _WRONG_CODES:
            raise NotAllowed("Too many wrong codes.", "Wait five minutes, and begin again.")
        code = "".join(char for char in typed.upper() if char.isalnum())
        for asked in self._asked.values():
            if asked.user_code == code and asked.answer is Answer.PENDING and asked.expires_at > now:
                return asked
        self._wrong[user] = (count + 1, since)
        raise InvalidRequest(
            "Nothing waits under that code.",
            "Codes hold for five minutes and are used once: begin again in your terminal.",
        )

    def claim(self, asked: Asked) -> None:
        """Answer this one, and nobody else. InvalidRequest where somebody does already."""
        if asked.claimed or asked.answer is not Answer.PENDING:
            raise InvalidRequest("That code has been answered already.")
        asked.claimed = True

    def release(self, asked: Asked) -> None:
        """It could not be granted: it may be tried again."""
        asked.claimed = False

    def grant(self, asked: Asked, granted: Mapping[str, Any]) -> None:
        """Let the machine that asks collect this."""
        asked.answer, asked.granted = Answer.GRANTED, granted

    def deny(self, asked: Asked) -> None:
        """Tell the machine no."""
        asked.answer = Answer.DENIED

    def poll(self, device_code: str) -> tuple[Answer, Mapping[str, Any]]:
        """What the machine that asks is told. What was granted is told once."""
        asked = self._asked.get(_digest(device_code))
        if asked is None:
            return Answer.UNKNOWN, {}
        now = self._now()
        early, asked.next_poll_at = now < asked.next_poll_at, now + INTERVAL_S / 2
        if asked.expires_at <= now:
            return Answer.EXPIRED, {}
        if early:
            return Answer.SLOW_DOWN, {}
        if asked.answer is not Answer.PENDING:
            del self._asked[_digest(device_code)]
        return asked.answer, asked.granted

    def _new_user_code(self) -> str:
        taken = {asked.user_code for asked in self._asked.values()}
        while (code := "".join(secrets.choice(_LETTERS) for _ in range(_CODE_LENGTH))) in taken:
            pass
        return code

    def _forget(self) -> None:
        """Expired ones are kept for as long again, so that whoever asks for them is told so."""
        now = self._now()
        self._asked = {
            code: asked for code, asked in self._asked.items() if asked.expires_at + LIFETIME_S > now
        }
        self._wrong = {user: entry for user, entry in self._wrong.items() if now - entry[1] <= LIFETIME_S}


def shown(user_code: str) -> str:
    """A user code as people read it: in two halves."""
    return f"{user_code[:4]}-{user_code[4:]}"


def _digest(device_code: str) -> bytes:
    """So that how long a look-up takes tells nothing of the codes that there are."""
    return sha256(device_code.encode("utf-8", "surrogatepass")).digest()
