"""The systemd units: systemd itself accepts them, they are locked down, and they fit the install guide."""

from __future__ import annotations

import configparser
import re
import shlex
import subprocess
from pathlib import Path

import pytest

from hpchub.bridge.settings import load_settings
from support import require
from support.tree import ROOT

UNITS = sorted((ROOT / "deploy" / "systemd").glob("*.service"))
EXAMPLES = ROOT / "docs" / "howto" / "examples"
GUIDE = ROOT / "docs" / "howto" / "install-at-your-site.md"

# systemd-analyze's own scale times ten: below 20 it says OK or SAFE, and 96 is a unit without any of it.
_MOST_EXPOSED = 20
_PROGRAMS = ("/opt/hpchub/bin/", "/opt/hpchub-proxy/node_modules/.bin/", "/usr/bin/ssh-agent")

each_unit = pytest.mark.parametrize("unit", UNITS, ids=lambda unit: unit.stem)


def _sections(unit: Path) -> dict[str, dict[str, str]]:
    parser = configparser.RawConfigParser(strict=False)
    parser.optionxform = str  # type: ignore[assignment,method-assign]  # systemd's keys know capitals
    parser.read_string(unit.read_text())
    return {name: dict(parser[name]) for name in parser.sections()}


def _service(name: str) -> dict[str, str]:
    return _sections(ROOT / "deploy" / "systemd" / f"hpchub-{name}.service")["Service"]


def test_there_is_one_for_each_process() -> None:
    """The four processes, and the agent that keeps the bridge's keys."""
    assert [unit.stem.removeprefix("hpchub-") for unit in UNITS] == [
        "agent", "bridge", "jupyterhub", "proxy", "signer",
    ]  # fmt: skip


