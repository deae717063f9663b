"""Ask whether any pinned package has a weakness that is known: pip-audit, for each file in requirements/.

    python scripts/audit.py [PIP-AUDIT]

Exit code 1 where one has. Where the data cannot be had, as behind a mirror that carries files only, that is
said, and is no failure: pip-audit alone would find "no known vulnerabilities" in what it never looked up.
"""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

FOLDER = Path(__file__).resolve().parent.parent / "requirements"
# Who may know: the package index itself, and the Open Source Vulnerabilities database.
_SOURCES = ("pypi", "osv")
_LIMIT_S = 300


@dataclass(frozen=True, slots=True)
class Answer:
    """What one source knows: how many packages it looked up, the weak ones in a line each, and the others."""

    looked_up: int
    weak: tuple[str, ...]
    unknown: tuple[str, ...]


def read_answer(stdout: str) -> Answer | None:
    """pip-audit's JSON; None where it broke off without any."""
    start = stdout.find("{")
    if start < 0:
        return None
    rows = json.loads(stdout[start:])["dependencies"]
    known = [row for row in rows if "skip_reason" not in row]
    weak = [
        f"{row['name']} {row['version']}: {one['id']}, mended in {' or '.join(one['fix_versions']) or 'none'}"
        for row in known
        for one in row["vulns"]
    ]
    return Answer(len(known), tuple(weak), tuple(row["name"] for row in rows if "skip_reason" in row))


def ask(program: str, source: str, file: Path) -> Answer | None:
    """One source's answer about the pins of a file; None where it cannot be reached."""
    done = subprocess.run(
        (program, "--disable-pip", "--require-hashes", "--format", "json", "--progress-spinner", "off",
         "--vulnerability-service", source, "--requirement", str(file)),
        capture_output=True, text=True, check=False, timeout=_LIMIT_S,
    )  # fmt: skip
    answer = read_answer(done.stdout)
    if answer is None:
        last = (done.stderr.strip().splitlines() or ["it said nothing"])[-1]
        print(f"{source}: no answer. {last[:300]}")
    return answer


def report(source: str, known: Sequence[Answer]) -> int:
    """Say what was found; 1 where something was."""
    weak = sorted({line for answer in known for line in answer.weak})
    unknown = sorted({name for answer in known for name in answer.unknown})
    print(*weak, sep="\n", end="\n" if weak else "")
    print(f"{source}: {len(weak)} known weaknesses in {sum(one.looked_up for one in known)} pins")
    if unknown:
        print(f"not looked up: {', '.join(unknown)}")
    return 1 if weak else 0


def main(arguments: Sequence[str]) -> int:
    """Ask each source in turn until one has looked something up."""
    program = arguments[0] if arguments else "pip-audit"
    for source in _SOURCES:
        known = []
        for file in sorted(FOLDER.glob("*.txt")):
            if (answer := ask(program, source, file)) is None:
                break
            known.append(answer)
        else:
            if any(answer.looked_up for answer in known):
                return report(source, known)
    print("The data on known weaknesses cannot be reached from here: NOTHING WAS CHECKED.")
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
