"""Frames of what sprio, sshare, sstat, sreport and sacctmgr of several versions of Slurm answered."""

from __future__ import annotations

import re
import sys
import warnings
from pathlib import Path
from zoneinfo import ZoneInfo

import pandas as pd
import pytest
from golden import capture_magics, capture_tables, reader
from IPython.core.interactiveshell import InteractiveShell

from slurm_magics import columns
from slurm_magics.accounting import PipedQuery
from slurm_magics.errors import SlurmError
from slurm_magics.frames import UnreadColumn
from slurm_magics.queries import Query, plan
from slurm_magics.usage import parse_sstat, sample_command
from slurm_magics.values import Kind
from support.answers import frame_of
from support.dtypes import DTYPES
from support.slurm_commands import Commands

UTC = ZoneInfo("UTC")
# These lack what a newer Slurm has.
OLDER = {"slurm-20.11", "slurm-22.05"}
_LATER = {"sreport_qos", "sacctmgr_instance"}
CASES = [(name, folder) for name in capture_tables.QUERIES for folder in reader.VERSIONS]
REFUSED = [(name, folder) for name, folder in CASES if name in _LATER and folder.name in OLDER]
ANSWERED = [case for case in CASES if case not in REFUSED]
SHOWN = [(name, folder) for name, folder in ANSWERED if name.startswith("sacctmgr")]
KINDS = {
    "sshare": columns.SSHARE, "sstat": {**columns.SSTAT, "Step": Kind.WORD}, "sreport": columns.SREPORT,
    "sacctmgr": columns.SACCTMGR,
}  # fmt: skip
each_version = pytest.mark.parametrize("folder", reader.VERSIONS, ids=lambda folder: folder.name)


def str_of_case(part: object) -> str:
    """A table's name, or a folder's."""
    return part.name if isinstance(part, Path) else str(part)


def golden(name: str, folder: Path, query: Query) -> bytes:
    """What Slurm answered to this question."""
    captured = reader.record(f"tables_{name}", folder)
    asked = (captured["argv"], captured["environ"])
    assert asked == (list(query.argv), query.environ), "the question has changed: capture again"
    return reader.golden(f"tables_{name}", folder).stdout.encode("utf-8", "surrogateescape")


def frame(name: str, folder: Path) -> pd.DataFrame:
    """The frame of a capture, read as the magics read it."""
    tool, *words = reader.record(f"tables_{name}", folder)["asked"]
    query = plan(tool, words, {}, capture_magics.MARK)
    assert query is not None
    answer = golden(name, folder, query)
    if reader.golden(f"tables_{name}", folder).exit_code:
        assert isinstance(query, PipedQuery)
        assert query.older is not None
        name, query = f"{name}_older", query.older
        answer = golden(name, folder, query)
    if isinstance(query, PipedQuery) and (instead := query.instead(answer)):
        query, answer = instead, golden(f"{name}_wide", folder, instead)
    return frame_of(query, answer)


@pytest.mark.parametrize(("name", "folder"), ANSWERED, ids=str_of_case)
def test_every_captured_answer_is_read_without_a_warning(name: str, folder: Path) -> None:
    """No column stays text for want of understanding, and no row is lost."""
    with warnings.catch_warnings():
        warnings.simplefilter("error", UnreadColumn)
        found = frame(name, folder)
    empty = {"sprio_none", "sacctmgr_federation", "sacctmgr_wckey", "sacctmgr_instance"}
    assert (len(found) == 0) == (name in empty)


@pytest.mark.parametrize(
    ("name", "folder"), [case for case in ANSWERED if not case[0].startswith("sprio")], ids=str_of_case
)
def test_each_column_has_its_type(name: str, folder: Path) -> None:
    """The one that the reference promises. What a report counts is a number, whatever its heading is."""
    tool = name.split("_")[0]
    for heading, dtype in frame(name, folder).dtypes.map(str).items():
        rest = ("Int64", "Float64") if tool == "sreport" else DTYPES[Kind.TEXT]
        kind = KINDS[tool].get(str(heading))
        assert dtype in (DTYPES[kind] if kind else rest), heading


@pytest.mark.parametrize(("name", "folder"), SHOWN, ids=str_of_case)
def test_sacctmgrs_own_columns_are_shown(name: str, folder: Path) -> None:
    """We name the fields ourselves, and they are those that sacctmgr would have shown.

    Those that it shows in newer versions are there in older ones, too, as far as these know them.
    """
    own = reader.record("tables_headings", folder)["headings"][name].rstrip("|").split("|")
    shown = [heading for heading in frame(name, folder).columns if heading != "Level"]
    later = set(shown) - set(own) if folder.name in OLDER else set()
    assert later <= {"MaxTRESRunMinsPA", "MaxTRESRunMinsPU", "Flags"}
    assert [heading for heading in shown if heading not in later] == own


