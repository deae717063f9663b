"""Captures again, from a running demo cluster, what Slurm answers: `capture.py DEMO_DIR`.

Boot a cluster for it (`hpchub demo up --cluster-only --dir DIR`) and throw it away afterwards: the
last captures stop its controller and its database. Takes about three minutes, for a job that runs
out of time.
"""

from __future__ import annotations

import argparse
import re
import subprocess
import sys
import time
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parents[1]))

from golden import reader

from hpchub.core.command import Command, CommandResult
from hpchub.core.job import JobId, Query
from hpchub.remote.slurm_query import FORCED_COMMAND
from hpchub.schedulers.slurm import Slurm
from hpchub.schedulers.slurm_partitions import partitions_command
from hpchub.schedulers.slurm_token import token_command
from support import demo as support_demo
from support.faults import daemon_dead

SLURM = Slurm()
VANISHED = JobId("99999")
# A notebook's name in the queue must not be able to forge a row: STYLE's rule, kept honest here.
FORGED_NAME = "--job-name=x\n1\x1fRUNNING\x1fc1\x1fNone"

REFUSED = {
    "account": ("--account=nope",),
    "partition": ("--partition=nope",),
    "memory": ("--mem=50G",),
    "cpus": ("--cpus-per-task=9",),
    "gpus": ("--partition=gpu", "--gres=gpu:3"),
    "gres": ("--gres=nope:1",),
    "time_word": ("--time=nope",),
    "reservation": ("--reservation=nope",),
    "option": ("--nope",),
    "pathname": (f"--comment={'x' * 2000}",),
}


