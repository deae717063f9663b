"""Whatever is typed as a name, only its owner gets in, and nothing tells whom the signer knows."""

from __future__ import annotations

import itertools
import json
import time
import unicodedata
from typing import Any

import pytest
from hypothesis import HealthCheck, given
from hypothesis import settings as tried
from hypothesis import strategies as st

from hpchub.core.secret import Secret
from hpchub.errors import NotAllowed
from hpchub.signer.client import SignerClient
from hpchub.signer.password_file import PasswordFileProof
from hpchub.signer.proofs import Refused
from hpchub.signer.settings import SignerSettings

# Each is read as alice by a person, or by some part that folds, cuts or splits.
_LOOKALIKES = (
    *("alice\0", "alice\n", "alice\r", " alice", "alice ", "alice\x7f", "alice\u200b", "\ud800", ""),
    *("Alice", "ALICE", "\u0430lice", "al\u0131ce", "\uff41lice", "ali\u0441e", "a\u0301lice"),
    *("alice/", "./alice", "../alice", "alice@EXAMPLE.ORG", "-oX", "-alice", "alice,bob", "alice:x"),
    *("alice;id", "$(alice)", "alice\\", "uid=alice", "alice*", "*", "root", "Root"),
)


async def test_what_only_looks_like_alice(
    signer: SignerClient, settings: SignerSettings, user_key: Any
) -> None:
    """With alice's own password: refused, in the words of every refusal, for what the name is."""
    for number, name in enumerate(_LOOKALIKES):
        with pytest.raises(NotAllowed, match="do not match"):
            await signer.grant(name, Secret("canary-alice-77"), user_key.public, f"192.0.2.{number}")
    records = [json.loads(line) for line in settings.audit_log.read_text().splitlines()]
    assert len(records) == len(_LOOKALIKES)
    found = {one["reason"].rpartition("; ")[2] for one in records}  # what was found, also beyond a limit
    assert found == {"unsafe account name", "unknown user"}


@tried(suppress_health_check=[HealthCheck.function_scoped_fixture], max_examples=200, deadline=None)
@given(
    st.one_of(
        st.text(max_size=40),
        st.builds("".join, st.permutations(["alice", "\0", "/", "..", "@", "\n", "-o"])),
        st.text(alphabet="alice\u0430\u0441\u0435ALICE\u0130\u0131\0\n", max_size=8),
    )
)
def test_any_other_name_is_refused(settings: SignerSettings, name: str) -> None:
    """Names of any characters, alice's among them: nothing but `alice` is alice."""
    proof = PasswordFileProof(settings.proof.file)  # type: ignore[arg-type]
    if unicodedata.normalize("NFC", name) == "alice":
        return
    assert isinstance(proof.verify(name, Secret("canary-alice-77")), Refused)


def _share_above(ours: list[float], theirs: list[float]) -> float:
    """How often one of ours took longer than one of theirs; one half where nothing tells them apart."""
    ranks = sorted(itertools.chain(((t, 0) for t in ours), ((t, 1) for t in theirs)))
    above = seen = 0
    for _, whose in ranks:
        seen += whose
        above += 0 if whose else seen
    return above / (len(ours) * len(theirs))


@pytest.mark.slow
async def test_time_tells_nothing(signer: SignerClient, user_key: Any) -> None:
    """A thousand refusals, of known, locked and unknown people in turn: no two distributions differ.

    One of 250 draws is above one of 250 others in 0.50 of the pairs, +- 0.026 (Mann and Whitney's U).
    """
    names = ("alice", "carol", "nobody.here", "\u0430lice")
    took: dict[str, list[float]] = {name: [] for name in names}
    for number in range(1000):
        # Each in another order, so that what this machine does meanwhile is nobody's alone.
        name = names[(number + number // 4) % 4]
        began = time.perf_counter()
        with pytest.raises(NotAllowed):
            await signer.grant(name, Secret("wrong"), user_key.public, f"2001:db8:{number:x}::1")
        took[name].append(time.perf_counter() - began)
    for one, other in itertools.combinations(names, 2):
        assert 0.35 < _share_above(took[one], took[other]) < 0.65, (one, other)
