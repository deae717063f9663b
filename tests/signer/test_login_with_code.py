"""Password and code through the whole signer: words, audit log, limits, settings, staff."""

from __future__ import annotations

import logging
import time
from collections.abc import AsyncIterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from hpchub.cli import main
from hpchub.core.certificate import Profile
from hpchub.core.secret import Secret
from hpchub.errors import ConfigError, EnrolmentRequired, InvalidRequest, NotAllowed
from hpchub.signer.client import SignerClient
from hpchub.signer.factor_key import make_factor_key
from hpchub.signer.factor_settings import FactorSettings, Required
from hpchub.signer.server import running
from hpchub.signer.settings import SignerSettings

from .factor import code_of
from .test_server import SOURCE, records

PASSWORD = Secret("canary-alice-77")
NO_CODE = Secret("")


@pytest.fixture
def with_factor(settings: SignerSettings) -> SignerSettings:
    """Settings of a signer that asks everybody."""
    make_factor_key(settings.factor_key)
    return replace(settings, second_factor=FactorSettings(required=Required.ALL))


@pytest.fixture
async def asking(with_factor: SignerSettings) -> AsyncIterator[SignerClient]:
    async with running(with_factor):
        yield SignerClient(with_factor.socket)


async def ticket_of(client: SignerClient, key: Any) -> Secret:
    with pytest.raises(EnrolmentRequired) as caught:
        await client.grant("alice", PASSWORD, key.public, SOURCE)
    return Secret(caught.value.ticket)


async def test_from_password_to_certificate(
    asking: SignerClient, settings: SignerSettings, user_key: Any
) -> None:
    """The password alone earns a ticket; enrolled, password and code earn a grant that names both."""
    assert await asking.factor_kinds() == ("totp",)
    ticket = await ticket_of(asking, user_key)
    with pytest.raises(NotAllowed, match="not one of ours"):
        await asking.certificate(ticket, user_key.public, Profile.CONTROL)
    seed = (await asking.offer(ticket)).seed.reveal()
    with pytest.raises(InvalidRequest, match="not the code"):
        await asking.enrol(ticket, Secret("1"), SOURCE)
    codes = await asking.enrol(ticket, Secret(code_of(seed, time.time())), SOURCE)
    with pytest.raises(NotAllowed, match="do not match"):
        await asking.grant("alice", PASSWORD, user_key.public, SOURCE)
    code = Secret(code_of(seed, time.time() + 30))
    login = await asking.grant("alice", PASSWORD, user_key.public, SOURCE, code)
    await asking.certificate(login.grant, user_key.public, Profile.CONTROL)
    with pytest.raises(NotAllowed):
        await asking.grant("alice", PASSWORD, user_key.public, SOURCE, code)
    await asking.grant("alice", PASSWORD, user_key.public, SOURCE, codes[0])
    told = [
        (one["event"], one["outcome"], one["factor"], one["reason"])
        for one in records(settings)
        if one["outcome"] != "refused" or one["event"] == "login"
    ]
    assert told == [
        ("login", "refused", "", "Set up a second factor first."),
        ("enrolment", "granted", "totp", ""),
        ("login", "refused", "", "no code"),
        ("login", "granted", "password+totp", ""),
        ("certificate", "granted", "password+totp", ""),
        ("login", "refused", "", "wrong code"),
        ("login", "granted", "password+recovery", ""),
    ]


async def test_every_refusal_sounds_the_same(asking: SignerClient, user_key: Any) -> None:
    """Wrong password, wrong code, no code, unknown name, limited: one answer for all."""
    ticket = await ticket_of(asking, user_key)
    seed = (await asking.offer(ticket)).seed.reveal()
    await asking.enrol(ticket, Secret(code_of(seed, time.time())), SOURCE)
    tries = [
        ("alice", PASSWORD, Secret("123")),
        ("alice", PASSWORD, NO_CODE),
        ("alice", Secret("wrong"), Secret(code_of(seed, time.time() + 30))),
        ("bob", Secret("wrong"), NO_CODE),
        ("nobody.here", Secret("wrong"), Secret("123456")),
        *[("alice", PASSWORD, Secret("123"))] * 3,
        ("alice", PASSWORD, Secret(code_of(seed, time.time() + 30))),
    ]
    said = set()
    for name, password, code in tries:
        with pytest.raises(NotAllowed) as caught:
            await asking.grant(name, password, user_key.public, SOURCE, code)
        error = caught.value
        said.add((type(error), error.message, error.hint, error.status, error.retryable))
    assert len(said) == 1


async def test_codes_cannot_be_guessed(asking: SignerClient, settings: SignerSettings, user_key: Any) -> None:
    """Wrong codes count as wrong passwords do: after twenty, no stranger's guess is looked at."""
    ticket = await ticket_of(asking, user_key)
    seed = (await asking.offer(ticket)).seed.reveal()
    await asking.enrol(ticket, Secret(code_of(seed, time.time())), SOURCE)
    for number in range(22):
        with pytest.raises(NotAllowed):
            await asking.grant("alice", PASSWORD, user_key.public, f"10.0.0.{number}", Secret("123"))
    reasons = [one["reason"] for one in records(settings)]
    assert reasons.count("wrong code") == 20
    assert reasons[-1] == "too many failures of this account; wrong code"


