"""The template `spark`: what the job's script does around Spark. srun and Spark's launcher are stand-ins."""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import time
from contextlib import suppress
from pathlib import Path

import pytest

from slurm_magics.submit import render

# Runs the command here, as many times as there are nodes, without srun's options.
_SRUN = """#!/bin/bash
echo "$@" >>"$HERE/argv"
while [[ $1 == -* ]]; do shift; done
exec "$@"
"""
_SPARK_CLASS = """#!/bin/bash
echo "$@" >>"$HERE/argv"
case $1 in
*.Master) [ -e "$HERE/broken" ] && echo "no Java" && exit 1
          echo "26/11/21 INFO Master: Starting Spark master at spark://c1:4242" ;;
*.Worker) env >"$HERE/worker"
          echo "INFO Master: Registering worker c1" >>"$SPARK_CONF_DIR/master.log" ;;
esac
exec sleep 60
"""
_BODY = """
stat -c '%a %n' "$SPARK_CONF_DIR" "$SPARK_CONF_DIR"/*
cat "$SPARK_CONF_DIR/spark-defaults.conf" "$SPARK_CONF_DIR/master"
echo "url $url"
"""


@pytest.fixture
def environ(tmp_path: Path) -> dict[str, str]:
    """What Slurm tells a job of one node with two CPUs and 4 GB."""
    for name, text in {"bin/srun": _SRUN, "spark/bin/spark-class": _SPARK_CLASS}.items():
        path = tmp_path / name
        path.parent.mkdir(parents=True)
        path.write_text(text)
        path.chmod(0o755)
    scratch = tmp_path / "scratch"
    scratch.mkdir()
    path = f"{tmp_path / 'bin'}:{os.environ['PATH']}"
    job = {"JOB_ID": "42", "JOB_NUM_NODES": "1", "CPUS_ON_NODE": "2", "MEM_PER_NODE": "4096"}
    return {
        **{f"SLURM_{name}": value for name, value in job.items()},
        **{"SLURMD_NODENAME": "c1", "HERE": str(tmp_path), "HOME": str(tmp_path), "PATH": path},
        **{"TMPDIR": str(scratch)},
    }


def _start(environ: dict[str, str], body: str) -> subprocess.Popen[str]:
    text = render("spark", body, {"spark_home": str(Path(environ["HERE"]) / "spark")})
    script = Path(environ["HERE"]) / "job.sh"
    script.write_text(text)
    # A session of its own: Slurm, too, ends what a script has left.
    return subprocess.Popen(
        (shutil.which("bash") or "bash", str(script)), env=environ, text=True, start_new_session=True,
        stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.STDOUT,
    )  # fmt: skip


def _finish(job: subprocess.Popen[str]) -> str:
    output, _ = job.communicate(timeout=60)
    with suppress(ProcessLookupError):  # nothing was left
        os.killpg(job.pid, signal.SIGKILL)
    return output


def test_the_keys_are_in_one_file_of_the_accounts_own(environ: dict[str, str], tmp_path: Path) -> None:
    """0600 in 0700, new ones for each purpose; in no argv and no environment; gone with the job."""
    job = _start(environ, _BODY)
    lines = _finish(job).splitlines()
    assert job.returncode == 0, lines
    assert lines[0].startswith("Spark is ready: 1 workers, each with 2 cores and 1536 MB")
    folder = tmp_path / ".slurm_magics/spark/42"
    modes = dict(reversed(line.split(" ", 1)) for line in lines if str(folder) in line)
    assert modes.pop(str(folder)) == "700"
    assert len(modes) == 4
    assert set(modes.values()) == {"600"}
    assert lines[-2:] == ["spark://c1:4242", "url spark://c1:4242"]
    settings = dict(line.split(" ", 1) for line in lines if line.startswith("spark."))
    keys = {value for name, value in settings.items() if "secret" in name}
    assert [len(key) for key in keys] == [64, 64]
    assert settings["spark.authenticate"] == settings["spark.network.crypto.enabled"] == "true"
    worker = (tmp_path / "worker").read_text()
    assert not any(key in (tmp_path / "argv").read_text() + worker for key in keys)
    assert "SPARK_LOCAL_IP=127.0.0.1\n" in worker
    assert not folder.exists()


def test_without_a_cell_it_runs_until_it_is_cancelled(environ: dict[str, str], tmp_path: Path) -> None:
    """Then settings and scratch are gone."""
    job = _start(environ, "")
    assert job.stdout
    assert job.stdout.readline().startswith("Spark is ready")
    scratch = tmp_path / "scratch"
    assert list(scratch.iterdir()) != []
    # As scancel does: all of the job's processes get it.
    os.killpg(job.pid, signal.SIGTERM)
    deadline = time.monotonic() + 60
    while list(scratch.iterdir()):
        assert time.monotonic() < deadline
        time.sleep(0.02)
    _finish(job)
    assert job.returncode == 143
    assert not (tmp_path / ".slurm_magics/spark/42").exists()


def test_where_spark_does_not_start_its_log_is_shown(environ: dict[str, str], tmp_path: Path) -> None:
    """The job fails with the log's last lines, rather than wait for a master that never comes."""
    (tmp_path / "broken").touch()
    job = _start(environ, "")
    assert "no Java" in _finish(job)
    assert job.returncode == 1
    environ["SLURM_MEM_PER_NODE"] = "2000"
    small = _start(environ, "")
    assert "at least --mem=2400M" in _finish(small)
