"""How authorities elsewhere are asked: HTTPS with JSON bodies, verified, and within a few seconds."""

from __future__ import annotations

import asyncio
import json
import logging
import ssl
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import aiohttp

from hpchub.core.secret import Secret
from hpchub.errors import ConfigError, RemoteError, SiteError
from hpchub.logs import printable

# Less than the bridge waits for the signer, so that it hears why.
ANSWER_S = 5.0

_AT_ONCE = 16
_MAX_ANSWER_BYTES = 64 * 1024
_SHOWN = 300
_BUSY = 429

_log = logging.getLogger(__name__)


class Https:
    """One server. `who` is its name in messages; `ca_file` the authorities that may vouch for it."""

    def __init__(self, who: str, url: str, ca_file: Path | None) -> None:
        self._who = who
        self._url = url.rstrip("/")
        self._turns = asyncio.Semaphore(_AT_ONCE)
        try:
            self._tls = ssl.create_default_context(cafile=str(ca_file) if ca_file else None)
        except OSError as error:  # ssl.SSLError is one
            raise ConfigError(f"{ca_file} holds no certificates that can be read.") from error

    async def call(
        self,
        method: str,
        path: str,
        body: Mapping[str, Any] | None = None,
        secret_headers: Mapping[str, Secret] | None = None,
    ) -> str:
        """The body of the answer, where that is a success.

        Raises:
            RemoteError: No answer within `ANSWER_S`, the wait for a turn included; or it is busy, or broken.
            SiteError: It refuses, or cannot prove who it is.
        """
        try:
            async with asyncio.timeout(ANSWER_S), self._turns:
                status, text = await self._ask(method, path, body, secret_headers or {})
        except TimeoutError as error:
            raise RemoteError(
                f"{self._who} did not answer within {ANSWER_S:.0f} s.", "Try again in a minute."
            ) from error
        except aiohttp.ClientSSLError as error:  # a certificate that nobody vouches for, or no TLS at all
            self._failed(path, str(error))
            raise SiteError(f"{self._who} cannot prove who it is.", "Tell the site's staff.") from None
        except (aiohttp.ClientError, OSError, UnicodeDecodeError) as error:
            self._failed(path, str(error))
            raise RemoteError(f"{self._who} cannot be reached.", "Try again in a minute.") from None
        if 200 <= status < 300:
            return text
        self._failed(path, f"status {status}: {text[:_SHOWN]}")
        if status >= 500 or status == _BUSY:
            raise RemoteError(
                f"{self._who} is not able to answer (status {status}).", "Try again in a minute."
            )
        raise SiteError(f"{self._who} refuses (status {status}).", "Tell the site's staff.")

    def parse(self, text: str, *path: str) -> str:
        """The text at a place in a JSON answer. SiteError where there is none."""
        try:
            value = json.loads(text)
            for name in path:
                value = value[name]
        except (ValueError, LookupError, TypeError, RecursionError):
            value = None
        if not isinstance(value, str):
            raise SiteError(f"{self._who} answers with something else.", "Tell the site's staff.")
        return value

    async def _ask(
        self, method: str, path: str, body: Mapping[str, Any] | None, secret_headers: Mapping[str, Secret]
    ) -> tuple[int, str]:
        headers = {name: secret.reveal() for name, secret in secret_headers.items()}
        async with (
            aiohttp.ClientSession(timeout=aiohttp.ClientTimeout(total=ANSWER_S)) as session,
            session.request(
                method, self._url + path, json=body, headers=headers, ssl=self._tls, allow_redirects=False
            ) as response,
        ):
            raw = bytearray()
            async for chunk in response.content.iter_any():
                raw += chunk
                if len(raw) > _MAX_ANSWER_BYTES:
                    raise aiohttp.ClientPayloadError("an answer without end")
            return response.status, raw.decode("utf-8")

    def _failed(self, path: str, why: str) -> None:
        """For staff; what the person is told says no more than that it did not work."""
        _log.error("issuer.failed issuer=%s path=%s reason=%s", self._who, path, printable(why))
