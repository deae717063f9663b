"""What stands on a notebook's page and can be changed later: a card, a bar, its buttons."""

from __future__ import annotations

import sys
from collections.abc import Callable, Mapping
from typing import Any

from slurm_magics.errors import SlurmError


def in_kernel() -> bool:
    """Whether there is a page: a notebook rather than a terminal or a script."""
    if "IPython" not in sys.modules:
        return False
    from IPython.core.getipython import get_ipython

    return getattr(get_ipython(), "kernel", None) is not None


def _somebody_is_there() -> bool:
    """Whether the cell could ask back: nbconvert and papermill run it with nobody to press buttons."""
    from IPython.core.getipython import get_ipython

    kernel: Any = getattr(get_ipython(), "kernel", None)
    request = kernel.get_parent("shell") if kernel else {}
    return bool(request.get("content", {}).get("allow_stdin", True))


class Shown:
    """One output. It may be updated from any thread, while the kernel runs something else, too."""

    def __init__(self, html: str, text: str) -> None:
        self._handle = _display({"text/html": html, "text/plain": text})
        self._last = html
        self._buttons: Any = None

    def update(self, html: str, text: str) -> None:
        """Show this instead."""
        if html != self._last:
            self._last = html
            self._handle.update({"text/html": html, "text/plain": text}, raw=True)

    def add_buttons(self, actions: Mapping[str, Callable[[], None]], afterwards: Callable[[], None]) -> None:
        """Buttons below, where the kernel has ipywidgets. A page that has not shows nothing of them."""
        if not _somebody_is_there():
            return
        try:
            import ipywidgets
        except ImportError:
            return
        said = ipywidgets.Label()
        buttons = [ipywidgets.Button(description=name) for name in actions]
        for button, action in zip(buttons, actions.values(), strict=True):
            button.on_click(_pressed(action, afterwards, said))
        box = ipywidgets.HBox([*buttons, said])
        # The page that knows no widgets takes the empty text; and so does a notebook that is read later.
        self._buttons = _display({**box._repr_mimebundle_(), "text/html": "", "text/plain": ""})

    def end(self) -> None:
        """No more changes: without its buttons."""
        if self._buttons is not None:
            self._buttons.update({"text/html": "", "text/plain": ""}, raw=True)
            self._buttons = None


def _pressed(action: Callable[[], None], afterwards: Callable[[], None], said: Any) -> Callable[[Any], None]:
    def pressed(_button: Any) -> None:
        try:
            action()
            said.value = ""
        except SlurmError as error:
            said.value = error.message
        afterwards()

    return pressed


def _display(bundle: Mapping[str, Any]) -> Any:
    from IPython.display import display

    show: Any = display
    return show(dict(bundle), raw=True, display_id=True)
