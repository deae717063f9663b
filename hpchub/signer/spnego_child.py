"""One look at what a browser sent as `Negotiate`: a question as JSON on standard input, the answer as JSON.

Run by file name in an isolated interpreter, so it imports nothing of hpchub. The library is MIT's GSS-API,
which OpenSSH needs too. It takes Kerberos within SPNEGO, for one service, and nothing else.
"""

from __future__ import annotations

import base64
import ctypes
import json
import os
import sys
from ctypes import POINTER, byref, c_char_p, c_int, c_size_t, c_uint32, c_void_p
from typing import Any

_KRB5 = bytes.fromhex("2a864886f712010202")  # RFC 1964
_PRINCIPAL_NAME = bytes.fromhex("2a864886f71201020201")  # likewise: NAME@REALM, taken as it is
_SPNEGO = bytes.fromhex("2b0601050502")  # RFC 4178
_ACCEPT = 2
_COMPLETE, _CONTINUE_NEEDED = 0, 1
_OF_GSS, _OF_MECHANISM = 1, 2
_FAILURE = 13 << 16  # the mechanism says more
_PR_SET_DUMPABLE = 4  # prctl(2)


class No(Exception):
    """The answer is no; why, for the audit log."""


class CannotTell(Exception):
    """It cannot be told; why, for the audit log."""


class Buffer(ctypes.Structure):
    """gss_buffer_desc."""

    _fields_ = (("length", c_size_t), ("value", c_void_p))

    def content(self) -> bytes:
        """What it holds."""
        return ctypes.string_at(self.value, self.length) if self.value else b""


class Oid(ctypes.Structure):
    """gss_OID_desc."""

    _fields_ = (("length", c_uint32), ("elements", c_char_p))


class OidSet(ctypes.Structure):
    """gss_OID_set_desc."""

    _fields_ = (("count", c_size_t), ("elements", POINTER(Oid)))


_MINOR = POINTER(c_uint32)
_ARGUMENTS: dict[str, tuple[Any, ...]] = {
    "gss_import_name": (_MINOR, POINTER(Buffer), POINTER(Oid), POINTER(c_void_p)),
    "gss_acquire_cred": (
        _MINOR, c_void_p, c_uint32, POINTER(OidSet), c_int, POINTER(c_void_p), c_void_p, c_void_p,
    ),
    "gss_set_neg_mechs": (_MINOR, c_void_p, POINTER(OidSet)),
    "gss_accept_sec_context": (
        _MINOR, POINTER(c_void_p), c_void_p, POINTER(Buffer), c_void_p, POINTER(c_void_p),
        POINTER(POINTER(Oid)), POINTER(Buffer), c_void_p, c_void_p, c_void_p,
    ),
    "gss_display_name": (_MINOR, c_void_p, POINTER(Buffer), c_void_p),
    "gss_display_status": (_MINOR, c_uint32, c_int, POINTER(Oid), POINTER(c_uint32), POINTER(Buffer)),
}  # fmt: skip


