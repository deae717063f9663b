"""Frames of what sprio, sshare, sstat, sreport and sacctmgr of the real Slurm 22.05 answered."""

from __future__ import annotations

import warnings
from zoneinfo import ZoneInfo

import pandas as pd
import pytest
from golden import capture_magics, capture_tables, reader

from slurm_magics.accounting import PipedQuery
from slurm_magics.errors import SlurmError
from slurm_magics.frames import UnreadColumn
from slurm_magics.queries import plan

UTC = ZoneInfo("UTC")


def frame(name: str) -> pd.DataFrame:
    """The frame of a capture, read as the magics read it."""
    captured = reader.record(f"tables_{name}")
    tool, *words = captured["asked"]
    query = plan(tool, words, {}, capture_magics.MARK)
    assert query is not None
    assert captured["argv"] == list(query.argv), "the question has changed: capture again"
    assert captured["environ"] == query.environ, "the question has changed: capture again"
    answer = reader.golden(f"tables_{name}").stdout.encode("utf-8", "surrogateescape")
    if isinstance(query, PipedQuery) and (instead := query.instead(answer)):
        assert reader.record(f"tables_{name}_wide")["argv"] == list(instead.argv)
        query, answer = (
            instead,
            reader.golden(f"tables_{name}_wide").stdout.encode("utf-8", "surrogateescape"),
        )
    return query.frame(answer, UTC)[0]


@pytest.mark.parametrize("name", capture_tables.QUERIES)
def test_every_captured_answer_is_read_without_a_warning(name: str) -> None:
    """No column stays text for want of understanding, and no row is lost."""
    with warnings.catch_warnings():
        warnings.simplefilter("error", UnreadColumn)
        found = frame(name)
    empty = {"sprio_none", "sacctmgr_federation", "sacctmgr_wckey"}
    assert (len(found) == 0) == (name in empty)


@pytest.mark.parametrize("name", [name for name in capture_tables.QUERIES if name.startswith("sacctmgr")])
def test_sacctmgrs_own_columns_are_shown(name: str) -> None:
    """We name the fields ourselves, and they are those that sacctmgr would have shown."""
    own = reader.record("tables_headings")["headings"][name]
    shown = [heading for heading in frame(name).columns if heading != "Level"]
    assert "".join(f"{heading}|" for heading in shown) == own


def test_names_with_pipes_and_line_ends_are_rows_of_their_own() -> None:
    """Slurm lets staff call accounts, QOS, servers and reservations so; descriptions cannot forge a row."""
    accounts = frame("sacctmgr_account").set_index("Account")
    assert accounts.loc["pi|pe", "Descr"] == "de|sc\nforged|row|here"
    assert accounts.loc["new\nline", "Descr"] == "x"
    assert "forged" not in accounts.index
    assert "q\nos" in set(frame("sacctmgr_qos_format")["Name"])
    assert frame("sacctmgr_resource")["Server"].tolist() == ["s|v\nx"]
    assert "re|as\non|x" in set(frame("sacctmgr_event")["Reason"])
    assert "pi|pe" in set(frame("sshare_clusters")["Account"])


def test_the_columns_of_sacctmgr_have_types() -> None:
    """Times with zone, durations, counts, categories; the parent's share is no number."""
    qos = frame("sacctmgr_qos_format").set_index("Name").loc["q\nos"]
    assert qos["MaxWall"] == pd.Timedelta(days=2, hours=3)
    assert (qos["GraceTime"], qos["MaxJobsPU"]) == (pd.Timedelta(seconds=90), 7)
    events = frame("sacctmgr_event")
    assert str(events["TimeStart"].dtype) == "datetime64[s, UTC]"
    assert events["TimeEnd"].isna().any()
    assert str(events["State"].dtype) == "category"
    reservations = frame("sacctmgr_reservation").dtypes.map(str)
    assert reservations["UnusedWall"] == "timedelta64[ms]"
    tree = frame("sacctmgr_assoc_tree").set_index("User")
    assert tree.loc["we|ird", "Share"] is pd.NA
    assert (tree.loc["bob", "Account"], tree.loc["bob", "Share"]) == ("physics", 1)


def test_the_tree_of_shares_has_levels() -> None:
    """Accounts without the blanks before them, and how deep they are."""
    found = frame("sshare_clusters")
    rows = found[found["Account"] == "physics"]
    assert rows["Level"].tolist() == [1]
    assert str(found["Account"].dtype) == "category"
    types = frame("sshare_long").dtypes.map(str)
    assert {types[name] for name in ("NormShares", "NormUsage", "EffectvUsage", "FairShare", "LevelFS")} == {
        "Float64"
    }
    assert {types[name] for name in ("Level", "RawShares", "RawUsage")} == {"Int64"}


def test_priorities_are_numbers() -> None:
    """A partition's name and its worth are columns of their own; normalized ones are parts of one."""
    found = frame("sprio")
    parts = ["SITE", "AGE", "ASSOC", "FAIRSHARE", "JOBSIZE", "PARTITION_PRIORITY", "QOS"]
    assert set(found[["PRIORITY", "NICE", *parts]].dtypes.map(str)) == {"Int64"}
    assert found["JOB"].astype(str).tolist() == found["JOBID"].tolist()
    assert set(found["PARTITION"]) == {"cpu"}
    assert set(frame("sprio_normalized")[["PRIORITY", "AGE"]].dtypes.map(str)) == {"Float64"}
    assert frame("sprio_weights")["FAIRSHARE"].tolist() == [10000]
    assert list(frame("sprio_format").columns) == ["JOBID", "PARTITION_PRIORITY", "PARTITION", "TRES"]
    assert list(frame("sprio_none").columns) == list(found.columns)


def test_sstat_knows_steps_and_sizes() -> None:
    """Ids in parts, bytes, durations."""
    found = frame("sstat")
    assert found["Step"].tolist() == ["batch"]
    assert found["MaxRSS"].iloc[0] > 1_000_000
    assert found["AveCPU"].dtype.kind == "m"


def test_a_report_keeps_its_title() -> None:
    """The period in the cluster's time zone, and the unit."""
    title = frame("sreport_utilization").attrs["title"]
    assert title.startswith("Cluster Utilization 20")
    assert title.endswith("\nUsage reported in CPU Minutes")
    assert "+00:00 - 20" in title
    reservations = frame("sreport_reservations")
    assert "re|s" in set(reservations["Name"])
    assert str(reservations["Start"].dtype) == "datetime64[s, UTC]"


def test_used_time_and_its_part_are_columns_of_their_own() -> None:
    """Of `-t HourPer` two numbers, of `-t percent` one, without the sign."""
    top = frame("sreport_top").dtypes.map(str)
    assert (top["Used"], top["Used %"]) == ("Int64", "Float64")
    tres = frame("sreport_tres")
    assert str(tres["Used"].dtype) == "Float64"
    assert set(tres["TRES Name"]) == {"cpu", "mem"}
    assert "% of cluster" in frame("sreport_sizes")


def test_people_may_have_pipes_in_their_proper_names() -> None:
    """The password file lets them."""
    found = frame("sreport_accounts").set_index("Login")
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


def test_a_field_that_sprio_does_not_have_is_refused() -> None:
    """With those that it has; sprio itself would leave it out and say so."""
    with pytest.raises(SlurmError, match="no field %Z"):
        plan("sprio", ["-o", "%i %Z"], {}, "MARK")
