"""One Kerberos check: a question as JSON on standard input, the answer as the last line of standard output.

Run by file name in an isolated interpreter, so it imports nothing of hpchub. The library is MIT's, which
the machine has; tickets are in this process's memory alone.
"""

from __future__ import annotations

import ctypes
import json
import os
import sys
from ctypes import POINTER, byref, c_char_p, c_int, c_int32, c_uint, c_void_p
from typing import Any

# Answers of the KDC that say no (RFC 4120, section 7.5.9), and the library's own name for one of them:
# the name has expired, is unknown, may not by policy, is locked, is not valid yet; the password has
# expired, is wrong. Any other failure says nothing about the password.
_TABLE = -1765328384
_NO = frozenset(_TABLE + code for code in (1, 6, 12, 18, 21, 23, 24, 31, 210))

_TICKET_LIFE_S = 300
_PR_SET_DUMPABLE = 4  # prctl(2)


class No(Exception):
    """The answer is no; why, for the audit log."""


class CannotTell(Exception):
    """It cannot be told; why, for the audit log."""


class Credentials(ctypes.Structure):
    """The head of krb5_creds, and more room than the rest takes."""

    _fields_ = (
        ("magic", c_int32),
        ("client", c_void_p),
        ("server", c_void_p),
        ("rest", ctypes.c_byte * 1024),
    )


class VerifyOptions(ctypes.Structure):
    """krb5_verify_init_creds_opt."""

    _fields_ = (("flags", c_int32), ("ap_req_nofail", c_int))


_ARGUMENTS: dict[str, tuple[Any, ...]] = {
    "krb5_init_context": (POINTER(c_void_p),),
    "krb5_parse_name": (c_void_p, c_char_p, POINTER(c_void_p)),
    "krb5_principal_compare": (c_void_p, c_void_p, c_void_p),
    "krb5_kt_resolve": (c_void_p, c_char_p, POINTER(c_void_p)),
    "krb5_kt_get_entry": (c_void_p, c_void_p, c_void_p, c_uint, c_int32, c_void_p),
    "krb5_get_init_creds_opt_alloc": (c_void_p, POINTER(c_void_p)),
    "krb5_get_init_creds_opt_set_tkt_life": (c_void_p, c_int32),
    "krb5_get_init_creds_opt_set_renew_life": (c_void_p, c_int32),
    "krb5_get_init_creds_opt_set_forwardable": (c_void_p, c_int),
    "krb5_get_init_creds_opt_set_proxiable": (c_void_p, c_int),
    "krb5_get_init_creds_opt_set_canonicalize": (c_void_p, c_int),
    "krb5_get_init_creds_opt_set_change_password_prompt": (c_void_p, c_int),
    "krb5_get_init_creds_password": (
        c_void_p, POINTER(Credentials), c_void_p, c_char_p, c_void_p, c_void_p, c_int32, c_char_p, c_void_p,
    ),
    "krb5_verify_init_creds_opt_init": (POINTER(VerifyOptions),),
    "krb5_verify_init_creds_opt_set_ap_req_nofail": (POINTER(VerifyOptions), c_int),
    "krb5_verify_init_creds": (
        c_void_p, POINTER(Credentials), c_void_p, c_void_p, c_void_p, POINTER(VerifyOptions),
    ),
    "krb5_get_error_message": (c_void_p, c_int32),
}  # fmt: skip


class Kerberos:
    """A library context. It lives as long as the process, so nothing is freed."""

    def __init__(self) -> None:
        self._library = ctypes.CDLL("libkrb5.so.3")
        for name, arguments in _ARGUMENTS.items():
            getattr(self._library, name).argtypes = arguments
        self._library.krb5_get_error_message.restype = c_char_p
        self._context = c_void_p()
        self._sure(self._library.krb5_init_context(byref(self._context)), "krb5.conf")

    def principal(self, name: str) -> c_void_p:
        """A name in Kerberos' own form."""
        made = c_void_p()
        self._sure(self._library.krb5_parse_name(self._context, name.encode(), byref(made)), name)
        return made

    def keytab(self, path: str, service: c_void_p) -> c_void_p:
        """A keytab that has a key of the service."""
        made, entry = c_void_p(), ctypes.create_string_buffer(1024)
        library = self._library
        self._sure(library.krb5_kt_resolve(self._context, f"FILE:{path}".encode(), byref(made)), path)
        self._sure(library.krb5_kt_get_entry(self._context, made, service, 0, 0, entry), path)
        return made

    def ticket(self, client: c_void_p, password: str) -> Credentials:
        """A ticket that the password earns from whoever poses as the KDC."""
        library, options, made = self._library, c_void_p(), Credentials()
        self._sure(library.krb5_get_init_creds_opt_alloc(self._context, byref(options)), "options")
        library.krb5_get_init_creds_opt_set_tkt_life(options, _TICKET_LIFE_S)
        library.krb5_get_init_creds_opt_set_renew_life(options, 0)
        for name in ("forwardable", "proxiable", "canonicalize", "change_password_prompt"):
            getattr(library, f"krb5_get_init_creds_opt_set_{name}")(options, 0)
        code = library.krb5_get_init_creds_password(
            self._context, byref(made), client, password.encode(), None, None, 0, None, options
        )
        if code in _NO:
            raise No(self._said(code))
        self._sure(code, "the KDC")
        if not library.krb5_principal_compare(self._context, made.client, client):
            raise No("the ticket is for another name")
        return made

    def verify(self, ticket: Credentials, service: c_void_p, keytab: c_void_p) -> None:
        """Return where the KDC that made the ticket knows the service's key, which nobody else does."""
        library, options = self._library, VerifyOptions()
        library.krb5_verify_init_creds_opt_init(byref(options))
        library.krb5_verify_init_creds_opt_set_ap_req_nofail(byref(options), 1)  # else no key is a yes
        code = library.krb5_verify_init_creds(
            self._context, byref(ticket), service, keytab, None, byref(options)
        )
        self._sure(code, "the KDC did not prove itself")

    def _sure(self, code: int, what: str) -> None:
        if code:
            raise CannotTell(f"{what}: {self._said(code)}")

    def _said(self, code: int) -> str:
        return str(self._library.krb5_get_error_message(self._context, code).decode("utf-8", "replace"))[:200]


def main() -> None:
    """Answer the question."""
    ctypes.CDLL(None).prctl(_PR_SET_DUMPABLE, 0)  # before a password comes: nobody may look at our memory
    question = json.load(sys.stdin)
    os.environ["KRB5_CONFIG"] = question["krb5_conf"]
    os.environ["KRB5RCACHENAME"] = "none:"  # we ask ourselves: there is nothing to replay, or to write down
    try:
        answer = {"ok": True, "said": check(question)}
    except No as reason:
        answer = {"ok": False, "said": str(reason)}
    except (CannotTell, OSError) as reason:
        answer = {"ok": None, "said": str(reason)}
    sys.stdout.write("\n" + json.dumps(answer))


def check(question: dict[str, Any]) -> str:
    """The account whose password it is; without a username, empty where the keytab is in order."""
    kerberos = Kerberos()
    realm, account = question["realm"], question["username"]
    service = kerberos.principal(f"{question['service']}@{realm}")
    keytab = kerberos.keytab(question["keytab"], service)
    if not account:
        return ""
    if not question["password"]:
        raise No("an empty password")
    if any(char in account for char in "/@\\"):
        raise No("a name with an instance or a realm")
    ticket = kerberos.ticket(kerberos.principal(f"{account}@{realm}"), question["password"])
    kerberos.verify(ticket, service, keytab)
    return str(account)


if __name__ == "__main__":
    main()
