"""The audit log's chain: what was changed, removed, inserted or cut off is found, and nothing else is."""

from __future__ import annotations

import gzip
import json
import multiprocessing
import shutil
import subprocess
from collections.abc import Callable
from pathlib import Path

import pytest

from hpchub.audit_files import verify
from hpchub.chain import GENESIS, Chain, hash_of, head_path, read_head
from hpchub.cli import main


def texts(*names: str) -> list[str]:
    return [json.dumps({"time": "2026-01-01", "user": name}) for name in names]


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "audit.jsonl"


@pytest.fixture
def chain(path: Path) -> Chain:
    """Six records, in two batches."""
    made = Chain(path)
    made.append(texts("a", "b", "c"))
    made.append(texts("d", "e", "f"))
    return made


def rewrite(path: Path, change: Callable[[list[bytes]], None]) -> None:
    lines = path.read_bytes().splitlines(keepends=True)
    change(lines)
    path.write_bytes(b"".join(lines))


def test_each_line_carries_the_hash_of_the_one_before(chain: Chain, path: Path) -> None:
    """Numbers run from 1; the first hash is of nothing; the head names the last line."""
    lines = path.read_bytes().splitlines()
    previous = GENESIS
    for number, line in enumerate(lines, start=1):
        body = json.loads(line)
        assert (body["number"], body["previous"]) == (number, previous)
        previous = hash_of(line)
    head = read_head(path)
    assert head is not None and (head.number, head.hash) == (6, previous)
    assert head_path(path).stat().st_mode & 0o777 == 0o600
    report = verify(path)
    assert (report.records, report.first, report.last, report.faults, report.notes) == (6, 1, head, [], [])


def _swap(lines: list[bytes]) -> None:
    lines[2], lines[3] = lines[3], lines[2]


@pytest.mark.parametrize(
    ("change", "said"),
    [
        (
            lambda lines: lines.__setitem__(2, lines[2].replace(b'"c"', b'"x"')),
            "jsonl:4: the record before it",
        ),
        (lambda lines: lines.__setitem__(5, lines[5].replace(b'"f"', b'"x"')), "the last record, number 6"),
        (lambda lines: lines.__delitem__(2), "jsonl:3: records 3 to 3 are missing"),
        (lambda lines: lines.__delitem__(0), "Records 1 to 1 are not here"),
        (lambda lines: lines.__delitem__(slice(4, 6)), "records 5 to 6 are missing at the end"),
        (lambda lines: lines.clear(), "all records up to number 6 are missing"),
        (lambda lines: lines.insert(3, lines[2]), "jsonl:4: number 3 stands after number 3"),
        (lambda lines: lines.insert(3, b'{"user": "eve"}\n'), "jsonl:4: a line that is in no chain"),
        (lambda lines: lines.insert(0, b'{"user": "eve"}\n'), "lines from before the chain were changed"),
        (lambda lines: lines.append(b"{}\n"), "jsonl:7: a line that is in no chain"),
        (lambda lines: lines.__setitem__(5, lines[5][:20]), "jsonl:6: a line that is in no chain"),
        (_swap, "jsonl:3: records 3 to 3 are missing"),
    ],
)
def test_whatever_is_done_to_the_file_is_found(
    chain: Chain, path: Path, change: Callable[[list[bytes]], None], said: str
) -> None:
    """A line changed, removed, inserted, doubled, swapped, half cut; the tail or all of it gone."""
    rewrite(path, change)
    report = verify(path)
    assert any(said in text for text in (*report.faults, *report.notes)), (report.faults, report.notes)
    assert report.faults or "not here" in said


def test_a_chain_whose_first_lines_are_gone_is_told_by_an_anchor(chain: Chain, path: Path) -> None:
    """The oldest files may be deleted by rule; what was noted of them elsewhere tells otherwise."""
    line = path.read_bytes().splitlines()[1]
    assert verify(path, {2: hash_of(line)}).faults == []
    assert verify(path, {2: "0" * 64}).faults == [
        "audit.jsonl:2: number 2 is not the record that was anchored"
    ]
    rewrite(path, lambda lines: lines.__delitem__(slice(0, 3)))
    assert verify(path).faults == []
    assert verify(path, {2: hash_of(line)}).faults == ["the anchored record 2 is missing"]


def test_a_chain_written_anew_is_told_by_an_anchor_alone(chain: Chain, path: Path, tmp_path: Path) -> None:
    """Whoever may write as the signer can forge the whole; a hash noted elsewhere gives it away."""
    noted = read_head(path)
    assert noted is not None
    shutil.copy(path, tmp_path / "kept")
    path.unlink()
    head_path(path).unlink()
    Chain(path).append(texts("a", "b", "eve", "d", "e", "f"))
    assert verify(path).faults == []
    assert "anchored" in verify(path, {noted.number: noted.hash}).faults[0]


def test_without_its_head_a_chain_is_not_called_whole(chain: Chain, path: Path) -> None:
    """A cut tail could not be told then."""
    head_path(path).unlink()
    assert "audit.jsonl.head is gone" in verify(path).faults[0]
    chain.append(texts("g"))
    assert verify(path).faults == []


