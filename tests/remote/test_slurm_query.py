"""The forced command of the service account: what it runs for our own lines, and for anybody else's."""

from __future__ import annotations

import os
import subprocess
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from hpchub.core.command import Command
from hpchub.core.job import JobId, Query
from hpchub.core.slugs import job_name
from hpchub.remote.slurm_query import FORCED_COMMAND
from hpchub.schedulers.slurm import Slurm

IDS = [JobId("42"), JobId("43")]


@pytest.fixture(scope="session")
def tools(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """squeue and sacct that print how they were called, one argument in a line, and when times are Unix."""
    folder = tmp_path_factory.mktemp("tools")
    for name in ("squeue", "sacct"):
        path = folder / name
        path.write_text('#!/bin/sh\nprintf "%s\\n" "${0##*/}" "$@" "$SLURM_TIME_FORMAT"; cat\n')
        path.chmod(0o755)
    return folder


def ask(tools: Path, line: bytes, shell: str = "sh") -> subprocess.CompletedProcess[bytes]:
    """Have a login shell run the command, as sshd does."""
    return subprocess.run(
        [shell, "-c", FORCED_COMMAND],
        input=line,
        capture_output=True,
        env={"PATH": f"{tools}:{os.environ['PATH']}"},
        check=False,
    )


@pytest.mark.parametrize("shell", ["sh", "bash"])
@pytest.mark.parametrize("cluster", ["", "beta"])
@pytest.mark.parametrize("query", [Query.STATUS, Query.HISTORY, Query.TIMES])
@pytest.mark.parametrize("names", [(), ("hpchub-0f", "hpchub-a_b-1f")])
def test_it_asks_what_people_ask_themselves(
    tools: Path, names: tuple[str, ...], query: Query, cluster: str, shell: str
) -> None:
    """The same argv, word by word, as in a person's own session; the marker on both outputs before it."""
    slurm = Slurm(cluster=cluster)
    own = {
        Query.STATUS: slurm.status_command,
        Query.HISTORY: slurm.history_command,
        Query.TIMES: slurm.times_command,
    }[query](IDS, names)
    done = ask(tools, b"hpchub-0f\n" + slurm.account_command(query, IDS, names).stdin, shell)
    mark, *argv, times, end = done.stdout.decode().split("\n")
    assert (mark, times, end, done.stderr) == ("hpchub-0f", "%s", "", b"hpchub-0f\n")
    words = [word for word in own.argv if word not in {"env", "SLURM_TIME_FORMAT=%s"}]
    assert argv == words


@pytest.mark.parametrize(
    ("limit", "seconds"), [(b"9\n", "9"), (b"", "120"), (b"0\n", "120"), (b"x;y\n", "120")]
)
def test_a_query_that_hangs_is_ended(tools: Path, tmp_path: Path, limit: bytes, seconds: str) -> None:
    """sshd kills no forced command, so it has a limit: the bridge's own, or two minutes."""
    (tmp_path / "timeout").write_text('#!/bin/sh\necho "limit $1"; shift; exec "$@"\n')
    (tmp_path / "timeout").chmod(0o755)
    (tmp_path / "squeue").symlink_to(tools / "squeue")
    done = ask(tmp_path, b"hpchub-0f\nstatus - 42\n" + limit)
    assert done.stdout.startswith(f"hpchub-0f\nlimit {seconds}\nsqueue\n".encode())


def test_it_asks_about_partitions(tools: Path) -> None:
    """Everybody's waiting jobs, and no text that a user wrote."""
    done = ask(tools, b"hpchub-0f\n" + Slurm().account_command(Query.PENDING, ["cpu", "gpu-a.1"]).stdin)
    assert done.stdout.decode().split("\n")[1:-2] == [
        *("squeue", "--noheader", "--states=PENDING", "--partition=cpu,gpu-a.1"),
        "--format=%i\x1f%P\x1f%Q",
    ]


def test_two_thousand_ids_are_one_argument(tools: Path) -> None:
    """As many as one batch holds."""
    ids = [str(10**9 + number) for number in range(2000)]
    names = [job_name("x" * 30, one + "ff") for one in ids]
    done = ask(tools, b"hpchub-0f\n" + Slurm().account_command(Query.STATUS, ids, names).stdin)
    assert f"--name={','.join(names)}" in done.stdout.decode()
    assert f"--jobs={','.join(ids)}" in done.stdout.decode()


@pytest.mark.parametrize(
    "line",
    [
        b"", b"\n", b"status\n", b"status -\n", b"status - \n", b"status - 42;id\n", b"status - 42 4;3\n",
        b"status - -u\n", b"status - 42_7\n", b"status - $(id)\n", b"status $(id) 42\n", b"status -x; 42\n",
        b"pending - *\n", b"pending - cpu;id\n", b"pending -\n", b"scancel - 42\n", b"id - 42\n",
        b"sh - 42\n", b"status - 42\r\n", b"status - \xff\n", b"status - 42\\\n", b"STATUS - 42\n",
        b"status - 42 a b\n", b"status - 42 $(id)\n", b"status - 42 -u*\n", b"status - 42 \xff\n",
        b"status - 42'\n", b'status - "42"\n', b"status - \xd9\xa4\xd9\xa2\n",
    ],
)  # fmt: skip
def test_anything_else_is_refused(tools: Path, line: bytes) -> None:
    """Nothing is run but squeue and sacct, and these only with ids and names."""
    done = ask(tools, b"hpchub-0f\n" + line)
    assert (done.returncode, done.stdout, done.stderr) == (64, b"hpchub-0f\n", b"hpchub-0f\n")


@pytest.mark.parametrize("mark", [b"", b"a b", b"$(id)", b"A", b"a;b", b"\xff"])
def test_a_marker_is_plain(tools: Path, mark: bytes) -> None:
    """It is printed, so it is held to a class of characters as well."""
    done = ask(tools, mark + b"\nstatus - 42\n")
    assert (done.returncode, done.stdout, done.stderr) == (64, b"", b"")


def test_no_line_runs_anything_else(tools: Path) -> None:
    """Whatever stands in the line, squeue or sacct gets one of the four forms, or nothing runs."""
    allowed = set("0123456789,")
    named = allowed | set("abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ_.+-")

    @given(
        st.sampled_from([query.value for query in Query] + ["id", ""]),
        st.one_of(st.just("-"), st.text(max_size=4)),
        st.one_of(st.text(max_size=6), st.from_regex(r"[0-9,;$ ()-]{0,8}", fullmatch=True)),
    )
    def check(what: str, cluster: str, items: str) -> None:
        line = f"{what} {cluster} {items}\n".encode("utf-8", "surrogatepass")
        done = ask(tools, b"hpchub-0f\n" + line)
        if done.returncode == 64:
            assert done.stdout == b"hpchub-0f\n"
            return
        printed = done.stdout.decode().split("\n")[1:]
        assert printed[0] in {"squeue", "sacct"}
        (asked,) = [word for word in printed if word.startswith(("--jobs=", "--partition="))]
        option, _, value = asked.partition("=")
        assert set(value) <= (named if option == "--partition" else allowed)
        assert {word.partition("=")[0] for word in printed[1:-2]} <= {
            *("--noheader", "--states", "--jobs", "--format", "--partition", "--clusters"),
            *("--allocations", "--parsable2", "--delimiter", "--name"),
        }

    check()


def test_it_stands_in_a_certificate() -> None:
    """One line of ASCII: csh ends quotes at a line's end, and nobody's locale matters."""
    assert FORCED_COMMAND.isascii()
    assert FORCED_COMMAND.isprintable()
    assert FORCED_COMMAND.count("'") == 2


def test_its_input_is_not_in_a_repr() -> None:
    """As with every command's."""
    assert "42" not in repr(Slurm().account_command(Query.STATUS, IDS))
    assert isinstance(Slurm().account_command(Query.STATUS, IDS), Command)