async def test_nothing_is_logged_in_clear(
    asking: SignerClient,
    settings: SignerSettings,
    user_key: Any,
    caplog: pytest.LogCaptureFixture,
    capfd: pytest.CaptureFixture[str],
) -> None:
    """No password, seed, code, ticket or recovery code is in a log, a repr, or a file of the signer's."""
    caplog.set_level(logging.DEBUG)
    with pytest.raises(EnrolmentRequired) as caught:
        await asking.grant("alice", PASSWORD, user_key.public, SOURCE)
    ticket = Secret(caught.value.ticket)
    offer = await asking.offer(ticket)
    seed = offer.seed.reveal()
    first, second = (code_of(seed, time.time() + away) for away in (0, 30))
    codes = await asking.enrol(ticket, Secret(first), SOURCE)
    login = await asking.grant("alice", PASSWORD, user_key.public, SOURCE, Secret(second))
    await asking.grant("alice", PASSWORD, user_key.public, SOURCE, codes[0])
    seen = caplog.text + "".join(capfd.readouterr()) + repr((offer, codes, login, caught.value))
    root = settings.audit_log.parent
    files = [path for path in root.rglob("*") if path.is_file()]
    assert {path.name for path in files} >= {"audit.jsonl", "state.sqlite", "state.sqlite-wal"}
    stored = b"".join(path.read_bytes() for path in files) + seen.encode()
    secrets = [PASSWORD, ticket, *codes, Secret(seed), Secret(seed.replace(" ", "")), offer.uri]
    assert [one.reveal() for one in secrets if one.reveal().encode() in stored] == []
    for code in (first, second):
        assert f'"{code}"' not in stored.decode("latin-1")
        assert code not in seen


async def test_where_nobody_is_asked(signer: SignerClient, settings: SignerSettings, user_key: Any) -> None:
    """By default codes are not looked at, nothing can be enrolled, and no key is needed."""
    assert await signer.factor_kinds() == ()
    assert not settings.factor_key.exists()
    login = await signer.grant("alice", PASSWORD, user_key.public, SOURCE, Secret("123456"))
    assert login.username == "alice"
    with pytest.raises(NotAllowed):
        await signer.offer(Secret("x"))
    with pytest.raises(NotAllowed):
        await signer.enrol(Secret("x"), Secret("123456"), SOURCE)


async def test_no_key_no_signer(settings: SignerSettings) -> None:
    """A signer that is to ask for codes and has no key does not start."""
    asked = replace(settings, second_factor=FactorSettings(required=Required.ALL))
    with pytest.raises(ConfigError, match="second_factor_key"):
        async with running(asked):
            pass


async def test_staff_reset(
    asking: SignerClient,
    settings: SignerSettings,
    user_key: Any,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:
    """`reset-second-factor` works beside the running signer, needs no key, and is in the audit log."""
    ticket = await ticket_of(asking, user_key)
    seed = (await asking.offer(ticket)).seed.reveal()
    await asking.enrol(ticket, Secret(code_of(seed, time.time())), SOURCE)
    config = tmp_path / "signer.toml"
    config.write_text(
        'socket = "run/signer.sock"\nstate_dir = "state"\naudit_log = "audit.jsonl"\n'
        'source_addresses = ["127.0.0.1"]\n[proof]\nkind = "password-file"\nfile = "passwords"\n'
    )
    start = ["signer", "--config", str(config), "reset-second-factor"]
    assert main([*start, "alice"]) == 0
    assert "has no second factor any more" in capsys.readouterr().out
    assert main([*start, "alice"]) == 0
    assert "had no second factor" in capsys.readouterr().out
    assert main([*start, "root"]) == 1
    await ticket_of(asking, user_key)
    found = [one for one in records(settings) if one["event"] == "second-factor-reset"]
    assert [(one["user"], one["factor"], one["outcome"]) for one in found] == [
        ("alice", "staff", "granted")
    ] * 2


def test_init_makes_the_key(settings: SignerSettings, tmp_path: Path) -> None:
    """Where the settings ask for codes, `init` makes the key, at the place that they name, and keeps it."""
    config = tmp_path / "signer.toml"
    config.write_text(
        'socket = "run/signer.sock"\nstate_dir = "state"\naudit_log = "audit.jsonl"\n'
        'source_addresses = ["127.0.0.1"]\n[proof]\nkind = "password-file"\nfile = "passwords"\n'
        '[second_factor]\nrequired = "all"\nkey_file = "elsewhere"\n'
    )
    made = []
    for _ in range(2):
        assert main(["signer", "--config", str(config), "init"]) == 0
        made.append((tmp_path / "elsewhere").read_bytes())
    assert made[0] == made[1]
    assert not settings.factor_key.exists()
