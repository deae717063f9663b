"""hpchub.schedulers.render and the templates"""

from __future__ import annotations

import dataclasses
import os
import subprocess
import sys
from pathlib import Path

import pytest
from golden.reader import FOLDER
from hypothesis import given, settings
from hypothesis import strategies as st
from schedulers.samples import ENVIRONMENTS, make_cluster, make_options

from hpchub.core.choices import ServerOptions
from hpchub.core.cluster import Attach, Cluster, Container, Environment, Placement
from hpchub.errors import ConfigError, InvalidRequest
from hpchub.schedulers.render import quote_for_directive, quote_for_shell, render_notebook_script
from hpchub.schedulers.slurm_directives import read_directives

SERVER_FOLDER = "/home/alice/.hpchub/servers/9f3a"


def render(
    cluster: Cluster, options: ServerOptions, *, server_name: str = "", folder: str = SERVER_FOLDER
) -> str:
    return render_notebook_script(cluster, options, server_id="9f3a", server_name=server_name, folder=folder)


# -- whole scripts -----------------------------------------------------------------------------

GOLDEN = {
    **{f"slurm-{env.name}": render(make_cluster(), make_options(env.name)) for env in ENVIRONMENTS},
    **{
        f"login-{env.name}": render(make_cluster(), make_options(env.name, placement=Placement.LOGIN))
        for env in ENVIRONMENTS
    },
    "slurm-gpu-tcp": render(
        make_cluster(attach=Attach.TCP, runtime_dir="/run/hpchub"),
        make_options("shifter", gpus=2, gpu_type="a100", account=""),
        server_name="deep-learning",
    ),
}


@pytest.mark.parametrize("name", GOLDEN)
def test_scripts_are_what_they_were(name: str) -> None:
    """A change of a script is seen whole. HPCHUB_WRITE_GOLDEN=1 writes the files anew."""
    path = FOLDER / "scripts" / f"{name}.sh"
    if os.environ.get("HPCHUB_WRITE_GOLDEN"):
        path.write_text(GOLDEN[name], encoding="utf-8")
    assert GOLDEN[name] == path.read_text(encoding="utf-8")


@pytest.mark.parametrize("name", GOLDEN)
def test_bash_can_read_every_script(name: str) -> None:
    """No combination of environment and placement is broken shell."""
    done = subprocess.run(["bash", "-n"], input=GOLDEN[name], text=True, capture_output=True, check=False)
    assert (done.returncode, done.stderr) == (0, "")


def test_golden_scripts_are_all_used() -> None:
    """No file is left over from a case that is gone."""
    assert {path.stem for path in (FOLDER / "scripts").glob("*.sh")} == set(GOLDEN)


def test_only_a_job_with_attach_tcp_listens() -> None:
    """--tcp goes to the launcher of a job, never to that on a login node."""
    cluster = make_cluster(attach=Attach.TCP)
    assert " --tcp" in render(cluster, make_options())
    assert " --tcp" not in render(cluster, make_options(placement=Placement.LOGIN))
    assert " --tcp" not in render(make_cluster(), make_options())


# -- running them ------------------------------------------------------------------------------


class Home:
    """A home folder with a server's folder in it, whose launcher tells how it was started."""

    def __init__(self, folder: Path) -> None:
        self.path = folder / "home with blank"
        self.server = self.path / ".hpchub" / "servers" / "9f3a"
        self.server.mkdir(parents=True)
        self.tools = folder / "tools"
        self.tools.mkdir()
        self.profile(f'PATH="{self.tools}:$PATH"')
        (self.server / "launcher.py").write_text(
            "import os, sys\nprint('LAUNCHED', sys.argv[1:])\nprint('CWD', os.getcwd())\n"
            "print('ENV', {k: os.environ.get(k) for k in ('VIRTUAL_ENV', 'CONDA_PREFIX', 'HOOKED',\n"
            "    'LOADED', 'SLURM_EXPORT_ENV', 'PYTHONHOME')}, os.umask(0))\n",
            encoding="utf-8",
        )

    def profile(self, text: str) -> None:
        with (self.path / ".bash_profile").open("a", encoding="utf-8") as file:
            file.write(text + "\n")

    def tool(self, name: str, text: str = 'printf "<%s>\\n" "$0" "$@"') -> Path:
        path = self.tools / name
        path.write_text(f"#!/bin/sh\n{text}\n", encoding="utf-8")
        path.chmod(0o755)
        return path

    def run(self, environment: Environment, placement: Placement = Placement.LOGIN) -> tuple[int, str]:
        """Exit code, and what both streams hold."""
        options = make_options(environment.name, placement=placement)
        script = self.server / "notebook.sh"
        script.write_text(render(make_cluster([environment]), options, folder=str(self.server)), "utf-8")
        # Not as a login shell: the script must become one by itself.
        done = subprocess.run(
            ["bash", script],
            env={"HOME": str(self.path), "PATH": os.environ["PATH"], "SLURM_EXPORT_ENV": "NONE"},
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            check=False,
            timeout=20,
        )
        return done.returncode, done.stdout