class Demo:
    """Runs commands on the demo's login node and keeps what they answer."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.facts = {
            "slurm": self.run(("sbatch", "--version")).stdout.split()[1],
            "captured": "hpchub demo exec login1 --user USER -- ARGV",
        }

    def run(
        self, argv: Sequence[str], *, user: str = "alice", host: str = "login1", stdin: bytes = b""
    ) -> CommandResult:
        """One command as one person on one host."""
        demo = (sys.executable, "-m", "hpchub.cli", "demo", "exec", "--dir", str(self.folder), host)
        done = subprocess.run(
            (*demo, "--user", user, "--", *argv), input=stdin, capture_output=True, check=False
        )
        stdout, stderr = (text.decode("utf-8", "surrogateescape") for text in (done.stdout, done.stderr))
        return CommandResult(exit_code=done.returncode, stdout=stdout, stderr=stderr)

    def keep(self, name: str, command: Command, *, user: str = "alice", **facts: object) -> CommandResult:
        """Run and store."""
        result = self.run(command.argv, user=user, stdin=command.stdin)
        reader.write(name, result, argv=command.argv, user=user, **self.facts, **facts)
        print(f"{name}: exit {result.exit_code}, {len(result.stdout)} + {len(result.stderr)} characters")
        return result

    def submit(self, body: str, *options: str) -> JobId:
        """A job for later captures."""
        script = f"#!/bin/bash\n{body}\n".encode()
        return SLURM.parse_submit(self.run(("sbatch", "--parsable", *options), stdin=script))


def capture_submissions(demo: Demo) -> None:
    """One job that is taken, and each refusal."""
    script = "#!/bin/bash\n#SBATCH --time=00:02:00 --output=/dev/null\nsleep 1\n"
    demo.keep("sbatch_accepted", SLURM.submit_command(script))
    for name, options in REFUSED.items():
        argv = ("sbatch", "--parsable", *options)
        demo.keep(f"sbatch_refused_{name}", Command(argv=argv, stdin=script.encode()))
    demo.keep("sbatch_refused_no_association", SLURM.submit_command(script), user="carol")
    demo.keep("sinfo_partitions", partitions_command())
    demo.keep("sbatch_refused_not_a_script", SLURM.submit_command("not a script\n"))


def capture_states(demo: Demo) -> None:
    """Jobs in every state that a healthy cluster shows, in the queue and in the accounting."""
    quiet = ("--output=/dev/null",)
    jobs = {
        "timeout": demo.submit("sleep 600", "--time=00:01:00", *quiet),
        "completed": demo.submit("true", *quiet),
        "failed": demo.submit("exit 7", *quiet),
        "signalled": demo.submit("kill -SEGV $$", *quiet),
        "cancelled": demo.submit("sleep 600", *quiet),
        "cancelled_pending": demo.submit("sleep 600", "--hold", *quiet),
        "suspended": demo.submit("sleep 600", *quiet),
        "running": demo.submit("sleep 600", FORGED_NAME, *quiet),
    }
    time.sleep(4)
    jobs |= {
        "pending_resources": demo.submit("sleep 600", "--exclusive", "--nodes=2", "--time=08:00:00", *quiet),
        "pending_priority": demo.submit("sleep 600", "--exclusive", "--nodes=2", "--time=08:00:00", *quiet),
        "pending_time": demo.submit("true", "--time=09:00:00", *quiet),
        "pending_memory": demo.submit("true", "--partition=short", "--mem=5G", *quiet),
        "pending_nodes": demo.submit("true", "--nodes=3", *quiet),
        "pending_held": demo.submit("true", "--hold", *quiet),
        "pending_begin": demo.submit("true", "--begin=now+1hour", *quiet),
        "pending_array": demo.submit("true", "--array=1-9%2", "--hold", *quiet),
    }
    jobs["pending_dependency"] = demo.submit("true", f"--dependency=afterok:{jobs['running']}", *quiet)
    jobs["pending_never"] = demo.submit("true", f"--dependency=afterok:{jobs['failed']}", *quiet)
    demo.run(("scancel", jobs["cancelled"], jobs["cancelled_pending"]))
    demo.run(("scontrol", "suspend", jobs["suspended"]), user="root", host="ctl")
    print("waiting for a job to run out of time")
    while SLURM.parse_status(demo.run(SLURM.status_command([jobs["timeout"]]).argv))[
        jobs["timeout"]
    ].native in {
        "RUNNING",
        "COMPLETING",
    }:
        time.sleep(5)
    everything = list(jobs.values())
    demo.keep("squeue_states", SLURM.status_command([*everything, VANISHED]), jobs=jobs)
    demo.keep("squeue_one", SLURM.status_command([jobs["running"]]), jobs=jobs)
    demo.keep("sacct_states", SLURM.history_command([*everything, VANISHED]), jobs=jobs)
    demo.run(("scancel", "--user=alice"))


def capture_cancels(demo: Demo) -> None:
    """One job to end: by somebody else, by a name that it does not bear, by its own, and once more."""
    name = "hpchub-cancel"
    job_id = demo.submit("sleep 600", f"--job-name={name}", "--output=/dev/null")
    time.sleep(4)
    demo.keep("scancel_others", SLURM.cancel_command(job_id, name), user="bob", job=job_id)
    demo.keep("scancel_other_name", SLURM.cancel_command(job_id, "hpchub-other"), job=job_id)
    demo.keep("squeue_other_name", SLURM.status_command([job_id], ["hpchub-other"]), job=job_id)
    demo.keep("squeue_own_name", SLURM.status_command([job_id], [name]), job=job_id)
    demo.keep("scancel_running", SLURM.cancel_command(job_id, name), job=job_id)
    time.sleep(4)
    demo.keep("scancel_ended", SLURM.cancel_command(job_id, name), job=job_id)
    demo.keep("scancel_vanished", SLURM.cancel_command(VANISHED, name))


def capture_lookups(demo: Demo) -> None:
    """Ids by a job's name: of one that waits, one that has ended, and one that is somebody else's."""
    name = "hpchub-lookup"
    script = "#!/bin/bash\nsleep 600\n"
    jobs = {
        "ended": demo.submit("true", f"--job-name={name}", "--output=/dev/null"),
        "waits": demo.submit("true", f"--job-name={name}", "--hold", "--output=/dev/null"),
    }
    argv = ("sbatch", "--parsable", f"--job-name={name}", "--hold", "--output=/dev/null")
    jobs["bobs"] = SLURM.parse_submit(demo.run(argv, user="bob", stdin=script.encode()))
    time.sleep(4)
    demo.keep("squeue_lookup_found", SLURM.lookup_command(name), jobs=jobs)
    demo.keep("squeue_lookup_nothing", SLURM.lookup_command("hpchub-nothing"))
    demo.run(("scancel", "--user=alice"))
    demo.run(("scancel", "--user=bob"), user="bob")


def capture_tokens(demo: Demo) -> None:
    """Slurm's own tokens, where the site has them. Of the one that is made, the signature is not kept."""
    command = token_command(60)
    made = demo.run(command.argv)
    shown = re.sub(r"\.[\w-]+$", ".signature-not-kept", made.stdout.strip())
    reader.write(
        "scontrol_token", replace(made, stdout=f"{shown}\n"), argv=command.argv, user="alice", **demo.facts
    )
    demo.keep("scontrol_token_of_another", Command(argv=(*command.argv, "username=bob")))
    running = support_demo.Demo.load(demo.folder)
    good = demo.run(("cat", "/etc/slurm/slurm.conf")).stdout
    for name, text in {
        "disabled": good.replace("AuthAltParameters=", "AuthAltParameters=disable_token_creation,"),
        "off": re.sub(r"AuthAlt.*\n", "", good),
        "controller_down": good,
    }.items():
        with daemon_dead(running, "slurmctld"):
            write = ("sh", "-c", "cat >/etc/slurm/slurm.conf")
            demo.run(write, user="root", host="ctl", stdin=text.encode())
            if name == "controller_down":
                demo.keep(f"scontrol_token_{name}", command)
        if name != "controller_down":
            demo.keep(f"scontrol_token_{name}", command)


