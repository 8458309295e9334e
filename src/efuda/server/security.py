"""What every request passes before a route sees it: whom it asks for, where it comes from, who sends it, how much.

    app = Guard(api, settings, door, life)

* The Host must be an address or a name of this server: a page elsewhere may point a name of its own at 127.0.0.1
  (DNS rebinding), but the browser then says that name.
* A browser says from where a request comes, by Sec-Fetch-Site or Origin: other sites change nothing here and include
  nothing from here. What changes something is JSON, which a form cannot send; pictures for the tagger may be a form's.
* Where there is a secret, everything but `PUBLIC` needs it.
* Bodies have a size and a time to come in.

It is plain ASGI, around everything, so that no route can forget it and errors have the headers, too.
"""

from __future__ import annotations

import asyncio
import base64
import binascii
import ipaddress
import json
import re
import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Final
from urllib.parse import parse_qs, urlsplit

from starlette.concurrency import run_in_threadpool
from starlette.datastructures import Headers, MutableHeaders
from starlette.requests import cookie_parser
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from efuda.server.access import Door
from efuda.server.refusals import Refusal, busy
from efuda.server.settings import Settings

__all__ = ["CONTENT_POLICY", "PUBLIC", "Guard", "Life", "cookie_name", "host_of"]

CONTENT_POLICY: Final = (
    "default-src 'self'; img-src 'self' blob: data:; object-src 'none'; base-uri 'none'; frame-ancestors 'none'; "
    "form-action 'self'"
)
PUBLIC: Final = frozenset({"/health", "/", "/favicon.ico", "/api/status", "/api/session"})
_HEADERS: Final = {
    "X-Content-Type-Options": "nosniff",
    "Referrer-Policy": "same-origin",
    "Cross-Origin-Resource-Policy": "same-origin",
    "Cross-Origin-Opener-Policy": "same-origin",
    "X-Frame-Options": "DENY",
    "Permissions-Policy": "camera=(), geolocation=(), microphone=()",
    "Content-Security-Policy": CONTENT_POLICY,
    "Cache-Control": "no-store",
}
_SAFE: Final = frozenset({"GET", "HEAD", "OPTIONS"})
_FORMS: Final = frozenset({"/evaluate"})
_UPLOADS: Final = frozenset({"/evaluate", "/tagger/v1/interrogate"})
_HOST: Final = re.compile(r"(?:\[([0-9A-Fa-f:.]{2,45})\]|([A-Za-z0-9](?:[A-Za-z0-9._-]{0,252})))(?::([0-9]{1,5}))?")


@dataclass
class Life:
    """How far the server is: it refuses what is new once it is `stopping`."""

    started: bool = False
    stopping: bool = False


def cookie_name(port: int) -> str:
    """A port's own: cookies do not tell ports apart."""
    return f"efuda-{port}"


def host_of(text: str) -> tuple[str, str] | None:
    """A Host header → (name or address without brackets, port or ""), lower case; None where it is malformed."""
    match = _HOST.fullmatch(text)
    if match is None:
        return None
    return (match[1] or match[2]).lower(), match[3] or ""