@pytest.fixture
def home(tmp_path: Path) -> Home:
    return Home(tmp_path)


def make_prefix(folder: Path, *, conda: bool = False) -> Path:
    """An environment's folder with a Python that says which it is."""
    prefix = folder / "prefix"
    (prefix / "bin").mkdir(parents=True)
    python = prefix / "bin" / "python3"
    python.write_text('#!/bin/sh\necho "PYTHON $0"\nexec /usr/bin/env -- python3.real "$@"\n', "utf-8")
    python.chmod(0o755)
    if conda:
        (prefix / "conda-meta").mkdir()
        hooks = prefix / "etc" / "conda" / "activate.d"
        hooks.mkdir(parents=True)
        (hooks / "x.sh").write_text("export HOOKED=yes\n", "utf-8")
    return prefix


@pytest.fixture
def real_python(home: Home) -> None:
    home.tool("python3.real", f'exec {sys.executable} "$@"')


def test_the_launcher_is_started(home: Home) -> None:
    """It gets both folders, runs in the home under the site's own umask, and none of Slurm's options."""
    umask = os.umask(0o022)
    os.umask(umask)
    home.tool("python3", f'exec {sys.executable} "$@"')
    code, said = home.run(Environment(name="plain", title=""))
    assert code == 0
    assert f"LAUNCHED ['--runtime-dir', '/tmp/hpchub-9f3a', '--folder', '{home.server}']" in said
    assert f"CWD {home.path}" in said
    assert "'SLURM_EXPORT_ENV': None" in said
    assert said.rstrip().endswith(f"}} {umask}")


def test_a_strict_or_noisy_profile_does_no_harm(home: Home) -> None:
    """set -eu, a failing command, output and a function called python3 in the profile change nothing."""
    home.tool("python3", f'exec {sys.executable} "$@"')
    home.profile("echo Welcome\npython3() { echo wrong; }\nfalse\nset -eu")
    code, said = home.run(Environment(name="plain", title=""))
    assert code == 0
    assert "Welcome" in said
    assert "LAUNCHED" in said
    assert "wrong" not in said


@pytest.mark.usefixtures("real_python")
def test_a_virtualenv_by_its_folder(home: Home, tmp_path: Path) -> None:
    """Its own Python runs, VIRTUAL_ENV names it, PYTHONHOME is gone, and its activation ran."""
    prefix = make_prefix(tmp_path)
    (prefix / "bin" / "activate").write_text("export HOOKED=yes VIRTUAL_ENV=/old/place\n", "utf-8")
    home.profile("export PYTHONHOME=/nowhere")
    code, said = home.run(Environment(name="venv", title="", prefix=str(prefix)))
    assert code == 0
    assert f"PYTHON {prefix}/bin/python3" in said
    assert f"'VIRTUAL_ENV': '{prefix}'" in said
    assert "'HOOKED': 'yes'" in said
    assert "'PYTHONHOME': None" in said


@pytest.mark.usefixtures("real_python")
def test_a_conda_environment_by_its_folder(home: Home, tmp_path: Path) -> None:
    """Its own Python runs, CONDA_PREFIX names it, and its activation hooks ran."""
    prefix = make_prefix(tmp_path, conda=True)
    code, said = home.run(Environment(name="conda", title="", prefix=str(prefix)))
    assert code == 0
    assert f"'CONDA_PREFIX': '{prefix}'" in said
    assert "'HOOKED': 'yes'" in said


@pytest.mark.usefixtures("real_python")
def test_a_conda_environment_by_name(home: Home, tmp_path: Path) -> None:
    """conda's own script is sourced, and the environment is activated by it."""
    prefix = make_prefix(tmp_path)
    script = tmp_path / "conda" / "etc" / "profile.d" / "conda.sh"
    script.parent.mkdir(parents=True)
    script.write_text(f'conda() {{ [ "$*" = "activate jupyter" ] && PATH="{prefix}/bin:$PATH"; }}\n', "utf-8")
    environment = Environment(name="c", title="", conda_root=str(tmp_path / "conda"), conda="jupyter")
    code, said = home.run(environment)
    assert code == 0
    assert f"PYTHON {prefix}/bin/python3" in said
    code, said = home.run(dataclasses.replace(environment, conda="other"))
    assert code == 3
    assert "hpchub: the conda environment other of" in said


