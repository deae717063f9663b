"""Our errors in JupyterHub's own shape, so that its pages and its API show them."""

from __future__ import annotations

import re

from jupyterhub.spawner import SpawnException

from hpchub.errors import HpchubError, InvalidRequest, StartFailed
from hpchub.hub.pages import render


def spawn_exception(error: HpchubError) -> SpawnException:
    """What to raise from a spawner.

    The API answers with the error's own status and `refusal_text`; pages show `refusal_html`.
    """
    text = refusal_text(error)
    refusal = SpawnException(
        text,
        reason=_reason(error),
        status_code=error.status,
        message_html=refusal_html(error),
    )
    # 6.1's pages read these two, not SpawnException's own: jupyterhub.utils.format_exception.
    refusal.jupyterhub_message = text
    refusal.jupyterhub_html_message = refusal.message_html
    return refusal


def refusal_text(error: HpchubError) -> str:
    """What happened and what to do, in one paragraph. Refused fields are named in the message."""
    parts = [error.message, error.hint]
    if isinstance(error, StartFailed) and error.log_path:
        parts.append(f"The whole log is in {error.log_path}")
    return " ".join(part for part in parts if part)


def refusal_html(error: HpchubError) -> str:
    """The same with the last lines of the log, everything escaped."""
    return render(
        "hpchub_refusal.html",
        message=error.message,
        hint=error.hint,
        fields=error.fields if isinstance(error, InvalidRequest) else {},
        log_tail=error.log_tail if isinstance(error, StartFailed) else "",
        log_path=error.log_path if isinstance(error, StartFailed) else "",
    )


def _reason(error: HpchubError) -> str:
    """`StartFailed` as `start_failed`: JupyterHub's metrics count failures by it."""
    return re.sub(r"(?<!^)(?=[A-Z])", "_", type(error).__name__).lower()
