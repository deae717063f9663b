"""`hpchub kernels`: install, list, check, remove, on a terminal and in a notebook."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from hpchub.cli import main
from hpchub.kernels.job_settings import read_settings
from hpchub.kernels.kernelspec import Kernelspec, load_kernelspec
from hpchub.kernels.places import environment_place, list_kernelspecs, places, system_place

Install = Callable[..., Kernelspec]
Printed = pytest.CaptureFixture[str]


def test_ones_own_environment_takes_one_command(environment: Path, installed: Install) -> None:
    """Name, title and launcher are made from the folder; the files can be read by everybody."""
    spec = installed(environment)
    assert (spec.name, spec.title) == ("my-env", "Python (my-env)")
    assert spec.launch is not None
    assert spec.launch.prefix == str(environment)
    modes = {path.name: path.stat().st_mode & 0o777 for path in spec.folder.iterdir()}
    assert modes == {"kernel.json": 0o644, "launch": 0o755, "logo-svg.svg": 0o644}


def test_jupyter_itself_finds_what_is_installed(environment: Path, installed: Install) -> None:
    """By the name that was given."""
    from jupyter_client.kernelspec import KernelSpecManager

    spec = installed(environment, "--name", "torch", "--title", "PyTorch 2.4", "--no-check")
    found = KernelSpecManager().get_kernel_spec("torch")
    assert (found.display_name, found.resource_dir) == ("PyTorch 2.4", str(spec.folder))


@pytest.mark.parametrize(("program", "language"), [("python3", "python"), ("R", "r"), ("julia", "julia")])
def test_a_conda_environment_is_of_the_language_that_it_has(
    tmp_path: Path, installed: Install, program: str, language: str
) -> None:
    """Without Python it is R's or Julia's kernel."""
    (tmp_path / "env" / "conda-meta").mkdir(parents=True)
    (tmp_path / "env" / "bin").mkdir()
    (tmp_path / "env" / "bin" / program).write_text("#!/bin/sh\n")
    (tmp_path / "env" / "bin" / program).chmod(0o755)
    assert installed(tmp_path / "env", "--no-check").language == language


def test_an_image_is_registered_by_its_file(tmp_path: Path, installed: Install) -> None:
    """A .sif file is run by apptainer."""
    (tmp_path / "Torch 2.sif").touch()
    spec = installed(tmp_path / "Torch 2.sif", "--no-check")
    assert spec.name == "torch-2"
    assert spec.launch is not None
    assert spec.launch.image == str(tmp_path / "Torch 2.sif")


@pytest.mark.usefixtures("containers")
def test_any_language_goes_into_any_container(installed: Install) -> None:
    """Interrupted by signals everywhere: podman passes them on, and IRkernel knows no messages for that."""
    spec = installed(
        "julia", "--container", "podman-hpc", "--image", "image.sif", "--name", "j", "--no-check"
    )
    assert spec.launch is not None
    assert spec.launch.command[0] == "julia"
    assert "interrupt_mode" not in spec.body


def test_a_sites_own_folder_is_installed_as_it_is(tmp_path: Path, installed: Install) -> None:
    """With all its files."""
    (tmp_path / "Site").mkdir()
    body = {
        "argv": [sys.executable, "-m", "ipykernel_launcher", "-f", "{connection_file}"],
        "language": "python",
    }
    (tmp_path / "Site" / "kernel.json").write_text(json.dumps(body))
    (tmp_path / "Site" / "extra.js").write_text("1\n")
    spec = installed(tmp_path / "Site", "--no-check")
    assert spec.name == "site"
    assert spec.body == body
    assert (spec.folder / "extra.js").exists()
    assert not (spec.folder / "launch").exists()


def test_settings_of_the_job_stand_in_kernel_json(environment: Path, installed: Install) -> None:
    """A kernel is made from an installed one: what is given again wins, the rest stays."""
    spec = installed(
        environment, "--slurm", "time=02:00:00", "--slurm", "cpus=4", "--name", "one", "--no-check"
    )
    assert spec.provisioner == ("hpchub-slurm", {"time": "02:00:00", "cpus": 4})
    again = installed("one", "--slurm", "cpus=8", "--name", "two", "--no-check")
    assert again.provisioner == ("hpchub-slurm", {"time": "02:00:00", "cpus": 8})


@pytest.mark.usefixtures("home")
@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (("virtualenv", "--prefix", "/nowhere"), "/nowhere is not there"),
        (("/nowhere",), "There is no such folder or file: /nowhere."),
        (("nowhere",), "none that is installed, and there is no such folder here."),
        (("/usr",), "no kernel of ours"),
        (("apptainer", "--prefix", "/usr"), "not both"),
        (("virtualenv", "--container", "shifter"), "give --image"),
        (("modules", "--image", "x"), "needs --container"),
        (("virtualenv", "--prefix", "/usr", "--bind", "/data"), "give --container"),
        (("x" * 300,), "File name too long"),
        (("modules", "--name", "a b"), "cannot be a kernel's name"),
        (("r", "--slurm", "time"), "KEY=VALUE"),
        (("r", "--slurm", "tmie=1"), "did you mean 'time'"),
        (("r", "--slurm", "time=soon"), "write HH:MM:SS"),
    ],
)
def test_what_cannot_work_is_not_installed(
    arguments: tuple[str, ...], said: str, home: Path, capfd: Printed
) -> None:
    """The reason is printed, and nothing is left behind."""
    assert main(["kernels", "install", *arguments]) == 1
    assert said in "".join(capfd.readouterr())
    assert not list(home.rglob("kernel.json"))


def test_a_kernel_is_replaced_only_when_that_is_said(
    environment: Path, installed: Install, capfd: Printed
) -> None:
    """An own kernel of the same name is not lost by accident."""
    spec = installed(environment, "--no-check")
    again = ["kernels", "install", str(environment), "--title", "New", "--no-check"]
    assert main(again) == 1
    assert "--replace" in capfd.readouterr().err
    assert main([*again, "--replace"]) == 0
    assert load_kernelspec(spec.folder).title == "New"
    assert [path.name for path in spec.folder.parent.iterdir()] == ["my-env"]


@pytest.mark.usefixtures("home")
def test_an_environments_kernels_are_apart_from_ones_own(
    environment: Path, tmp_path: Path, capfd: Printed
) -> None:
    """Installed for a Jupyter's prefix, listed there, removed there."""
    there = ("--environment", str(tmp_path / "jupyter"))
    assert main(["kernels", "install", str(environment), "--no-check", *there]) == 0
    assert environment_place(tmp_path / "jupyter").folder.joinpath("my-env", "kernel.json").is_file()
    assert main(["kernels", "remove", "my-env"]) == 1
    assert "name the place" in capfd.readouterr().err
    assert main(["kernels", "list", "--json", *there]) == 0
    rows = json.loads(capfd.readouterr().out)
    assert [(row["name"], row["place"], row["starts"]) for row in rows if row["place"] != "system"] == [
        ("my-env", "environment", str(environment))
    ]
    assert main(["kernels", "remove", "my-env", *there]) == 0
    assert not environment_place(tmp_path / "jupyter").folder.joinpath("my-env").exists()


