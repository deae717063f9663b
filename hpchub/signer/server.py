"""The signer's API: HTTP with JSON bodies on a unix socket (docs/reference/processes.md)."""

from __future__ import annotations

import asyncio
import gc
import signal
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager, closing

from aiohttp import web

from hpchub.audit import Event
from hpchub.core.secret import Secret
from hpchub.local_api.metrics import metrics_handler, serving_metrics
from hpchub.local_api.server import listening, make_app, readiness
from hpchub.signer.authority import Authority, Login
from hpchub.signer.batch_route import batch_route, minted_body
from hpchub.signer.callers import Callers, admission
from hpchub.signer.ending_routes import bridge_routes, staff_routes
from hpchub.signer.ends import Ends
from hpchub.signer.factor_key import load_factor_key
from hpchub.signer.factor_routes import factor_routes
from hpchub.signer.factor_settings import Required
from hpchub.signer.guard import Guard
from hpchub.signer.issuer_settings import make_issuer, trusted_keys
from hpchub.signer.kerberos_proof import KerberosProof
from hpchub.signer.keys import load_grant_key
from hpchub.signer.ldap_proof import LdapProof
from hpchub.signer.ledger import LEDGER, Ledger
from hpchub.signer.lookout import looking_after
from hpchub.signer.oidc_proof import OidcLogins, OidcProof, Presented
from hpchub.signer.oidc_token import MAX_TOKEN_LENGTH
from hpchub.signer.password_file import PasswordFileProof, load_password_file
from hpchub.signer.proofs import PamProof, Proof
from hpchub.signer.proving import Attempt
from hpchub.signer.reading import read_recorded
from hpchub.signer.second_factor import SecondFactors
from hpchub.signer.server_proof import ServerProof
from hpchub.signer.settings import ProofSettings, SignerSettings, open_audit_log
from hpchub.signer.spnego_proof import REPLAYS, SpnegoProof, Ticket
from hpchub.signer.state import State
from hpchub.signer.terminal_routes import terminal_routes
from hpchub.signer.terminals import Terminals
from hpchub.signer.used_logins import UsedLogins

_MAX_BODY_BYTES = 128 * 1024
_OPTIONAL = ("principal",)


async def serve(settings: SignerSettings) -> None:
    """Serve until SIGTERM or SIGINT. ConfigError where keys, folders or settings will not do."""
    ended = asyncio.Event()
    loop = asyncio.get_running_loop()
    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, ended.set)
    async with running(settings):
        gc.freeze()  # what is loaded stays; to look through it at each collection takes a twelfth of the time
        await ended.wait()


@asynccontextmanager
async def running(settings: SignerSettings) -> AsyncIterator[None]:
    """The signer, listening while the context lasts."""
    issuer = make_issuer(settings.ca, settings.state_dir)
    trusted = trusted_keys(settings.ca, settings.state_dir, issuer)
    grant_key = load_grant_key(settings.state_dir)
    audit = open_audit_log(settings)
    audit.check()
    proof = make_proof(settings.proof)
    with closing(State(settings.state_dir)) as state, closing(Ledger(settings.state_dir / LEDGER)) as ledger:
        guard = Guard(state, settings.guessing)
        ends = Ends(ledger, trusted, settings.policy.certificate_lifetime_s, settings.krl_file)
        second_factors = make_second_factors(settings, state)
        oidc = OidcLogins(proof, UsedLogins(state)) if isinstance(proof, OidcProof) else None
        spnego = make_spnego(settings)
        authority = Authority(
            issuer, grant_key, settings.policy, proof, guard, audit, ledger, ends, second_factors,
            oidc=oidc, spnego=spnego,
        )  # fmt: skip
        ends.write_krl()
        async with _listening(settings, trusted, authority, ledger):
            yield


@asynccontextmanager
async def _listening(
    settings: SignerSettings, trusted: Sequence[str], authority: Authority, ledger: Ledger
) -> AsyncIterator[None]:
    try:
        async with (
            looking_after(ledger, authority),
            listening(
                make_signer_app(trusted, authority, ledger, settings.callers),
                settings.socket,
                group=settings.callers.group,
                remote=settings.callers.listen,
            ),
            serving_metrics(settings.metrics_listen, authority.metrics.registry),
        ):
            yield
    finally:
        authority.close()


def make_proof(settings: ProofSettings) -> Proof:
    """The proof that the settings name. ConfigError where it cannot work."""
    if settings.file is not None:
        load_password_file(settings.file)
        return PasswordFileProof(settings.file)
    if settings.oidc is not None:
        oidc_proof = OidcProof(settings.oidc)
        oidc_proof.check()
        return oidc_proof
    server_proof: ServerProof
    if settings.ldap is not None:
        server_proof = LdapProof(settings.ldap)
    elif settings.kerberos is not None:
        server_proof = KerberosProof(settings.kerberos)
    else:
        return PamProof(settings.service)
    server_proof.check()
    return server_proof


def make_spnego(settings: SignerSettings) -> SpnegoProof | None:
    """None where the site takes no tickets from browsers. ConfigError where it cannot work."""
    kerberos = settings.proof.kerberos
    if kerberos is None or kerberos.spnego is None:
        return None
    made = SpnegoProof(kerberos, kerberos.spnego, settings.state_dir / REPLAYS)
    made.check()
    return made


