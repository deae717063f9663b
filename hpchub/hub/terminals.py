"""The login of people's own machines: RFC 8628's device flow, and the page on which a person confirms it.

`hpchub login` asks for a code without any login; the person types it here, logged in at the hub as ever,
sees who asks, and allows it. What the machine then collects is a certificate, not a token.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from jupyterhub.handlers import BaseHandler
from jupyterhub.utils import url_path_join
from tornado import web

from hpchub.bridge.client import BridgeClient
from hpchub.core.cluster import Cluster
from hpchub.errors import ConfigError, HpchubError, InvalidRequest, NotAllowed
from hpchub.hub.device_codes import INTERVAL_S, LIFETIME_S, Answer, Asked, DeviceCodes, shown
from hpchub.hub.known import clusters_in

_PATH = "hpchub/device"
_CODES = "hpchub_device_codes"
_GRANT_TYPE = "urn:ietf:params:oauth:grant-type:device_code"


class ForProgramsHandler(BaseHandler):
    """Answers programs in JSON. Knows no cookie, so there is nothing that another site could make use of."""

    _accept_cookie_auth = False
    _accept_token_auth = False

    def check_xsrf_cookie(self) -> None:
        """Nothing to check: no browser's login counts here."""

    def set_default_headers(self) -> None:
        """No copy of an answer stays anywhere."""
        super().set_default_headers()
        self.set_header("Cache-Control", "no-store")
        self.set_header("Content-Type", "application/json")

    def get_content_type(self) -> str:
        """Not HTML, as JupyterHub's pages."""
        return "application/json"

    def write_error(self, status_code: int, **kwargs: Any) -> None:
        """Any fault, in the shape of RFC 6749, section 5.2."""
        self.finish(json.dumps({"error": "invalid_request", "error_description": f"HTTP {status_code}"}))

    async def refuse(self, error: HpchubError) -> None:
        """An error of ours, in the same shape; its words are for people."""
        kind = "invalid_request" if error.status < 500 else "temporarily_unavailable"
        self.set_status(error.status)
        self.finish(json.dumps({"error": kind, "error_description": str(error)}))


class AuthorizationHandler(ForProgramsHandler):
    """RFC 8628, section 3.1: a machine asks for its two codes."""

    async def post(self) -> None:
        """`public_key`, and `name`, what the machine calls itself."""
        try:
            device_code, asked = _codes(self).begin(
                self.get_body_argument("public_key"),
                self.get_body_argument("name", ""),
                self.authenticator.source_of(self),
            )
        except HpchubError as error:
            await self.refuse(error)
            return
        page = f"{self.request.protocol}://{self.request.host}{_page_url(self)}"
        code = shown(asked.user_code)
        body = {
            "device_code": device_code,
            "user_code": code,
            "verification_uri": page,
            "verification_uri_complete": f"{page}?user_code={code}",
            "expires_in": LIFETIME_S,
            "interval": INTERVAL_S,
        }
        self.finish(json.dumps(body))


class CollectHandler(ForProgramsHandler):
    """RFC 8628, section 3.4: a machine asks whether somebody has confirmed."""

    async def post(self) -> None:
        """`grant_type`, and `device_code`."""
        if self.get_body_argument("grant_type", "") != _GRANT_TYPE:
            self.set_status(400)
            self.finish(json.dumps({"error": "unsupported_grant_type"}))
            return
        answer, granted = _codes(self).poll(self.get_body_argument("device_code"))
        if answer is not Answer.GRANTED:
            self.set_status(400)
            self.finish(json.dumps({"error": answer.value}))
            return
        self.finish(json.dumps(granted))