def capture_outlook(demo: Demo) -> None:
    """When jobs start and end, and who waits: as a person, and as the service account sees all."""
    whole = ("--exclusive", "--nodes=2", "--output=/dev/null")
    jobs = {
        "running": demo.submit("sleep 600", "--time=01:00:00", *whole),
        "next": demo.submit("sleep 600", "--time=02:00:00", *whole),
        "held": demo.submit("true", "--hold", "--output=/dev/null"),
    }
    body = b"#!/bin/bash\nsleep 600\n"
    for name, options in {
        "bobs": ("--time=00:30:00", *whole),
        "bobs_array": ("--array=1-9%2", "--output=/dev/null", "--partition=short"),
        "bobs_either": ("--partition=cpu,short", "--output=/dev/null", "--time=00:05:00"),
    }.items():
        argv = ("sbatch", "--parsable", *options)
        jobs[name] = SLURM.parse_submit(demo.run(argv, user="bob", stdin=body))
    time.sleep(8)  # until the backfill scheduler has guessed when each starts
    ids = [*jobs.values(), VANISHED]
    demo.keep("squeue_times", SLURM.times_command(ids[:3]), jobs=jobs)
    demo.keep("squeue_times_vanished", SLURM.times_command([VANISHED]))
    for query, items in {
        Query.STATUS: ids,
        Query.HISTORY: ids,
        Query.TIMES: ids,
        Query.PENDING: ["cpu", "short"],
    }.items():
        asked = SLURM.account_command(query, items)
        command = Command(argv=("sh", "-c", FORCED_COMMAND), stdin=b"mark\n" + asked.stdin)
        demo.keep(f"account_{query}", command, user="slurmwatch", jobs=jobs)
    demo.run(("scancel", "--user=alice"))
    demo.run(("scancel", "--user=bob"), user="bob")


def capture_vanished(demo: Demo) -> None:
    """What the commands say of jobs that are not there."""
    demo.keep("squeue_vanished", SLURM.status_command([VANISHED]))
    demo.keep("squeue_two_vanished", SLURM.status_command([VANISHED, JobId("99998")]))
    demo.keep("sacct_vanished", SLURM.history_command([VANISHED]))


def capture_associations(demo: Demo) -> None:
    """People with two accounts, one, none; and a name the accounting has never heard."""
    for user in ("alice", "bob", "carol"):
        demo.keep(f"sacctmgr_{user}", SLURM.associations_command(user), user=user)
    demo.keep("sacctmgr_unknown", SLURM.associations_command("nobody-here"))


def capture_outages(demo: Demo) -> None:
    """munge is down on the login node; the controller hangs, then is gone; then the database is gone."""
    script = "#!/bin/bash\n#SBATCH --output=/dev/null\ntrue\n"
    running = support_demo.Demo.load(demo.folder)
    with daemon_dead(running, "munged", "login1"):
        demo.keep("sbatch_munge_down", SLURM.submit_command(script))
    pid = demo.run(("cat", "/run/slurmctld.pid"), user="root", host="ctl").stdout.strip()
    demo.run(("kill", "-STOP", pid), user="root", host="ctl")
    demo.keep("squeue_controller_hangs", SLURM.status_command([VANISHED]))
    demo.keep("sbatch_controller_hangs", SLURM.submit_command(script))
    demo.run(("kill", "-CONT", pid), user="root", host="ctl")
    demo.run(("scontrol", "shutdown", "slurmctld"), user="root", host="ctl")
    time.sleep(2)
    demo.keep("squeue_controller_down", SLURM.status_command([VANISHED]))
    demo.keep("sinfo_controller_down", partitions_command())
    demo.keep("squeue_lookup_controller_down", SLURM.lookup_command("hpchub"))
    demo.keep("sbatch_controller_down", SLURM.submit_command(script))
    demo.keep("scancel_controller_down", SLURM.cancel_command(VANISHED, "hpchub-cancel"))
    demo.run(("sacctmgr", "shutdown"), user="root", host="ctl")
    time.sleep(2)
    demo.keep("sacct_database_down", SLURM.history_command([VANISHED]))
    demo.keep("sacctmgr_database_down", SLURM.associations_command("alice"))


def main() -> None:
    """Capture everything."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n\n")[0])
    parser.add_argument("demo", type=Path, help="the folder of a demo cluster to use up")
    demo = Demo(parser.parse_args().demo)
    capture_submissions(demo)
    capture_associations(demo)
    capture_states(demo)
    capture_cancels(demo)
    capture_lookups(demo)
    capture_outlook(demo)
    capture_vanished(demo)
    capture_tokens(demo)
    capture_outages(demo)


if __name__ == "__main__":
    main()
