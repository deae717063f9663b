"""What the bridge logs in with as a service account, from a real signer"""

from __future__ import annotations

import asyncio
import json
import time

import pytest

from hpchub.bridge.service_account import WithServiceAccounts
from hpchub.bridge.sessions import Sessions
from hpchub.bridge.store import Store
from hpchub.core.certificate import Profile
from hpchub.errors import ConfigError, NotAllowed
from hpchub.remote.slurm_query import FORCED_COMMAND
from hpchub.signer.client import SignerClient
from hpchub.signer.settings import SignerSettings
from hpchub.ssh.key_agent import KeyAgent

from .conftest import Login


class Clock:
    ahead = 0.0

    def __call__(self) -> float:
        return time.time() + self.ahead


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
def sessions(signer: SignerClient, agent: KeyAgent, store: Store) -> Sessions:
    return Sessions(signer, agent, store)


@pytest.fixture
def source(sessions: Sessions, signer: SignerClient, clock: Clock) -> WithServiceAccounts:
    return WithServiceAccounts(sessions, signer, now=clock)


def minted(settings: SignerSettings) -> list[str]:
    return [json.loads(line)["user"] for line in settings.audit_log.read_text().splitlines()]


async def test_a_service_account_needs_no_session(source: WithServiceAccounts) -> None:
    """Its certificate is for a key of the bridge's own, and forces the query."""
    credential = await source.credential("slurmwatch", Profile.QUERY)
    assert credential.certificate.principals == ["slurmwatch"]
    assert credential.certificate.options["force-command"] == FORCED_COMMAND
    assert credential.certificate.key == credential.key.convert_to_public()


async def test_one_certificate_until_its_last_minute(
    source: WithServiceAccounts, clock: Clock, signer_settings: SignerSettings
) -> None:
    """However many connections are made at once."""
    credentials = await asyncio.gather(*(source.credential("slurmwatch", Profile.QUERY) for _ in range(9)))
    assert minted(signer_settings) == ["slurmwatch"]
    clock.ahead = credentials[0].valid_before - time.time() - 55
    await source.credential("slurmwatch", Profile.QUERY)
    assert minted(signer_settings) == ["slurmwatch"] * 2


async def test_people_have_their_sessions(
    source: WithServiceAccounts, sessions: Sessions, login: Login
) -> None:
    """A service account is nobody's session, and a person no service account."""
    with pytest.raises(NotAllowed):
        await source.credential("slurmwatch", Profile.CONTROL)
    await login.open(sessions, "alice")
    person = await source.credential("alice", Profile.CONTROL)
    service = await source.credential("slurmwatch", Profile.QUERY)
    assert person.certificate.principals == ["alice"]
    assert person.certificate.key != service.certificate.key


async def test_a_signer_that_does_not_know_it(source: WithServiceAccounts) -> None:
    """A cluster file and a signer that disagree are the site's to mend: the message says where."""
    with pytest.raises(ConfigError, match="lets w2 ask") as caught:
        await source.credential("w2", Profile.QUERY)
    assert "query_accounts" in caught.value.hint


async def test_a_form_that_the_signer_does_not_have(source: WithServiceAccounts) -> None:
    """The site's two files disagree: the staff are told which word of which file to correct."""
    plain = await source.credential("slurmwatch", Profile.QUERY, "{account}")
    assert plain is await source.credential("slurmwatch", Profile.QUERY, "{account}")
    with pytest.raises(ConfigError, match=r"principals of the signer's settings.*principal in the cluster"):
        await source.credential("slurmwatch", Profile.QUERY, "hpchub:{account}")