@each_unit
def test_systemd_accepts_it(unit: Path, tmp_path: Path) -> None:
    """No key or value that systemd does not know; what the guide installs stands in as /bin/true."""
    require.programs("systemd-analyze")
    copies = [tmp_path / one.name for one in UNITS]  # the units name each other
    for one, copy in zip(UNITS, copies, strict=True):
        copy.write_text(re.sub(r"^ExecStart=/opt/\S+", "ExecStart=/bin/true", one.read_text(), flags=re.M))
    result = subprocess.run(
        ["systemd-analyze", "verify", "--man=no", str(tmp_path / unit.name)],
        capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert (result.returncode, result.stdout + result.stderr) == (0, "")


@each_unit
def test_it_is_locked_down(unit: Path) -> None:
    """systemd's own rating stays in its best classes."""
    require.programs("systemd-analyze")
    result = subprocess.run(
        [
            "systemd-analyze", "security", "--offline=yes", "--no-pager", f"--threshold={_MOST_EXPOSED}",
            str(unit),
        ],
        capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert result.returncode == 0, result.stdout[-200:] + result.stderr


@each_unit
def test_it_starts_what_the_guide_installs(unit: Path) -> None:
    """The guide's account, a program from the guide's folders, and files that it says to write."""
    service = _sections(unit)["Service"]
    assert service["User"] == service["Group"] == "hpchub"
    assert service["UMask"] == "0077" and service["LimitCORE"] == "0" and service["Restart"] == "always"
    words = shlex.split(service["ExecStart"])
    assert words[0].startswith(_PROGRAMS)
    for word in words:
        if word.startswith("/etc/hpchub/"):
            assert (EXAMPLES / Path(word).name).is_file(), word
    assert f"deploy/systemd/{unit.name}" in GUIDE.read_text()


@each_unit
def test_none_takes_the_sockets_of_the_others_away(unit: Path) -> None:
    """All share one runtime folder, which outlives each of them."""
    service = _sections(unit)["Service"]
    assert (service["RuntimeDirectory"], service["RuntimeDirectoryMode"]) == ("hpchub", "0700")
    assert service["RuntimeDirectoryPreserve"] == "yes"


def test_the_agent_outlives_the_bridge() -> None:
    """Nothing ties its end to the bridge's, and its socket is in the bridge's own folder."""
    agent, bridge = (_sections(unit) for unit in UNITS[:2])
    ties = {"PartOf", "BindsTo", "Requires", "Requisite", "Upholds", "StopPropagatedFrom", "PropagatesStopTo"}
    assert not ties & (set(agent["Unit"]) | set(bridge["Unit"]))
    assert "hpchub-agent.service" in bridge["Unit"]["Wants"].split()
    socket = Path(shlex.split(agent["Service"]["ExecStart"])[-1])
    assert socket.parent == load_settings(EXAMPLES / "bridge.toml").runtime_dir
    assert f"rm -f {socket}" in agent["Service"]["ExecStartPre"]


def test_there_is_room_for_thousands_of_tunnels() -> None:
    """Ten descriptors for each of 10,000 servers, at least."""
    for name in ("bridge", "proxy"):
        assert int(_service(name)["LimitNOFILE"]) >= 100_000


def test_the_settings_files_folders_are_writable() -> None:
    """With the file system read-only, each process may still write where its settings say."""
    assert str(load_settings(EXAMPLES / "bridge.toml").database).startswith("sqlite:////var/lib/hpchub/")
    for name in ("signer", "bridge", "jupyterhub"):
        assert _service(name)["StateDirectory"] == "hpchub"
    assert _service("signer")["LogsDirectory"] == "hpchub"


DROP_INS = sorted((ROOT / "deploy" / "systemd" / "own-accounts").glob("*/*.conf"))
OWN_ACCOUNTS = ROOT / "docs" / "howto" / "own-accounts.md"


def test_drop_ins_for_own_accounts(tmp_path: Path) -> None:
    """systemd takes them; each unit has one, and starts what it did, as an account of the guide."""
    require.programs("systemd-analyze")
    assert [one.parent.name for one in DROP_INS] == [f"{unit.name}.d" for unit in UNITS]
    guide = OWN_ACCOUNTS.read_text()
    for unit, drop_in in zip(UNITS, DROP_INS, strict=True):
        own, added = _sections(unit)["Service"], _sections(drop_in)["Service"]
        assert added["User"].removeprefix("hpchub-") in {"signer", "bridge", "hub"}
        assert f"`{added['User']}`" in guide
        assert "Group" not in added and own["Group"] == "hpchub"
        start = added.get("ExecStart", own["ExecStart"])
        assert re.sub(r"hpchub-(hub|agent)\b", "hpchub", start) == own["ExecStart"]
        for text, copy in ((unit, tmp_path / unit.name), (drop_in, tmp_path / f"{unit.name}.d" / "x.conf")):
            copy.parent.mkdir(exist_ok=True)
            copy.write_text(
                re.sub(r"^ExecStart=/opt/\S+", "ExecStart=/bin/true", text.read_text(), flags=re.M)
            )
    for unit in UNITS:
        argv = ["systemd-analyze", "verify", "--man=no", str(tmp_path / unit.name)]
        result = subprocess.run(argv, capture_output=True, text=True, check=False)
        assert (result.returncode, result.stdout + result.stderr) == (0, "")
    (tmp_path / f"{UNITS[-1].name}.d" / "x.conf").write_text("[Service]\nUsre=x\n")
    argv = ["systemd-analyze", "verify", "--man=no", str(tmp_path / UNITS[-1].name)]
    assert "Usre" in subprocess.run(argv, capture_output=True, text=True, check=False).stderr


def test_own_accounts_guide_names_what_the_drop_ins_make(tmp_path: Path) -> None:
    """Every folder in its settings is one that a unit makes for that account; the bridge reads its part."""
    toml = re.findall(r"```toml\n(.*?)```", OWN_ACCOUNTS.read_text(), re.DOTALL)
    made = set()
    for drop_in in DROP_INS:
        service = _sections(drop_in)["Service"]
        for key, top in (
            ("RuntimeDirectory", "run"),
            ("StateDirectory", "var/lib"),
            ("LogsDirectory", "var/log"),
        ):
            if key in service:
                made.add(f"/{top}/{service[key]}")
    named = re.findall(r'"(?:sqlite:///)?((?:/run|/var)/[^"]*)"', toml[0] + toml[1])
    assert len(named) == 8
    for path in named:
        assert any(path == folder or path.startswith(f"{folder}/") for folder in made), path
    settings = tmp_path / "bridge.toml"
    settings.write_text(re.sub(r'"hpchub(-hub)?"', '"0"', f'clusters = "c"\n{toml[1]}'))
    loaded = load_settings(settings)
    assert (loaded.group, loaded.hub_uids) == (0, frozenset({0}))