@pytest.mark.parametrize(("name", "folder"), REFUSED, ids=str_of_case)
def test_what_an_older_slurm_does_not_have_is_refused(name: str, folder: Path) -> None:
    """It says so, and ends with an exit code: there is no table that could be mistaken for one."""
    refusal = reader.golden(f"tables_{name}", folder)
    assert refusal.exit_code == 1
    assert re.search("Unknown field|No valid entity", refusal.stderr)


@each_version
def test_names_with_pipes_and_line_ends_are_rows_of_their_own(folder: Path) -> None:
    """Slurm lets staff call accounts, QOS, servers and reservations so; descriptions cannot forge a row."""
    accounts = frame("sacctmgr_account", folder).set_index("Account")
    assert accounts.loc["pi|pe", "Descr"] == "de|sc\nforged|row|here"
    assert accounts.loc["new\nline", "Descr"] == "x"
    assert "forged" not in accounts.index
    assert "q\nos" in set(frame("sacctmgr_qos_format", folder)["Name"])
    assert frame("sacctmgr_resource", folder)["Server"].tolist() == ["s|v\nx"]
    assert "re|as\non|x" in set(frame("sacctmgr_event", folder)["Reason"])
    assert "pi|pe" in set(frame("sshare_clusters", folder)["Account"])


@each_version
def test_the_columns_of_sacctmgr_have_types(folder: Path) -> None:
    """Times with zone, durations, counts, categories; the parent's share is no number."""
    qos = frame("sacctmgr_qos_format", folder).set_index("Name").loc["q\nos"]
    assert qos["MaxWall"] == pd.Timedelta(days=2, hours=3)
    assert (qos["GraceTime"], qos["MaxJobsPU"]) == (pd.Timedelta(seconds=90), 7)
    events = frame("sacctmgr_event", folder)
    assert str(events["TimeStart"].dtype) == "datetime64[s, UTC]"
    assert events["TimeEnd"].isna().any()
    assert str(events["State"].dtype) == "category"
    reservations = frame("sacctmgr_reservation", folder).dtypes.map(str)
    assert reservations["UnusedWall"] == "timedelta64[ms]"
    tree = frame("sacctmgr_assoc_tree", folder).set_index("User")
    assert tree.loc["we|ird", "Share"] is pd.NA
    assert (tree.loc["bob", "Account"], tree.loc["bob", "Share"]) == ("physics", 1)


@each_version
def test_every_version_tells_the_same_of_the_same(folder: Path) -> None:
    """The accounts, people, associations and QOS that each of them was given; and what they have used."""
    accounts = frame("sacctmgr_account", folder)
    assert {"root", "physics", "chemistry", "service", "pi|pe", "new\nline"} == set(accounts["Account"])
    users = frame("sacctmgr_user", folder).set_index("User")
    assert len(users) == 12
    assert users.loc["slurmwatch"].astype(str).tolist() == ["service", "Operator"]
    associations = frame("sacctmgr_assoc", folder)
    found = associations[["Cluster", "Account", "User", "Share", "QOS"]].astype(str).to_numpy().tolist()
    assert sorted(found) == [
        ["demo", "chemistry", "", "1", "normal"],
        ["demo", "chemistry", "alice", "1", "normal"],
        ["demo", "service", "", "1", "normal"],
        ["demo", "service", "slurmwatch", "1", "normal"],
    ]
    resource = frame("sacctmgr_resource", folder).iloc[0]
    shares = [resource[name] for name in resource.index if "Allo" in name]  # with and without a %
    assert (resource["Name"], resource["Count"], shares) == ("ma|t", 5, [50, 50])
    cluster = frame("sacctmgr_cluster", folder).iloc[0]
    assert (cluster["ControlPort"], cluster["Share"], cluster["QOS"]) == (6817, 1, "normal")
    long = frame("sshare_long", folder).set_index("Account")
    assert long.loc["physics", "NormUsage"] == 1
    assert long.loc["chemistry", "LevelFS"] == float("inf")
    assert long.loc["physics", "TRESRunMins"].startswith("cpu=60,mem=61440,")
    assert frame("sacctmgr_tres", folder).set_index("ID").loc[1001].tolist() == ["gres", "gpu"]


@each_version
def test_the_tree_of_shares_has_levels(folder: Path) -> None:
    """Accounts without the blanks before them, and how deep they are."""
    found = frame("sshare_clusters", folder)
    rows = found[found["Account"] == "physics"]
    assert rows["Level"].tolist() == [1]
    assert str(found["Account"].dtype) == "category"
    types = frame("sshare_long", folder).dtypes.map(str)
    assert {types[name] for name in ("NormShares", "NormUsage", "EffectvUsage", "FairShare", "LevelFS")} == {
        "Float64"
    }
    assert {types[name] for name in ("Level", "RawShares", "RawUsage")} == {"Int64"}


