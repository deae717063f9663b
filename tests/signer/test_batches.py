"""Certificates that are asked for in one moment: one call, and yet each stands for itself."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Sequence
from typing import Any

import asyncssh
import pytest

from hpchub.core.certificate import Profile
from hpchub.core.secret import Secret
from hpchub.errors import InvalidRequest, NotAllowed, ProcessAway, SiteError
from hpchub.local_api.client import call
from hpchub.logs import correlated
from hpchub.signer.answers import Certificate
from hpchub.signer.certificate_bytes import Contents
from hpchub.signer.certificates import PublicKey
from hpchub.signer.client import LARGEST_BATCH, SignerClient
from hpchub.signer.issuer import KeyIssuer
from hpchub.signer.ledger import Ledger
from hpchub.signer.settings import SignerSettings
from hpchub.signer.together import Together


def certificates(settings: SignerSettings) -> list[dict[str, Any]]:
    lines = settings.audit_log.read_text().splitlines()
    return [record for record in map(json.loads, lines) if record["event"] == "certificate"]


async def grant(signer: SignerClient, user_key: Any, user: str = "alice") -> Secret:
    password = {"alice": "canary-alice-77", "bob": "canary-bob-78"}[user]
    return (await signer.grant(user, Secret(password), user_key.public, "")).grant


async def test_each_request_stands_for_itself(
    signer: SignerClient, settings: SignerSettings, user_key: Any, other_key: Any
) -> None:
    """Good ones are granted, bad ones refused with their own words, and each has one record."""
    mine, others = await grant(signer, user_key), await grant(signer, other_key, "bob")
    asked = [
        (mine, user_key.public, Profile.CONTROL),
        (mine, other_key.public, Profile.CONTROL),
        (Secret("no grant"), user_key.public, Profile.TUNNEL),
        (others, other_key.public, Profile.TUNNEL),
        (mine, "no key", Profile.TUNNEL),
        (mine, user_key.public, Profile.QUERY),
    ]
    results = await asyncio.gather(*(signer.certificate(*one) for one in asked), return_exceptions=True)
    kinds = [type(one) for one in results]
    assert kinds == [Certificate, NotAllowed, NotAllowed, Certificate, InvalidRequest, NotAllowed]
    granted = [one for one in results if isinstance(one, Certificate)]
    principals = [asyncssh.import_certificate(one.certificate).principals for one in granted]
    assert principals == [["alice"], ["bob"]]
    written = certificates(settings)
    assert sorted(one["outcome"] for one in written) == ["granted"] * 2 + ["refused"] * 4
    assert {one["serial"] for one in written if one["outcome"] == "granted"} == {
        str(one.serial) for one in granted
    }


async def test_a_crowd_gets_one_certificate_and_one_record_each(
    signer: SignerClient, settings: SignerSettings, user_key: Any
) -> None:
    """More than one call can hold: all different, all recorded, each for the server it was asked for."""
    mine = await grant(signer, user_key)

    async def ask(number: int) -> Certificate:
        with correlated(f"{number:04x}"):
            return await signer.certificate(mine, user_key.public, Profile.CONTROL)

    count = LARGEST_BATCH + 3
    made = await asyncio.gather(*(ask(number) for number in range(count)))
    written = certificates(settings)
    assert [one["server_id"] for one in written] == [f"{number:04x}" for number in range(count)]
    assert [one["serial"] for one in written] == [str(one.serial) for one in made]
    assert len({one.serial for one in made}) == count


@pytest.mark.parametrize(
    "requests",
    [
        [],
        [{}] * (LARGEST_BATCH + 1),
        ["text"],
        [{"grant": "", "public_key": "", "profile": ""}],
        [{"grant": "", "public_key": "", "profile": "", "server_id": 5}],
        [{"grant": "x" * 8193, "public_key": "", "profile": "", "server_id": ""}],
    ],
)
async def test_a_call_that_cannot_be_read_is_refused_and_recorded(
    requests: list[Any], signer: SignerClient, settings: SignerSettings
) -> None:
    """None, too many, no objects, a field missing, of another kind or too long."""
    with pytest.raises(InvalidRequest):
        await call(
            signer.socket_path,
            "signer",
            "POST",
            "/v1/certificate-batches",
            {"requests": requests},
            timeout_s=5,
        )
    assert [one["outcome"] for one in certificates(settings)] == ["refused"]


async def test_what_is_revoked_while_it_is_signed_does_not_leave(
    signer: SignerClient, settings: SignerSettings, user_key: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    """An authority may take seconds. A revocation meanwhile counts, though the ledger did not know of it."""
    mine = await grant(signer, user_key)
    sign = KeyIssuer.sign

    async def slowly(self: KeyIssuer, public_key: PublicKey, contents: Contents) -> str:
        line = await sign(self, public_key, contents)
        await signer.revoke("alice", reason="test", by="tests")
        return line

    monkeypatch.setattr(KeyIssuer, "sign", slowly)
    with pytest.raises(NotAllowed, match="has ended"):
        await signer.certificate(mine, user_key.public, Profile.CONTROL)
    record = certificates(settings)[-1]
    assert (record["outcome"], record["reason"]) == ("refused", "revoked")
    assert (await signer.sessions()).logins == []


async def test_everybody_of_a_failed_call_hears_of_it() -> None:
    """Where the call fails, each gets the error; others are not concerned, and one who left is no fault."""

    async def send(requests: Sequence[dict[str, Any]]) -> list[dict[str, Any]]:
        await asyncio.sleep(0)
        if {"fail": True} in requests:
            raise ProcessAway("away")
        return [dict(request) for request in requests]

    together = Together(send, 2)
    first = [asyncio.create_task(together.ask(one)) for one in ({"fail": True}, {"n": 1}, {"n": 2}, {"n": 3})]
    await asyncio.sleep(0)
    first[3].cancel()
    results = await asyncio.gather(*first, return_exceptions=True)
    assert [type(one) for one in results] == [ProcessAway, ProcessAway, dict, asyncio.CancelledError]
    assert await together.ask({"n": 4}) == {"n": 4}


async def test_a_ledger_that_fails_fails_all_of_them(
    signer: SignerClient, settings: SignerSettings, user_key: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Nothing of the transaction is granted, and each attempt is recorded."""
    mine = await grant(signer, user_key)

    def broken(_self: Ledger, *_: object) -> list[str]:
        raise SiteError("The signer's ledger cannot be used.")

    monkeypatch.setattr(Ledger, "add_certificates", broken)
    asked = (signer.certificate(mine, user_key.public, Profile.CONTROL) for _ in range(3))
    results = await asyncio.gather(*asked, return_exceptions=True)
    assert all(isinstance(one, SiteError) and "ledger" in one.message for one in results)
    assert [one["outcome"] for one in certificates(settings)] == ["error"] * 3
