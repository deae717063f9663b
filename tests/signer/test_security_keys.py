"""Security keys through the whole signer: who is let in by them, and by nothing that only looks like one."""

from __future__ import annotations

import json
import logging
import sqlite3
import time
from collections.abc import AsyncIterator
from contextlib import closing
from dataclasses import replace
from typing import Any

import pytest
from fido2.webauthn import AuthenticatorData
from hypothesis import given, settings
from hypothesis import strategies as st

from hpchub.core.certificate import Profile
from hpchub.core.secret import Secret
from hpchub.errors import EnrolmentRequired, InvalidRequest, NotAllowed
from hpchub.signer.client import SignerClient
from hpchub.signer.factor_key import FactorKey, make_factor_key
from hpchub.signer.factor_rows import forget_second_factor
from hpchub.signer.factor_settings import FactorKind, FactorSettings, Required
from hpchub.signer.security_keys import SecurityKeys
from hpchub.signer.server import running
from hpchub.signer.settings import SignerSettings
from hpchub.signer.state import State
from hpchub.signer.webauthn_settings import UserVerification, WebAuthnSettings
from support.authenticator import SoftKey

from .factor import code_of
from .test_server import SOURCE, records

FLAG = AuthenticatorData.FLAG
PASSWORD = Secret("canary-alice-77")
RP_ID, ORIGIN = "hub.example.org", "https://hub.example.org"
KEYS = FactorSettings(
    required=Required.ALL,
    kinds=(FactorKind.TOTP, FactorKind.WEBAUTHN),
    webauthn=WebAuthnSettings(rp_id=RP_ID, origins=(ORIGIN,)),
)


def soft_key(**made: Any) -> SoftKey:
    return SoftKey(**{"origin": ORIGIN, "rp_id": RP_ID} | made)


@pytest.fixture
def with_keys(settings: SignerSettings) -> SignerSettings:
    """Settings of a signer that asks everybody, and knows security keys."""
    make_factor_key(settings.factor_key)
    return replace(settings, second_factor=KEYS)


@pytest.fixture
async def asking(with_keys: SignerSettings) -> AsyncIterator[SignerClient]:
    async with running(with_keys):
        yield SignerClient(with_keys.socket)


async def ticket_of(client: SignerClient, public_key: str) -> Secret:
    with pytest.raises(EnrolmentRequired) as caught:
        await client.grant("alice", PASSWORD, public_key, SOURCE)
    return Secret(caught.value.ticket)


async def enrolled(client: SignerClient, public_key: str, key: SoftKey) -> tuple[Secret, ...]:
    """alice's recovery codes, once her first key counts."""
    ticket = await ticket_of(client, public_key)
    answer = Secret(key.register(await client.offer_key(ticket)))
    return await client.add_key(ticket, "the blue one", answer, SOURCE)


async def log_in(client: SignerClient, public_key: str, answer: str, source: str = SOURCE) -> Secret:
    return (await client.grant("alice", PASSWORD, public_key, source, Secret(answer))).grant


def reasons(settings: SignerSettings) -> list[str]:
    return [one["reason"] for one in records(settings) if one["outcome"] == "refused"]


async def test_from_password_to_certificate(
    asking: SignerClient, with_keys: SignerSettings, user_key: Any
) -> None:
    """The password leads to the first key, which comes with recovery codes; password and key earn a grant."""
    key = soft_key()
    codes = await enrolled(asking, user_key.public, key)
    assert len(codes) == 10
    options = await asking.challenge("alice", user_key.public)
    asked = json.loads(options)
    assert (asked["rpId"], asked["userVerification"]) == (RP_ID, "preferred")
    assert key.is_asked(options)
    grant = await log_in(asking, user_key.public, key.press(options))
    await asking.certificate(grant, user_key.public, Profile.CONTROL)
    await log_in(asking, user_key.public, codes[0].reveal())
    told = [(one["event"], one["outcome"], one["factor"]) for one in records(with_keys)]
    assert told == [
        ("login", "refused", ""),
        ("enrolment", "granted", "webauthn"),
        ("login", "granted", "password+webauthn"),
        ("certificate", "granted", "password+webauthn"),
        ("login", "granted", "password+recovery"),
    ]


