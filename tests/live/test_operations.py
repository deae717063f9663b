"""What staff look at, on a real cluster: metrics, status, logs and the doctor."""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
from pathlib import Path

import aiohttp
import pytest
from prometheus_client.parser import text_string_to_metric_families

from support.demo import Demo, run_hpchub
from support.servers import ServerOf
from support.slurm import job_id_of

pytestmark = pytest.mark.live


def _config(demo: Demo) -> Path:
    return demo.directory / "hub" / "bridge.toml"


async def _scrape(demo: Demo, name: str) -> dict[tuple[str, ...], float]:
    """Samples by name and label values, which come sorted by the labels' names."""
    connector = aiohttp.UnixConnector(f"{demo.info['sockets']}/{name}.sock")
    async with (
        aiohttp.ClientSession(connector=connector) as session,
        session.get(f"http://{name}/v1/metrics") as answer,
    ):
        text = await answer.text()
    return {
        (sample.name, *sample.labels.values()): sample.value
        for family in text_string_to_metric_families(text)
        for sample in family.samples
    }


async def test_a_job_in_metrics_status_and_logs(demo: Demo, server_of: ServerOf) -> None:
    """One job: its steps are timed, its tunnel counted, its row shown, and its id is in every log."""
    before = await _scrape(demo, "bridge")
    server = server_of("bob", "watched").start(placement="compute")
    server.open().raise_for_status()
    numbers = await _scrape(demo, "bridge")

    def more(*key: str) -> float:
        return numbers.get(key, 0) - before.get(key, 0)

    for step in ("connect", "submit", "queue", "attach", "start", "ready", "total"):
        assert more("hpchub_spawn_seconds_count", "demo", "compute", step) == 1, step
    assert more("hpchub_tunnels", "demo") == 1
    assert more("hpchub_scheduler_queries_total", "demo", "submit", "ok") == 1
    assert more("hpchub_scheduler_queries_total", "demo", "status", "ok") >= 1
    assert more("hpchub_tunnel_bytes_total", "received") > 1000
    assert more("hpchub_tunnel_bytes_total", "sent") > 100
    assert numbers["hpchub_ssh_handshakes_total", "demo", "ok"] >= 2
    assert not any("bob" in word for key in numbers for word in key)
    assert (await _scrape(demo, "signer"))["hpchub_signer_certificates_total", "granted", "control"] >= 1

    listed = json.loads(run_hpchub("status", "--config", str(_config(demo)), "--json").stdout)
    (row,) = [one for one in listed["servers"] if one["server_name"] == "watched"]
    job_id = job_id_of(demo, "bob", "watched")
    assert (row["user"], row["phase"], row["job_id"], row["tunnel"]) == ("bob", "ready", job_id, True)
    shown = run_hpchub("status", "--config", str(_config(demo))).stdout
    assert any({"bob", "watched", job_id, "open"} <= set(line.split()) for line in shown.splitlines())

    logs = Path(str(demo.info["logs"]))
    for name in ("jupyterhub", "bridge"):
        assert row["id"] in (logs / f"{name}.log").read_text(errors="replace"), name
    job = demo.exec("login1", ["scontrol", "show", "job", job_id], user="bob", check=True).stdout
    assert row["id"] in job, "the job names its server by where its log is"


def _doctor(demo: Demo, config: Path, *more: str) -> subprocess.CompletedProcess[str]:
    """As alice, from the hub's machine, the password by a descriptor."""
    argv = [sys.executable, "-m", "hpchub.cli", "doctor", "--config", str(config)]
    words = " ".join((*argv, "--user", "alice", "--password-fd", "0", *more))
    return demo.exec("hub", ["sh", "-c", words], stdin=demo.users["alice"], timeout_s=120)


def test_the_doctor_finds_nothing(demo: Demo) -> None:
    """On a good cluster every check is ok, a real job included."""
    result = _doctor(demo, _config(demo), "--job")
    assert result.returncode == 0, result.stdout + result.stderr
    assert "failed" not in result.stdout
    for what in ("login1 queue: answers", "login2 associations: ", "demo job: job "):
        assert what in result.stdout
    assert demo.users["alice"] not in result.stdout


def test_the_doctor_finds_a_wrong_host_key(demo: Demo, tmp_path: Path) -> None:
    """With the two nodes' keys swapped, that is what it says of both, and nothing else is wrong."""
    clusters = tmp_path / "clusters.d"
    shutil.copytree(demo.directory / "clusters.d", clusters)
    known = clusters / "demo.known_hosts"
    rows = [line.split(maxsplit=1) for line in known.read_text().splitlines() if line.strip()]
    keys = [row[1] for row in rows]
    known.write_text("".join(f"{row[0]} {key}\n" for row, key in zip(rows, reversed(keys), strict=True)))
    config = tmp_path / "bridge.toml"
    text = _config(demo).read_text()
    config.write_text(text.replace(str(demo.directory / "clusters.d"), str(clusters)))
    result = _doctor(demo, config)
    assert result.returncode == 1
    failed = [line for line in result.stdout.splitlines() if line.startswith("failed")]
    assert len(failed) == 2 and all("host key: login" in line and str(known) in line for line in failed)
