"""The magics in a real IPython shell; Slurm's commands are stand-ins."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from pathlib import Path

import pandas as pd
import pytest
from IPython.core.interactiveshell import InteractiveShell

from slurm_magics import SlurmError
from slurm_magics.help import COMMANDS, TABLES
from support.slurm_commands import Commands
from support.tree import ROOT

_FIELDS = {
    "JOBID": "42", "PARTITION": "cpu", "NAME": "a b", "USER": "alice", "STATE": "PENDING", "TIME": "0:00",
    "TIME_LIMIT": "1:00:00", "NODES": "1", "CPUS": "1", "MIN_MEMORY": "1G", "SUBMIT_TIME": "1795259154",
    "START_TIME": "N/A", "NODELIST": "", "REASON": "Priority",
}  # fmt: skip
HEAD = "\x1f".join(("MARK", *_FIELDS, "MARK"))
ROW = "\x1f".join(("MARK", *_FIELDS.values(), "MARK"))
QUEUE = f"{HEAD}\n{ROW}\n"


def test_a_frame_can_be_kept(shell: InteractiveShell, commands: Commands) -> None:
    """`df = %squeue` and `%squeue --as df` keep it; Slurm sees only its own options."""
    commands.answer("squeue", QUEUE)
    shell.run_cell("one = %squeue --me", silent=False).raise_error()
    assert shell.run_cell("%squeue --me --as two").result is None
    pd.testing.assert_frame_equal(shell.user_ns["one"], shell.user_ns["two"])
    assert shell.user_ns["one"]["NAME"].tolist() == ["a b"]
    assert commands.calls()[0]["argv"] == ["squeue", "--me"]


def test_the_same_question_is_asked_once(shell: InteractiveShell, commands: Commands) -> None:
    """Within the seconds of `%slurm fresh`; not where something was changed, nor with `fresh 0`."""
    commands.answer("squeue", QUEUE)
    commands.answer("scancel")
    shell.run_cell("a = %squeue\nb = %squeue\nc = %squeue -l").raise_error()
    assert len(commands.calls("squeue")) == 2
    shell.run_cell("a.loc[0, 'NAME'] = 'changed'\nd = %squeue").raise_error()
    assert shell.user_ns["d"].loc[0, "NAME"] == "a b"
    shell.run_cell("%scancel 42\na = %squeue").raise_error()
    assert len(commands.calls("squeue")) == 3
    shell.run_cell("%slurm fresh 0\na = %squeue\nb = %squeue").raise_error()
    assert len(commands.calls("squeue")) == 5


def test_words_are_cut_as_a_shell_cuts_them(shell: InteractiveShell, commands: Commands) -> None:
    """Quotes hold words together, and so does a variable's value."""
    commands.answer("scontrol", "done\n")
    shell.user_ns["name"] = "two words; rm -rf $HOME"
    result = shell.run_cell("%scontrol update 'jobid=4 2' name={name} ${name} {other}")
    assert commands.calls()[0]["argv"] == [
        "scontrol", "update", "jobid=4 2", "name=two words; rm -rf $HOME", "${name}", "{other}",
    ]  # fmt: skip
    assert result.result == "done\n"


def test_a_refusal_has_slurms_words_and_no_traceback(
    shell: InteractiveShell, commands: Commands, capsys: pytest.CaptureFixture[str]
) -> None:
    """The exception is one that a program can catch; a person sees two lines."""
    commands.answer("squeue", stderr="slurm_load_jobs error: Invalid job id specified\n", exit_code=1)
    result = shell.run_cell("%squeue -j 99999")
    assert isinstance(result.error_in_exec, SlurmError)
    shown = capsys.readouterr().out
    assert "Invalid job id specified" in shown
    assert "%sacct -j ID" in shown
    assert "Traceback" not in shown
    assert len(shown.strip().splitlines()) == 2