class Guard:
    """The middleware."""

    def __init__(self, app: ASGIApp, settings: Settings, door: Door, life: Life, seen: Callable[..., None]) -> None:
        """`seen(method, route, status, seconds)` is told of every answer."""
        self.app, self.settings, self.door, self.life, self.seen = app, settings, door, life, seen

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] == "lifespan":
            await self.app(scope, receive, send)
            return
        if scope["type"] != "http":
            await send({"type": "websocket.close", "code": 1008})
            return
        began, status = time.perf_counter(), 500

        async def answer(message: Message) -> None:
            nonlocal status
            if message["type"] == "http.response.start":
                status = message["status"]
                headers = MutableHeaders(scope=message)
                for name, value in _HEADERS.items():
                    headers.setdefault(name, value)
                if self.life.stopping:
                    headers["Connection"] = "close"
            await send(message)

        try:
            await self._admit(scope)
            await self.app(scope, self._bounded(scope, receive), answer)
        except Refusal as refusal:
            await _say(refusal, answer)
        finally:
            route = getattr(scope.get("route"), "path", "other")
            self.seen(scope["method"], route, status, time.perf_counter() - began)

    async def _admit(self, scope: Scope) -> None:
        headers, path, method = Headers(scope=scope), scope["path"], scope["method"]
        scope.setdefault("state", {})["signed_in"] = False
        host = self._checked_host(headers)
        _check_origin(headers, host, method, path)
        if method not in _SAFE:
            _check_type(headers, path, method)
        if self.life.stopping:
            raise busy("The server is stopping. Ask again when it is back.", seconds=10, error="stopping")
        scope["state"]["signed_in"] = signed_in = await self._is_known(scope, headers)
        if not signed_in and not (path in PUBLIC or path.startswith("/static/")):
            raise Refusal(401, "sign_in", "Sign in first.", headers={"WWW-Authenticate": 'Bearer realm="efuda"'})
        if self.settings.read_only and method not in _SAFE and path not in (*_UPLOADS, "/api/session"):
            raise Refusal(403, "read_only", "This server was started with --read-only: nothing can be changed.")

    def _checked_host(self, headers: Headers) -> tuple[str, str]:
        given = headers.getlist("host")
        if len(given) != 1:
            raise Refusal(400, "host", "A request names one Host.")
        host = host_of(given[0])
        if host is None or not self._is_ours(host[0]):
            raise Refusal(
                403,
                "host",
                "This server does not go by that name. Use its address, or start it with --name and the name.",
            )
        return host

    def _is_ours(self, name: str) -> bool:
        """No name that somebody else could point at us; an address cannot be pointed anywhere."""
        if name in self.settings.known_names:
            return True
        try:
            address = ipaddress.ip_address(name)
        except ValueError:
            return False
        address = getattr(address, "ipv4_mapped", None) or address
        return address.is_loopback or not (self.settings.is_loopback or address.is_unspecified)

    async def _is_known(self, scope: Scope, headers: Headers) -> bool:
        if self.door.is_open:
            return True
        cookies = cookie_parser(headers.get("cookie", ""))
        session = cookies.get(cookie_name(self.settings.port), "")
        if session and self.door.knows_session(session):
            return True
        query = parse_qs(scope["query_string"].decode("latin-1"), max_num_fields=100, separator="&")
        given = _credentials(headers, query)
        if given is not None:
            return await self._fits(given, scope)
        sealed = query.get("until", [""])[0], query.get("seal", [""])[0]
        return scope["method"] in _SAFE and all(sealed) and self.door.is_sealed(scope["path"], *sealed)

    async def _fits(self, given: str, scope: Scope) -> bool:
        if self.door.remembers(given):
            return True
        address = (scope.get("client") or ("unknown", 0))[0]
        if wait := self.door.brake.wait(address):
            raise busy("Too many wrong passwords or tokens. Wait a little.", seconds=wait, status=429, error="too_many")
        if await run_in_threadpool(self.door.fits, given):
            return True
        self.door.brake.failed(address)
        return False

    def _bounded(self, scope: Scope, receive: Receive) -> Receive:
        """Bodies end where their limit is, and in time."""
        limits, path = self.settings.limits, scope["path"]
        most = {"/evaluate": limits.request_bytes, "/tagger/v1/interrogate": limits.base64_bytes * 4 // 3 + 4096}
        limit = most.get(path, limits.json_bytes)
        announced = Headers(scope=scope).get("content-length", "0")
        ends = time.monotonic() + limits.body_seconds
        taken, done = 0, False

        async def bounded() -> Message:
            nonlocal taken, done
            if announced.isdigit() and int(announced[:20]) > limit:
                raise _too_large(limit)
            if done:
                return await receive()
            try:
                message = await asyncio.wait_for(receive(), ends - time.monotonic())
            except TimeoutError as error:
                raise Refusal(
                    408, "timeout", f"The request did not come in within {limits.body_seconds:g} s."
                ) from error
            taken += len(message.get("body", b""))
            done = message["type"] != "http.request" or not message.get("more_body", False)
            if taken > limit:
                raise _too_large(limit)
            return message

        return bounded


def _too_large(limit: int) -> Refusal:
    return Refusal(
        413, "too_large", f"A request here has at most {limit / 1e6:,.0f} MB.", headers={"Connection": "close"}
    )


def _check_origin(headers: Headers, host: tuple[str, str], method: str, path: str) -> None:
    """Refuse what a page of another site asks for; programs send neither header and are no danger."""
    site, origin = headers.get("sec-fetch-site"), headers.get("origin")
    elsewhere = site is not None and site not in ("same-origin", "none")
    if method in _SAFE:
        # A link from elsewhere may lead here; pictures, scripts and frames of other sites may not be ours.
        visits = headers.get("sec-fetch-mode") == "navigate" and headers.get("sec-fetch-dest") == "document"
        if elsewhere and not (visits and method == "GET"):
            raise Refusal(403, "origin", "Pages of other sites may not read from here.")
        return
    if elsewhere or (origin is not None and not _is_same(origin, host)):
        raise Refusal(403, "origin", "Pages of other sites may not change anything here.")


def _is_same(origin: str, host: tuple[str, str]) -> bool:
    try:
        parts = urlsplit(origin)
        port = parts.port
    except ValueError:
        return False
    if parts.scheme not in ("http", "https") or parts.hostname is None:
        return False
    usual = 443 if parts.scheme == "https" else 80
    return (parts.hostname.lower(), port or usual) == (host[0], int(host[1] or usual))


def _check_type(headers: Headers, path: str, method: str) -> None:
    """JSON: what a form of another site can send is none."""
    empty = headers.get("content-length", "0") == "0" and "transfer-encoding" not in headers
    if method == "DELETE" and empty:
        return
    kind = headers.get("content-type", "").split(";")[0].strip().lower()
    wanted = "multipart/form-data" if path in _FORMS else "application/json"
    if kind != wanted:
        raise Refusal(415, "media_type", f"Send this as {wanted}.")


def _credentials(headers: Headers, query: dict[str, list[str]]) -> str | None:
    """The secret in a request: Bearer or token, the password of Basic, or api_key as clients of Danbooru send it."""
    kind, _, value = headers.get("authorization", "").partition(" ")
    if kind.lower() in ("bearer", "token") and value:
        return value.strip()
    if kind.lower() == "basic":
        try:
            return base64.b64decode(value.strip(), validate=True).decode().partition(":")[2]
        except (binascii.Error, UnicodeDecodeError):
            return ""
    key = query.get("api_key")
    return key[0] if key else None


async def _say(refusal: Refusal, send: Send) -> None:
    body = json.dumps(refusal.body).encode()
    headers = [(b"content-type", b"application/json"), (b"content-length", str(len(body)).encode())]
    headers += [(name.lower().encode(), value.encode()) for name, value in (refusal.headers or {}).items()]
    await send({"type": "http.response.start", "status": refusal.status_code, "headers": headers})
    await send({"type": "http.response.body", "body": body})
