"""What staff do with the authorities' keys: let one follow another, and vouch for the login nodes."""

from __future__ import annotations

import argparse
import asyncio
import os
import secrets
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

from hpchub.audit import Event, Outcome, Record
from hpchub.errors import InvalidRequest, ProcessAway
from hpchub.signer import ca_keys
from hpchub.signer.certificate_bytes import blob_of
from hpchub.signer.certificates import fingerprint_of, line_of, parse_public_key
from hpchub.signer.client import SignerClient
from hpchub.signer.host_certificates import (
    known_hosts_line,
    load_host_ca_key,
    make_host_ca_key,
    plan_host_certificate,
    sign_host_certificate,
)
from hpchub.signer.issuer_settings import CaKind, make_issuer, trusted_keys
from hpchub.signer.settings import SignerSettings, open_audit_log

_FACTOR = "staff"  # in the audit log: whoever may read and write the state folder


def configure(actions: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    """The actions and their arguments."""
    actions.add_parser(
        "next-ca-key", help="make the key that is to follow; print all that clusters must trust"
    )
    switch = actions.add_parser("switch-ca-key", help="have the next key sign, once the signer is restarted")
    switch.add_argument("--back", action="store_true", help="have the old one sign again")
    actions.add_parser("retire-ca-key", help="remove the old key; print what clusters must still trust")
    actions.add_parser("make-host-ca", help="make the authority that vouches for login nodes")
    host_ca = actions.add_parser("host-ca-key", help="print that authority's line for known_hosts")
    host_ca.add_argument("patterns", nargs="+", metavar="PATTERN", help="hosts that it may vouch for")
    host = actions.add_parser(
        "host-certificate", help="sign a login node's public key; print the certificate"
    )
    host.add_argument(
        "--name", action="append", required=True, help="as in the cluster file; may be repeated"
    )
    host.add_argument("--days", type=int, required=True, help="how long it is valid")
    host.add_argument("key", type=Path, metavar="KEY.pub", help="the host's public key")


def run(args: argparse.Namespace, settings: SignerSettings) -> None:
    """Do one of `ACTIONS`, and record it.

    Raises:
        InvalidRequest: It cannot be done now, or an argument is wrong.
        ConfigError, SiteError: A key or the audit log cannot be used.
    """
    ACTIONS[args.action](args, settings)


def _next(_args: argparse.Namespace, settings: SignerSettings) -> None:
    _only_with_files(settings)
    with _recorded(settings, "next key made"):
        ca_keys.make_next_ca_key(settings.state_dir)
    _print_trusted(settings)


def _switch(args: argparse.Namespace, settings: SignerSettings) -> None:
    _only_with_files(settings)
    with _recorded(settings, "switched back" if args.back else "switched"):
        (ca_keys.switch_ca_key_back if args.back else ca_keys.switch_ca_key)(settings.state_dir)
    line = line_of(ca_keys.load_ca_key(settings.state_dir))
    print(f"{fingerprint_of(blob_of(line))} signs as soon as the signer is restarted.")


def _retire(_args: argparse.Namespace, settings: SignerSettings) -> None:
    _only_with_files(settings)
    if os.path.lexists(settings.state_dir / ca_keys.OLD_CA_KEY):
        asyncio.run(_refuse_while_it_signs(settings))
    with _recorded(settings, "old key retired"):
        ca_keys.retire_ca_key(settings.state_dir)
    _print_trusted(settings)


async def _refuse_while_it_signs(settings: SignerSettings) -> None:
    """Return where no signer runs, or the one that does has the new key. InvalidRequest otherwise."""
    old = line_of(ca_keys.load_ca_key(settings.state_dir, ca_keys.OLD_CA_KEY))
    try:
        signs = await SignerClient(settings.socket).ca_public_key()
    except ProcessAway:  # whoever starts it next has the new key
        return
    if blob_of(signs) == blob_of(old):
        raise InvalidRequest(
            "The signer that runs still signs with the old key: it was not restarted since switch-ca-key.",
            "Restart it, wait until the last certificate of the old key has expired, and retire it then.",
        )


def _make_host_ca(_args: argparse.Namespace, settings: SignerSettings) -> None:
    with _recorded(settings, "authority for hosts made"):
        print(f"made {make_host_ca_key(settings.state_dir)}")


def _host_ca(args: argparse.Namespace, settings: SignerSettings) -> None:
    print(known_hosts_line(load_host_ca_key(settings.state_dir), args.patterns))


def _host_certificate(args: argparse.Namespace, settings: SignerSettings) -> None:
    authority = load_host_ca_key(settings.state_dir)
    try:
        key = parse_public_key(args.key.read_text(encoding="ascii"))
    except (OSError, UnicodeDecodeError) as error:
        raise InvalidRequest(f"{args.key} cannot be read: {error}") from error
    serial = secrets.randbelow(2**64 - 1) + 1
    contents = plan_host_certificate(args.name, days=args.days, now=int(time.time()), serial=serial)
    line = sign_host_certificate(authority, key, contents)
    open_audit_log(settings).record(
        Record(
            event=Event.HOST_CERTIFICATE,
            outcome=Outcome.GRANTED,
            reason=" ".join(args.name),
            factor=_FACTOR,
            serial=str(serial),
            key_id=contents.key_id,
            fingerprint=key.fingerprint,
            authority=fingerprint_of(authority.public_data),
        )
    )
    print(line)


def _only_with_files(settings: SignerSettings) -> None:
    if settings.ca.kind is not CaKind.FILE:
        raise InvalidRequest(
            f"The authority's key is not a file here, but of kind {settings.ca.kind.value}.",
            "Make the next key there, and write both into [ca]: public_key and also_trusted.",
        )


def _print_trusted(settings: SignerSettings) -> None:
    issuer = make_issuer(settings.ca, settings.state_dir)
    print("\n".join(trusted_keys(settings.ca, settings.state_dir, issuer)))


@contextmanager
def _recorded(settings: SignerSettings, what: str) -> Iterator[None]:
    """Around a change: not begun where it could not be recorded, and not recorded where it was refused."""
    audit = open_audit_log(settings)
    audit.check()
    yield
    audit.record(Record(event=Event.CA_CHANGED, outcome=Outcome.GRANTED, reason=what, factor=_FACTOR))


ACTIONS: dict[str, Callable[[argparse.Namespace, SignerSettings], None]] = {
    "next-ca-key": _next,
    "switch-ca-key": _switch,
    "retire-ca-key": _retire,
    "make-host-ca": _make_host_ca,
    "host-ca-key": _host_ca,
    "host-certificate": _host_certificate,
}