def test_modules_are_loaded(home: Home) -> None:
    """Each module in turn, by the function that the profile defines."""
    home.tool("python3", f'exec {sys.executable} "$@"')
    home.profile('module() { [ "$1" = load ] && [ "$2" != gone ] && export LOADED="$LOADED $2"; }')
    code, said = home.run(Environment(name="m", title="", modules=("python/3.11", "jupyter")))
    assert code == 0
    assert "'LOADED': ' python/3.11 jupyter'" in said
    code, said = home.run(Environment(name="m", title="", modules=("gone",)))
    assert code == 3
    assert "hpchub: the module gone cannot be loaded on" in said


@pytest.mark.parametrize(
    ("environment", "words"),
    [
        (Environment(name="v", title="", prefix="/nowhere"), "the environment v at /nowhere is not there"),
        (Environment(name="c", title="", conda_root="/nowhere", conda="x"), "there is no conda at /nowhere"),
        (
            Environment(name="i", title="", container=Container.SHIFTER, image="docker:x"),
            "there is no shifter on",
        ),
    ],
)
def test_a_broken_environment_says_so(home: Home, environment: Environment, words: str) -> None:
    """What is missing is named in the log, and the script ends at once with 3."""
    code, said = home.run(environment)
    assert code == 3
    assert f"hpchub: {words}" in said


def test_a_missing_home_says_so(home: Home) -> None:
    """A home that is not mounted on the node is named."""
    home.profile("HOME=/nowhere")
    code, said = home.run(Environment(name="plain", title=""))
    assert code == 3
    assert "hpchub: the home directory /nowhere cannot be entered" in said


@pytest.mark.parametrize("container", Container)
def test_a_container_sees_both_folders(home: Home, container: Container) -> None:
    """The image runs the launcher, and the server's and the runtime folder are visible inside."""
    home.tool(container.value)
    environment = Environment(
        name="i", title="", container=container, image="docker:x/y:1", binds=("/scratch", "/a:/b")
    )
    code, said = home.run(environment)
    assert code == 0
    words = [line[1:-1] for line in said.split("\n") if line.startswith("<")]
    assert words[-5:] == [
        f"{home.server}/launcher.py", "--runtime-dir", "/tmp/hpchub-9f3a", "--folder", str(home.server)
    ]  # fmt: skip
    assert any("docker:x/y:1" in word for word in words)
    mounts = " ".join(words)
    if container is Container.SHIFTER:  # binds /tmp by itself; the site binds the homes
        assert "--volume=/scratch:/scratch --volume=/a:/b" in mounts
    else:
        assert (
            str(home.server) in words[: words.index("docker:x/y:1")]
            or f"{home.server}:{home.server}" in words
        )
        assert "/tmp" in words or "/tmp:/tmp" in words
        assert "/a:/b" in words


# -- hostile values ----------------------------------------------------------------------------

HOSTILE = (
    "$(touch CANARY)", "`touch CANARY`", "'; touch CANARY; '", '"; touch CANARY; "', "a\\", "a'b\"c",
    "* ? ~ {a,b}", "$HOME", "!!", "-rf", "a#b", "a b", "\u201c\u2028",
    "x\ntouch CANARY", "x\n#SBATCH --nice=9", "x\r", "x\0y", "\x1b[2J", "\x85", "\ud800",
)  # fmt: skip

_SHELL_FIELDS = ("name", "prefix", "conda_root", "conda", "image", "modules", "binds")


def hostile_environment(field: str, value: str) -> Environment:
    """An environment in which one field is hostile and used."""
    needs: dict[str, dict[str, object]] = {
        "conda_root": {"conda": "x"},
        "conda": {"conda_root": "/opt/conda"},
        "image": {"container": Container.APPTAINER},
        "binds": {"container": Container.PODMAN_HPC, "image": "x"},
        "name": {"prefix": "/nowhere"},
    }
    changed = (value,) if field in {"modules", "binds"} else value
    return Environment(**{"name": "e", "title": "", **needs.get(field, {}), field: changed})  # type: ignore[arg-type]


@pytest.mark.parametrize("value", HOSTILE)
@pytest.mark.parametrize("field", _SHELL_FIELDS)
def test_no_environment_value_is_run(field: str, value: str, tmp_path: Path) -> None:
    """A hostile value is refused, or the script is sound, adds no directive, and runs nothing of it."""
    environment = hostile_environment(field, value)
    try:
        script = render(make_cluster([environment]), make_options(environment.name))
    except InvalidRequest:
        return
    assert subprocess.run(["bash", "-n"], input=script, text=True, check=False).returncode == 0
    assert read_directives(script) == read_directives(render(make_cluster(), make_options("plain")))
    (tmp_path / "notebook.sh").write_text(script, "utf-8")
    # A login shell already, without the profile of this machine, which takes ten times as long as the script.
    subprocess.run(
        ["bash", "--noprofile", "-l", "notebook.sh"], cwd=tmp_path,
        env={"HOME": str(tmp_path), "PATH": os.environ["PATH"]},
        stdin=subprocess.DEVNULL, capture_output=True, check=False, timeout=20,
    )  # fmt: skip
    assert [path.name for path in tmp_path.iterdir()] == ["notebook.sh"]


