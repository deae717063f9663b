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


def test_a_module_of_our_own_that_is_missing_is_a_fault(monkeypatch: pytest.MonkeyPatch) -> None:
    """Nobody could install it: the traceback says where it is wanted."""
    monkeypatch.setitem(cli._VERBS, "doctor", ("hpchub.no_such_module", ""))
    with pytest.raises(ModuleNotFoundError, match=r"hpchub\.no_such_module"):
        cli.main(["doctor"])
