"""What a real sshd refuses though our own authority, or nobody, has signed it; and the join of both logs.

The signer would make none of these certificates (test_policy.py): here the authority's key is used directly,
as somebody would who had stolen it.
"""

from __future__ import annotations

import json
import re
import time
from collections import Counter
from typing import Any

import asyncssh
import pytest
from signer.test_sshd import Sshd
from signer.test_sshd import sshd as sshd

from hpchub.core.certificate import Profile
from hpchub.core.secret import Secret
from hpchub.signer.client import SignerClient
from hpchub.signer.keys import load_ca_key
from hpchub.signer.settings import SignerSettings

_ACCEPTED = re.compile(r"Accepted publickey for (\S+) .* ID (\S+) \(serial (\d+)\) CA ")


async def enters(sshd: Sshd, user: str, key: Any) -> bool:
    """Whether sshd lets in whoever shows this, which need not fit together."""
    try:
        async with asyncssh.connect(
            "127.0.0.1",
            sshd.port,
            username=user,
            client_keys=[key],
            known_hosts=asyncssh.import_known_hosts(sshd.known_hosts.decode()),
            config=None,
            agent_path=None,
            preferred_auth=("publickey",),
        ):
            return True
    except asyncssh.PermissionDenied:
        return False


def signed(settings: SignerSettings, key: asyncssh.SSHKey, principals: Any) -> asyncssh.SSHCertificate:
    return load_ca_key(settings.state_dir).generate_user_certificate(
        key, "hpchub:test", serial=7, principals=principals, valid_before=int(time.time()) + 600
    )


@pytest.mark.parametrize(
    ("principals", "is_in"),
    [([], False), ([""], False), (["*"], False), (["a*"], False), (["a,alice"], False), (["ALICE"], False),
     (["alice "], False), (["alice"], True)],
)  # fmt: skip
async def test_no_wildcard(
    sshd: Sshd, settings: SignerSettings, user_key: Any, principals: list[str], is_in: bool
) -> None:
    """No principal, an empty one, a pattern, two in one, other capitals: none of them is alice."""
    key = (user_key.private, signed(settings, user_key.private, principals))
    assert await enters(sshd, "alice", key) is is_in
    assert not await enters(sshd, "bob", key)


async def test_what_is_no_user_certificate(sshd: Sshd, settings: SignerSettings, user_key: Any) -> None:
    """A bare key, a host's certificate, and a certificate of another authority that bears our name."""
    assert not await enters(sshd, "alice", user_key.private)
    host = load_ca_key(settings.state_dir).generate_host_certificate(
        user_key.private, "hpchub:test", principals=["alice"], valid_before=int(time.time()) + 600
    )
    assert not await enters(sshd, "alice", (user_key.private, host))
    stranger = asyncssh.generate_private_key("ssh-ed25519", comment="hpchub")
    foreign = stranger.generate_user_certificate(user_key.private, "hpchub:alice", principals=["alice"])
    assert not await enters(sshd, "alice", (user_key.private, foreign))


async def test_a_stolen_certificate_opens_nothing(
    sshd: Sshd, settings: SignerSettings, user_key: Any, other_key: Any
) -> None:
    """Shown with a signature of another key: asyncssh would not, so its own check is gone around."""
    certificate = signed(settings, user_key.private, ["alice"])
    pair, _bare = asyncssh.load_keypairs([(user_key.private, certificate)])
    assert await enters(sshd, "alice", pair)
    stolen, _bare = asyncssh.load_keypairs([(user_key.private, certificate)])
    stolen._key = other_key.private
    assert not await enters(sshd, "alice", stolen)


async def test_each_mint_has_one_partner_in_sshds_log(
    sshd: Sshd, signer: SignerClient, settings: SignerSettings, user_key: Any, other_key: Any
) -> None:
    """Every certificate, of each profile and two people, used once: sshd's lines and our records are the same
    set. What a stolen authority key has signed gets in, and is what has no partner.
    """
    for name, key in (("alice", user_key), ("bob", other_key)):
        login = await signer.grant(name, Secret(f"canary-{name}-{77 + (name == 'bob')}"), key.public, "")
        for profile in (Profile.CONTROL, Profile.TUNNEL, Profile.CONTROL):
            minted = await signer.certificate(login.grant, key.public, profile)
            certificate = asyncssh.import_certificate(minted.certificate)
            assert await enters(sshd, name, (key.private, certificate))
    forged = signed(settings, user_key.private, ["alice"])
    assert await enters(sshd, "alice", (user_key.private, forged))

    seen = Counter(match.groups() for match in _ACCEPTED.finditer(sshd.log.read_text()))
    records = [json.loads(line) for line in settings.audit_log.read_text().splitlines()]
    ours = Counter(
        (one["user"], one["key_id"], one["serial"])
        for one in records
        if one["event"] == "certificate" and one["outcome"] == "granted"
    )
    assert len(ours) == 6 and set(ours.values()) == {1}
    assert len({serial for _, _, serial in ours}) == 6
    assert seen - ours == Counter([("alice", "hpchub:test", "7")])
    assert ours - seen == Counter()


async def test_root_is_for_the_strict_configuration(
    sshd: Sshd, signer: SignerClient, settings: SignerSettings, user_key: Any
) -> None:
    """sshd as Debian ships it lets in a certificate that names root; so the signer makes none."""
    assert await enters(sshd, "root", (user_key.private, signed(settings, user_key.private, ["root"])))
    login = await signer.grant("alice", Secret("canary-alice-77"), user_key.public, "")
    minted = await signer.certificate(login.grant, user_key.public, Profile.CONTROL)
    mine = asyncssh.import_certificate(minted.certificate)
    assert not await enters(sshd, "root", (user_key.private, mine))
