"""The magics: one function for each command, with the help that `%squeue?` shows."""

from __future__ import annotations

from collections.abc import Callable
from keyword import iskeyword
from typing import TYPE_CHECKING, Any

from IPython.core.magic import no_var_expand

from slurm_magics.completion import Completion, matcher
from slurm_magics.delimited import new_mark
from slurm_magics.entities import QUESTION, is_question
from slurm_magics.errors import Interrupted, SlurmError
from slurm_magics.help import COMMANDS, TABLES
from slurm_magics.interrupts import raised_at_once
from slurm_magics.jobs import Jobs
from slurm_magics.machine import Local, Machine
from slurm_magics.output import Live, Printed, Text
from slurm_magics.programs import SUBMITTERS, before_program
from slurm_magics.queries import plan
from slurm_magics.scontrol import read_showing, show
from slurm_magics.session import Session
from slurm_magics.settings import Settings, change, read_target
from slurm_magics.submit import read_request
from slurm_magics.words import split_words, take_flag, take_option

if TYPE_CHECKING:
    from IPython.core.interactiveshell import InteractiveShell

    from slurm_magics.plots import Plot

# These run for as long as what they run: no time limit of ours ends them.
_ENDLESS = frozenset({"srun", "salloc", "sattach"})
# These ask for words at a prompt of their own where they are given none.
_WITH_PROMPT = frozenset({"scontrol", "sacctmgr", "sreport"})
# These change nothing.
_READERS = frozenset({"sdiag"})