def test_a_writer_goes_on_after_a_crash(chain: Chain, path: Path) -> None:
    """A head that is behind, and a line cut short by the crash: the chain goes on, and is whole."""
    before = head_path(path).read_bytes()
    chain.append(texts("g"))
    head_path(path).write_bytes(before)
    with path.open("ab") as file:
        file.write(b'{"time": "20')
    Chain(path).append(texts("h"))
    report = verify(path)
    assert (report.records, report.faults) == (8, [])


def test_a_cut_tail_is_not_healed_by_the_next_record(chain: Chain, path: Path) -> None:
    """The writer goes on from what it wrote, not from what it finds."""
    rewrite(path, lambda lines: lines.__delitem__(slice(4, 6)))
    Chain(path).append(texts("g"))
    assert verify(path).faults == ["audit.jsonl:5: records 5 to 6 are missing"]


def test_lines_from_before_the_chain(path: Path) -> None:
    """An old log is a prefix, named as such; the first record of the chain vouches for it."""
    path.write_text("".join(text + "\n" for text in texts("old", "older")))
    path.chmod(0o600)
    Chain(path).append(texts("a", "b"))
    report = verify(path)
    assert (report.unchained, report.records, report.faults) == (2, 2, [])
    assert "2 older lines are in no chain" in report.notes[0]
    rewrite(path, lambda lines: lines.__setitem__(0, lines[0].replace(b"old", b"new")))
    assert "before the chain were changed" in verify(path).faults[0]


def test_the_chain_survives_rotation(chain: Chain, path: Path) -> None:
    """By whatever name, compressed or not, also of a file from before the chain."""
    path.rename(path.with_name("audit.jsonl.2"))
    path.with_name("audit.jsonl-20200101").write_text(texts("old")[0] + "\n")
    chain.append(texts("g"))
    path.with_name("audit.jsonl.2.gz").write_bytes(
        gzip.compress(path.with_name("audit.jsonl.2").read_bytes())
    )
    path.with_name("audit.jsonl.2").unlink()
    path.rename(path.with_name("audit.jsonl.1"))
    Chain(path).append(texts("h"))
    report = verify(path)
    assert (report.records, report.unchained, report.faults) == (8, 1, [])
    path.with_name("audit.jsonl.1").unlink()
    assert verify(path).faults == ["audit.jsonl:1: records 7 to 7 are missing"]


def test_rotation_by_size(path: Path) -> None:
    """A file that is long enough is renamed after its last number; nothing is lost."""
    chain = Chain(path, rotate_bytes=500)
    for number in range(20):
        chain.append(texts(f"user{number}"))
    rotated = sorted(path.parent.glob("audit.jsonl.0*"))
    assert len(rotated) == 4 and rotated[0].name == "audit.jsonl.00000000000000000004"
    assert all(500 <= one.stat().st_size < 800 for one in rotated)
    assert (verify(path).records, verify(path).faults) == (20, [])


def test_rotation_by_logrotate(path: Path, tmp_path: Path) -> None:
    """Debian's own logrotate, with the lines that operations.md has; no signal needed."""
    logrotate = shutil.which("logrotate", path="/usr/sbin:/usr/bin")
    chain = Chain(path)
    chain.append(texts("a", "b"))
    if logrotate is None:  # what it does with these lines
        path.rename(path.with_name("audit.jsonl.1"))
    else:
        config = tmp_path / "logrotate.conf"
        config.write_text(f"{path} {{\n rotate 24\n nocreate\n compress\n delaycompress\n}}\n")
        subprocess.run([logrotate, "-f", "-s", str(tmp_path / "state"), str(config)], check=True)
    chain.append(texts("c"))
    assert path.with_name("audit.jsonl.1").exists()
    assert (verify(path).records, verify(path).faults) == (3, [])


def _write(path: Path, name: str) -> None:
    chain = Chain(path, rotate_bytes=2000)
    for number in range(25):
        chain.append(texts(f"{name}{number}", f"{name}{number}b"))


def test_processes_never_fork_the_chain(path: Path) -> None:
    """Four at once, with rotation: one chain, and every record in it."""
    context = multiprocessing.get_context("fork")
    writers = [context.Process(target=_write, args=(path, name)) for name in "abcd"]
    for writer in writers:
        writer.start()
    for writer in writers:
        writer.join()
        assert writer.exitcode == 0
    report = verify(path)
    assert (report.records, report.faults) == (200, [])


def test_the_command(chain: Chain, path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """`--verify` says whole or broken, in words and by its exit code; `--anchor` takes what `--head` says."""
    assert main(["audit", "--file", str(path), "--verify"]) == 0
    assert capsys.readouterr().out.splitlines()[-1] == "the chain is whole"
    assert main(["audit", "--file", str(path), "--head"]) == 0
    head = capsys.readouterr().out.strip()
    assert main(["audit", "--file", str(path), "--verify", "--anchor", head]) == 0
    assert main(["audit", "--file", str(path), "--verify", "--anchor", "6:" + "0" * 64]) == 1
    rewrite(path, lambda lines: lines.__delitem__(1))
    assert main(["audit", "--file", str(path), "--verify"]) == 1
    out = capsys.readouterr().out.splitlines()
    assert out[-2:] == ["BROKEN audit.jsonl:2: records 2 to 2 are missing", "the chain is broken"]
    assert main(["audit", "--file", str(path.parent / "none"), "--verify"]) == 1
    assert "no audit log" in capsys.readouterr().err