class DeviceHandler(BaseHandler):
    """The page: type the code, see who asks, allow or deny. Nothing happens without the button."""

    def set_default_headers(self) -> None:
        """No copy of the page stays in the browser or on the way."""
        super().set_default_headers()
        self.set_header("Cache-Control", "no-store")
        self.set_header("Referrer-Policy", "no-referrer")

    @web.authenticated
    async def get(self) -> None:
        """The field for the code; with `user_code`, who asks."""
        typed = self.get_argument("user_code", "")
        asked, refusal = None, ""
        if typed:
            asked, refusal = self._look_up(typed)
        await self._show(asked=asked, refusal=refusal)

    @web.authenticated
    async def post(self) -> None:
        """`user_code`, and `answer`: whatever is not `allow` denies."""
        asked, refusal = self._look_up(self.get_body_argument("user_code", ""))
        if asked is None:
            await self._show(refusal=refusal)
            return
        codes, user = _codes(self), self.current_user
        try:
            codes.claim(asked)
        except InvalidRequest as error:
            await self._show(refusal=str(error))
            return
        if self.get_body_argument("answer", "") != "allow":
            codes.deny(asked)
            self.log.info("device.denied user=%s source=%s", user.name, asked.source)
            await self._show(done="denied")
            return
        try:
            codes.grant(asked, await self._granted(asked))
        except HpchubError as error:
            codes.release(asked)
            self.log.warning("device.refused user=%s error=%s", user.name, error.message)
            await self._show(asked=asked, refusal=str(error))
            return
        self.log.info("device.granted user=%s source=%s key=%s", user.name, asked.source, asked.fingerprint)
        await self._show(done="allowed")

    async def _granted(self, asked: Asked) -> dict[str, Any]:
        """What the machine collects: a certificate, and how to reach the clusters."""
        user = self.current_user
        clusters = clusters_in(Path(user.spawner.clusters))
        told = [_told(cluster) for cluster in clusters.values()]
        bridge = BridgeClient(Path(self.authenticator.bridge_socket))
        certificate, valid_before = await bridge.terminal_certificate(
            user.name, asked.public_key, asked.source
        )
        return {
            "username": user.name,
            "certificate": certificate,
            "valid_before": valid_before,
            "clusters": told,
        }

    def _look_up(self, typed: str) -> tuple[Asked | None, str]:
        try:
            return _codes(self).find(self.current_user.name, typed), ""
        except NotAllowed as error:
            self.set_status(429)
            return None, str(error)
        except InvalidRequest as error:
            self.set_status(error.status)
            return None, str(error)

    async def _show(self, asked: Asked | None = None, refusal: str = "", done: str = "") -> None:
        if refusal and self.get_status() == 200:
            self.set_status(409)
        page = await self.render_template(
            "hpchub_device.html",
            asked=asked,
            code=shown(asked.user_code) if asked else "",
            refusal=refusal,
            done=done,
            username=self.current_user.name,
            xsrf=self.xsrf_token.decode("ascii"),
        )
        self.finish(page)


def terminal_handlers() -> list[tuple[str, type[BaseHandler]]]:
    """The flow's two addresses for programs, and its page."""
    return [
        (f"/{_PATH}", DeviceHandler),
        (f"/{_PATH}/authorization", AuthorizationHandler),
        (f"/{_PATH}/token", CollectHandler),
    ]


def _told(cluster: Cluster) -> Mapping[str, Any]:
    """What ssh has to know of a cluster. ConfigError where its host keys cannot be read."""
    try:
        known_hosts = cluster.known_hosts.read_text(encoding="ascii")
    except (OSError, UnicodeDecodeError) as error:
        raise ConfigError(
            f"The host keys of {cluster.title} cannot be read.", "Tell the site's staff."
        ) from error
    return {
        "name": cluster.name,
        "proxy_jump": cluster.proxy_jump,
        "known_hosts": [line for line in known_hosts.splitlines() if line and not line.startswith("#")],
        "login_nodes": [
            {"name": node.name, "address": node.address, "port": node.port} for node in cluster.login_nodes
        ],
    }


def _page_url(handler: BaseHandler) -> str:
    return str(url_path_join(handler.hub.base_url, _PATH))


def _codes(handler: BaseHandler) -> DeviceCodes:
    """The one set of a hub; JupyterHub's own settings keep it, for as long as the hub lives."""
    found: DeviceCodes = handler.settings.setdefault(_CODES, DeviceCodes())
    return found