class SlurmMagics:
    """All magics of one IPython shell, with the session and the jobs that they share."""

    def __init__(self, shell: InteractiveShell) -> None:
        self._shell = shell
        self.settings = Settings()
        self._use(Local())

    def register(self) -> None:
        """Make them known to the shell. A second time replaces the first."""
        for tool, text in TABLES.items():
            self._add(self._table(tool), tool, text, "line")
        for tool, text in COMMANDS.items():
            self._add(self._command(tool), tool, text, "line")
        self._add(self.sbatch, "sbatch", self.sbatch.__doc__ or "", "line_cell")
        self._add(self.slurm, "slurm", self.slurm.__doc__ or "", "line")
        self._complete_with(matcher(Completion(lambda: self.session)))

    def unregister(self) -> None:
        """Take them away again."""
        for known in self._shell.magics_manager.magics.values():
            for name in (*TABLES, *COMMANDS, "sbatch", "slurm"):
                known.pop(name, None)
        self._complete_with()

    def _complete_with(self, *matchers: Any) -> None:
        """Use these for completion, instead of those of before."""
        known = self._shell.Completer.custom_matchers
        known[:] = [*(one for one in known if one.__name__ != "slurm_matcher"), *matchers]

    def sbatch(self, line: str, cell: str | None = None) -> Any:
        """Submits a batch job and returns it as a Job.

            %%sbatch [options of sbatch]       the cell is the script
            %sbatch [options of sbatch] SCRIPT

        In the cell `{name}` becomes the value of the notebook's variable `name`, if there is one;
        `${name}` is the shell's. A script without a first line #! is one for bash.

        Beside sbatch's own options:

            --as NAME         keep the job as NAME
            --dry-run         show what would be submitted, and submit nothing
            --wait            wait for the job's end; Ctrl-C leaves it running
            --template NAME   put the cell's text into a template (as {{ body }})
            --no-fill         leave the braces in the cell alone
            --python          the cell is Python: it takes the variables that it uses along, and
                              job.result() brings the value of its last line back

        Examples::

            %%sbatch --time 10 --as job
            #SBATCH --cpus-per-task=2
            srun python train.py --rate {rate}

            job.state        PENDING, RUNNING, COMPLETED, ...
            job.wait()       wait for the end; or: await job
            job.tail(follow=True)
            job.output       all of its output
            job.cancel()     job.resubmit()     job.efficiency()     job.array[3]
        """
        words, name = self._words(line, "sbatch")
        folder = self.session.machine.folder
        request = read_request(words, cell, self._shell.user_ns, folder, self.settings.templates)
        if request.dry_run:
            return self._give(Text(request.preview()), name)
        if request.is_text:
            answer = self.session.run(("sbatch", *request.submission.words), stdin=request.submission.script)
            return self._give(Text(answer.text + answer.stderr), name)
        if request.python:
            if self.session.machine.name:
                raise SlurmError(
                    "%%sbatch --python needs a notebook that runs on the cluster.",
                    "Elsewhere Python and its packages are other ones than those of the job.",
                )
            request.python.store()
        try:
            job = self.jobs.submit(request.submission)
        except Interrupted as interrupt:
            if interrupt.job is not None:
                self._give(interrupt.job, name)
            raise
        given = self._give(job, name)
        if request.wait:
            print(f"Job {job.id}")
            job.wait()
        return given

    def slurm(self, line: str) -> Text:
        """Shows or changes the settings of these magics.

        %slurm                    shows them
        %slurm display text       %squeue and the like return Slurm's own text
        %slurm display frames     ... DataFrames again
        %slurm fresh 10           an answer serves the same question for 10 s (0: never)
        %slurm timeout 300        wait up to 300 s for a command
        %slurm templates FOLDER   where %%sbatch --template looks first
        %slurm connect HOST       use a cluster's login node over SSH, as `ssh HOST` would reach it
                                  (options of ssh: -F FILE, -i KEY, -l USER, -p PORT, -J HOST, -o OPTION)
        %slurm disconnect         use this machine's commands again
        """
        words, _ = self._words(line)
        self.session.forget()
        match words:
            case ["connect", *options]:
                return self._connect(options)
            case ["disconnect"]:
                return self._disconnect()
            case _:
                return Text(change(self.settings, words, self.session.machine.name))

    def _connect(self, words: list[str]) -> Text:
        from slurm_magics.remote import Remote

        machine = Remote(read_target(words))
        self._disconnect()
        self._use(machine)
        return Text(f"Connected to {machine.name}. %slurm disconnect goes back to this machine.")

    def _disconnect(self) -> Text:
        machine = self.session.machine
        if not machine.name:
            return Text("There is no connection.")
        machine.close()
        self._use(Local())
        return Text(f"Not connected to {machine.name} any more.")

    def _table(self, tool: str) -> Callable[[str], Any]:
        def table(line: str) -> Any:
            words, name = self._words(line, tool)
            words, is_plot = take_flag(words, "--plot")
            if is_plot:
                return self._give(self._plot(tool, words), name)
            if tool == "sacctmgr" and not is_question(words):
                return self._give(self._change("sacctmgr", words), name)
            found = self.session.table(tool, words)
            if isinstance(found, str):
                return self._give(Text(found), name)
            if title := found.attrs.get("title"):
                print(title)
            return self._give(found, name)

        return table

    def _plot(self, tool: str, words: list[str]) -> Plot:
        from slurm_magics.plots import PLOTS

        if tool not in PLOTS:
            raise SlurmError(f"%{tool} has no plot.", f"These have: %{', %'.join(PLOTS)}.")
        draw, columns = PLOTS[tool]
        if tool == "sacct":
            # It shows jobs anyway, and needs their steps.
            words = [word for word in words if word not in {"-X", "--allocations"}]
        query = plan(tool, [*words, *columns], {}, new_mark())
        if query is None:
            raise SlurmError(f"%{tool} gives text with these options: there is nothing to draw.")
        return draw(self.session.frame(query))

    def _command(self, tool: str) -> Callable[[str], Any]:
        def command(line: str) -> Any:
            words, name = self._words(line, tool)
            if tool == "scontrol" and self.settings.display == "frames" and (showing := read_showing(words)):
                return self._give(show(self.session, showing), name)
            live = Live() if tool in _ENDLESS and name is None else None
            said = self._change(tool, words, live)
            return self._give(said, name) if said or name else None

        return command

    def _change(self, tool: str, words: list[str], live: Live | None = None) -> Text:
        """What a command says that may change something."""
        answer = self.session.run((tool, *words), endless=tool in _ENDLESS, live=live)
        if tool not in _READERS:
            self.jobs.changed()
        if tool == "sacctmgr" and QUESTION in answer.text:
            raise SlurmError(
                "sacctmgr asks back, and nobody can answer here: nothing has been changed.",
                "-i says yes beforehand.",
                stderr=answer.text + answer.stderr,
            )
        said = answer.text + answer.stderr
        return Printed(said, self._shell.execution_count) if live and not live.lost else Text(said)

    def _words(self, line: str, tool: str = "") -> tuple[list[str], str | None]:
        """The line's words, and the name under which the result is to be kept."""
        words = split_words(line, self._shell.user_ns, self.session.machine.expanded)
        if tool in _WITH_PROMPT and not words:
            raise SlurmError(f"{tool} alone waits for words at a prompt of its own.", f"%{tool}? shows help.")
        end = before_program(tool, words) if tool in SUBMITTERS else len(words)
        own, name = take_option(words[:end], "as")
        words = [*own, *words[end:]]
        if name is not None and (not name.isidentifier() or iskeyword(name)):
            raise SlurmError(f"{name!r} is no name of a variable.", "For example: --as job")
        return words, name

    def _use(self, machine: Machine) -> None:
        """From now on the magics speak to this machine. Jobs of another one stay with theirs."""
        self.session = Session(machine, self.settings)
        self.jobs = Jobs(self.session)

    def _give(self, result: Any, name: str | None) -> Any:
        """The result; or nothing, when it is kept under a name."""
        if name is None:
            return result
        self._shell.user_ns[name] = result
        return None

    def _add(self, function: Callable[..., Any], name: str, text: str, kind: str) -> None:
        # A function of its own, because a bound method takes no attributes.
        @raised_at_once()
        def magic(line: str, cell: str | None = None) -> Any:
            try:
                return function(line) if cell is None else function(line, cell)
            except Interrupted:
                raise
            except KeyboardInterrupt:  # between two commands, or while an answer was read
                raise Interrupted(name, doubt="was given up" if name in _ENDLESS else "") from None

        def line_magic(line: str) -> Any:
            return magic(line)

        chosen = magic if kind == "line_cell" else line_magic
        chosen.__doc__ = text
        chosen.__name__ = name
        # We fill in variables ourselves: a value with a blank in it stays one word.
        unexpanded: Any = no_var_expand(chosen)
        self._shell.register_magic_function(unexpanded, kind, name)
