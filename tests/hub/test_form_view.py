"""What the form shows and what it reads, without a hub."""

from __future__ import annotations

import logging
import sys
from pathlib import Path

import pytest

from hpchub.core.job import Association
from hpchub.errors import AccountProblem, HostUnreachable, InvalidRequest, NotAllowed, StartFailed
from hpchub.hub.form import LinkFillsForm, LinksAreNoErrors, flat
from hpchub.hub.form_view import notices, view_of
from hpchub.hub.known import Known, clusters_in
from hpchub.hub.refusals import spawn_exception


def test_defaults_fit_the_partition(clusters_dir: Path) -> None:
    """The default time is cut to what the chosen partition allows; what was typed is left alone."""
    clusters = clusters_in(clusters_dir)
    shown = view_of(clusters, Known(), {"partition": "gpu", "memory": "99G"}, {})["values"]
    assert shown["time"] == "00:20:00"
    assert shown["memory"] == "99G"


def test_accounts_know_their_partitions(clusters_dir: Path) -> None:
    """An account that is bound to a partition is offered there only."""
    rows = [Association(account="any"), Association(account="bound", partition="gpu", is_default=True)]
    view = view_of(clusters_in(clusters_dir), Known({"demo": rows}), {}, {})
    assert {row["name"]: row["partitions"] for row in view["accounts"]} == {
        "any": ["cpu", "gpu"],
        "bound": ["gpu"],
    }
    assert view["accounts_known"] is True
    assert view["default_account"] == "bound"


def test_caps_and_limits_are_said(tmp_path: Path, clusters_dir: Path) -> None:
    """Beside the placement, where the cluster file has some."""
    text = (clusters_dir / "demo.toml").read_text()
    assert text.count("[placements.login]\n") == 1
    limited = '[placements.login]\nservers_per_user = 2\nmemory = "8G"\ncpus = 4\n'
    (tmp_path / "demo.toml").write_text(text.replace("[placements.login]\n", limited))
    plain, said = (
        {row["value"]: row["text"] for row in view_of(clusters_in(folder), Known(), {}, {})["placements"]}
        for folder in (clusters_dir, tmp_path)
    )
    assert (
        said["login"]
        == f"{plain['login']} Up to 4 CPUs. Up to 8G of memory. At most 2 of your servers at once."
    )
    assert said["compute"] == plain["compute"]


@pytest.mark.parametrize(
    ("problem", "words"),
    [
        (NotAllowed("no session"), "Log out and in again"),
        (AccountProblem("carol has no account."), "carol has no account. Login nodes still work."),
        (HostUnreachable("Nobody answers."), "could not be asked for. Nobody answers."),
    ],
)
def test_notices_say_what_could_not_be_asked(clusters_dir: Path, problem: Exception, words: str) -> None:
    """Each reason why the accounts are not known has its words, and what still works is said."""
    (line,) = notices(clusters_in(clusters_dir), Known({}, {"demo": problem}))
    assert words in line


def test_cluster_files_are_read_again_when_changed(tmp_path: Path, clusters_dir: Path) -> None:
    """A changed cluster file counts at the next form, without a restart."""
    text = (clusters_dir / "demo.toml").read_text()
    (tmp_path / "demo.toml").write_text(text)
    assert clusters_in(tmp_path)["demo"].title == "Demo"
    (tmp_path / "demo.toml").write_text(text.replace('title = "Demo"', 'title = "Other name"'))
    assert clusters_in(tmp_path)["demo"].title == "Other name"


def test_forms_lists_become_single_values() -> None:
    """Empty fields are left out; doubled and unknown ones stay, to be refused by name."""
    form = {"cpus": ["2"], "account": [""], "time": [" 00:10:00 "], "memory": ["1G", "2G"], "_xsrf": ["t"]}
    assert flat(form) == {"cpus": "2", "time": "00:10:00", "memory": ["1G", "2G"]}


def test_refusals_are_escaped_and_complete() -> None:
    """Pages get everything, escaped; the API gets the message, the hint and the log's place."""
    refusal = spawn_exception(
        StartFailed("It died.", "Look.", log_tail="<script>", log_path="/home/a/server.log")
    )
    assert (refusal.status_code, refusal.reason) == (409, "start_failed")
    assert refusal.jupyterhub_message == "It died. Look. The whole log is in /home/a/server.log"
    assert "&lt;script&gt;" in refusal.jupyterhub_html_message
    assert "<script>" not in refusal.jupyterhub_html_message
    refused = spawn_exception(InvalidRequest("cpus: no", fields={"cpus": "<no>"}))
    assert refused.status_code == 422
    assert "<strong>cpus</strong>: &lt;no&gt;" in refused.message_html


def test_only_links_are_left_out_of_the_log() -> None:
    """The filter drops the record of a link that fills the form, and no other."""

    def kept(error: Exception) -> bool:
        try:
            raise error
        except Exception:
            record = logging.LogRecord("hub", logging.ERROR, "", 0, "failed", None, sys.exc_info())
        return LinksAreNoErrors().filter(record)

    assert not kept(LinkFillsForm())
    assert kept(ValueError())