def test_sacctmgr_is_told_no_when_it_asks_back(shell: InteractiveShell, commands: Commands) -> None:
    """It would ask for ever at the end of its input. An error, because nothing has been changed."""
    commands.answer(
        "sacctmgr", " Adding Account(s)\n  x\nWould you like to commit changes?\n(N/y): Discarded\n"
    )
    error = shell.run_cell("%sacctmgr add account x").error_in_exec
    assert isinstance(error, SlurmError)
    assert "nothing has been changed" in error.message
    assert "-i" in error.hint
    commands.answer("sacctmgr", "You requested options ...\nAre you sure?\n(N/y): \nAborted\n")
    error = shell.run_cell("%sacctmgr show account parent=root").error_in_exec
    assert isinstance(error, SlurmError)
    assert "You requested options" in error.message
    assert [call["stdin"] for call in commands.calls()] == ["n\n", "n\n"]
    commands.answer("sacctmgr", " Adding Account(s)\n  x\n")
    assert "Adding" in shell.run_cell("%sacctmgr -i add account x").result


def test_names_with_pipes_are_asked_for_in_wide_columns(shell: InteractiveShell, commands: Commands) -> None:
    """Once more, because the first answer could be read in two ways."""
    row = "".join(f"{text:<1000} " for text in ("a", "x|y\nz"))
    head, ruler = (
        "".join(f"{text:<1000} " for text in texts) for texts in (("Account", "Descr"), ("-" * 1000,) * 2)
    )
    answers = {True: "Account|Descr|Account|Descr|\na|x|y\nz|a|x|y\nz|\n", False: f"{head}\n{ruler}\n{row}\n"}
    program = commands.folder / "sacctmgr"
    program.write_text(
        f"#!{sys.executable}\nimport sys\nsys.stdout.write({answers!r}['--parsable' in sys.argv])\n"
    )
    program.chmod(0o700)
    found = shell.run_cell("%sacctmgr show account format=account,descr").result
    assert found.to_dict("list") == {"Account": ["a"], "Descr": ["x|y\nz"]}


def test_a_report_is_shown_under_its_title(
    shell: InteractiveShell, commands: Commands, capsys: pytest.CaptureFixture[str]
) -> None:
    """And `frame.attrs` keeps it; a plot there is none."""
    rule = "-" * 80
    commands.answer(
        "sreport", f"{rule}\nTop 10 Users\nUsage reported in CPU Hours\n{rule}\nLogin|Login|\nbob|bob|\n"
    )
    shell.run_cell("%sreport -t Hours user top format=Login --as top").raise_error()
    assert shell.user_ns["top"]["Login"].tolist() == ["bob"]
    assert shell.user_ns["top"].attrs["title"] == "Top 10 Users\nUsage reported in CPU Hours"
    assert "Top 10 Users" in capsys.readouterr().out
    assert isinstance(shell.run_cell("%sreport user top --plot").error_in_exec, SlurmError)


@pytest.mark.parametrize(
    ("line", "words"),
    [
        ("%squeue -i 5", "answers once"),
        ("%squeue 'open", "No closing quotation"),
        ("%squeue -o", "needs a value"),
        ("%squeue --as", "needs a value"),
        ("%squeue -o nothing", "has no field"),
        ("%sinfo", "no sinfo on this machine's PATH"),
        ("%sacctmgr", "waits for words"),
        ("%sreport", "waits for words"),
        ("%scontrol", "waits for words"),
        ("%slurm colour blue", "cannot do"),
        ("%slurm fresh soon", "no number of seconds"),
        ("%squeue {name.nothing}", "cannot be filled in"),
    ],
)
def test_what_cannot_be_done_is_said(
    shell: InteractiveShell, commands: Commands, line: str, words: str
) -> None:
    """A sentence, before or instead of Slurm's own."""
    shell.user_ns["name"] = "x"
    error = shell.run_cell(line).error_in_exec
    assert isinstance(error, SlurmError)
    assert words in error.message


def test_noise_on_stderr_costs_nothing(
    shell: InteractiveShell, commands: Commands, capsys: pytest.CaptureFixture[str]
) -> None:
    """A warning with exit code 0, a greeting among the rows: shown, and no part of the frame."""
    commands.answer("squeue", f"Maintenance on Monday\n{QUEUE}", stderr="squeue: warning: slow\n")
    shell.run_cell("df = %squeue").raise_error()
    assert len(shell.user_ns["df"]) == 1
    said = capsys.readouterr().err
    assert "slow" in said
    assert "Maintenance" in said