class Gss:
    """The library. Its objects live as long as the process, so nothing is freed."""

    def __init__(self) -> None:
        self._library = ctypes.CDLL("libgssapi_krb5.so.2")
        for name, arguments in _ARGUMENTS.items():
            function = getattr(self._library, name)
            function.argtypes, function.restype = arguments, c_uint32
        self._minor = c_uint32()

    def credential(self, service: str) -> c_void_p:
        """What takes tickets for a service whose key is in the keytab, by Kerberos within SPNEGO alone."""
        name, made = c_void_p(), c_void_p()
        self._sure(
            "gss_import_name", byref(_buffer(service.encode())), byref(_oid(_PRINCIPAL_NAME)), byref(name)
        )
        spnego, kerberos = _set_of(_oid(_SPNEGO)), _set_of(_oid(_KRB5))
        self._sure("gss_acquire_cred", name, 0, byref(spnego), _ACCEPT, byref(made), None, None)
        # Else any mechanism would do that somebody has installed on the machine: NTLM, say.
        self._sure("gss_set_neg_mechs", made, byref(kerberos))
        return made

    def accept(self, credential: c_void_p, token: bytes) -> str:
        """The principal whose ticket a token holds."""
        context, name, mechanism, reply = c_void_p(), c_void_p(), POINTER(Oid)(), Buffer()
        status = self._call(
            "gss_accept_sec_context", byref(context), credential, byref(_buffer(token)), None,
            byref(name), byref(mechanism), byref(reply), None, None, None,
        )  # fmt: skip
        if status == _CONTINUE_NEEDED:
            raise No("not a Kerberos ticket at the first word")
        if status != _COMPLETE:
            raise No(self._said(status))
        oid = mechanism.contents
        if ctypes.string_at(oid.elements, oid.length) != _KRB5:
            raise No("another mechanism than Kerberos")
        shown = Buffer()
        self._sure("gss_display_name", name, byref(shown), None)
        return shown.content().decode("utf-8", "replace")

    def _call(self, function: str, *arguments: Any) -> int:
        return int(getattr(self._library, function)(byref(self._minor), *arguments))

    def _sure(self, function: str, *arguments: Any) -> None:
        status = self._call(function, *arguments)
        if status != _COMPLETE:
            raise CannotTell(self._said(status))

    def _said(self, status: int) -> str:
        """What the library says of its last failure."""
        code, kind = (self._minor.value, _OF_MECHANISM) if status == _FAILURE else (status, _OF_GSS)
        ignored, more, text = c_uint32(), c_uint32(0), Buffer()
        self._library.gss_display_status(
            byref(ignored), code, kind, byref(_oid(_KRB5)), byref(more), byref(text)
        )
        return text.content().decode("utf-8", "replace")[:200]


def _buffer(content: bytes) -> Buffer:
    kept = ctypes.create_string_buffer(content, len(content))
    made = Buffer(len(content), ctypes.cast(kept, c_void_p))
    made.kept = kept  # for as long as the buffer is there
    return made


def _oid(elements: bytes) -> Oid:
    return Oid(len(elements), elements)


def _set_of(oid: Oid) -> OidSet:
    return OidSet(1, ctypes.pointer(oid))


def main() -> None:
    """Answer the question."""
    ctypes.CDLL(None).prctl(_PR_SET_DUMPABLE, 0)  # nobody may look at the keytab's keys in our memory
    question = json.load(sys.stdin)
    os.environ["KRB5_CONFIG"] = question["krb5_conf"]
    os.environ["KRB5_KTNAME"] = f"FILE:{question['keytab']}"
    os.environ["KRB5RCACHENAME"] = f"file2:{question['replays']}"
    try:
        answer = {"ok": True, "said": check(question)}
    except No as reason:
        answer = {"ok": False, "said": str(reason)}
    except (CannotTell, OSError) as reason:
        answer = {"ok": None, "said": str(reason)}
    sys.stdout.write("\n" + json.dumps(answer))


def check(question: dict[str, Any]) -> str:
    """The account whose ticket it is; without a token, empty where the keytab is in order."""
    # The library would call it a refusal if it could not write there.
    os.close(os.open(question["replays"], os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600))
    gss = Gss()
    credential = gss.credential(f"{question['service']}@{question['realm']}")
    if not question["token"]:
        return ""
    return account_of(gss.accept(credential, base64.b64decode(question["token"])), question["realm"])


def account_of(principal: str, realm: str) -> str:
    """The name in NAME@REALM: no other realm, no instance, nothing that the library had to escape."""
    name, _, of_realm = principal.partition("@")
    if of_realm != realm:
        raise No(f"{principal!r} is of another realm")
    if not name or any(char in name for char in "/\\"):
        raise No(f"{principal!r} has an instance or an odd name")
    return name


if __name__ == "__main__":
    main()
