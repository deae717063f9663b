"""One LDAP check: a question as JSON on standard input, the answer as the last line of standard output.

Run by file name in an isolated interpreter, so it imports nothing of hpchub. ldap3 speaks the
protocol; certificates and names are verified by Python's own ssl module.
"""

from __future__ import annotations

import ctypes
import json
import re
import ssl
import sys
import time
from typing import Any

import ldap3
from ldap3.core.exceptions import LDAPException
from ldap3.utils.conv import escape_filter_chars
from ldap3.utils.dn import escape_rdn

_PR_SET_DUMPABLE = 4  # prctl(2)
_ANY_ENTRY = "(objectClass=*)"
_NO_ATTRIBUTES = ldap3.NO_ATTRIBUTES

# Answers to the person's bind that say no (RFC 4511, appendix A): referral, constraintViolation,
# noSuchObject, invalidDNSyntax, inappropriateAuthentication, invalidCredentials,
# insufficientAccessRights, unwillingToPerform. Any other failure says nothing about the password.
_NO = frozenset({10, 19, 32, 34, 48, 49, 50, 53})
_SUCCESS = 0
_SIZE_LIMIT_EXCEEDED = 4

# How directories write that an account is locked for good: OpenLDAP (slapo-ppolicy(5)), 389 Directory Server
# and FreeIPA, Active Directory. A lock for a while, after wrong passwords, is no lock of the account.
_LOCK_ATTRIBUTES = ["pwdAccountLockedTime", "nsAccountLock", "userAccountControl"]
_LOCKED_FOR_GOOD = b"000001010000Z"
_ACCOUNT_DISABLED = 2

# Active Directory says so why it refused: 532 expired, 533 disabled, 775 locked out.
_AD_REASON = re.compile(r"\bdata ([0-9a-fA-F]{1,8})\b")


class No(Exception):
    """The answer is no; why, for the audit log."""


class CannotTell(Exception):
    """This server cannot tell; why, for the audit log."""


class VerifiedTls(ldap3.Tls):  # type: ignore[misc]  # ldap3 ships no types
    """ssl's own check of chain and host name, in the place of ldap3's."""

    def wrap_socket(self, connection: Any, do_handshake: bool = False) -> None:
        """Makes the connection's socket a verified TLS one. ssl.SSLError where it cannot be verified."""
        context = ssl.create_default_context(cafile=self.ca_certs_file)
        connection.socket = context.wrap_socket(connection.socket, server_hostname=connection.server.host)


def main() -> None:
    """Answer the question."""
    ctypes.CDLL(None).prctl(_PR_SET_DUMPABLE, 0)  # before a password comes: nobody may look at our memory
    question = json.load(sys.stdin)
    try:
        answer = {"ok": True, "said": check(question) if "password" in question else look(question)}
    except No as reason:
        answer = {"ok": False, "said": str(reason)}
    except CannotTell as reason:
        answer = {"ok": None, "said": str(reason)}
    except (LDAPException, OSError) as error:
        answer = {"ok": None, "said": f"{type(error).__name__}: {error}"[:200]}
    sys.stdout.write("\n" + json.dumps(answer))


def check(question: dict[str, Any]) -> str:
    """The account that a name and password prove. No or CannotTell where they do not."""
    if question["user_dn"]:
        dn = question["user_dn"].replace("{account}", escape_rdn(question["username"]))
        reader = connect(question)
        bind_person(reader, dn, question["password"])
    else:
        reader = connect(question)
        bind_staff(reader, question["search_dn"], question["search_password"])
        dn = find(reader, question)
        person = connect(question)
        if not dn:
            # The same work: the password is tried as somebody whom no directory has.
            bind(person, f"cn=hpchub-nobody,{question['search_base']}", question["password"])
            raise No("not exactly one entry of that name")
        bind_person(person, dn, question["password"])
        person.unbind()
    entry = read_entry(reader, dn, question)
    account = account_in(entry, question)
    refuse_outsider(reader, dn, account, question)
    reader.unbind()
    return account


def look(question: dict[str, Any]) -> str:
    """The account, where nothing but a password would keep it from logging in. No where something would.

    An account that is not found may be one in a directory that is not whole: nobody can tell.
    """
    reader = connect(question)
    bind_staff(reader, question["search_dn"], question["search_password"])
    dn = find(reader, question)
    if not dn:
        raise CannotTell("not exactly one entry of that name")
    entry = read_entry(reader, dn, question)
    account = account_in(entry, question)
    if account != question["username"]:
        raise CannotTell("the entry of that name is another account's")
    refuse_locked(entry)
    refuse_outsider(reader, dn, account, question)
    reader.unbind()
    return account


def connect(question: dict[str, Any]) -> ldap3.Connection:
    """An open connection: TLS from the first byte, StartTLS, or a local socket; never in clear."""
    url = question["server"]
    local = url.startswith("ldapi:")
    tls = None if local else VerifiedTls(ca_certs_file=question["ca_file"], validate=ssl.CERT_REQUIRED)
    server = ldap3.Server(url, tls=tls, get_info=ldap3.NONE, connect_timeout=question["timeout_s"])
    connection = ldap3.Connection(
        server, auto_bind=ldap3.AUTO_BIND_NONE, auto_referrals=False, check_names=False, read_only=True
    )
    connection.open(read_server_info=False)
    if url.startswith("ldap:"):
        connection.start_tls(read_server_info=False)  # raises where the server will not
    return connection