def test_text_for_those_who_want_text(shell: InteractiveShell, commands: Commands) -> None:
    """--help and --json are Slurm's own; `%slurm display text` makes everything so."""
    commands.answer("squeue", "Usage: squeue\n")
    assert shell.run_cell("%squeue --help").result == "Usage: squeue\n"
    shell.run_cell("%slurm display text").raise_error()
    assert shell.run_cell("%squeue").result == "Usage: squeue\n"
    assert commands.calls()[1]["argv"] == ["squeue"]


@pytest.mark.parametrize("name", [*TABLES, *COMMANDS, "sbatch", "slurm"])
def test_every_magic_has_help_with_examples(shell: InteractiveShell, name: str) -> None:
    """`%squeue?` shows how to use it, with that magic's own name."""
    text = shell.find_line_magic(name).__doc__
    assert text.count(f"%{name}") >= 2


def test_importing_is_light() -> None:
    """Neither pandas nor jinja2 nor IPython before they are needed."""
    code = (
        "import sys, slurm_magics; "
        "print({'pandas', 'numpy', 'jinja2', 'IPython', 'asyncio', 'jupyterhub'} & set(sys.modules))"
    )
    done = subprocess.run((sys.executable, "-c", code), capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "set()"


@pytest.mark.slow
def test_a_site_loads_them_for_everybody(tmp_path: Path) -> None:
    """With the lines that the guide has for IPython's configuration, nobody types %load_ext."""
    guide = (ROOT / "docs/howto/use-slurm-in-a-notebook.md").read_text()
    lines = guide.partition("ipython_config.py`:\n\n```python\n")[2].partition("```")[0]
    profile = tmp_path / "profile_default"
    profile.mkdir()
    (profile / "ipython_config.py").write_text(lines)
    done = subprocess.run(
        [sys.executable, "-m", "IPython", "--no-banner", "--colors=NoColor", "-c", "%slurm timeout 7"],
        env=os.environ | {"IPYTHONDIR": str(tmp_path), "PYTHONPATH": str(ROOT)},
        capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert re.search(r"timeout\s+7", done.stdout), done.stdout + done.stderr


def test_loading_is_light() -> None:
    """Nor does %load_ext bring along any of them beside IPython, nor what only some magics need."""
    heavy = {"pandas", "numpy", "jinja2", "matplotlib", "paramiko", "cloudpickle", "ipywidgets"}
    code = (
        "import sys; from IPython.core.interactiveshell import InteractiveShell; "
        "shell = InteractiveShell(); "
        "shell.history_manager.enabled = False; shell.run_cell('%load_ext slurm_magics').raise_error(); "
        f"print({heavy} & set(sys.modules))"
    )
    done = subprocess.run((sys.executable, "-c", code), capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "set()"


def test_loaded_again_it_keeps_what_was_set(shell: InteractiveShell, commands: Commands) -> None:
    """Settings, and with them the connection and its jobs; unloaded it leaves no magic behind."""
    assert shell.run_cell("%reload_ext slurm_magics").success
    shell.run_cell("%slurm display text").raise_error()
    session = vars(shell)["_slurm_magics"].session
    for again in ("%reload_ext slurm_magics", "%reload_ext slurm_magics", "%slurm disconnect"):
        assert shell.run_cell(again).success
        assert "display    text" in shell.run_cell("%slurm").result
        assert vars(shell)["_slurm_magics"].session is session
    assert shell.run_cell("%unload_ext slurm_magics").success
    left = {name for known in shell.magics_manager.magics.values() for name in known}
    assert left.isdisjoint({"slurm", "squeue", "sbatch", "scancel"})
    assert not [one for one in shell.Completer.custom_matchers if one.__name__ == "slurm_matcher"]
    assert shell.run_cell("%load_ext slurm_magics").success
    assert "display    text" in shell.run_cell("%slurm").result
