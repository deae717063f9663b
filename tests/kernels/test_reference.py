"""docs/reference/kernels.md leaves out no command, option, setting or kernelspec."""

from __future__ import annotations

import argparse
import re
from importlib.metadata import entry_points

from hpchub.kernels.command import configure
from hpchub.kernels.installing import shipped
from hpchub.kernels.job_settings import JobSettings
from support.tree import ROOT

PAGE = (ROOT / "docs" / "reference" / "kernels.md").read_text()
# What is named otherwise in kernel.json: there the unit is a part of the value.
_UNITS = re.compile(r"_(s|bytes)$")


def section(title: str) -> str:
    """What stands under a heading, up to the next one."""
    return re.split(r"^#+ ", PAGE.partition(f"# {title}\n")[2], maxsplit=1, flags=re.MULTILINE)[0]


def test_every_command_and_option_is_listed() -> None:
    """As argparse knows them."""
    parser = argparse.ArgumentParser()
    configure(parser)
    (verbs,) = (action.choices for action in parser._actions if action.dest == "action")
    assert verbs
    text = section("Commands")
    assert {name for name in verbs if f"| `hpchub kernels {name}" not in text} == set()
    options = {
        option for verb in verbs.values() for action in verb._actions for option in action.option_strings
    }
    assert {option for option in options - {"-h", "--help"} if f"`{option}" not in text} == set()


def test_every_setting_of_a_job_is_listed() -> None:
    """With what it is."""
    rows = re.findall(r"^\| (`.*?) \| (.+?) \|", section("Settings of the job"), re.MULTILINE)
    found = {name for names, kind in rows if kind.strip() for name in re.findall(r"`(\w+)`", names)}
    assert found == {_UNITS.sub("", name) for name in JobSettings.__slots__}


def test_every_kernelspec_and_provisioner_is_listed() -> None:
    """Those that hpchub ships."""
    assert {name for name in shipped() if f"`{name}`" not in section("Kernelspecs")} == set()
    points = entry_points(group="jupyter_client.kernel_provisioners")
    ours = {point.name for point in points if point.name.startswith("hpchub-")}
    assert ours
    assert {name for name in ours if f"\n## {name}\n" not in PAGE} == set()