@each_version
def test_priorities_are_numbers(folder: Path) -> None:
    """A partition's name and its worth are columns of their own; normalized ones are parts of one."""
    found = frame("sprio", folder)
    parts = ["SITE", "AGE", "ASSOC", "FAIRSHARE", "JOBSIZE", "PARTITION_PRIORITY", "QOS"]
    assert set(found[["PRIORITY", "NICE", *parts]].dtypes.map(str)) == {"Int64"}
    assert found["JOB"].astype(str).tolist() == found["JOBID"].tolist()
    assert set(found["PARTITION"]) == {"cpu"}
    assert set(frame("sprio_normalized", folder)[["PRIORITY", "AGE"]].dtypes.map(str)) == {"Float64"}
    assert frame("sprio_weights", folder)["FAIRSHARE"].tolist() == [10000]
    assert list(frame("sprio_format", folder).columns) == ["JOBID", "PARTITION_PRIORITY", "PARTITION", "TRES"]
    assert list(frame("sprio_none", folder).columns) == list(found.columns)
    # Slurm adds up fractions, and of TRES this has two that count.
    whole = found[parts].sum(axis=1) + 12 - found["NICE"]
    assert (whole - found["PRIORITY"]).abs().max() <= len(parts)
    assert (found["NICE"].tolist(), found["TRES"].tolist()) == ([5], ["cpu=6,mem=6"])


@each_version
def test_sstat_knows_steps_and_sizes(folder: Path) -> None:
    """Ids in parts, bytes, durations."""
    found = frame("sstat", folder)
    assert found["Step"].tolist() == ["batch"]
    assert found["MaxRSS"].iloc[0] > 1_000_000
    assert found["AveCPU"].dtype.kind == "m"
    assert found["NTasks"].tolist() == [1]
    captured = reader.record("tables_sample", folder)
    assert captured["argv"] == list(sample_command(str(found["Job"].iloc[0])))
    sample = parse_sstat(reader.golden("tables_sample", folder).stdout, 1.0)
    assert sample.memory_bytes > 1_000_000
    assert 0 <= sample.cpu_s < 5


@each_version
def test_a_report_keeps_its_title(folder: Path) -> None:
    """The period in the cluster's time zone, and the unit."""
    title = frame("sreport_utilization", folder).attrs["title"]
    assert title.startswith("Cluster Utilization 20")
    assert title.endswith("\nUsage reported in CPU Minutes")
    assert "+00:00 - 20" in title
    reservations = frame("sreport_reservations", folder)
    assert "re|s" in set(reservations["Name"])
    assert str(reservations["Start"].dtype) == "datetime64[s, UTC]"


@each_version
def test_used_time_and_its_part_are_columns_of_their_own(folder: Path) -> None:
    """Of `-t HourPer` two numbers, of `-t percent` one, without the sign."""
    top = frame("sreport_top", folder).dtypes.map(str)
    assert (top["Used"], top["Used %"]) == ("Int64", "Float64")
    tres = frame("sreport_tres", folder)
    assert str(tres["Used"].dtype) == "Float64"
    assert set(tres["TRES Name"]) == {"cpu", "mem"}
    sizes = frame("sreport_sizes", folder)
    assert sizes["% of cluster"].tolist() == [100]
    assert frame("sreport_sizes_percent", folder)["0-49 CPUs"].tolist() == [100]


@each_version
def test_people_may_have_pipes_in_their_proper_names(folder: Path) -> None:
    """The password file lets them."""
    found = frame("sreport_accounts", folder).set_index("Login")
    assert found.loc["bob", "Proper Name"] == "Bob|by"
    assert found.loc["bob", "Used"] > 0


@pytest.mark.parametrize(
    "line",
    [
        "sacctmgr show runawayjobs", "sacctmgr show problem", "sacctmgr show stats", "sacctmgr show t",
        "sacctmgr dump demo", "sacctmgr --help", "sacctmgr", "sreport", "sreport --help", "sreport cluster",
        "sprio --help", "sshare -e", "sstat --helpformat", "sstat -h",
    ],
)  # fmt: skip
def test_what_is_no_table_stays_text(line: str) -> None:
    """Help, what sacctmgr would ask about, words that mean several things, no report at all."""
    tool, *words = line.split()
    assert plan(tool, words, {}, "MARK") is None


@pytest.mark.parametrize(
    ("report", "field"),
    [("acc", "Login"), ("AccountUtilizationBy", "Login"), ("accountutilizationbyu", "Login"),
     ("aq", "QOS"), ("AccountUtilizationByQ", "QOS")],
)  # fmt: skip
def test_a_report_may_be_abbreviated(report: str, field: str) -> None:
    """As Slurm takes it: what a newer one refuses as ambiguous has a meaning in an older one."""
    query = plan("sreport", ["cluster", report], {}, "MARK")
    assert query is not None
    assert query.argv[-1].startswith(f"format=Cluster%255,Account%255,{field}%255,")


