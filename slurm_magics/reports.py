"""What sreport shows: the fields of each report, its title, its percentages. No input or output."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace

from slurm_magics.delimited import Table, unique
from slurm_magics.values import Kind

# The fields that each report shows itself: sreport(1). In those without fields nobody has written anything.
_REPORTS: dict[str, dict[str, str]] = {
    "cluster": {
        "accountutilizationbyqos": "Cluster,Account,QOS,{tres}Used{energy}",
        "accountutilizationbyuser": "Cluster,Account,Login,Proper,{tres}Used{energy}",
        "userutilizationbyaccount": "Cluster,Login,Proper,Account,{tres}Used{energy}",
        "userutilizationbywckey": "Cluster,Login,Proper,WCKey,{tres}Used",
        "wckeyutilizationbyuser": "Cluster,WCKey,Login,Proper,{tres}Used",
        "utilization": "",
    },
    "job": {
        "sizesbyaccount": "Cluster,Account",
        "sizesbyaccountandwckey": "Cluster,Account",
        "sizesbywckey": "Cluster,Wckey",
    },
    "reservation": {"utilization": "Cluster,Name,Start,End,TresName,Allocated,Idle"},
    "user": {"topusage": "Cluster,Login,Proper,Account,{tres}Used{energy}"},
}
_BY_USER = "accountutilizationbyuser"
_ALIASES = {
    "aq": "accountutilizationbyqos", "ua": "userutilizationbyaccount", "uw": "userutilizationbywckey",
    "resv": "reservation",
    # What a Slurm without the report by QOS takes for the one by user, and a newer one refuses.
    **{_BY_USER[:length]: _BY_USER for length in range(1, _BY_USER.index("user") + 1)},
}  # fmt: skip
_RULE = "-" * 80
_PERIOD = re.compile(r"\b([0-9]{9,11}) - ([0-9]{9,11})\b", re.ASCII)
_BOTH = re.compile(r"(-?[0-9.]+)\(([^)]*)%\)", re.ASCII)
_PART = "% of cluster"


def default_fields(words: Sequence[str], *, with_tres: bool) -> str | None:
    """The fields that a report shows itself, by `user top` and the like; None where that is no report.

    Options may stand before; empty where no text of anybody's is shown.
    """
    kind, report = [*(word.lower() for word in _names(words)), "", ""][:2]
    known = _REPORTS.get(_full(kind, _REPORTS), {})
    found = known.get(_full(report, known))
    tres, energy = ("TresName,", "") if with_tres else ("", ",Energy")
    return None if found is None else found.format(tres=tres, energy=energy)


def _names(words: Sequence[str]) -> list[str]:
    """The words that are neither options nor their values."""
    names, is_value = [], False
    for word in words:
        if word.startswith("-"):
            is_value = word in {"-M", "--cluster", "--clusters", "-s", "--sort", "-t", "-T"}
        elif is_value:
            is_value = False
        else:
            names.append(word)
    return names


def _full(word: str, known: Mapping[str, object]) -> str:
    """The one that begins so; of several that which the others begin with, too; empty where there is none."""
    word = _ALIASES.get(word, word)
    found = sorted(name for name in known if word and name.startswith(word))
    return found[0] if found and all(name.startswith(found[0]) for name in found) else ""


def read_title(lines: Sequence[str], shown: Callable[[int], str]) -> tuple[str, tuple[str, ...]]:
    """The lines between two rules, and the others. `shown` writes the Unix seconds of its period."""
    if lines.count(_RULE) != 2:
        return "", tuple(lines)
    first = lines.index(_RULE)
    last = lines.index(_RULE, first + 1)
    title = "\n".join(lines[first + 1 : last])
    title = _PERIOD.sub(lambda match: f"{shown(int(match[1]))} - {shown(int(match[2]))}", title)
    return title, (*lines[:first], *lines[last + 1 :])


def percentages_apart(table: Table, kinds: Mapping[str, Kind], title: str) -> tuple[Table, dict[str, Kind]]:
    """`12(3.4%)` as two columns, `3.4%` as a number, and the kinds of the columns that hold what was used."""
    is_both, is_percent = "/Percentage of Total" in title, "in Percentage of Total" in title
    headings: list[str] = []
    columns: list[list[str]] = []
    found = dict(kinds)
    for heading, texts in zip(table.headings, table.columns, strict=True):
        headings.append(heading)
        if heading in kinds:
            columns.append(texts)
        elif is_both and heading != _PART:
            cells = [_BOTH.fullmatch(text) for text in texts]
            columns.append([cell[1] if cell else text for cell, text in zip(cells, texts, strict=True)])
            headings.append(f"{heading} %")
            columns.append([cell[2] if cell else "" for cell in cells])
            found |= {heading: Kind.COUNT, f"{heading} %": Kind.FRACTION}
        else:
            columns.append([text.removesuffix("%") for text in texts])
            found[heading] = Kind.FRACTION if is_percent or heading == _PART else Kind.COUNT
    return replace(table, headings=unique(headings), columns=tuple(columns)), found
