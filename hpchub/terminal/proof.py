"""Shows the hub that this machine holds the key of a login, and asks something with that."""

from __future__ import annotations

import base64

from hpchub.core.secret import Secret
from hpchub.core.terminal import LOG_OUT, MANAGE_TOKENS, key_proof
from hpchub.errors import UnexpectedOutput
from hpchub.terminal.hub import Hub
from hpchub.terminal.keys import KeyPlace
from hpchub.terminal.ssh_files import Kept


def log_out(hub: Hub, place: KeyPlace, kept: Kept) -> None:
    """Have the certificate taken back, and drop the key here.

    Raises:
        NotAllowed: It had ended already, or the key is gone.
        HostUnreachable: The hub does not answer. The key is dropped all the same.
    """
    try:
        hub.post("key/logout", _proof(hub, place, kept, LOG_OUT))
    finally:
        place.drop(kept.public_key, kept.certificate)


def token_for_tokens(hub: Hub, place: KeyPlace, kept: Kept) -> tuple[str, Secret]:
    """The id of a token of JupyterHub's, and the token: for minutes, to manage its owner's tokens with.

    Raises:
        NotAllowed: The login has ended, or the key is gone.
        HostUnreachable: The hub does not answer.
    """
    answer = hub.post("key/token", _proof(hub, place, kept, MANAGE_TOKENS))
    if not isinstance(answer.get("token"), str) or not str(answer.get("id", "")).isalnum():
        raise UnexpectedOutput(hub.url, "an answer without a token")
    return str(answer["id"]), Secret(answer["token"])


def _proof(hub: Hub, place: KeyPlace, kept: Kept, purpose: str) -> dict[str, str]:
    challenge = str(hub.post("key/challenge", {}).get("challenge", ""))
    signature = place.sign(kept.public_key, key_proof(purpose, hub.host, challenge))
    return {
        "hub": hub.host,
        "public_key": kept.public_key,
        "challenge": challenge,
        "signature": base64.b64encode(signature).decode("ascii"),
    }
