"""What the signer counts and when it is ready, over its socket."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import aiohttp
import pytest
from prometheus_client.parser import text_string_to_metric_families

from hpchub.audit import Event, Outcome, Record
from hpchub.core.certificate import Profile
from hpchub.core.secret import Secret
from hpchub.errors import ConfigError, HpchubError, NotAllowed, RemoteError
from hpchub.logs import correlated
from hpchub.signer.client import SignerClient
from hpchub.signer.metrics import SignerMetrics
from hpchub.signer.proofs import PamProof
from hpchub.signer.settings import SignerSettings

from .test_server import records


async def scrape(settings: SignerSettings) -> dict[tuple[str, ...], float]:
    connector = aiohttp.UnixConnector(str(settings.socket))
    async with (
        aiohttp.ClientSession(connector=connector) as session,
        session.get("http://signer/v1/metrics") as response,
    ):
        text = await response.text()
    return {
        (sample.name, *sample.labels.values()): sample.value
        for family in text_string_to_metric_families(text)
        for sample in family.samples
    }


async def test_each_attempt_is_counted(
    signer: SignerClient, settings: SignerSettings, passwords: dict[str, str], user_key: Any
) -> None:
    """Logins by outcome, certificates by profile and outcome, and no name in any label."""
    name, password = next(iter(passwords.items()))
    login = await signer.grant(name, Secret(password), user_key.public, "")
    with pytest.raises(NotAllowed):
        await signer.grant(name, Secret("wrong"), user_key.public, "")
    await signer.certificate(login.grant, user_key.public, Profile.TUNNEL)
    numbers = await scrape(settings)
    assert numbers["hpchub_signer_logins_total", "granted"] == 1
    assert numbers["hpchub_signer_logins_total", "refused"] == 1
    assert numbers["hpchub_signer_certificates_total", "granted", "tunnel"] == 1
    assert numbers["hpchub_signer_proof_seconds_count",] == 2
    assert not any(name in key for key in numbers)


def test_a_profile_made_up_is_no_new_label() -> None:
    """Whoever may call the signer cannot fill Prometheus with series."""
    metrics = SignerMetrics()
    for number in range(3):
        record = Record(event=Event.CERTIFICATE, outcome=Outcome.REFUSED, profile=f"made up {number}")
        metrics.count(record)
    labels = {"profile": "unknown", "outcome": "refused"}
    assert metrics.registry.get_sample_value("hpchub_signer_certificates_total", labels) == 3


async def test_the_audit_names_the_server(
    signer: SignerClient, settings: SignerSettings, passwords: dict[str, str], user_key: Any
) -> None:
    """A certificate that is asked for a server's sake has the server's id in its record; a login has none."""
    name, password = next(iter(passwords.items()))
    login = await signer.grant(name, Secret(password), user_key.public, "")
    with correlated("9f" * 16):
        await signer.certificate(login.grant, user_key.public, Profile.CONTROL)
    assert [one["server_id"] for one in records(settings)] == ["", "9f" * 16]


async def test_ready_says_what_is_missing(signer: SignerClient, settings: SignerSettings) -> None:
    """With its files in order it is ready; it names the one that is not, and stays alive."""
    await signer.ready()
    assert settings.proof.file is not None
    settings.proof.file.chmod(0o644)
    settings.audit_log.unlink()
    settings.audit_log.mkdir()
    with pytest.raises(RemoteError, match=r"audit_log: .* proof: "):
        await signer.ready()
    numbers = await scrape(settings)
    assert numbers["hpchub_signer_audit_failures_total",] == 0
    with pytest.raises(HpchubError):
        await signer.grant("alice", Secret("x"), "x", "")
    assert (await scrape(settings))["hpchub_signer_audit_failures_total",] == 1
    await signer.health()


def test_pam_without_a_service_file(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """PAM would ask `other`, which refuses everybody: that is told before anybody logs in."""
    monkeypatch.setattr("hpchub.signer.proofs._PAM_FOLDERS", (str(tmp_path),))
    with pytest.raises(ConfigError, match="no service 'hpchub'"):
        PamProof("hpchub").check()
    (tmp_path / "hpchub").touch()
    PamProof("hpchub").check()
