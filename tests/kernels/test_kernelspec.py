"""kernel.json, and what the launcher is told in it."""

from __future__ import annotations

import json
from pathlib import Path
from xml.etree import ElementTree as Xml

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from hpchub.core.cluster import Container
from hpchub.errors import ConfigError, InvalidRequest
from hpchub.kernels.installing import shipped
from hpchub.kernels.kernelspec import (
    CONNECTION_FILE,
    Launch,
    checked_name,
    load_kernelspec,
    parse_launch,
    render_kernelspec,
)
from hpchub.paths import kernels_dir

_WORD = st.text(min_size=1, max_size=20)


@settings(max_examples=50)
@given(
    command=st.lists(_WORD, min_size=1, max_size=4).map(tuple),
    modules=st.lists(_WORD, max_size=3).map(tuple),
    prefix=st.one_of(st.just(""), _WORD),
    image=st.one_of(st.just(""), st.text(min_size=1)),
    binds=st.lists(_WORD, max_size=2).map(tuple),
)
def test_what_a_launcher_is_told_can_be_read_back(
    command: tuple[str, ...], modules: tuple[str, ...], prefix: str, image: str, binds: tuple[str, ...]
) -> None:  # fmt: skip
    """Whatever a name or path holds: argv is a list, so nothing need be quoted."""
    words = {*modules, prefix, image, *binds}
    if "--" in words:  # a path of that name could not be told from the end of the options
        return
    container = Container.SHIFTER if image else None
    launch = Launch(
        command=command, modules=modules, prefix=prefix, container=container, image=image, binds=binds,
    )  # fmt: skip
    assert parse_launch(launch.words()) == launch


@pytest.mark.parametrize("name", shipped())
def test_each_shipped_kernelspec_is_whole(name: str) -> None:
    """It starts with our launcher, ends with the connection file, is written as we write it, has a logo."""
    folder = kernels_dir() / name
    spec = load_kernelspec(folder)
    launch = spec.launch
    assert launch is not None
    assert launch.words() == spec.argv
    assert spec.argv[-1] == CONNECTION_FILE
    assert render_kernelspec(spec.body) == (folder / "kernel.json").read_text()
    assert Xml.fromstring((folder / "logo-svg.svg").read_text()).tag.endswith("svg")  # noqa: S314  our own file


def test_every_way_and_language_is_shipped() -> None:
    """conda, virtualenv, modules, three container programs, R and Julia."""
    ways = {"conda", "virtualenv", "modules", *(container.value for container in Container)}
    assert ways | {"r", "julia"} <= set(shipped())


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("{", "cannot be read"),
        ("[]", "not an object"),
        ('{"argv": "python"}', "argv"),
        ('{"argv": []}', "argv"),
        ('{"argv": ["x"], "env": {"A": 1}}', "env"),
        ('{"argv": ["x"], "metadata": {"kernel_provisioner": {"config": [1]}}}', "kernel_provisioner"),
        ('{"argv": ["x"], "metadata": {"kernel_provisioner": 3}}', "kernel_provisioner"),
    ],
)
def test_a_wrong_kernel_json_is_named(tmp_path: Path, text: str, said: str) -> None:
    """The file and what is wrong in it, never a traceback."""
    (tmp_path / "kernel.json").write_text(text)
    with pytest.raises(ConfigError, match=said) as caught:
        load_kernelspec(tmp_path)
    assert str(tmp_path) in str(caught.value)


def test_another_programs_kernelspec_is_no_launch(tmp_path: Path) -> None:
    """Kernels that ipykernel or others installed are left as they are."""
    body = {"argv": ["/opt/env/bin/python", "-m", "ipykernel_launcher", "-f", CONNECTION_FILE]}
    (tmp_path / "kernel.json").write_text(json.dumps(body))
    assert load_kernelspec(tmp_path).launch is None
    assert parse_launch(["{resource_dir}/launch", "--unheard-of", "x", "--", "python3"]) is None
    assert parse_launch(["{resource_dir}/launch", "--container", "docker", "--", "python3"]) is None


@pytest.mark.parametrize("name", ["", "Torch", "a b", "../x", ".hidden", "ä", "x" * 101])
def test_names_that_jupyter_refuses_are_refused(name: str) -> None:
    """With what is allowed."""
    with pytest.raises(InvalidRequest, match="small letters"):
        checked_name(name)