@pytest.mark.usefixtures("home")
def test_everybody_can_read_what_is_installed_for_everybody(environment: Path, tmp_path: Path) -> None:
    """Whatever the umask of whoever installs it."""
    before = os.umask(0o077)
    try:
        there = ("--environment", str(tmp_path / "jupyter"))
        assert main(["kernels", "install", str(environment), "--no-check", *there]) == 0
    finally:
        os.umask(before)
    made = [tmp_path / "jupyter", *(tmp_path / "jupyter").rglob("*")]
    assert [path for path in made if path.stat().st_mode & 0o044 != 0o044] == []
    assert (tmp_path / "jupyter" / "share" / "jupyter" / "kernels" / "my-env" / "kernel.json") in made


@pytest.mark.usefixtures("home")
def test_the_same_folders_are_searched_as_by_jupyter(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """In the same order, so that we judge the kernel that Jupyter would start."""

    from jupyter_core.paths import jupyter_path

    monkeypatch.setenv("JUPYTER_PATH", f"{tmp_path}/a:{tmp_path}/b")
    ours = [str(place.folder) for place in places(os.environ)]
    assert ours == [path for path in jupyter_path("kernels") if path in ours]
    assert str(system_place().folder) in ours


def test_the_first_of_two_kernels_of_one_name_counts(tmp_path: Path) -> None:
    """And one that cannot be read is named instead of hiding the rest."""
    for part in ("a", "b"):
        (tmp_path / part / "share/jupyter/kernels/same").mkdir(parents=True)
        (tmp_path / part / "share/jupyter/kernels/same/kernel.json").write_text(json.dumps({"argv": [part]}))
    (tmp_path / "a/share/jupyter/kernels/bad").mkdir()
    (tmp_path / "a/share/jupyter/kernels/bad/kernel.json").write_text("{")
    found, problems = list_kernelspecs([environment_place(tmp_path / part) for part in ("a", "b")])
    assert [spec.argv for _, spec in found] == [("a",)]
    assert len(problems) == 1


def test_a_notebook_has_the_same_words(environment: Path, home: Path, capfd: Printed) -> None:
    """`%kernels install FOLDER` in a real IPython; a refusal is a line, not a traceback."""
    from IPython.core.interactiveshell import InteractiveShell

    InteractiveShell.clear_instance()
    shell = InteractiveShell.instance()
    shell.run_line_magic("load_ext", "hpchub.kernels")
    shell.run_line_magic("kernels", f"install '{environment}'")
    shell.run_line_magic("kernels", "remove nothing")
    shell.run_line_magic("kernels", "frobnicate")
    printed = capfd.readouterr()
    assert "'Python (my-env)' is installed in" in printed.out
    assert "%kernels: There is no kernel nothing" in printed.err
    assert "invalid choice: 'frobnicate'" in printed.err
    assert "Traceback" not in printed.err
    InteractiveShell.clear_instance()


def test_the_command_needs_no_jupyter() -> None:
    """It runs from any Python that has hpchub, so that one installation serves all Jupyters."""
    code = (
        "import sys, hpchub.kernels.command; print({'zmq', 'jupyter_client', 'traitlets'} & {*sys.modules})"
    )
    done = subprocess.run((sys.executable, "-c", code), capture_output=True, text=True, check=True)
    assert done.stdout == "set()\n"


@pytest.mark.usefixtures("home")
def test_jobs_are_none_where_there_are_none(capfd: Printed) -> None:
    """A person who never ran a kernel in a job is told so."""
    assert main(["kernels", "jobs"]) == 0
    assert capfd.readouterr().out == "No kernel of yours runs in a job.\n"


@pytest.mark.parametrize(
    ("source", "option"),
    [("virtualenv", "--prefix"), ("conda", "--prefix"), ("modules", "--module"), ("apptainer", "--image")],
)
def test_ours_want_to_be_told_what_they_start(source: str, option: str, home: Path, capfd: Printed) -> None:
    """The example in their kernel.json is nobody's environment, and is not installed, even unchecked."""
    assert main(["kernels", "install", source, "--no-check"]) == 1
    assert f"wants to be told what it starts: {option} " in capfd.readouterr().err
    assert not (home / ".local").exists()


def test_options_of_sbatch_are_a_list(installed: Install, environment: Path) -> None:
    """One --slurm each, as everything else; a kernel made from another one has a title of its own."""
    spec = installed(
        environment, "--name", "mine", "--slurm", "options=--hold", "--slurm", "options=--constraint=a b",
        "--no-check",
    )  # fmt: skip
    assert spec.provisioner[1] == {"options": ["--hold", "--constraint=a b"]}
    assert read_settings({}, {"HPCHUB_KERNEL_OPTIONS": "--hold '--constraint=a b'"}).options == (
        "--hold", "--constraint=a b",
    )  # fmt: skip
    large = installed("mine", "--name", "large", "--slurm", "cpus=4", "--no-check")
    assert large.title == f"{spec.title} (large)".replace(" (mine)", "")


@pytest.mark.slow
def test_all_names_are_looked_at_before_one_is_removed(
    installed: Install, environment: Path, capfd: Printed
) -> None:
    """A name that is wrong removes nothing; what is wrong with other kernels fails no check of this one."""
    folder = installed(environment, "--name", "mine", "--no-check").folder
    assert main(["kernels", "remove", "mine", "nope"]) == 1
    assert folder.is_dir()
    (folder.parent / "broken").mkdir()
    (folder.parent / "broken" / "kernel.json").write_text("{")
    assert main(["kernels", "check", "mine"]) == 0
    assert main(["kernels", "check"]) == 1


@pytest.mark.usefixtures("home")
@pytest.mark.parametrize(
    "text",
    [
        pytest.param("[" * 100_000, id="deep"),
        pytest.param('{"argv": ["a\\u0000"]}', id="NUL"),
        pytest.param('{"argv": ["a"], "display_name": "\\ud800"}', id="half a pair"),
    ],
)
def test_a_kernel_that_nothing_could_start_hides_no_other(home: Path, text: str, capfd: Printed) -> None:
    """It is named, the others are listed, and it can be removed by its name."""
    folder = home / ".local/share/jupyter/kernels"
    for name, body in (("bad", text), ("odd", '{"argv": ["{resource_dir}/launch", "--"]}')):
        (folder / name).mkdir(parents=True)
        (folder / name / "kernel.json").write_text(body)
    assert main(["kernels", "list"]) == 0
    printed = capfd.readouterr()
    assert "odd" in printed.out
    assert f"{folder}/bad/kernel.json" in printed.err
    assert main(["kernels", "remove", "bad"]) == 0
    assert not (folder / "bad").exists()


@pytest.mark.usefixtures("home")
def test_a_title_moves_no_cursor(home: Path, capfd: Printed) -> None:
    """A kernel of somebody else's forges no row and colours no terminal."""
    folder = home / ".local/share/jupyter/kernels/odd"
    folder.mkdir(parents=True)
    (folder / "kernel.json").write_text(json.dumps({"argv": ["a"], "display_name": "x\n\x1b[31mforged"}))
    assert main(["kernels", "list"]) == 0
    assert "x  [31mforged" in capfd.readouterr().out


@pytest.fixture
def closed(tmp_path: Path, home: Path) -> Iterator[Path]:
    """A folder that may not be entered, nor by root, as which the tests may run."""
    folder = tmp_path / "closed"
    (folder / "bin").mkdir(parents=True)
    folder.chmod(0)
    before = os.geteuid()
    if before == 0:
        os.seteuid(65534)
    yield folder
    os.seteuid(before)
    folder.chmod(0o700)


def test_what_may_not_be_entered_is_named(closed: Path, capfd: Printed) -> None:
    """Somebody's private folder is no traceback: not as a place, nor as a source, nor as a prefix."""
    found, problems = list_kernelspecs([environment_place(closed)])
    assert (found, len(problems)) == ([], 1)
    assert "Permission denied" in problems[0]
    assert main(["kernels", "install", str(closed)]) == 1
    assert main(["kernels", "install", "virtualenv", "--prefix", str(closed)]) == 1
    printed = capfd.readouterr()
    assert f"{closed} cannot be read: Permission denied" in printed.err
    assert f"the environment {closed} cannot be read: Permission denied" in printed.out


def test_a_prefix_that_is_gone_is_no_traceback(tmp_path: Path) -> None:
    """Also of a conda environment, whose folder's owner is looked at."""
    assert places({"HOME": str(tmp_path)}, tmp_path / "envs" / "gone")


@pytest.mark.parametrize("what", ["link", "dangling link", "file"])
def test_whatever_has_the_name_is_replaced(
    what: str, environment: Path, home: Path, tmp_path: Path, capfd: Printed
) -> None:
    """A link goes, and what it pointed to stays; without --replace, nothing goes."""
    folder = home / ".local/share/jupyter/kernels"
    folder.mkdir(parents=True)
    (tmp_path / "theirs").mkdir()
    if what == "file":
        (folder / "mine").touch()
    else:
        (folder / "mine").symlink_to(tmp_path / "theirs" / ("gone" if what == "dangling link" else ""))
    argv = ["kernels", "install", str(environment), "--name", "mine", "--no-check"]
    assert main(argv) == 1
    assert "There is a kernel mine" in capfd.readouterr().err
    assert main([*argv, "--replace"]) == 0
    assert [path.name for path in folder.iterdir()] == ["mine"]
    assert not (folder / "mine").is_symlink()
    assert (tmp_path / "theirs").is_dir()


def test_a_kernel_is_not_lost_by_one_that_fails_in_its_place(
    installed: Install, environment: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Ctrl-C between taking the old one away and putting the new one there puts the old one back."""
    spec = installed(environment, "--title", "Old", "--no-check")
    rename = Path.rename

    def interrupted(self: Path, target: Path) -> Path:
        if self.name == "new":
            raise KeyboardInterrupt
        return rename(self, target)

    monkeypatch.setattr(Path, "rename", interrupted)
    assert main(["kernels", "install", str(environment), "--no-check", "--replace"]) == 130
    assert load_kernelspec(spec.folder).title == "Old"
    assert [path.name for path in spec.folder.parent.iterdir()] == ["my-env"]


def test_jupyter_sees_no_kernel_that_is_half_there(
    installed: Install, environment: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """While a kernel is being put together, and where that was killed, there is none of an odd name."""
    from jupyter_client.kernelspec import KernelSpecManager

    before = set(KernelSpecManager().find_kernel_specs())
    seen: list[set[str]] = []
    rename = Path.rename

    def look(self: Path, target: Path) -> Path:
        seen.append(set(KernelSpecManager().find_kernel_specs()))
        return rename(self, target)

    monkeypatch.setattr(Path, "rename", look)
    installed(environment, "--no-check")
    assert seen == [before]


def test_what_cannot_be_copied_is_named(tmp_path: Path, home: Path, capfd: Printed) -> None:
    """A named pipe in a site's folder, say; nothing is left. A dangling link is left out."""
    source = tmp_path / "site"
    source.mkdir()
    (source / "kernel.json").write_text('{"argv": ["a"]}')
    (source / "old").symlink_to("/nowhere")
    assert main(["kernels", "install", str(source), "--no-check"]) == 0
    os.mkfifo(source / "pipe")
    assert main(["kernels", "install", str(source), "--no-check", "--replace"]) == 1
    assert f"{source}/pipe cannot be copied" in capfd.readouterr().err
    assert [path.name for path in (home / ".local/share/jupyter/kernels").iterdir()] == ["site"]


@pytest.mark.slow
def test_a_kernel_that_jupyter_would_not_offer_is_named(
    installed: Install, environment: Path, tmp_path: Path, capfd: Printed
) -> None:
    """Jupyter leaves out, without a word, what names a provisioner that its environment has not got."""
    installed(environment, "--name", "node", "--slurm", "cpus=1")
    assert main(["kernels", "check", "node"]) == 0
    jupyter = tmp_path / "other/lib/python3.12/site-packages/jupyter_client-8.0.dist-info"
    jupyter.mkdir(parents=True)
    (jupyter / "entry_points.txt").write_text(
        "[jupyter_client.kernel_provisioners]\nlocal-provisioner = x:Y\n"
    )
    assert main(["kernels", "check", "node", "--environment", str(tmp_path / "other")]) == 1
    said = capfd.readouterr().out
    assert f"Jupyter in {tmp_path}/other does not offer it" in said
    assert f'{tmp_path}/other/bin/python3 -m pip install "hpchub[kernels]"' in said
