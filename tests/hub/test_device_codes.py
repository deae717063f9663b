"""Codes of logins that wait: how long, how often, how many."""

from __future__ import annotations

import pytest

from hpchub.errors import InvalidRequest, NotAllowed, RemoteError
from hpchub.hub.device_codes import INTERVAL_S, LIFETIME_S, Answer, DeviceCodes, shown
from hpchub.hub.terminal_keys import Challenges

KEY = "ssh-ed25519 AAAAC3NzaC1lZDI1NTE5AAAAIJ1kzBTMVi4NGTvCMSzYwdZAVMCnfPHjIYVVSiFwHE7b"


class Clock:
    def __init__(self) -> None:
        self.at = 1000.0

    def __call__(self) -> float:
        return self.at


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
def codes(clock: Clock) -> DeviceCodes:
    return DeviceCodes(clock)


def test_an_expired_code_is_worth_nothing(codes: DeviceCodes, clock: Clock) -> None:
    """Neither to the person who types it nor to the machine that asks, which is told why, for a while."""
    device_code, asked = codes.begin(KEY, "laptop", "192.0.2.1")
    assert codes.find("alice", shown(asked.user_code)) is asked
    clock.at += LIFETIME_S
    with pytest.raises(InvalidRequest):
        codes.find("alice", asked.user_code)
    assert codes.poll(device_code) == (Answer.EXPIRED, {})
    codes.grant(asked, {"certificate": "too late"})
    assert codes.poll(device_code) == (Answer.EXPIRED, {})
    clock.at += LIFETIME_S
    codes.begin(KEY, "laptop", "192.0.2.1")
    assert codes.poll(device_code) == (Answer.UNKNOWN, {})


def test_a_machine_in_a_hurry_is_told_to_slow_down(codes: DeviceCodes, clock: Clock) -> None:
    """Two polls at once, and the second learns nothing, even where something was granted."""
    device_code, asked = codes.begin(KEY, "laptop", "192.0.2.1")
    assert codes.poll(device_code)[0] is Answer.PENDING
    codes.grant(asked, {"certificate": "made"})
    assert codes.poll(device_code) == (Answer.SLOW_DOWN, {})
    clock.at += INTERVAL_S
    assert codes.poll(device_code) == (Answer.GRANTED, {"certificate": "made"})
    assert codes.poll(device_code) == (Answer.UNKNOWN, {})


def test_one_person_answers_once(codes: DeviceCodes) -> None:
    """Two who confirm one code at once make one certificate; where that fails, it may be tried again."""
    _, asked = codes.begin(KEY, "laptop", "192.0.2.1")
    codes.claim(asked)
    with pytest.raises(InvalidRequest):
        codes.claim(asked)
    codes.release(asked)
    codes.claim(asked)
    codes.deny(asked)
    with pytest.raises(InvalidRequest):
        codes.find("alice", asked.user_code)


def test_a_flood_from_one_address_stops_there(codes: DeviceCodes) -> None:
    """Twenty may wait from one address; another's are not refused for that."""
    for _ in range(20):
        codes.begin(KEY, "", "192.0.2.1")
    with pytest.raises(RemoteError):
        codes.begin(KEY, "", "192.0.2.1")
    codes.begin(KEY, "", "192.0.2.2")


def test_wrong_codes_are_counted_for_each_person(codes: DeviceCodes, clock: Clock) -> None:
    """Ten, then a wait of five minutes, also for the right one."""
    _, asked = codes.begin(KEY, "", "192.0.2.1")
    for _ in range(10):
        with pytest.raises(InvalidRequest):
            codes.find("mallory", "BBBBBBBB")
    with pytest.raises(NotAllowed):
        codes.find("mallory", asked.user_code)
    assert codes.find("alice", asked.user_code) is asked
    clock.at += LIFETIME_S + 1
    _, asked = codes.begin(KEY, "", "192.0.2.1")
    assert codes.find("mallory", asked.user_code) is asked


@pytest.mark.parametrize(
    "key",
    ["", "no key", "ssh-ed25519 AAAA", KEY + "\nssh-rsa AAAA", f"{KEY} comment", "ssh-ed25519 " + "=" * 40],
)
def test_what_is_no_key_is_refused_at_once(codes: DeviceCodes, key: str) -> None:
    """Before anybody is asked to confirm it."""
    with pytest.raises(InvalidRequest):
        codes.begin(key, "", "192.0.2.1")


def test_names_cannot_draw_on_the_page(codes: DeviceCodes) -> None:
    """Line ends, controls and characters that turn text around are gone, and it is short."""
    _, asked = codes.begin(KEY, "a\n\x1b[2J\u202eb" + "c" * 500, "192.0.2.1")
    assert asked.name.startswith("a  [2J b")
    assert len(asked.name) <= 64


def test_a_challenge_ends_and_counts_once(clock: Clock) -> None:
    """One minute, one use, and only ours."""
    challenges = Challenges(clock)
    first, second = challenges.new(), challenges.new()
    challenges.use_up(first)
    clock.at += 60
    for text in (first, second, "mine"):
        with pytest.raises(NotAllowed):
            challenges.use_up(text)
