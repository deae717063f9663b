"""Whose account that is which an OpenID provider has told us about: by the site's own rule, and no other."""

from __future__ import annotations

import importlib
import pwd
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from hpchub.core.slugs import is_safe_account_name
from hpchub.errors import ConfigError, SiteError
from hpchub.private_files import read_private_file
from hpchub.signer.oidc_settings import OidcSettings

Claims = Mapping[str, Any]
AccountRule = Callable[[Claims], str]

_MOST_VALUE = 256


class NoAccount(Exception):
    """Why somebody whom the provider knows has no account here: for the audit log."""


def make_account_rule(settings: OidcSettings) -> AccountRule:
    """The rule that the settings name, whole: whose account, may they come in, and is it a person's.

    It raises NoAccount, and SiteError where it cannot be told. It blocks: call it from a thread.

    Raises:
        ConfigError: The file or the function cannot be used.
    """
    name = _namer(settings)

    def account_of(claims: Claims) -> str:
        _check_groups(claims, settings)
        account = name(claims)
        if not is_safe_account_name(account):
            raise NoAccount("unsafe account name")
        if settings.min_uid_number:
            _check_number(account, settings.min_uid_number)
        return account

    return account_of


def load_subjects(path: Path) -> dict[str, str]:
    """Accounts by subject, from lines `ACCOUNT:SUBJECT`. An account may have several subjects.

    Raises:
        ConfigError: The file is missing, loose or malformed; `problems` names each line.
    """
    try:
        lines = read_private_file(path).decode("utf-8").split("\n")
    except UnicodeDecodeError as error:
        raise ConfigError(f"{path} is not text.") from error
    subjects: dict[str, str] = {}
    problems = []
    for number, line in enumerate(lines, start=1):
        if not line.strip() or line.startswith("#"):
            continue
        account, _, subject = line.partition(":")
        if not is_safe_account_name(account) or not subject or subject != subject.strip():
            problems.append(f"{path}:{number}: is not ACCOUNT:SUBJECT")
        elif subject in subjects:
            problems.append(f"{path}:{number}: has a subject that another line has too")
        subjects[subject] = account
    if problems:
        raise ConfigError(f"{path} is wrong:", problems=problems)
    return subjects


def _namer(settings: OidcSettings) -> AccountRule:
    if settings.account_file is not None:
        load_subjects(settings.account_file)
        return _by_file(settings.account_file)
    if settings.account_function:
        return _by_function(settings.account_function)
    return _by_claim(settings)


def _by_claim(settings: OidcSettings) -> AccountRule:
    claim, suffix, pattern = settings.account_claim, settings.account_suffix, settings.account_pattern

    def account_of(claims: Claims) -> str:
        value = claims.get(claim)
        if not isinstance(value, str) or len(value) > _MOST_VALUE:
            raise NoAccount(f"no text in the claim {claim}")
        # Otherwise anybody may have written what they like into it.
        if claim == "email" and claims.get("email_verified") is not True:
            raise NoAccount("the provider has not verified the address")
        if not value.endswith(suffix):
            raise NoAccount(f"the claim {claim} does not end as account_suffix wants it")
        account = value.removesuffix(suffix)
        if pattern is not None and not pattern.fullmatch(account):
            raise NoAccount(f"the claim {claim} is not as account_pattern wants it")
        return account

    return account_of


def _by_file(path: Path) -> AccountRule:
    def account_of(claims: Claims) -> str:
        try:
            account = load_subjects(path).get(claims["sub"])
        except ConfigError as error:
            # Whoever logs in is not told paths and lines; the audit log is.
            raise SiteError("Accounts cannot be looked up now.", "Tell the site's staff.") from error
        if account is None:
            raise NoAccount("account_file does not have the person")
        return account

    return account_of


def _by_function(dotted: str) -> AccountRule:
    module, _, name = dotted.partition(":")
    try:
        function = getattr(importlib.import_module(module), name)
    except (ImportError, AttributeError) as error:
        raise ConfigError(f"account_function {dotted} cannot be imported: {error}.") from error
    if not callable(function):
        raise ConfigError(f"account_function {dotted} is no function.")

    def account_of(claims: Claims) -> str:
        try:
            account = function(dict(claims))
        except Exception as error:  # the site's own code may raise anything
            cause = RuntimeError(f"account_function raised {type(error).__name__}")
            raise SiteError("Accounts cannot be looked up now.", "Tell the site's staff.") from cause
        if not isinstance(account, str):
            raise NoAccount("account_function names no account")
        return account

    return account_of


def _check_groups(claims: Claims, settings: OidcSettings) -> None:
    if not settings.groups:
        return
    value = claims.get(settings.groups_claim)
    held = value if isinstance(value, list) else [value]
    if not any(isinstance(one, str) and one in settings.groups for one in held):
        raise NoAccount("in none of the groups")


def _check_number(account: str, lowest: int) -> None:
    try:
        number = pwd.getpwnam(account).pw_uid
    except KeyError as error:
        raise NoAccount(f"no account {account} on the signer's machine") from error
    if number < lowest:
        raise NoAccount(f"the user id {number} of {account} is too low")
