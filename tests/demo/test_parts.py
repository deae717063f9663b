"""What the demo is made of, as far as it can be checked without booting one."""

from __future__ import annotations

import os
import signal
import subprocess
import tomllib
from pathlib import Path

import pytest

from hpchub.core.cluster import Attach
from hpchub.core.cluster_file import load_clusters
from hpchub.core.slugs import is_safe_account_name
from hpchub.demo import environments, hubside, packages, sshd
from hpchub.demo.accounts import PEOPLE, STATUS_ACCOUNT, accounts, new_passwords
from hpchub.demo.hosts import Host
from hpchub.demo.layout import ETC, Layout
from hpchub.demo.processes import Recorded, load_recorded, start_time, write_private
from hpchub.demo.site import Site, loopback_site
from hpchub.doctor.forwards import Forwards, principals_line


def test_people_are_distinct_and_allowed_at_the_hub() -> None:
    """No two people share a name or a password, and the signer allows each; one has 32 letters."""
    names = [person.name for person in PEOPLE]
    assert len(set(names)) == len(names)
    assert all(map(is_safe_account_name, names))
    assert 32 in map(len, names)
    assert len(set(new_passwords().values())) == len(names)


def test_accounting_knows_every_person_but_those_meant_to_be_unknown() -> None:
    """accounting.cfg and the list of people agree: only carol and who has no account are left out."""
    text = (ETC / "accounting.cfg").read_text()
    listed = {person.name for person in PEOPLE if f"User - '{person.name}'" in text}
    assert {person.name for person in PEOPLE} - listed == {"carol", "gina", "site-admin"}


@pytest.mark.parametrize("attach", list(Attach))
def test_cluster_file_is_valid_for_each_attach(tmp_path: Path, attach: Attach) -> None:
    """The template gives a cluster file that the hub accepts, with partitions as slurm.conf has them."""
    layout = Layout(tmp_path)
    hubside.lay_out_cluster_file(layout, attach, "", Site())
    cluster = load_clusters(layout.clusters)["demo"]
    assert cluster.compute is not None
    assert cluster.compute.attach is attach
    slurm = Site().render("slurm.conf.j2")
    assert {f"PartitionName={name}" for name in cluster.partitions} == {
        line.split()[0]
        for line in slurm.splitlines()
        if line.startswith("PartitionName=") and "DEFAULT" not in line
    }


def test_cluster_file_limits_are_those_of_slurm() -> None:
    """No partition of the cluster file promises more time than slurm.conf gives."""
    _, heading, rest = (ETC / "demo.toml.j2").read_text().partition("[partitions.cpu]")
    offered = tomllib.loads(heading + rest)
    slurm = Site().render("slurm.conf.j2")
    for name, partition in offered["partitions"].items():
        line = next(line for line in slurm.splitlines() if line.startswith(f"PartitionName={name} "))
        assert f"MaxTime={partition['max_time']}" in line


def test_missing_packages_are_named() -> None:
    """What is installed is not named; what is not, or is no package at all, is."""
    assert packages.missing_packages(("dpkg", "no-such-package-here")) == ["no-such-package-here"]


def test_a_process_is_known_by_its_start_time(tmp_path: Path) -> None:
    """A process with another's id is not touched: only the one that was recorded is ended."""
    with subprocess.Popen(["sleep", "60"]) as child:
        started = start_time(child.pid)
        assert started is not None
        Recorded("other", child.pid, started - 1).kill(signal.SIGKILL)
        assert child.poll() is None
        Recorded("ours", child.pid, started).kill(signal.SIGKILL)
    assert child.returncode == -signal.SIGKILL
    assert not Recorded("ours", child.pid, started).is_alive
    assert load_recorded(tmp_path / "none.json") == []


def test_private_files_are_private_from_the_first_moment(tmp_path: Path) -> None:
    """A secret's file is 0600 whatever the umask, and replaces an older one whole."""
    old = os.umask(0)
    try:
        write_private(tmp_path / "secret", "one")
        write_private(tmp_path / "secret", "two")
    finally:
        os.umask(old)
    assert (tmp_path / "secret").read_text() == "two"
    assert (tmp_path / "secret").stat().st_mode & 0o777 == 0o600
    assert [path.name for path in tmp_path.iterdir()] == ["secret"]


