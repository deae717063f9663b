"""Asks a directory: a bind as the person, over TLS whose certificate is verified, or a local socket."""

from __future__ import annotations

import ssl
from collections.abc import Iterator
from dataclasses import asdict
from pathlib import Path

from hpchub.errors import ConfigError, RemoteError, SiteError
from hpchub.private_files import read_private_file
from hpchub.signer.child import Answer, ask_child
from hpchub.signer.ldap_settings import ACCOUNT, LdapSettings
from hpchub.signer.server_proof import ServerProof


class LdapProof(ServerProof):
    """Each check is a process of its own that asks one server; the next is asked where that cannot tell."""

    name = "LDAP"

    def __init__(self, settings: LdapSettings, refusal_s: float = 1.0) -> None:
        super().__init__(refusal_s)
        self.settings = settings
        self._answered = settings.servers[0]

    def check(self) -> None:
        """The authorities' file and the service account's password can be read. ConfigError otherwise."""
        self._search_password()
        if self.settings.ca_file is None:
            return
        try:
            ssl.create_default_context(cafile=self.settings.ca_file)
        except OSError as error:  # ssl.SSLError is one
            path = self.settings.ca_file
            raise ConfigError(f"{path} holds no certificates that can be read: {error.strerror}.") from error

    def account_problem(self, account: str) -> str:
        """What the account's entry says against it, or "".

        Only a service account can look without a password, and only where accounts are what is searched
        for: somebody may log in with an address, say. Otherwise nothing is known against anybody.

        Raises:
            SiteError, RemoteError: It cannot be told.
        """
        settings = self.settings
        if f"({settings.account_attribute}={ACCOUNT})".lower() not in settings.search_filter.lower():
            return ""
        answer = self._sure(self._asked({"username": account}), "Accounts")
        return "" if answer.ok else f"{self.name}: {answer.said}"

    def _ask(self, username: str, password: str) -> Answer:
        return self._asked({"username": username, "password": password})

    def _asked(self, person: dict[str, object]) -> Answer:
        child = Path(__file__).with_name("ldap_child.py")
        try:
            question = self._question() | person
        except ConfigError as error:
            # Whoever logs in is not told paths; the audit log is.
            raise SiteError("Passwords cannot be checked now.", "Tell the site's staff.") from error
        problems = []
        for server in self._servers():
            try:
                answer = ask_child(child, question | {"server": server}, self.settings.timeout_s)
            except RemoteError:
                answer = Answer(None, "no answer in time")
            except SiteError:
                answer = Answer(None, "an answer that cannot be read")  # ldap3 does not foresee all of them
            if answer.ok is not None:
                self._answered = server
                return answer
            problems.append(f"{server}: {answer.said}")
        return Answer(None, "; ".join(problems))

    def _servers(self) -> Iterator[str]:
        """The one that answered last, then the rest: nobody waits twice for one that is away."""
        first = self._answered
        yield first
        yield from (server for server in self.settings.servers if server != first)

    def _question(self) -> dict[str, object]:
        question = asdict(self.settings)
        question["ca_file"] = str(self.settings.ca_file or "")
        question["search_password_file"] = ""
        return question | {"search_password": self._search_password()}

    def _search_password(self) -> str:
        """Read anew each time, so that a change counts at once. Without its newline."""
        path = self.settings.search_password_file
        if path is None:
            return ""
        try:
            password = read_private_file(path).decode("utf-8").removesuffix("\n")
        except UnicodeDecodeError as error:
            raise ConfigError(f"{path} is not text.") from error
        if not password or "\n" in password or "\0" in password:
            raise ConfigError(f"{path} must hold a password, and nothing else.")
        return password
