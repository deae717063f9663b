"""What `%squeue?` and the like show."""

from __future__ import annotations

_COMMON = """
Options are those of the command line, quoted as in a shell; `{name}` becomes the value of the notebook's
variable `name`. `--as NAME` keeps the result as NAME instead of showing it."""

TABLES = {
    "squeue": f"""The jobs in the queue, as a DataFrame.

    %squeue [options of squeue]
{_COMMON}
Columns: JOBID (JOB, TASK, HET: its parts), PARTITION, NAME, USER, STATE, TIME and TIME_LIMIT (durations),
NODES, CPUS, MIN_MEMORY (bytes), SUBMIT_TIME and START_TIME (with time zone), NODELIST, REASON. With -o, -O,
--start, -s or SQUEUE_FORMAT: the columns asked for.

Examples::

    %squeue --me
    %squeue --me -t PD -p gpu
    %squeue -o '%i %j %T %S'
    df = %squeue --user {{who}}
    df.slurm.expand_tasks()     one row for each array task
    df.slurm.expand_nodes()     one row for each node
    %squeue --plot              CPUs of each user, those that run and those that wait
""",
    "sinfo": f"""Partitions and nodes, as a DataFrame.

    %sinfo [options of sinfo]
{_COMMON}
Columns: PARTITION (DEFAULT: whether it is the default one), AVAIL, TIMELIMIT (duration), NODES, STATE,
NODELIST. Others with -N, -l, -s, -R, or those of -o, -O and SINFO_FORMAT.

Examples::

    %sinfo
    %sinfo -N -l
    %sinfo -p gpu -o '%n %G %e'
    nodes = %sinfo -N
    %sinfo --plot           CPUs of each partition: in use, free, not available
""",
    "sacct": f"""Jobs and their steps from the accounting, also ended ones, as a DataFrame.

    %sacct [options of sacct]
{_COMMON}
Columns: JobID (Job, Task, Het, Step: its parts), JobName, Partition, Account, AllocCPUS, State, ExitCode,
Submit, Start and End (with time zone), Elapsed (duration). With --format, -l, -b or SACCT_FORMAT: the
columns asked for.

Examples::

    %sacct
    %sacct -X -S now-7days
    %sacct -j {{job.id}} --format JobID,State,Elapsed,MaxRSS
    %sacct --helpformat
    %sacct -S now-7days --plot      when jobs waited and ran, waits against sizes, CPU time used
""",
    "sprio": f"""What makes up the priority of waiting jobs, as a DataFrame.

    %sprio [options of sprio]
{_COMMON}
Columns: JOBID (JOB: its number), PARTITION, USER, PRIORITY, and what it is the sum of: SITE, AGE, ASSOC,
FAIRSHARE, JOBSIZE, PARTITION_PRIORITY, QOS, TRES, less NICE. With -n parts of 1 (PRIORITY: of 2^32). With
-o or SPRIO_FORMAT: the columns asked for.

Examples::

    %sprio
    %sprio -j {{job.id}}
    %sprio -w                   the weights
    frame = %sprio -u alice
""",
    "sshare": f"""Shares and usage of accounts and users, as a DataFrame.

    %sshare [options of sshare]
{_COMMON}
Columns: Account (Level: its depth in the tree), User, RawShares (NA: the parent's), NormShares, RawUsage,
EffectvUsage, FairShare; more with -l and -m; with -o the columns asked for.

Examples::

    %sshare
    %sshare -U -u alice
    shares = %sshare -a -l
""",
    "sstat": f"""What the steps of running jobs use, as a DataFrame.

    %sstat [options of sstat]
{_COMMON}
Columns: JobID (Job, Task, Het, Step: its parts), sizes in bytes, durations, counts, as in %sacct.

Examples::

    %sstat -j {{job.id}}.batch --format JobID,AveCPU,MaxRSS
    use = %sstat --allsteps -j {{job.id}}
""",
    "sreport": f"""A report of the accounting, as a DataFrame. Its title is printed above it.

    %sreport [options of sreport] KIND REPORT [options of the report]
{_COMMON}
frame.attrs["title"] is the title. What is used is in the unit that it names: CPU minutes, or that of -t.
With -t HourPer and the like there are two columns, one with ` %` at the end. Names of reports are those of
`sreport --help`.

Examples::

    %sreport cluster utilization start=2026-11-01
    %sreport -t Hours cluster AccountUtilizationByUser start=2026-11-01 end=now
    top = %sreport user topusage
""",
    "sacctmgr": f"""Accounts, users and limits in the accounting: what is shown or listed is a DataFrame.

    %sacctmgr show ENTITY [conditions and options]
    %sacctmgr COMMAND ...
{_COMMON}
Tables: account, association, cluster, event, federation, instance, qos, reservation, resource, transaction,
tres, user and wckey. With format=...: the columns asked for. Everything else is text. Changes need -i: nobody
can be asked back.

Examples::

    %sacctmgr show assoc user=alice format=account,partition,qos
    %sacctmgr show qos format=name,maxwall
    users = %sacctmgr list user withassoc
    %sacctmgr -i modify user alice set defaultaccount=physics
""",
}


def _command(does: str, usage: str, *examples: str) -> str:
    lines = "\n".join(f"    {one}" for one in examples)
    return f"{does}\n\n    {usage}\n{_COMMON}\n\nExamples::\n\n{lines}\n"


COMMANDS = {
    "scontrol": _command(
        "Shows or changes jobs, nodes and partitions. `show job` gives a mapping (several: a list of them), "
        "`show node` and `show partition` a DataFrame, everything else Slurm's text.",
        "%scontrol COMMAND ...",
        "record = %scontrol show job {job.id}",
        "record['TimeLimit']",
        "%scontrol show node c1",
        "%scontrol show partition",
        "%scontrol hold {job.id}",
        "%scontrol update jobid={job.id} timelimit=30",
    ),
    "scancel": _command(
        "Ends jobs. Slurm says nothing where all went well.",
        "%scancel [options] [JOB ...]",
        "%scancel {job.id}",
        "%scancel 42_3",
        "%scancel --me --state PENDING",
    ),
    "sdiag": _command("How the controller is doing.", "%sdiag [options]", "%sdiag"),
    "srun": _command(
        "Runs a command in a job and waits for its end; the kernel waits, too. Returns its output.",
        "%srun [options] COMMAND ...",
        "%srun -n 2 hostname",
        "%srun --jobid {job.id} --overlap nvidia-smi",
    ),
    "salloc": _command(
        "Gets an allocation, runs a command on this machine while it lasts, and gives it back.",
        "%salloc [options] COMMAND ...",
        "%salloc -n 2 srun hostname",
    ),
    "sattach": _command(
        "Shows the output of a running step until it ends; Ctrl-C stops looking.",
        "%sattach [options] JOB.STEP",
        "%sattach {job.id}.0",
    ),
    "sbcast": _command(
        "Copies a file to all nodes of the job that the notebook runs in.",
        "%sbcast [options] FILE PLACE",
        "%sbcast data.h5 /tmp/data.h5",
    ),
    "strigger": _command(
        "Has a program run when something happens to a job or node.",
        "%strigger [options]",
        "%strigger --get",
    ),
}
