"""`hpchub signer`: run the certificate authority, make its keys, show its public key, handle passwords."""

from __future__ import annotations

import argparse
import asyncio
import getpass
import sys
from pathlib import Path

from hpchub.core.secret import Secret
from hpchub.errors import ConfigError, HpchubError, InvalidRequest, RemoteError
from hpchub.logs import configure_logging, printable
from hpchub.prctl import forbid_dumps
from hpchub.signer import ca_staff, staff
from hpchub.signer.factor_key import make_factor_key
from hpchub.signer.factor_settings import Required
from hpchub.signer.issuer_settings import CaKind, make_issuer, trusted_keys
from hpchub.signer.keys import init_keys
from hpchub.signer.oidc_proof import OidcProof
from hpchub.signer.password_file import set_password
from hpchub.signer.proofs import Refused
from hpchub.signer.server import make_proof, serve
from hpchub.signer.settings import SignerSettings, load_settings


def configure(parser: argparse.ArgumentParser) -> None:
    """The verb's arguments."""
    parser.add_argument("--config", type=Path, required=True, metavar="FILE", help="signer.toml")
    actions = parser.add_subparsers(dest="action", metavar="ACTION")
    actions.add_parser("serve", help="listen until SIGTERM (what happens without an action)")
    actions.add_parser("init", help="make the state folder and its keys, where they are not there yet")
    actions.add_parser(
        "ca-key", help="print the public key that clusters trust; two while one follows the other"
    )
    password = actions.add_parser("set-password", help="set a password, read from standard input")
    password.add_argument("user", metavar="USER")
    check = actions.add_parser("check-password", help="try a login without a hub; says why it is refused")
    check.add_argument("user", metavar="USER")
    actions.add_parser("check-provider", help="ask the OpenID provider for its addresses and keys")
    ca_staff.configure(actions)
    staff.configure(actions)
    parser.set_defaults(action="serve")


def run(args: argparse.Namespace) -> int:
    """Do one action. Our own errors carry what went wrong."""
    settings = load_settings(args.config)
    if args.action == "init":
        made = init_keys(settings.state_dir, with_ca=settings.ca.kind is CaKind.FILE)
        if settings.second_factor.required is not Required.NONE and not settings.factor_key.exists():
            make_factor_key(settings.factor_key)
            made.append(settings.factor_key)
        for path in made:
            print(f"made {path}")
    elif args.action == "ca-key":
        issuer = make_issuer(settings.ca, settings.state_dir)
        print("\n".join(trusted_keys(settings.ca, settings.state_dir, issuer)))
    elif args.action == "set-password":
        _set_password(settings, args.user)
    elif args.action == "check-password":
        return _check_password(settings, args.user)
    elif args.action == "check-provider":
        return asyncio.run(_check_provider(settings))
    elif args.action in ca_staff.ACTIONS:
        ca_staff.run(args, settings)
    elif args.action in staff.ACTIONS:
        staff.run(args, settings)
    else:
        forbid_dumps()
        configure_logging(settings.log_format)
        asyncio.run(serve(settings))
    return 0


def _set_password(settings: SignerSettings, user: str) -> None:
    if settings.proof.file is None:
        kind = settings.proof.kind.value
        raise ConfigError(f"These settings prove people by {kind}: passwords are not the signer's to set.")
    set_password(settings.proof.file, user, _read_password(user))


def _check_password(settings: SignerSettings, user: str) -> int:
    """Say who that is or, what only staff may know, why not. Grants nothing."""
    proof = make_proof(settings.proof)
    password = Secret(getpass.getpass(f"Password of {user}: ")) if sys.stdin.isatty() else _read_line()
    try:
        verdict = proof.verify(user, password)
    except HpchubError as error:
        print(printable(f"could not be told: {error.__cause__ or error.message}"))
        return 1
    if isinstance(verdict, Refused):
        print(printable(f"refused: {verdict.reason}"))
        return 1
    print(f"accepted: {verdict.account}")
    return 0


async def _check_provider(settings: SignerSettings) -> int:
    """Say what the provider says of itself or, what only staff may know, why it cannot be told."""
    proof = make_proof(settings.proof)
    if not isinstance(proof, OidcProof):
        kind = settings.proof.kind.value
        raise ConfigError(f"These settings prove people by {kind}: no OpenID provider is asked.")
    try:
        provider = await proof.provider()
    except RemoteError as error:
        print(printable(f"could not be told: {error.__cause__ or error.message}"))
        return 1
    print(f"issuer: {proof.settings.issuer}")
    print(printable(f"people are sent to: {provider.authorization_endpoint}"))
    print(printable(f"codes are exchanged at: {provider.token_endpoint}"))
    print(printable(f"keys are at: {provider.jwks_uri}"))
    return 0


def _read_line() -> Secret:
    typed = sys.stdin.read().removesuffix("\n")
    if "\n" in typed:
        raise InvalidRequest("Nothing was changed: a password is one line.")
    return Secret(typed)


def _read_password(user: str) -> Secret:
    """From a terminal, asked for twice and not shown; else the one line on standard input."""
    if not sys.stdin.isatty():
        return _read_line()
    first = Secret(getpass.getpass(f"New password for {user}: "))
    if first != Secret(getpass.getpass("The same again: ")):
        raise InvalidRequest("Nothing was changed: the two passwords differ.")
    return first
