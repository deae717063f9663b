"""hpchub.check, through the command as people type it."""

from __future__ import annotations

from pathlib import Path

import pytest

from hpchub.cli import main

CLUSTER = """
title = "Example"
known_hosts = "known_hosts"
[[login_nodes]]
name = "login1"
address = "192.0.2.11"
[[login_nodes]]
name = "login2"
address = "192.0.2.12"
port = 2222
[placements.login]
[environments.lab]
prefix = "/opt/lab"
"""
KEY = "ssh-ed25519 AAAAC3NzaC1lZDI1NTE5AAAAIOOrIGUcbFCsJJA06Fqu6TBsdcFek/VG3Doco1rAxhrU"


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """A folder with a good cluster file and good host keys."""
    (tmp_path / "example.toml").write_text(CLUSTER)
    (tmp_path / "known_hosts").write_text(f"# ours\nlogin1 {KEY}\n[192.0.2.12]:2222 {KEY}\n")
    return tmp_path


def test_a_good_folder_is_summed_up(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """One line for each cluster says what the hub will offer."""
    assert main(["check", str(folder)]) == 0
    said = capsys.readouterr().out
    assert said == (
        "example: good. login nodes: login1, login2, placements: login, partitions: none, environments: lab\n"
    )


def test_every_fault_is_named_with_its_place_and_the_nearest_key(
    folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Faults come together, each with file, line, key and what was probably meant."""
    (folder / "example.toml").write_text(CLUSTER.replace("title", "titel").replace("prefix", "prefx"))
    assert main(["check", str(folder)]) == 1
    said = capsys.readouterr().err
    assert "example.toml:2: titel: there is no key 'titel' here; did you mean 'title'?" in said
    assert "environments.lab.prefx: there is no key 'prefx' here; did you mean 'prefix'?" in said


@pytest.mark.parametrize(
    ("lines", "missing"),
    [
        ("", ["login1", "login2"]),
        (f"login1 {KEY}\n", ["login2"]),
        (f"@cert-authority *.example,192.0.2.* {KEY}\n", []),
        (f"|1|aGFzaA==|aGFzaA== {KEY}\n", []),
    ],
)
def test_a_login_node_without_a_host_key_is_named(
    folder: Path, capsys: pytest.CaptureFixture[str], lines: str, missing: list[str]
) -> None:
    """A cluster nobody could log in to is found before anybody tries."""
    (folder / "known_hosts").write_text(lines)
    assert main(["check", str(folder)]) == (1 if missing else 0)
    said = capsys.readouterr().err
    assert [name for name in ("login1", "login2") if f"no host key of {name}" in said] == missing


def test_a_missing_host_key_file_is_named(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """The file that the cluster file names must be there."""
    (folder / "known_hosts").unlink()
    assert main(["check", str(folder)]) == 1
    assert f"{folder / 'known_hosts'} cannot be read" in capsys.readouterr().err


def test_a_folder_without_clusters_is_said(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """An empty folder is an error, not an empty success."""
    assert main(["check", str(tmp_path)]) == 1
    assert "holds no cluster file" in capsys.readouterr().err
