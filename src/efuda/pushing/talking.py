"""Speaking JSON over HTTP to a server that a person named: one kept connection, patience, and no redirections.

    server = Server("http://127.0.0.1:45869", {"Hydrus-Client-API-Access-Key": key})
    server.get("/verify_access_key")                    # what it answers, or `Refused` with the status

Only the address given is ever spoken to: no proxy of the environment, no redirection, so that a key goes nowhere else.
A server that is away for a moment is asked again, with growing pauses; each request may be made twice.
"""

from __future__ import annotations

import http.client
import json
import ssl
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, Final
from urllib.parse import urlencode, urlsplit

from efuda.errors import OutputError, UsageError

__all__ = ["Refused", "Server", "is_local"]

_AWAY: Final = (429, 502, 503, 504)
_LONGEST_PAUSE_S: Final = 60.0
_MOST_BYTES: Final = 256 << 20


class Refused(Exception):
    """The server's answer is an error.

    Attributes:
        status: of HTTP.
        text: what it says, in one line of at most 300 characters.
        name: what szurubooru calls the error.
    """

    def __init__(self, status: int, text: str, name: str = "") -> None:
        self.status, self.text, self.name = status, text, name
        super().__init__(f"{status}: {text}")


class Server:
    """A server at one address.

    Args:
        url: http or https, with the path that its API has.
        headers: sent with every request; they hold the key.
        certificate: a file with the one certificate to trust, for a server that signed its own.
        timeout: seconds for a connection, and for each piece of an answer.
        tries: how often a request is made until the server counts as away.
        pause: for tests.

    Raises:
        UsageError: the address is none, or the certificate cannot be read.
    """

    def __init__(
        self,
        url: str,
        headers: Mapping[str, str],
        *,
        certificate: Path | None = None,
        timeout: float = 60.0,
        tries: int = 5,
        pause: Callable[[float], None] = time.sleep,
    ) -> None:
        self.url, self._host, self._port, self._secure, self._prefix = _address(url)
        self._headers = {"Accept": "application/json", **headers}
        self._context = _trust(certificate) if self._secure else None
        self._timeout, self._tries, self._pause = timeout, tries, pause
        self._connection: http.client.HTTPConnection | None = None

    def get(self, path: str, query: Mapping[str, str] | None = None) -> Any:
        """Ask; returns what the JSON of the answer holds, None where it has no body.

        Raises:
            Refused: the answer is an error.
            OutputError: the server cannot be reached, or answers with something that is no JSON.
        """
        return self._ask("GET", path, query, None)

    def post(self, path: str, body: Any, query: Mapping[str, str] | None = None) -> Any:
        """As `get`, with something to say."""
        return self._ask("POST", path, query, body)

    def put(self, path: str, body: Any, query: Mapping[str, str] | None = None) -> Any:
        """As `post`."""
        return self._ask("PUT", path, query, body)

    def close(self) -> None:
        """Hang up."""
        if self._connection is not None:
            self._connection.close()
            self._connection = None

    def _ask(self, method: str, path: str, query: Mapping[str, str] | None, body: Any) -> Any:
        place = self._prefix + path + (f"?{urlencode(query)}" if query else "")
        data = None if body is None else json.dumps(body).encode()
        headers = self._headers if data is None else {**self._headers, "Content-Type": "application/json"}
        why = ""
        for attempt in range(self._tries):
            fresh = self._connection is None
            try:
                status, answer_headers, answer = self._once(method, place, data, headers)
            except ssl.SSLCertVerificationError as error:
                raise OutputError(
                    f"{self.url} shows a certificate that is not trusted ({error.verify_message}). If it is the "
                    "server's own, save it to a file and give that with --certificate."
                ) from error
            except (OSError, http.client.HTTPException) as error:
                self.close()
                why = _why(error)
                if not fresh:
                    continue  # the server had hung up on a connection that was idle: no sign that it is away
                wait = 0.5 * 2**attempt
            else:
                if status not in _AWAY:
                    return self._understood(status, answer_headers, answer)
                why = f"it answers {status}"
                wait = _seconds(answer_headers.get("Retry-After"), 0.5 * 2**attempt)
            if attempt + 1 < self._tries:
                self._pause(min(wait, _LONGEST_PAUSE_S))
        raise OutputError(
            f"{self.url} cannot be reached ({why}). Check that it runs and that the address is right; "
            "what was pushed is kept, so run the same command again."
        )

    def _once(
        self, method: str, place: str, data: bytes | None, headers: Mapping[str, str]
    ) -> tuple[int, http.client.HTTPMessage, bytes]:
        if self._connection is None:
            self._connection = self._connected()
        self._connection.request(method, place, data, headers=dict(headers))
        response = self._connection.getresponse()
        answer = response.read(_MOST_BYTES)
        if not response.isclosed():
            self.close()  # there is more than anyone should say
        return response.status, response.headers, answer

    def _connected(self) -> http.client.HTTPConnection:
        if self._context is not None:
            return http.client.HTTPSConnection(self._host, self._port, timeout=self._timeout, context=self._context)
        return http.client.HTTPConnection(self._host, self._port, timeout=self._timeout)

    def _understood(self, status: int, headers: http.client.HTTPMessage, answer: bytes) -> Any:
        if 300 <= status < 400:
            raise OutputError(
                f"{self.url} sends on to {_line(headers.get('Location') or 'nowhere')}. "
                "efuda does not follow: give that address yourself if it is right."
            )
        try:
            value = json.loads(answer) if answer.strip() else None
        except ValueError as error:
            if status >= 400:
                raise Refused(status, _line(answer.decode("utf-8", "replace"))) from error
            raise OutputError(
                f"{self.url} answers, but not with JSON. Check the address; szurubooru's ends in /api."
            ) from error
        if status >= 400:
            said = value if isinstance(value, dict) else {}
            words = (said.get(field) for field in ("description", "error", "title"))
            text = next(filter(None, words), answer.decode("utf-8", "replace"))
            raise Refused(status, _line(str(text)), str(said.get("name") or ""))
        return value


