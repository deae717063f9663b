"""When a server's time is up: who is told of it, and when."""

from __future__ import annotations

import json
from typing import Any

from hpchub.bridge.end_time import EndTime
from hpchub.core.cluster import ComputePlacement


class _Channel:
    def __init__(self, broken: bool = False) -> None:
        self.told: list[dict[str, Any]] = []
        self._broken = broken

    def tell(self, line: bytes) -> None:
        if self._broken:
            raise BrokenPipeError
        assert line.endswith(b"\n")
        self.told.append(json.loads(line))


def test_told_once_known() -> None:
    """What becomes known while a launcher listens is told at once, with what the cluster file says."""
    end, channel = EndTime(ComputePlacement(warn_before_s=(60, 30), successor=False)), _Channel()
    with end.told_to(channel):
        assert channel.told == []
        end.set(1000.7)
    assert channel.told == [{"ends_at": 1000, "warn_before_s": [60, 30], "successor": False}]


def test_told_again_to_each_channel_and_after_a_change() -> None:
    """A new channel hears what is known; the same time again is no news, an extended job's is."""
    end = EndTime(None)
    end.set(1000)
    for _ in range(2):
        channel = _Channel()
        with end.told_to(channel):
            end.set(1001)
            end.set(1600)
            end.set(1000)
        assert [told["ends_at"] for told in channel.told] == [1000, 1600, 1000]


def test_channel_that_breaks() -> None:
    """A channel that breaks is no trouble: its end is noticed elsewhere, and the next one is told."""
    end, second = EndTime(None), _Channel()
    with end.told_to(_Channel(broken=True)):
        end.set(1000)
    end.set(2000)
    with end.told_to(second):
        pass
    assert [told["ends_at"] for told in second.told] == [2000]