@pytest.mark.parametrize(
    ("fault", "reason"),
    [
        ({"origin": "https://hub.example.org.evil.example"}, "Invalid origin"),
        ({"origin": "https://alice.hub.example.org"}, "Invalid origin"),
        ({"origin": "http://hub.example.org"}, "Invalid origin"),
        ({"rp_id": "example.org"}, "Wrong RP ID hash"),
        ({"cross_origin": True}, "another site's page"),
        ({"flags": FLAG(0)}, "User Present flag not set"),
        ({"count": 0}, "its count went back"),
        ({"private": soft_key().private}, "Invalid signature"),
        ({"credential_id": b"x" * 32}, "Invalid signature"),
    ],
)
async def test_wrong_answers(
    asking: SignerClient, with_keys: SignerSettings, user_key: Any, fault: dict[str, Any], reason: str
) -> None:
    """Another page or site, nobody at the key, a copied or another key: refused in a login's words."""
    key = soft_key(count=7)
    await enrolled(asking, user_key.public, key)
    wrong = replace(key, **fault)
    answer = wrong.press(await asking.challenge("alice", user_key.public))
    with pytest.raises(NotAllowed, match="do not match"):
        await log_in(asking, user_key.public, answer)
    assert reason in reasons(with_keys)[-1]
    key.count = 100
    await log_in(asking, user_key.public, key.press(await asking.challenge("alice", user_key.public)))


async def test_each_answer_once(
    asking: SignerClient, with_keys: SignerSettings, user_key: Any, other_key: Any
) -> None:
    """A challenge is for one name, one login's key and one purpose, and is answered once, right or wrong."""
    key = soft_key()
    await enrolled(asking, user_key.public, key)
    once = key.press(await asking.challenge("alice", user_key.public))
    await log_in(asking, user_key.public, once)
    with pytest.raises(NotAllowed):
        await log_in(asking, user_key.public, once)
    spent = key.press(await asking.challenge("alice", user_key.public))
    with pytest.raises(NotAllowed):
        await asking.grant("alice", Secret("wrong"), user_key.public, SOURCE, Secret(spent))
    with pytest.raises(NotAllowed):
        await log_in(asking, user_key.public, spent)
    for options in (
        await asking.challenge("alice", other_key.public),
        await asking.challenge("alice"),
        await asking.challenge("bob", user_key.public),
    ):
        with pytest.raises(NotAllowed):
            await log_in(asking, user_key.public, key.press(options), "192.0.2.1")
    assert [one.removeprefix("a challenge that was ") for one in reasons(with_keys)[1:]] == [
        "answered before",
        "wrong password",
        "answered before",
        *["not made for this"] * 3,
    ]
    # For changes a login's challenge will not do either.
    with pytest.raises(NotAllowed):
        answer = Secret(key.press(await asking.challenge("alice", user_key.public)))
        await asking.ticket("alice", PASSWORD, answer, SOURCE)


