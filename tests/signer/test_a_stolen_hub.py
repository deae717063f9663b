"""Somebody who has taken the hub over, with all that it ever sees, wants alice's certificate."""

from __future__ import annotations

import json
import time
from typing import Any

import asyncssh
import jwt
import pytest
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from hpchub.core.certificate import Profile
from hpchub.core.secret import Secret
from hpchub.errors import HpchubError
from hpchub.signer.certificates import parse_public_key
from hpchub.signer.client import SignerClient
from hpchub.signer.grants import GrantKey
from hpchub.signer.keys import load_keys
from hpchub.signer.policy import plan_grant
from hpchub.signer.settings import SignerSettings


async def test_it_cannot_mint_for_whoever_has_not_logged_in(
    signer: SignerClient, settings: SignerSettings, user_key: Any, other_key: Any
) -> None:
    """No proof, an expired one, one for another key, audience or person, a forged one: nothing is minted,
    each try is recorded, and bob, who has logged in, goes on.
    """
    thief = user_key.public
    bob = await signer.grant("bob", Secret("canary-bob-78"), other_key.public, "192.0.2.1")

    def alices(issued: float, key: GrantKey) -> Secret:
        now = int(issued)
        fingerprint = parse_public_key(thief).fingerprint
        return key.render(
            plan_grant(
                settings.policy, account="alice", factor="password", fingerprint=fingerprint, now=now,
                grant_id="1" * 32,
            )
        )  # fmt: skip

    own = load_keys(settings.state_dir).grant
    claims = jwt.decode(bob.grant.reveal(), options={"verify_signature": False})
    header, _, signature = bob.grant.reveal().split(".")
    swapped = jwt.encode({**claims, "sub": "alice"}, Ed25519PrivateKey.generate(), algorithm="EdDSA")
    certificate = await signer.certificate(bob.grant, other_key.public, Profile.CONTROL)
    shown = asyncssh.import_certificate(certificate.certificate)
    proofs = {
        "nothing": Secret(""),
        "an old login": alices(time.time() - settings.policy.login_ceiling_s - 60, own),
        "a key of the thief's": alices(time.time(), GrantKey(Ed25519PrivateKey.generate())),
        "bob's, for the thief's key": bob.grant,
        "bob's, in alice's name": Secret(".".join((header, swapped.split(".")[1], signature))),
        "for another audience": Secret(
            jwt.encode({**claims, "sub": "alice", "aud": "jupyterhub"}, own._private_key, algorithm="EdDSA")
        ),
        "bob's certificate": Secret(shown.export_certificate().decode()),
    }
    for name, proof in proofs.items():
        for profile in (Profile.CONTROL, Profile.TUNNEL, Profile.QUERY):
            with pytest.raises(HpchubError):
                await signer.certificate(proof, thief, profile)
                pytest.fail(name)
    for account in ("alice", "root"):
        with pytest.raises(HpchubError):
            await signer.query_certificate(account, thief)
    for password in ("", "canary-bob-78", bob.grant.reveal()):
        with pytest.raises(HpchubError):
            await signer.grant("alice", Secret(password), thief, "192.0.2.1")

    records = [json.loads(line) for line in settings.audit_log.read_text().splitlines()]
    granted = [one for one in records if one["outcome"] == "granted"]
    assert {one["user"] for one in granted} == {"bob"}
    assert len(records) - len(granted) == 3 * len(proofs) + 2 + 3
    again = await signer.certificate(bob.grant, other_key.public, Profile.CONTROL)
    assert asyncssh.import_certificate(again.certificate).principals == ["bob"]
