"""docs/reference/magics.md leaves nothing out, and gives each column the type that it has."""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Mapping
from itertools import product
from pathlib import Path

import pytest
from golden import capture_magics, capture_tables, reader

import slurm_magics
from slurm_magics import columns, magics, settings, submit
from slurm_magics.accessor import SlurmAccessor
from slurm_magics.completion import OWN_OPTIONS, WORDS
from slurm_magics.help import COMMANDS, TABLES
from slurm_magics.job import Job
from slurm_magics.queries import plan
from slurm_magics.records import NODE_KINDS, PARTITION_KINDS, parse_table
from slurm_magics.values import Kind
from support.answers import frame_of
from support.tree import ROOT

PAGE = (ROOT / "docs" / "reference" / "magics.md").read_text()
# What the page calls each kind: the first word of a cell.
TYPES = {
    Kind.TEXT: "text", Kind.WORD: "category", Kind.COUNT: "count", Kind.NUMBER: "number",
    Kind.FRACTION: "number", Kind.SIZE: "size", Kind.MEGABYTES: "size", Kind.DURATION: "duration",
    Kind.SECONDS: "duration", Kind.MINUTES: "duration", Kind.MOMENT: "time",
}  # fmt: skip
KINDS = {
    "squeue": columns.SQUEUE, "sinfo": columns.SINFO, "sacct": columns.SACCT, "sstat": columns.SSTAT,
    "sshare": columns.SSHARE, "sreport": columns.SREPORT, "sacctmgr": columns.SACCTMGR,
    "sprio": {columns.SPRIO[field]: columns.SPRIO_KINDS.get(field, Kind.TEXT) for field in "iruYSABFJPQNT"},
}  # fmt: skip


def section(title: str) -> str:
    """What stands under a heading, up to the next one."""
    return re.split(r"^#+ ", PAGE.partition(f"# {title}\n")[2], maxsplit=1, flags=re.MULTILINE)[0]


def columns_of(tool: str) -> str:
    """What the page says of a table's columns."""
    tables = section("Columns of other formats").split("\n\n")
    own_format = next((text for text in tables if text.startswith(f"| `%{tool}` |")), "")
    return f"{section(f'Columns of %{tool}')}\n{own_format}"


def types_in(text: str) -> dict[str, set[str]]:
    """The types that tables of the page give each name, in either order of their two cells."""
    found: dict[str, set[str]] = {}
    for line in text.splitlines():
        cells = [cell.strip() for cell in line.split("|")[1:-1]]
        for names, label in (cells, cells[::-1]) if len(cells) == 2 else ():
            word = re.match(r"\w+", label)
            if word and names.startswith("`") and word[0] in TYPES.values():
                for name in re.findall(r"`([^`]+)`", names):
                    found.setdefault(name, set()).add(word[0])
    return found


def wrong_types(found: Mapping[str, Iterable[str]], kinds: Mapping[str, Kind]) -> dict[str, object]:
    """The names whose type the page does not give, or another one."""
    expected = {name: {TYPES[kinds.get(name, Kind.TEXT)]} for name in {*found, *kinds}}
    return {name: found.get(name) for name, types in expected.items() if found.get(name) != types}


def unlisted(names: Iterable[str], text: str) -> set[str]:
    return {name for name in names if f"`{name}`" not in text}


@pytest.mark.parametrize("name", [*TABLES, *COMMANDS, "sbatch", "slurm"])
def test_every_magic_is_listed(name: str) -> None:
    """A magic that nobody can find is none."""
    assert re.search(rf"`%{name}[` ]", section("Magics"))


@pytest.mark.parametrize("tool", [tool for tool in KINDS if tool != "sstat"])
def test_every_column_has_its_type(tool: str) -> None:
    """Each that becomes something else than text, and no other one is said to."""
    found = types_in(columns_of(tool))
    # Of sacct's steps the column is ours; what sreport shows of what was used goes by the title.
    made = {"sacct": {"Step"}, "sreport": found.keys() - columns.SREPORT.keys()}.get(tool, set())
    assert wrong_types({name: types for name, types in found.items() if name not in made}, KINDS[tool]) == {}


@pytest.mark.parametrize("folder", reader.VERSIONS, ids=lambda folder: folder.name)
@pytest.mark.parametrize("name", ["squeue", "squeue_long", "sinfo", "sinfo_summary", "sacct"])
def test_every_column_is_listed(name: str, folder: Path) -> None:
    """Each of a frame without a format of the user's own, under its own magic."""
    tool, words = capture_magics.QUERIES[name]
    query = plan(tool, words, {}, capture_magics.MARK)
    assert query is not None
    answer = reader.golden(f"magics_{name}", folder).stdout.encode("utf-8", "surrogateescape")
    assert unlisted(frame_of(query, answer).columns, section(f"Columns of %{tool}")) == set()