@pytest.mark.parametrize("value", HOSTILE)
@pytest.mark.parametrize("field", ["partition", "account", "gpu_type", "folder", "server_name"])
def test_no_value_adds_a_directive(field: str, value: str) -> None:
    """Every directive is read back with exactly its value, and there is none more."""
    changes: dict[str, str | int] = {"gpus": 1, "gpu_type": "a100"}
    if field in {"partition", "account", "gpu_type"}:
        changes[field] = value
    folder = f"/home/{value}" if field == "folder" else SERVER_FOLDER
    server_name = value if field == "server_name" else ""
    try:
        script = render(make_cluster(), make_options(**changes), server_name=server_name, folder=folder)  # type: ignore[arg-type]
    except InvalidRequest:
        return
    options = dict(option.split("=", 1) for option in read_directives(script) if "=" in option)
    assert len(options) == 12
    assert options["--partition"] == changes.get("partition", "cpu")
    assert options["--account"] == changes.get("account", "physics")
    assert options["--gres"] == f"gpu:{changes['gpu_type']}:1"
    assert options["--output"] == f"{folder}/server.log".replace("%", "%%")


@pytest.mark.parametrize("value", ["a\nb", "a\rb", "a\0b", "\x1b", "\x7f", "\x85", "\u2028", "\ud800"])
def test_control_characters_are_refused(value: str) -> None:
    """No quoting helps against the end of a line, so both filters refuse it."""
    for quote in (quote_for_shell, quote_for_directive):
        with pytest.raises(InvalidRequest):
            quote(value)


@settings(deadline=None, max_examples=50)  # each example is a process
@given(
    st.lists(
        st.text(st.characters(exclude_categories=("Cc", "Cs", "Cn", "Zl", "Zp"))), min_size=1, max_size=20
    )
)
def test_the_shell_reads_back_any_value(values: list[str]) -> None:
    """printf of quoted values prints exactly those values."""
    words = " ".join(quote_for_shell(value) for value in values)
    done = subprocess.run(["bash", "-c", f"printf '%s\\0' {words}"], capture_output=True, check=True)
    assert done.stdout.decode().split("\0")[:-1] == values


@pytest.mark.parametrize("folder", ["relative", "", "/a\\b", "/a\nb"])
def test_a_folder_is_an_absolute_path(folder: str) -> None:
    """Slurm gives backslashes in --output a meaning; a relative path would depend on where sbatch ran."""
    with pytest.raises(InvalidRequest):
        render(make_cluster(), make_options(), folder=folder)


@pytest.mark.parametrize("server_id", ["", "../x", "a b", "a/b", "x" * 65])
def test_a_server_id_is_a_plain_name(server_id: str) -> None:
    """It becomes the name of a folder on the node."""
    with pytest.raises(InvalidRequest):
        render_notebook_script(
            make_cluster(), make_options(), server_id=server_id, server_name="", folder=SERVER_FOLDER
        )


def test_an_unknown_environment_is_named() -> None:
    """A stored choice may outlive the environment; the field is named, and what there is."""
    with pytest.raises(InvalidRequest) as caught:
        render(make_cluster(), make_options("gone"))
    assert "plain" in caught.value.fields["environment"]


# -- a site's own templates --------------------------------------------------------------------


def test_a_site_extends_our_template(tmp_path: Path) -> None:
    """The site's folder comes first; ours stay there by the name hpchub/."""
    (tmp_path / "slurm").mkdir()
    (tmp_path / "slurm" / "notebook.sh.j2").write_text(
        '{% extends "hpchub/slurm/notebook.sh.j2" %}\n'
        "{% block directives %}{{ super() }}#SBATCH --constraint=haswell\n{% endblock %}\n"
        "{% block prepare %}export SITE={{ cluster.name | sh }}\n{% endblock %}\n",
        encoding="utf-8",
    )
    script = render(make_cluster(templates=tmp_path), make_options())
    assert "--constraint=haswell" in read_directives(script)
    assert "\nexport SITE=alpha\n" in script
    assert "launcher.py" in script


def test_a_sites_mistake_is_a_site_error(tmp_path: Path) -> None:
    """An unknown name or broken template is not the person's fault, and is not rendered as nothing."""
    (tmp_path / "login").mkdir()
    template = tmp_path / "login" / "notebook.sh.j2"
    options = make_options(placement=Placement.LOGIN)
    for text in ("{{ no_such_thing | sh }}", "{% if %}"):
        template.write_text(text, encoding="utf-8")
        with pytest.raises(ConfigError, match="alpha"):
            render(make_cluster(templates=tmp_path), options)
