"""Captures again what Slurm answers to %sprio, %sshare, %sstat, %sreport, %sacctmgr: `… DEMO_DIR`.

Boot a cluster for it (`hpchub demo up --cluster-only --dir DIR`); afterwards it has accounts with pipes and
line ends in their names, and other priorities. The reports have rows where jobs ran in a full hour before.
"""

from __future__ import annotations

import argparse
import subprocess
import sys
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).parents[1]))

from golden import reader
from golden.capture_magics import MARK, run

from slurm_magics.accounting import PipedQuery
from slurm_magics.queries import Query, plan

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
_PRIORITIES = """
grep -q ^PriorityType /etc/slurm/slurm.conf && exit
cat >>/etc/slurm/slurm.conf <<END
PriorityType=priority/multifactor
PriorityWeightAge=1000
PriorityWeightFairshare=10000
PriorityWeightJobSize=500
PriorityWeightPartition=100
PriorityWeightQOS=200
PriorityWeightTRES=CPU=100,Mem=200,GRES/gpu=300
END
scontrol shutdown slurmctld
sleep 2
slurmctld </dev/null >/dev/null 2>&1
sleep 3
"""


def main() -> None:
    """Make the cluster strange and ask every question."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n\n")[0])
    parser.add_argument("demo", type=Path, help="the folder of a running demo cluster")
    folder = parser.parse_args().demo
    enter = (sys.executable, "-m", "hpchub.cli", "demo", "exec", "--dir", str(folder), "ctl", "--")
    subprocess.run((*enter, "sh", "-c", _PRIORITIES), check=True)
    quiet = ("--output=/dev/null", "--wrap", "sleep 300")
    job = run(folder, ("sbatch", "--parsable", "--nodelist=c1", *quiet)).stdout.strip()
    run(folder, ("sbatch", "--exclusive", "--nodelist=c1", "--nice=5", *quiet))
    for argv in STRANGE:
        run(folder, argv, user="root")
    time.sleep(6)
    version = run(folder, ("sbatch", "--version")).stdout.split()[1]
    how = "hpchub demo exec login1 --user root -- env ENVIRON ARGV"
    facts: dict[str, Any] = {"slurm": version, "captured": how}
    headings = {}
    for name, (tool, words) in QUERIES.items():
        asked = [word.replace("JOB", job) if word.startswith("JOB") else word for word in words]
        query = plan(tool, asked, {}, MARK)
        if query is None:
            raise AssertionError(name)
        capture(folder, f"tables_{name}", query, asked=[tool, *asked], **facts)
        if tool == "sacctmgr":
            own = run(folder, (tool, "--parsable", *(word for word in asked if word != "-n")), user="root")
            headings[name] = own.stdout.split("\n")[0]
    reader.write("tables_headings", run(folder, ("true",)), argv=("true",), headings=headings, **facts)
    run(folder, ("scancel", "--user=alice"))


def capture(folder: Path, name: str, query: Query, **facts: Any) -> None:
    """One answer, and the one that is asked for instead, where it cannot be read for certain."""
    result = run(folder, query.argv, user="root", environ=query.environ)
    reader.write(name, result, argv=query.argv, environ=query.environ, **facts)
    print(f"{name}: exit {result.exit_code}, {len(result.stdout)} + {len(result.stderr)} characters")
    if isinstance(query, PipedQuery):
        instead = query.instead(result.stdout.encode("utf-8", "surrogateescape"))
        if instead is not None:
            capture(folder, f"{name}_wide", instead, **facts)


if __name__ == "__main__":
    main()