def piped_answers() -> Iterator[tuple[str, str, str]]:
    """Of each version, what it answered to a question that it knows."""
    for folder, name in product(reader.VERSIONS, capture_tables.QUERIES):
        if name.startswith("sprio"):
            continue
        answer = reader.golden(f"tables_{name}", folder)
        if "Unknown field 'lastconsumed'" in answer.stderr:
            answer = reader.golden(f"tables_{name}_older", folder)
        if "No valid entity" not in answer.stderr:
            yield folder.name, name, answer.stdout


@pytest.mark.parametrize(("version", "name", "text"), list(piped_answers()))
def test_every_column_of_the_piped_tables_is_listed(version: str, name: str, text: str) -> None:
    """Each heading that Slurm gave, with and without a format, under its own magic."""
    tool = name.partition("_")[0]
    headings = next(line for line in text.split("\n") if line.endswith("|")).split("|")[:-1]
    known = columns_of(tool) + (columns_of("sacct") if tool == "sstat" else "")
    assert unlisted(headings, known) == set(), version


def test_every_column_of_sprio_is_listed() -> None:
    """Whatever may be asked for with -o."""
    assert unlisted(columns.SPRIO.values(), section("Columns of %sprio")) == set()


@pytest.mark.parametrize(("entity", "kinds"), [("node", NODE_KINDS), ("partition", PARTITION_KINDS)])
def test_every_field_has_its_type(entity: str, kinds: dict[Kind, str]) -> None:
    """Of nodes and partitions: each that becomes something else than text, and those that Slurm gave."""
    text = section("scontrol show").partition(f"Columns of `%scontrol show {entity}`")[2].partition("\n\n")[0]
    found: dict[str, set[str]] = {}
    for names, label in re.findall(r"((?:`\w+`,?\s+)+)\((\w+)", text):
        found |= {name: {label} for name in re.findall(r"`(\w+)`", names)}
    assert wrong_types(found, columns.kinds_by_heading(kinds)) == {}
    for folder in reader.VERSIONS:
        headings = parse_table(reader.golden(f"magics_scontrol_{entity}s", folder).stdout).headings
        assert set(headings) - found.keys() == set(), folder.name


def taken(module: object) -> set[str]:
    """The options that a module takes out of a line, by its source."""
    source = Path(str(vars(module)["__file__"])).read_text()
    flags = re.findall(r'take_flag\([^"]*((?:"[-\w]+"(?:, )?)+)\)', source)
    values = re.findall(r'take_option\(.*, "([-\w]+)"\)', source)
    return {*re.findall(r'"([-\w]+)"', "".join(flags)), *(f"--{name}" for name in values)}


def test_every_option_is_listed() -> None:
    """Each that is ours and not Slurm's; what Tab offers, too."""
    ours = taken(submit) | {"--as"}
    assert taken(magics) == {"--as", "--plot"}
    assert {option for option in ours if not re.search(rf"`{option}[` ]", section("sbatch"))} == set()
    assert set(OWN_OPTIONS["sbatch"]) == {option for option in ours if option.startswith("--")}
    plotted = {tool for tool, options in OWN_OPTIONS.items() if "--plot" in options}
    assert unlisted((f"%{tool} --plot" for tool in plotted), section("Plots")) == set()


def test_every_setting_is_listed() -> None:
    """Each word of %slurm, and each option of ssh's that it takes."""
    words = WORDS[("slurm",)].split()
    assert {word for word in words if f"`%slurm {word}" not in section("Settings")} == set()
    assert unlisted(settings._SSH_OPTIONS, section("From anywhere")) == set()


def test_everything_a_job_can_do_is_listed() -> None:
    """Each public attribute of a Job that is for people."""
    names = {name for name in vars(Job) if not name.startswith("_")} | {"id", "cluster"}
    assert {name for name in names if not re.search(rf"`(await )?job\.{name}\b", section("Job"))} == set()


def test_everything_that_makes_rows_is_listed() -> None:
    """What a frame can be asked, and the functions of the package."""
    text = section("More rows") + section("Magics")
    asked = {f"frame.slurm.{name}" for name in vars(SlurmAccessor) if not name.startswith("_")}
    functions = {*slurm_magics.__all__} - {"load_ipython_extension", "unload_ipython_extension", "SlurmError"}
    assert {name for name in asked | functions if f"`{name}(" not in text} == set()
    assert "`slurm_magics.SlurmError`" in text