def test_users_own_options_go_along() -> None:
    """Their columns in their order; what only shapes the text is ours."""
    query = plan("sshare", ["-n", "-P", "-u", "alice", "-o", "user%5,account"], {}, "MARK")
    assert query is not None
    assert query.argv == ("sshare", "-u", "alice", "--parsable",
                          "--format=user%255,account%255,user%254,account%254")  # fmt: skip
    query = plan("sacctmgr", ["-n", "list", "user", "format=user%5", "where", "name=bob"], {}, "MARK")
    assert query is not None
    assert query.argv == ("sacctmgr", "list", "user", "where", "name=bob", "--parsable",
                          "format=user%255,user%254")  # fmt: skip
    for tool, words in (("sshare", ["-h"]), ("sshare", ["--no"]), ("sstat", ["--noh"]), ("sstat", ["-naj1"])):
        query = plan(tool, words, {}, "MARK")
        assert query is not None
        assert not any("n" in word or "-h" in word for word in query.argv[1:] if not word.startswith("--f"))
    query = plan("sprio", ["-l", "-j", "42"], {"SPRIO_FORMAT": "%i"}, "MARK")
    assert query is not None
    assert query.argv == ("sprio", "-j", "42")


@pytest.mark.parametrize("tool", ["squeue", "sinfo", "sacct", "sprio", "sshare", "sstat"])
@pytest.mark.parametrize("shown", range(len("--noh"), len("--noheader") + 1))
def test_headings_are_always_asked_for(tool: str, shown: int) -> None:
    """However --noheader is abbreviated: a job's row would otherwise be taken for the headings."""
    query = plan(tool, ["--noheader"[:shown], "-j", "42"], {}, "MARK")
    assert query is not None
    assert not any(word.startswith("--no") for word in query.argv)


def test_a_field_that_sprio_does_not_have_is_refused() -> None:
    """With those that it has; sprio itself would leave it out and say so."""
    with pytest.raises(SlurmError, match="no field %Z"):
        plan("sprio", ["-o", "%i %Z"], {}, "MARK")


@each_version
def test_the_time_of_the_cluster_adds_up(folder: Path) -> None:
    """Of each column of its utilization it is known what it counts, whatever that version calls it."""
    names = {"Reserved": "Planned", "Reserved %": "Planned %"}
    found = frame("sreport_utilization", folder).rename(columns=names).iloc[0]
    by_tres = frame("sreport_utilization_tres", folder).rename(columns=names)
    parts = ["Allocated", "Down", "PLND Down", "Idle", "Planned"]
    if folder.name == "slurm-24.11":  # it shows the same column in the place of another
        assert found["Planned"] == found["Planned_2"]
        found, by_tres = found.drop("Planned_2"), by_tres.drop(columns=["Planned_2", "Planned_2 %"])
        parts.remove("PLND Down")
    assert set(found.index) == {"Cluster", *parts, "Reported"}
    assert abs(found[parts].sum() - found["Reported"]) <= len(parts)
    assert found["Down"] > 0  # the node that is drained
    assert abs(frame("sreport_accounts", folder)["Used"].iloc[0] - found["Allocated"]) <= 1
    assert by_tres["TRES Name"].tolist() == ["cpu", "gres/gpu"]
    assert (by_tres[[f"{part} %" for part in parts]].sum(axis=1) - 100).abs().max() < 0.1


_AS_CAPTURED = """#!{python}
import json, pathlib, sys
asked = [pathlib.Path(sys.argv[0]).name, *sys.argv[1:]]
for path in pathlib.Path({folder!r}).glob("tables_*.json"):
    answer = json.loads(path.read_text())
    if answer["argv"] == asked:
        sys.stdout.write("\\n".join(answer["stdout"]))
        sys.stderr.write("\\n".join(answer["stderr"]))
        sys.exit(answer["exit_code"])
sys.exit("nobody asked so when this was captured")
"""


@each_version
def test_an_older_slurm_is_asked_for_what_it_has(
    folder: Path, shell: InteractiveShell, commands: Commands
) -> None:
    """In the magic: the newest fields first, then those that it knows, then in columns of a fixed width."""
    program = commands.folder / "sacctmgr"
    program.write_text(_AS_CAPTURED.format(python=sys.executable, folder=str(folder)))
    program.chmod(0o755)
    found = shell.run_cell("%sacctmgr show resource withclusters").result
    assert found["Server"].tolist() == ["s|v\nx"]
    assert ("LastConsumed" in found) == (folder.name not in OLDER)