async def test_challenges_end(
    asking: SignerClient, with_keys: SignerSettings, user_key: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    """An answer that comes after five minutes is too late."""
    key = soft_key()
    await enrolled(asking, user_key.public, key)
    monkeypatch.setattr("hpchub.signer.challenges.CHALLENGE_S", -1)
    late = key.press(await asking.challenge("alice", user_key.public))
    with pytest.raises(NotAllowed):
        await log_in(asking, user_key.public, late)
    assert reasons(with_keys)[-1] == "a challenge that has expired"


async def test_user_verification(with_keys: SignerSettings, user_key: Any) -> None:
    """Where the site requires that the key asks for a PIN or a finger, a mere touch is refused."""
    assert KEYS.webauthn
    strict = replace(KEYS.webauthn, user_verification=UserVerification.REQUIRED)
    async with running(replace(with_keys, second_factor=replace(KEYS, webauthn=strict))):
        client = SignerClient(with_keys.socket)
        key = soft_key()
        await enrolled(client, user_key.public, key)
        await log_in(client, user_key.public, key.press(await client.challenge("alice", user_key.public)))
        key.flags = FLAG.UP
        with pytest.raises(NotAllowed):
            await log_in(client, user_key.public, key.press(await client.challenge("alice", user_key.public)))
    assert "User verification required" in reasons(with_keys)[-1]


async def test_the_list_tells_nothing(asking: SignerClient, user_key: Any) -> None:
    """As many keys are asked of anybody, the same ones each time: who has one, or is there, does not show."""
    await enrolled(asking, user_key.public, soft_key())
    for name in ("alice", "bob", "nobody.here", "not a name\n", ""):
        asked = [
            [
                one["id"]
                for one in json.loads(await asking.challenge(name, user_key.public))["allowCredentials"]
            ]
            for _ in range(2)
        ]
        assert asked[0] == asked[1]
        assert len(set(asked[0])) == 8


async def test_several_keys(asking: SignerClient, with_keys: SignerSettings, user_key: Any) -> None:
    """With a ticket, for which a second factor was proven, keys come and go; but not the last."""
    first, second = soft_key(), soft_key()
    await enrolled(asking, user_key.public, first)
    for code in ("", "123456"):
        with pytest.raises(NotAllowed):
            await asking.ticket("alice", PASSWORD, Secret(code), SOURCE)
    answer = Secret(first.press(await asking.challenge("alice")))
    ticket = await asking.ticket("alice", PASSWORD, answer, SOURCE)
    made = Secret(second.register(await asking.offer_key(ticket)))
    assert await asking.add_key(ticket, "  spare ", made, SOURCE) == ()
    with pytest.raises(InvalidRequest, match="too long"):
        await asking.add_key(ticket, "again", made, SOURCE)
    with pytest.raises(InvalidRequest, match="there already"):
        await asking.add_key(ticket, "x", Secret(second.register(await asking.offer_key(ticket))), SOURCE)
    for name in ("", " ", "x" * 41, "a\nb"):
        with pytest.raises(InvalidRequest, match="name"):
            await asking.add_key(ticket, name, made, SOURCE)
    held = await asking.held_factors(ticket)
    assert ([one.name for one in held.keys], held.has_app, held.codes_left) == (
        ["the blue one", "spare"],
        False,
        10,
    )
    assert held.keys[0].used_at and not held.keys[1].used_at
    await log_in(asking, user_key.public, second.press(await asking.challenge("alice", user_key.public)))
    left = await asking.remove_factor(ticket, held.keys[0].key_id, SOURCE)
    assert [one.name for one in left.keys] == ["spare"]
    with pytest.raises(NotAllowed):
        await log_in(asking, user_key.public, first.press(await asking.challenge("alice", user_key.public)))
    with pytest.raises(InvalidRequest, match="only second factor"):
        await asking.remove_factor(ticket, left.keys[0].key_id, SOURCE)
    for what in (held.keys[0].key_id, "totp", "", "%"):
        with pytest.raises(InvalidRequest, match="not there"):
            await asking.remove_factor(ticket, what, SOURCE)
    told = [(one["event"], one["outcome"], one["user"], one["factor"]) for one in records(with_keys)]
    assert ("second-factor-change", "granted", "alice", "password+webauthn") in told
    assert ("second-factor-removal", "granted", "alice", "webauthn") in told
    assert ("second-factor-removal", "refused", "alice", "totp") in told


async def test_key_and_app_together(asking: SignerClient, user_key: Any) -> None:
    """Somebody may have both, logs in with either, and can have new recovery codes."""
    key = soft_key()
    codes = await enrolled(asking, user_key.public, key)
    ticket = await asking.ticket("alice", PASSWORD, codes[0], SOURCE)
    renewed = await asking.renew_recovery_codes(ticket, SOURCE)
    seed = (await asking.offer(ticket)).seed.reveal()
    assert await asking.enrol(ticket, Secret(code_of(seed, time.time())), SOURCE) == ()
    with pytest.raises(NotAllowed):
        await log_in(asking, user_key.public, codes[1].reveal())
    await log_in(asking, user_key.public, renewed[1].reveal())
    await log_in(asking, user_key.public, code_of(seed, time.time() + 30))
    await log_in(asking, user_key.public, key.press(await asking.challenge("alice", user_key.public)))


async def test_no_more_than_eight(asking: SignerClient, user_key: Any) -> None:
    """A ninth key is refused."""
    ticket = await ticket_of(asking, user_key.public)
    for number in range(8):
        made = Secret(soft_key().register(await asking.offer_key(ticket)))
        await asking.add_key(ticket, f"key {number}", made, SOURCE)
    with pytest.raises(InvalidRequest, match="8 security keys"):
        await asking.add_key(
            ticket, "one more", Secret(soft_key().register(await asking.offer_key(ticket))), SOURCE
        )


async def test_wrong_registrations(asking: SignerClient, user_key: Any) -> None:
    """No key from another page, for another ticket, or that is none; and none without a ticket."""
    ticket = await ticket_of(asking, user_key.public)
    older = await asking.offer_key(ticket)
    ticket = await ticket_of(asking, user_key.public)
    for key in (
        soft_key(origin="https://evil.example"),
        soft_key(rp_id="example.org"),
        soft_key(cross_origin=True),
        soft_key(flags=FLAG(0)),
    ):
        with pytest.raises(InvalidRequest, match="cannot be used"):
            await asking.add_key(ticket, "x", Secret(key.register(await asking.offer_key(ticket))), SOURCE)
    for answer in (soft_key().register(older), soft_key().press(older), "{}", "[]", "x", ""):
        with pytest.raises(InvalidRequest):
            await asking.add_key(ticket, "x", Secret(answer), SOURCE)
    for call in (asking.offer_key, asking.held_factors, asking.offer):
        with pytest.raises(NotAllowed):
            await call(Secret("none of yours"))
    with pytest.raises(EnrolmentRequired):
        await asking.grant("alice", PASSWORD, user_key.public, SOURCE)


async def test_a_password_alone_changes_nothing(
    asking: SignerClient, with_keys: SignerSettings, user_key: Any
) -> None:
    """A ticket for a first factor dies with the reset, and none is given where a factor came meanwhile."""
    early = await ticket_of(asking, user_key.public)
    await enrolled(asking, user_key.public, soft_key())
    with pytest.raises(NotAllowed):
        await asking.offer_key(early)
    with closing(State(with_keys.state_dir)) as state:
        assert forget_second_factor(state, "ALICE")
    await ticket_of(asking, user_key.public)


async def test_kinds_that_are_off(with_keys: SignerSettings, user_key: Any) -> None:
    """A site that turns to security keys: an app's code, and a recovery code, lead to the first key only."""
    async with running(replace(with_keys, second_factor=FactorSettings(required=Required.ALL))):
        client = SignerClient(with_keys.socket)
        ticket = await ticket_of(client, user_key.public)
        seed = (await client.offer(ticket)).seed.reveal()
        codes = await client.enrol(ticket, Secret(code_of(seed, time.time())), SOURCE)
        with pytest.raises(NotAllowed):
            await client.challenge("alice", user_key.public)
        with pytest.raises(NotAllowed):
            await client.offer_key(ticket)
    only_keys = replace(KEYS, kinds=(FactorKind.WEBAUTHN,))
    async with running(replace(with_keys, second_factor=only_keys)):
        with pytest.raises(NotAllowed):
            await log_in(client, user_key.public, "")
        with pytest.raises(EnrolmentRequired):
            await log_in(client, user_key.public, codes[0].reveal())
        with pytest.raises(EnrolmentRequired) as caught:
            await log_in(client, user_key.public, code_of(seed, time.time() + 30))
        ticket = Secret(caught.value.ticket)
        with pytest.raises(NotAllowed):
            await client.offer(ticket)
        key = soft_key()
        await client.add_key(ticket, "first", Secret(key.register(await client.offer_key(ticket))), SOURCE)
        await log_in(client, user_key.public, key.press(await client.challenge("alice", user_key.public)))


async def test_nothing_is_kept_in_clear(
    asking: SignerClient, with_keys: SignerSettings, user_key: Any, caplog: pytest.LogCaptureFixture
) -> None:
    """No file has the key's id or public key; no log the ticket, an answer, or the canary password."""
    caplog.set_level(logging.DEBUG, "hpchub")
    key = soft_key()
    ticket = await ticket_of(asking, user_key.public)
    made = key.register(await asking.offer_key(ticket))
    await asking.add_key(ticket, "the blue one", Secret(made), SOURCE)
    answer = key.press(await asking.challenge("alice", user_key.public))
    await log_in(asking, user_key.public, answer)
    numbers = key.private.public_key().public_numbers()
    hidden = [key.credential_id, numbers.x.to_bytes(32, "big"), ticket.reveal().encode()]
    hidden += [made.encode(), answer.encode(), PASSWORD.reveal().encode()]
    root = with_keys.audit_log.parent
    stored = b"".join(path.read_bytes() for path in root.rglob("*") if path.is_file()) + caplog.text.encode()
    assert b"the blue one" in stored
    assert [one for one in hidden if one in stored] == []


_NAMES = st.sampled_from(
    ["id", "rawId", "response", "clientDataJSON", "authenticatorData", "signature", "type"]
)
_VALUES = st.none() | st.booleans() | st.integers() | st.text()


@settings(max_examples=25)
@given(st.recursive(_VALUES, lambda one: st.lists(one) | st.dictionaries(_NAMES | st.text(), one)))
def test_any_json_is_refused(body: Any) -> None:
    """Whatever comes in the place of an answer, it is refused, and nothing stumbles."""
    assert KEYS.webauthn
    keys = SecurityKeys(FactorKey(b"k" * 32), KEYS.webauthn, "hpchub", time.time)
    with closing(sqlite3.connect(":memory:")) as nothing_there:
        found = keys.check(nothing_there, "alice", Secret(json.dumps(body)), "x")
    assert found.reason
    assert not found.key_id


@pytest.mark.parametrize("part", ["clientDataJSON", "authenticatorData", "signature"])
async def test_any_part_is_refused(
    asking: SignerClient, with_keys: SignerSettings, user_key: Any, part: str
) -> None:
    """A right answer with one part cut, empty, or of another kind is refused, and is no fault of ours."""
    key = soft_key()
    await enrolled(asking, user_key.public, key)
    for number, wrong in enumerate(("", "AAAA", "!", None, 7, [], {}, "A" * 200)):
        answer = key.press(await asking.challenge("alice", user_key.public), **{part: wrong})
        with pytest.raises(NotAllowed):
            await log_in(asking, user_key.public, answer, f"192.0.2.{number}")
    assert {one["outcome"] for one in records(with_keys)[2:]} == {"refused"}