def is_local(url: str) -> bool:
    """Whether what is sent there stays on this machine, or is encrypted."""
    parts = urlsplit(url)
    return parts.scheme == "https" or parts.hostname in ("localhost", "::1") or (parts.hostname or "")[:4] == "127."


def _address(url: str) -> tuple[str, str, int | None, bool, str]:
    try:
        parts = urlsplit(url)
        port = parts.port
    except ValueError as error:
        raise UsageError(f"--url {url}: {error}. For example http://127.0.0.1:45869") from error
    if parts.scheme not in ("http", "https") or not parts.hostname:
        raise UsageError(f"--url {url} is not an address of the web. For example http://127.0.0.1:45869")
    if parts.username is not None or parts.password is not None:
        raise UsageError("--url holds a name or password, which others could read. Give it in a file: --key-file.")
    if parts.query or parts.fragment or any(ord(letter) <= 32 or ord(letter) > 126 for letter in parts.path):
        raise UsageError(f"--url {url} has more than a host and a path. For example https://booru.example/api")
    prefix = parts.path.rstrip("/")
    shown = f"{parts.scheme}://{parts.netloc}{prefix}"
    return shown, parts.hostname, port, parts.scheme == "https", prefix


def _trust(certificate: Path | None) -> ssl.SSLContext:
    if certificate is None:
        return ssl.create_default_context()
    try:
        context = ssl.create_default_context(cafile=certificate)
    except (OSError, ssl.SSLError) as error:
        raise UsageError(f"--certificate {certificate} cannot be read ({error}). It should be a PEM file.") from error
    context.check_hostname = False  # it is the one certificate that is trusted, whatever name stands in it
    return context


def _why(error: Exception) -> str:
    if isinstance(error, TimeoutError):
        return "it does not answer in time"
    if isinstance(error, ConnectionRefusedError):
        return "nothing listens there"
    if isinstance(error, http.client.HTTPException) and not isinstance(error, ConnectionError):
        return "what answers does not speak HTTP"
    return (getattr(error, "strerror", None) or str(error) or type(error).__name__).lower()


def _seconds(text: str | None, otherwise: float) -> float:
    try:
        return max(0.0, float(text or ""))
    except ValueError:
        return otherwise


def _line(text: str) -> str:
    """In one line, without what could move a terminal's cursor."""
    shown = "".join(letter if letter.isprintable() else " " for letter in text)
    return " ".join(shown.split())[:300] or "no reason given"
