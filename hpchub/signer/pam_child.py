"""One PAM check: a question as JSON on standard input, the answer as the last line of standard output.

Run by file name in an isolated interpreter, so it imports nothing of hpchub.
"""

from __future__ import annotations

import json
import sys

import pamela

_PAM_USER = 2  # <security/_pam_types.h>

# The same file: PERM_DENIED, AUTH_ERR, ACCT_EXPIRED. USER_UNKNOWN may be a directory that is away.
_LOCKED = frozenset({6, 7, 13})


def main() -> None:
    """Authenticate, then check the account: expired and locked ones are refused by the second step.

    Without a password only the second step is done, for a person who has logged in before; the answer is
    then None where it may just be that nobody can tell.
    """
    question = json.load(sys.stdin)
    try:
        if "password" not in question:
            pamela.check_account(question["username"], service=question["service"])
            sys.stdout.write("\n" + json.dumps({"ok": True, "said": question["username"]}))
            return
        handle = pamela.authenticate(
            question["username"],
            question["password"],
            service=question["service"],
            resetcred=0,  # no session is opened, so nobody needs a ticket cache
            close=False,
            check=True,
        )
        # A module may have mapped the name; what it made of it is the account.
        answer = {"ok": True, "said": handle.get_item(_PAM_USER) or ""}
    except pamela.PAMError as error:
        can_tell = "password" in question or error.errno in _LOCKED
        answer = {"ok": False if can_tell else None, "said": str(error)}
    sys.stdout.write("\n" + json.dumps(answer))


if __name__ == "__main__":
    main()