def make_second_factors(settings: SignerSettings, state: State) -> SecondFactors | None:
    """None where the site asks for none. ConfigError where its key or settings will not do."""
    if settings.second_factor.required is Required.NONE:
        return None
    return SecondFactors(state, load_factor_key(settings.factor_key), settings.second_factor)


def make_signer_app(
    trusted: Sequence[str], authority: Authority, ledger: Ledger, callers: Callers
) -> web.Application:
    """The API's routes.

    Args:
        trusted: Lines of the keys that clusters are to trust, the one that signs first.
        callers: Whose each route is.
    """
    ca = {"public_key": trusted[0], "trusted": list(trusted), "principals": list(authority.principals)}

    async def health(_request: web.Request) -> web.Response:
        return web.json_response({"ok": True})

    async def ready(_request: web.Request) -> web.Response:
        return readiness("signer", await authority.missing())

    async def ca_public_key(_request: web.Request) -> web.Response:
        return web.json_response(ca)

    async def grants(request: web.Request) -> web.Response:
        names = ("username", "password", "code", "public_key", "source")
        body = await read_recorded(request, names, authority, Event.LOGIN)
        attempt = Attempt(
            username=body["username"],
            password=Secret(body["password"]),
            code=Secret(body["code"]),
            source=body["source"],
        )
        return _granted(await authority.log_in(attempt, body["public_key"]))

    async def oidc_grants(request: web.Request) -> web.Response:
        names = ("id_token", "salt", "public_key", "source")
        body = await read_recorded(request, names, authority, Event.LOGIN, longest=MAX_TOKEN_LENGTH)
        presented = Presented(id_token=Secret(body["id_token"]), salt=body["salt"], source=body["source"])
        return _granted(await authority.log_in_with_token(presented, body["public_key"]))

    async def spnego_grants(request: web.Request) -> web.Response:
        names = ("token", "public_key", "source")
        body = await read_recorded(request, names, authority, Event.LOGIN, longest=_MAX_BODY_BYTES)
        ticket = Ticket(token=Secret(body["token"]), source=body["source"])
        return _granted(await authority.log_in_with_ticket(ticket, body["public_key"]))

    async def oidc(_request: web.Request) -> web.Response:
        return web.json_response(await authority.oidc_request())

    async def offers(request: web.Request) -> web.Response:
        body = await read_recorded(request, ("ticket",), authority, Event.ENROLMENT)
        offer = await authority.offer(Secret(body["ticket"]))
        return web.json_response(
            {"username": offer.account, "uri": offer.uri.reveal(), "seed": offer.seed.reveal()}
        )

    async def enrolments(request: web.Request) -> web.Response:
        body = await read_recorded(request, ("ticket", "code", "source"), authority, Event.ENROLMENT)
        enrolled = await authority.enrol(Secret(body["ticket"]), Secret(body["code"]), body["source"])
        codes = [code.reveal() for code in enrolled.recovery_codes]
        return web.json_response({"username": enrolled.account, "recovery_codes": codes})

    async def certificates(request: web.Request) -> web.Response:
        names = ("grant", "public_key", "profile", "principal")
        body = await read_recorded(request, names, authority, Event.CERTIFICATE, optional=_OPTIONAL)
        form = body.get("principal", "")
        minted = await authority.minting.mint(
            Secret(body["grant"]), body["public_key"], body["profile"], form
        )
        return web.json_response(minted_body(minted))

    async def query_certificates(request: web.Request) -> web.Response:
        names = ("account", "public_key", "principal")
        body = await read_recorded(request, names, authority, Event.CERTIFICATE, optional=_OPTIONAL)
        form = body.get("principal", "")
        minted = await authority.minting.mint_query(body["account"], body["public_key"], form)
        return web.json_response(minted_body(minted))

    app = make_app(_MAX_BODY_BYTES, admission(callers))
    app.router.add_get("/v1/health", health)
    app.router.add_get("/v1/ready", ready)
    app.router.add_get("/v1/metrics", metrics_handler(authority.metrics.registry))
    app.router.add_get("/v1/ca", ca_public_key)
    app.router.add_post("/v1/grants", grants)
    app.router.add_get("/v1/oidc", oidc)
    app.router.add_post("/v1/oidc/grants", oidc_grants)
    app.router.add_post("/v1/spnego/grants", spnego_grants)
    app.router.add_post("/v1/second-factor/offers", offers)
    app.router.add_post("/v1/second-factor/enrolments", enrolments)
    app.router.add_post("/v1/certificates", certificates)
    app.router.add_post("/v1/query-certificates", query_certificates)
    app.add_routes([batch_route(authority)])
    app.add_routes(factor_routes(authority))
    app.add_routes(bridge_routes(authority.ending, ledger))
    app.add_routes(staff_routes(authority.ending, ledger))
    app.add_routes(terminal_routes(Terminals(authority, ledger), authority))
    return app


def _granted(login: Login) -> web.Response:
    return web.json_response(
        {"username": login.grant.account, "grant": login.token.reveal(), "expires_at": login.grant.ceiling}
    )
