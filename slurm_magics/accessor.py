"""`frame.slurm`: what a frame of jobs or nodes can be asked. Imports pandas."""

from __future__ import annotations

import pandas as pd

from slurm_magics.hostlist import expand_nodes
from slurm_magics.job_ids import expand_job_id, parse_job_id

_ID_COLUMNS = {"JOBID": "TASK", "JobID": "Task"}
_NODE_COLUMNS = ("NODELIST", "NodeList")


@pd.api.extensions.register_dataframe_accessor("slurm")
class SlurmAccessor:
    """Of frames with a column of job ids, or of node lists."""

    def __init__(self, frame: pd.DataFrame) -> None:
        self._frame = frame

    def expand_tasks(self) -> pd.DataFrame:
        """One row for each array task: `42_[1-9%2]` becomes nine. KeyError without a column of job ids."""
        name = _only(self._frame, tuple(_ID_COLUMNS))
        expanded = _exploded(self._frame, name, [expand_job_id(text) for text in self._frame[name]])
        task = _ID_COLUMNS[name]
        if task in expanded:
            expanded[task] = pd.array([parse_job_id(text).task for text in expanded[name]], dtype="Int64")
        return expanded

    def expand_nodes(self) -> pd.DataFrame:
        """One row for each node of the rows that have nodes; `NODELIST` then holds one name.

        KeyError without a column of node lists.
        """
        name = _only(self._frame, _NODE_COLUMNS)
        lists = [[] if text == "None assigned" else expand_nodes(text) for text in self._frame[name]]
        return _exploded(self._frame, name, lists)


def _exploded(frame: pd.DataFrame, name: str, lists: list[list[str]]) -> pd.DataFrame:
    repeated = frame.iloc[[row for row, found in enumerate(lists) for _ in found]].reset_index(drop=True)
    repeated[name] = pd.Series([one for found in lists for one in found], dtype=object).infer_objects()
    return repeated


def _only(frame: pd.DataFrame, names: tuple[str, ...]) -> str:
    for name in names:
        if name in frame:
            return name
    raise KeyError(f"The frame has no column {' or '.join(names)}.")