def bind_staff(connection: ldap3.Connection, dn: str, password: str) -> None:
    """Bind as the service account."""
    result = bind(connection, dn, password)
    if result["result"] != _SUCCESS:
        raise CannotTell(f"the service account was refused: {result['description']}")


def bind_person(connection: ldap3.Connection, dn: str, password: str) -> None:
    """Bind as the person, which proves the password."""
    result = bind(connection, dn, password)
    if result["result"] in _NO:
        told = _AD_REASON.search(result["message"] or "")
        raise No(result["description"] + (f" (data {told[1]})" if told else ""))
    if result["result"] != _SUCCESS:
        raise CannotTell(f"the bind failed: {result['description']}")


def bind(connection: ldap3.Connection, dn: str, password: str) -> dict[str, Any]:
    """The result of a simple bind."""
    if not dn or not password:
        raise No("an empty name or password")  # a server may answer that with success, and mean nobody
    secured = connection.server.tls is None or isinstance(connection.socket, ssl.SSLSocket)
    if connection.closed or not secured:
        raise CannotTell("the connection was lost")  # ldap3 would open another one, in clear
    # As bytes: text would be changed by SASLprep, which OpenLDAP's own programs do not do.
    connection.rebind(
        user=dn, password=password.encode(), authentication=ldap3.SIMPLE, read_server_info=False
    )
    return dict(connection.result)


def find(connection: ldap3.Connection, question: dict[str, Any]) -> str:
    """The DN of the one entry that the search finds; empty where it finds none or several."""
    wanted = question["search_filter"].replace("{account}", escape_filter_chars(question["username"]))
    found = search(connection, question["search_base"], wanted, ldap3.SUBTREE, [_NO_ATTRIBUTES])
    return str(found[0]["dn"]) if len(found) == 1 else ""


def read_entry(connection: ldap3.Connection, dn: str, question: dict[str, Any]) -> dict[str, list[bytes]]:
    """The attributes of the person's own entry, by their names in lower case."""
    names = [question["account_attribute"], "uidNumber", "shadowExpire", *_LOCK_ATTRIBUTES]
    found = search(connection, dn, question["user_filter"] or _ANY_ENTRY, ldap3.BASE, names)
    if not found:
        raise No("user_filter does not let that entry in")
    return {name.lower(): values for name, values in found[0]["raw_attributes"].items()}


def account_in(entry: dict[str, list[bytes]], question: dict[str, Any]) -> str:
    """The account that an entry names, where it is neither a system account nor expired."""
    names = entry.get(question["account_attribute"].lower(), [])
    if len(names) != 1:
        raise No(f"{question['account_attribute']} has {len(names)} values")
    for number in numbers(entry, "uidNumber"):
        if number < question["min_uid_number"]:
            raise No(f"uidNumber {number} is too low")
    for day in numbers(entry, "shadowExpire"):
        if 0 <= day <= time.time() // 86400:  # shadow(5): days since 1970; -1 is never
            raise No("the account has expired")
    return names[0].decode("utf-8", "replace")


def refuse_locked(entry: dict[str, list[bytes]]) -> None:
    """No where the entry says that staff have locked the account. A bind finds that out by itself."""
    time_locked, locked, _ = (entry.get(name.lower(), []) for name in _LOCK_ATTRIBUTES)
    disabled = any(number & _ACCOUNT_DISABLED for number in numbers(entry, "userAccountControl"))
    if _LOCKED_FOR_GOOD in time_locked or b"true" in map(bytes.lower, locked) or disabled:
        raise No("the account is locked")


def numbers(entry: dict[str, list[bytes]], name: str) -> list[int]:
    """An attribute's values, mostly one or none."""
    try:
        return [int(value) for value in entry.get(name.lower(), [])]
    except ValueError:
        raise No(f"{name} is no number") from None


def refuse_outsider(connection: ldap3.Connection, dn: str, account: str, question: dict[str, Any]) -> None:
    """No where groups are asked for and the person is in none of them."""
    groups = question["groups"]
    if groups and not any(is_member(connection, group, dn, account) for group in groups):
        raise No("in none of the groups")


def is_member(connection: ldap3.Connection, group: str, dn: str, account: str) -> bool:
    """Whether a group's entry names the person, by DN or by account."""
    dn, account = escape_filter_chars(dn), escape_filter_chars(account)
    wanted = f"(|(member={dn})(uniqueMember={dn})(memberUid={account}))"
    return bool(search(connection, group, wanted, ldap3.BASE, [_NO_ATTRIBUTES]))


def search(
    connection: ldap3.Connection, base: str, wanted: str, scope: str, attributes: list[str]
) -> list[dict[str, Any]]:
    """The entries found; none where there are more than two.

    A reference to another server is no entry, and is not followed.
    """
    connection.search(
        base,
        wanted,
        search_scope=scope,
        dereference_aliases=ldap3.DEREF_NEVER,
        attributes=attributes,
        size_limit=2,
    )
    result = connection.result
    if result["result"] == _SIZE_LIMIT_EXCEEDED:
        return []  # there are several, however few came
    if result["result"] != _SUCCESS:
        raise CannotTell(f"the search in {base} failed: {result['description']}"[:200])
    return [found for found in connection.response if found["type"] == "searchResEntry"]


if __name__ == "__main__":
    main()