def test_environments_that_nobody_uses_are_removed(tmp_path: Path) -> None:
    """A new build leaves itself and what some demo has mounted; older ones go."""
    for name in ("environments-old", "environments-new", "mariadb"):
        (tmp_path / name).mkdir()
    environments._remove_older(tmp_path, tmp_path / "environments-new")
    assert sorted(path.name for path in tmp_path.iterdir()) == ["environments-new", "mariadb"]


def test_settings_of_one_machine_keep_to_loopback(tmp_path: Path) -> None:
    """With `--loopback` Slurm listens on the machine's own name only, and each node has a port."""
    text = loopback_site(tmp_path).render("slurm.conf.j2")
    assert "CommunicationParameters=NoInAddrAny,NoCtldInAddrAny" in text
    ports = [word for word in text.split() if word.startswith("Port=")]
    assert len(set(ports)) == len(ports) == 2
    assert "InAddrAny" not in Site().render("slurm.conf.j2")


@pytest.mark.parametrize("attach", list(Attach))
def test_principals_files_are_what_the_doctor_asks_for(tmp_path: Path, attach: Attach) -> None:
    """Each account has a line of its own, and root has none; the service account's permits no tunnel. Another
    line is for people's own machines.
    """
    layout = Layout(tmp_path)
    layout.etc.mkdir()
    sshd.lay_out_strict(layout, attach, Site())
    folder = layout.etc / "ssh" / "hpchub_principals"
    assert {path.name for path in folder.iterdir()} == {account.person.name for account in accounts()}
    sources = ",".join(sshd.source_addresses(attach, Site()))
    for path in folder.iterdir():
        is_service = path.name == STATUS_ACCOUNT
        forwards = Forwards.NOTHING if is_service else Forwards.SOCKETS
        first, *others = path.read_text().splitlines()
        assert first == principals_line(f"hpchub:{path.name}", sources, forwards)
        own = f"restrict,pty,port-forwarding terminal:{path.name}"
        assert others == ([] if is_service else [own])
    config = (layout.etc / "ssh" / "sshd_config").read_text()
    assert "PermitRootLogin no\n" in config and "RevokedKeys /etc/ssh/hpchub_revoked_keys\n" in config
    assert (layout.etc / "ssh" / "hpchub_revoked_keys").read_bytes() == b""


@pytest.mark.parametrize(("version", "exempt"), [((9, 2), 0), ((9, 7), 0), ((9, 8), 1), ((10, 0), 1)])
def test_the_hub_is_exempt_where_sshd_has_penalties(
    monkeypatch: pytest.MonkeyPatch, version: tuple[int, int], exempt: int
) -> None:
    """An older sshd would not start with the word."""
    assert sshd.openssh_version() > (8, 0)
    monkeypatch.setattr(sshd, "openssh_version", lambda: version)
    argv = sshd.sshd("login1", Site(), Path("/etc")).argv
    assert argv.count("PerSourcePenaltyExemptList=10.78.0.1") == exempt


def test_a_list_is_pushed_once_and_what_fails_is_said_once(tmp_path: Path) -> None:
    """A new list replaces the old one whole; one that ssh-keygen cannot read never does."""
    source, etc = tmp_path / "source", tmp_path / "etc"
    (etc / "ssh").mkdir(parents=True)
    target = etc / "ssh" / "hpchub_revoked_keys"
    push = sshd.KrlPush(source, Host("here", None), etc)
    assert push.look() == []
    subprocess.run(["ssh-keygen", "-q", "-k", "-f", str(source)], check=True)
    assert push.look() == []
    assert target.read_bytes() == source.read_bytes() and target.stat().st_mode & 0o777 == 0o644
    target.unlink()
    assert push.look() == [] and not target.exists(), "it has not changed"
    source.write_bytes(b"SSHKRL cut off")
    (said,) = push.look()
    assert "did not reach the cluster: Invalid KRL file" in said
    assert push.look() == [] and not target.exists()
