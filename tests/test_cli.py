"""The command itself, before any of its verbs."""

from __future__ import annotations

import pytest

from hpchub import cli


def test_a_library_that_is_missing_is_named(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """One line and exit code 1: on a login node there are none of the hub's libraries."""
    monkeypatch.setitem(cli._VERBS, "doctor", ("a_library_of_the_hub.command", ""))
    assert cli.main(["doctor"]) == 1
    said = capsys.readouterr().err
    assert said == "hpchub doctor: a_library_of_the_hub is not installed here, which it needs.\n"
