"""Captures again what Slurm answers to %sprio, %sshare, %sstat, %sreport, %sacctmgr: `… DEMO_DIR`.

Boot a cluster for it (`hpchub demo up --cluster-only --dir DIR`); afterwards it has accounts with pipes and
line ends in their names, and other priorities. It waits for the end of the hour, when Slurm adds up for its
reports what was used. `capture_tables.py --tree TREE` asks the Slurm of another Debian release: see README.md
beside this file.
"""

from __future__ import annotations

import argparse
import subprocess
import sys
import time
from collections.abc import Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).parents[1]))

from golden import reader
from golden.capture_magics import MARK, Run, run, version_folder
from golden.other_slurm import OtherSlurm

from slurm_magics.accounting import PipedQuery
from slurm_magics.queries import Query, plan
from slurm_magics.usage import sample_command

# Its numbers only; JOB is one that runs.
QUERIES: Mapping[str, tuple[str, tuple[str, ...]]] = {
    "sprio": ("sprio", ()),
    "sprio_normalized": ("sprio", ("-n",)),
    "sprio_weights": ("sprio", ("-w",)),
    "sprio_format": ("sprio", ("-h", "-o", "%.15i %P %r %T")),
    "sprio_none": ("sprio", ("-u", "carol")),
    "sshare": ("sshare", ("-A", "pi|pe,chemistry")),
    "sshare_long": ("sshare", ("-l", "-m", "-A", "physics,chemistry")),
    "sshare_clusters": ("sshare", ("-M", "demo", "-o", "account,user,rawshares")),
    "sstat": ("sstat", ("-a", "-j", "JOB")),
    "sstat_format": ("sstat", ("-j", "JOB.batch", "--format", "JobID,AveCPU,MaxRSS")),
    "sreport_utilization": ("sreport", ("cluster", "utilization", "start=now-3hours", "end=now")),
    "sreport_accounts": ("sreport", ("cluster", "AccountUtilizationByUser", "start=now-3hours", "end=now")),
    "sreport_top": ("sreport", ("-t", "HourPer", "user", "top", "start=now-3hours", "end=now")),
    "sreport_tres": (
        "sreport",
        (
            "-t",
            "percent",
            "-T",
            "cpu,mem",
            "cluster",
            "UserUtilizationByAccount",
            "start=now-3hours",
            "end=now",
        ),
    ),
    "sreport_sizes": ("sreport", ("job", "sizesbyaccount", "start=now-3hours", "end=now")),
    "sreport_sizes_percent": (
        "sreport",
        ("-t", "percent", "job", "sizesbyaccount", "start=now-3hours", "end=now"),
    ),
    "sreport_utilization_tres": (
        "sreport",
        ("-T", "cpu,gres/gpu", "-t", "hourper", "cluster", "utilization", "start=now-3hours", "end=now"),
    ),
    "sreport_qos": ("sreport", ("cluster", "AccountUtilizationByQOS", "start=now-3hours", "end=now")),
    "sreport_reservations": ("sreport", ("reservation", "utilization", "start=now-3hours", "end=now")),
    "sacctmgr_account": ("sacctmgr", ("show", "account")),
    "sacctmgr_account_assoc": ("sacctmgr", ("list", "accounts", "withassoc", "withcoord", "names=chemistry")),
    "sacctmgr_assoc": ("sacctmgr", ("show", "assoc", "account=chemistry,service")),
    "sacctmgr_assoc_tree": (
        "sacctmgr",
        (
            "show",
            "assoc",
            "tree",
            "where",
            "account=physics",
            "user=bob,we|ird",
            "format=account%5,user,share",
        ),
    ),
    "sacctmgr_cluster": ("sacctmgr", ("show", "cluster", "withfed")),
    "sacctmgr_event": ("sacctmgr", ("show", "event", "start=now-1day")),
    "sacctmgr_event_cluster": ("sacctmgr", ("show", "event", "events=cluster")),
    "sacctmgr_federation": ("sacctmgr", ("show", "federation")),
    "sacctmgr_qos": ("sacctmgr", ("-n", "show", "qos", "names=normal")),
    "sacctmgr_qos_format": (
        "sacctmgr",
        ("show", "qos", "format=name,maxwall%3,gracetime,maxjobspu"),
    ),
    "sacctmgr_resource": ("sacctmgr", ("show", "resource", "withclusters")),
    "sacctmgr_reservation": ("sacctmgr", ("show", "reservation")),
    "sacctmgr_transaction": ("sacctmgr", ("show", "transaction", "actors=slurm")),
    "sacctmgr_tres": ("sacctmgr", ("show", "tres")),
    "sacctmgr_user": ("sacctmgr", ("show", "user")),
    "sacctmgr_transaction_assoc": ("sacctmgr", ("show", "transaction", "withassocinfo", "actors=slurm")),
    "sacctmgr_user_coordinator": ("sacctmgr", ("show", "user", "alice", "withassoc", "withcoord")),
    "sacctmgr_instance": ("sacctmgr", ("show", "instance", "start=now-1day")),
    "sacctmgr_user_assoc": ("sacctmgr", ("show", "user", "alice", "withassoc")),
    "sacctmgr_wckey": ("sacctmgr", ("show", "wckey")),
}
STRANGE: Sequence[Sequence[str]] = (
    ("sacctmgr", "-i", "add", "account", "pi|pe", "description=de|sc\nforged|row|here", "organization=o|r"),
    ("sacctmgr", "-i", "add", "account", "new\nline", "description=x"),
    ("sacctmgr", "-i", "add", "qos", "q\nos"),
    ("sacctmgr", "-i", "modify", "qos", "q\nos", "set", "maxwall=2-03:00:00", "gracetime=90",
     "maxjobsperuser=7"),
    ("sacctmgr", "-i", "add", "user", "we|ird", "account=physics", "fairshare=parent"),
    ("sacctmgr", "-i", "add", "resource", "name=ma|t", "server=s|v\nx", "count=5", "type=license",
     "cluster=demo", "percentallowed=50"),
    ("scontrol", "update", "node=c2", "state=drain", "reason=re|as\non|x"),
    ("scontrol", "create", "reservation", "reservationname=re|s", "start=now", "duration=10", "users=alice",
     "nodes=c2", "flags=ignore_jobs"),
    ("sed", "-i", "s/^bob:x:\\([0-9]*:[0-9]*\\):[^:]*:/bob:x:\\1:Bob|by:/", "/etc/passwd"),
)  # fmt: skip
PRIORITIES = """
PriorityType=priority/multifactor
PriorityWeightAge=1000
PriorityWeightFairshare=10000
PriorityWeightJobSize=500
PriorityWeightPartition=100
PriorityWeightQOS=200
PriorityWeightTRES=CPU=100,Mem=200,GRES/gpu=300
"""
_RECONFIGURE = f"""
grep -q ^PriorityType /etc/slurm/slurm.conf && exit
cat >>/etc/slurm/slurm.conf <<END{PRIORITIES}END
scontrol shutdown slurmctld
sleep 2
slurmctld </dev/null >/dev/null 2>&1
sleep 3
"""
_USED = ("sreport", "--noheader", "--parsable2", "user", "top", "start=now-1hour", "end=now")


