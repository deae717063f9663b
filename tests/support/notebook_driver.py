"""A kernel that runs what lines of JSON on standard input say, and tells what a page would show.

Run where the kernel is to be: on a host of the demo, as one of its people.

    {"run": CODE}       → the number of the run, at once
    {"end": NUMBER}     → what it printed and raised, when it is over
    {"interrupt": 0}    → the stop button
    {"pages": 0}        → what stands in every output that can be changed later
"""

from __future__ import annotations

import json
import sys
import threading
import time
from dataclasses import dataclass, field
from typing import Any

from jupyter_client.manager import KernelManager

_LIMIT_S = 60.0


@dataclass
class Page:
    """What the kernel has said so far; filled by a thread."""

    said: dict[str, list[str]] = field(default_factory=dict)
    errors: dict[str, str] = field(default_factory=dict)
    shown: dict[str, str] = field(default_factory=dict)
    over: dict[str, float] = field(default_factory=dict)
    news: threading.Condition = field(default_factory=threading.Condition)

    def listen(self, client: Any) -> None:
        """Hear what the kernel says, for as long as it runs."""
        while True:
            message = client.get_iopub_msg()
            with self.news:
                self._hear(message)
                self.news.notify_all()

    def end(self, run: str, began: float) -> dict[str, Any]:
        """What a cell has said, when it is over."""
        with self.news:
            if not self.news.wait_for(lambda: run in self.over, _LIMIT_S):
                raise TimeoutError(f"no end of {run} within {_LIMIT_S:g} s")
            text = "".join(self.said.get(run, []))
            return {"text": text, "error": self.errors.get(run, ""), "took_s": self.over[run] - began}

    def _hear(self, message: dict[str, Any]) -> None:
        run, content = message["parent_header"].get("msg_id", ""), message["content"]
        said = self.said.setdefault(run, [])
        match message["msg_type"]:
            case "status" if content["execution_state"] == "idle":
                self.over[run] = time.monotonic()
            case "stream":
                said.append(content["text"])
            case "error":
                self.errors[run] = content["ename"]
                said.append("\n".join(content["traceback"]))
            case "execute_result":
                said.append(content["data"]["text/plain"])
            case "display_data" | "update_display_data":
                display = content.get("transient", {}).get("display_id", run)
                self.shown[display] = content["data"].get("text/plain", "")


def main() -> None:
    manager = KernelManager()
    manager.start_kernel()
    client = manager.client()
    client.start_channels()
    client.wait_for_ready(timeout=_LIMIT_S)
    page = Page()
    threading.Thread(target=page.listen, args=(client,), daemon=True).start()
    runs: list[tuple[str, float]] = []
    for line in sys.stdin:
        answer: Any = None
        match json.loads(line):
            case {"run": code}:
                runs.append((client.execute(code), time.monotonic()))
                answer = len(runs) - 1
            case {"end": number}:
                run, began = runs[number]
                answer = page.end(run, began)
            case {"interrupt": _}:
                manager.interrupt_kernel()
            case {"pages": _}:
                with page.news:
                    answer = dict(page.shown)
        print(json.dumps(answer), flush=True)
    client.stop_channels()
    manager.shutdown_kernel(now=True)


if __name__ == "__main__":
    main()