def main() -> None:
    """Make a cluster strange and ask it every question."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n\n")[0])
    parser.add_argument("demo", type=Path, nargs="?", help="the folder of a running demo cluster")
    parser.add_argument("--tree", type=Path, help="another Debian release, unpacked")
    options = parser.parse_args()
    if options.tree:
        with OtherSlurm(options.tree, settings=PRIORITIES) as slurm:
            make_strange(slurm.run)
            use_an_hour(slurm.run)
            capture(slurm.run, "tests/golden/other_slurm.py, as root")
    else:
        enter = (sys.executable, "-m", "hpchub.cli", "demo", "exec", "--dir", str(options.demo), "ctl", "--")
        subprocess.run((*enter, "sh", "-c", _RECONFIGURE), check=True)
        in_demo = partial(run, options.demo)
        make_strange(in_demo)
        use_an_hour(in_demo)
        capture(in_demo, "hpchub demo exec login1 --user root -- env ENVIRON ARGV")


def make_strange(run: Run) -> None:
    """Names with pipes and line ends, wherever that version takes them."""
    for argv in STRANGE:
        done = run(argv, user="root")
        if done.exit_code:
            print(f"refused: {argv}: {done.stdout}{done.stderr}")


def use_an_hour(run: Run, timeout_s: float = 4000) -> None:
    """Let jobs run until slurmdbd has added up an hour in which they did."""
    ask = ("sbatch", "--nodelist=c1", "--cpus-per-task=4", "--time=02:00:00", *_quiet(7000))
    users = ("alice", "bob")
    for user in users:
        run(ask, user=user)
    end = time.monotonic() + timeout_s
    while not run(_USED, user="root").stdout.strip():
        if time.monotonic() > end:
            raise TimeoutError("slurmdbd did not add up what was used")
        time.sleep(5)
    for user in users:
        run(("scancel", f"--user={user}"), user=user)
    time.sleep(5)


def capture(run: Run, captured: str) -> None:
    """Fill the queue, and keep the answer to every question."""
    job = run(("sbatch", "--parsable", "--nodelist=c1", *_quiet(300))).stdout.strip()
    run(("sbatch", "--exclusive", "--nodelist=c1", "--nice=5", *_quiet(300)))
    time.sleep(6)
    folder = version_folder(run)
    version = run(("sbatch", "--version")).stdout.split()[1]
    facts: dict[str, Any] = {"slurm": version, "captured": captured, "folder": folder}
    headings = {}
    for name, (tool, words) in QUERIES.items():
        asked = [word.replace("JOB", job) if word.startswith("JOB") else word for word in words]
        query = plan(tool, asked, {}, MARK)
        if query is None:
            raise AssertionError(name)
        keep(run, f"tables_{name}", query, asked=[tool, *asked], **facts)
        if tool == "sacctmgr":
            own = run((tool, "--parsable", *(word for word in asked if word != "-n")), user="root")
            headings[name] = "" if own.exit_code else own.stdout.split("\n")[0]
    sample = sample_command(job)
    reader.write("tables_sample", run(sample, user="root"), argv=sample, **facts)
    reader.write("tables_headings", run(("true",)), argv=("true",), headings=headings, **facts)
    run(("scancel", "--user=alice"))


def keep(run: Run, name: str, query: Query, **facts: Any) -> None:
    """One answer, and the one that is asked for instead, where it cannot be read for certain."""
    result = run(query.argv, user="root", environ=query.environ)
    reader.write(name, result, argv=query.argv, environ=query.environ, **facts)
    print(f"{name}: exit {result.exit_code}, {len(result.stdout)} + {len(result.stderr)} characters")
    if not isinstance(query, PipedQuery):
        return
    if result.exit_code:
        if query.older:
            keep(run, f"{name}_older", query.older, **facts)
        return
    instead = query.instead(result.stdout.encode("utf-8", "surrogateescape"))
    if instead is not None:
        keep(run, f"{name}_wide", instead, **facts)


def _quiet(seconds: int) -> tuple[str, ...]:
    return ("--output=/dev/null", "--wrap", f"sleep {seconds}")


if __name__ == "__main__":
    main()
