"""Who is let in: passwords as argon2 hashes, tokens compared in constant time, sessions, and a brake on guessing.

new_password(Path("password"), "correct horse battery staple")       # a file that only its owner reads
door = Door(read_secret(Path("password")), Limits())
session = door.sign_in("correct horse battery staple", "192.168.1.7")
door.knows_session(session)                                          # True
"""

from __future__ import annotations

import hmac
import ipaddress
import os
import secrets
import stat
import threading
import time
from collections import OrderedDict, deque
from dataclasses import dataclass
from hashlib import sha256
from pathlib import Path
from typing import Final

from efuda.errors import InputError, OutputError
from efuda.server.settings import Limits

__all__ = ["Brake", "Door", "Secret", "new_password", "new_token", "read_secret"]

_LEAST_PASSWORD: Final = 8
_LEAST_TOKEN: Final = 20
_MOST: Final = 1024  # characters of a password: hashing more would be work for strangers to give us
_SESSION_SECONDS: Final = 30 * 24 * 3600
_SEAL_SECONDS: Final = 24 * 3600
_SESSIONS: Final = 1000
_ADDRESSES: Final = 10_000


@dataclass(frozen=True, slots=True)
class Secret:
    """What must be said to be let in: a password, of which the argon2id hash is kept, or a token."""

    value: str

    @property
    def is_password(self) -> bool:
        """Whether people made it up, so that checking it has to be slow."""
        return self.value.startswith("$argon2")

    def fits(self, given: str) -> bool:
        """Whether this is it; for a password this takes some ten milliseconds and 64 MB."""
        if not self.is_password:
            return hmac.compare_digest(self.value.encode(), given.encode())
        from argon2 import PasswordHasher
        from argon2.exceptions import Argon2Error

        if len(given) > _MOST:
            return False
        try:
            return PasswordHasher().verify(self.value, given)
        except Argon2Error:
            return False


def new_password(path: Path, password: str) -> None:
    """Write the argon2id hash of a password to a file that only its owner can read.

    Raises:
        InputError: the password is too short or too long.
        OutputError: the file cannot be written.
    """
    from argon2 import PasswordHasher

    if not _LEAST_PASSWORD <= len(password) <= _MOST:
        raise InputError(f"A password has {_LEAST_PASSWORD} to {_MOST:,} characters. Choose another one.")
    _write_private(path, PasswordHasher().hash(password))


def new_token(path: Path) -> None:
    """Write a new random token to a file that only its owner can read."""
    _write_private(path, secrets.token_urlsafe(32))


def read_secret(path: Path) -> Secret:
    """Read a file that `new_password` or `new_token` wrote, or one line of at least 20 characters as a token.

    Raises:
        InputError: it is missing, others can read it, or it holds no such thing.
    """
    try:
        with path.open("rb") as file:
            mode = os.fstat(file.fileno()).st_mode
            text = file.read(8192).decode("ascii", "replace").strip()
    except OSError as error:
        raise InputError(
            f"{path} cannot be read ({error.strerror}). Make it with: efuda serve --set-password --password-file {path}"
        ) from error
    if os.name == "posix" and stat.S_IMODE(mode) & 0o077:
        raise InputError(f"{path} can be read by others. Take their rights away: chmod 600 {path}")
    if not text.startswith("$argon2id$") and not (len(text) >= _LEAST_TOKEN and text.isprintable() and " " not in text):
        raise InputError(
            f"{path} holds neither a password's hash nor a token of {_LEAST_TOKEN} characters or more. Make it with: "
            f"efuda serve --set-password --password-file {path}"
        )
    return Secret(text)


def _write_private(path: Path, text: str) -> None:
    beside = path.with_name(f".{path.name}.{os.getpid()}.part")
    try:
        path.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
        with open(os.open(beside, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "w", encoding="ascii") as file:  # noqa: PTH123
            file.write(text + "\n")
            file.flush()
            os.fsync(file.fileno())
        os.replace(beside, path)
    except OSError as error:
        raise OutputError(f"{path} cannot be written: {error.strerror}. Name another place.") from error
    finally:
        beside.unlink(missing_ok=True)


class Brake:
    """Counts what went wrong in the last minute, of an address and in all."""

    def __init__(self, each: int, overall: int, *, window: float = 60.0) -> None:
        self.each, self.window = each, window
        self._overall: deque[float] = deque(maxlen=overall)
        self._of: OrderedDict[str, deque[float]] = OrderedDict()
        self._lock = threading.Lock()

    def failed(self, address: str) -> None:
        """One more that went wrong."""
        now = time.monotonic()
        with self._lock:
            self._overall.append(now)
            times = self._of.setdefault(_network(address), deque(maxlen=self.each))
            times.append(now)
            self._of.move_to_end(_network(address))
            while len(self._of) > _ADDRESSES:
                self._of.popitem(last=False)

    def wait(self, address: str) -> float:
        """Seconds until this address may try again; 0 for now."""
        now = time.monotonic()
        with self._lock:
            queues = (self._overall, self._of.get(_network(address)))
            full = [times for times in queues if times is not None and len(times) == times.maxlen]
            return max([0.0, *(times[0] + self.window - now for times in full)])


def _network(address: str) -> str:
    """A client with an IPv6 network of its own has 2**64 addresses, and counts once."""
    try:
        parsed = ipaddress.ip_address(address.split("%")[0])
    except ValueError:
        return address
    return str(ipaddress.ip_network(f"{parsed}/64", strict=False)) if parsed.version == 6 else str(parsed)


class Door:
    """Lets clients in, by session or by secret; everybody where there is no secret."""

    def __init__(self, secret: Secret | None, limits: Limits) -> None:
        self.secret = secret
        self.brake = Brake(limits.sign_ins, limits.all_sign_ins)
        self._key = secrets.token_bytes(32)
        self._sessions: OrderedDict[bytes, float] = OrderedDict()
        self._fitting: set[bytes] = set()  # keyed digests of what has fitted: argon2 is for the first time
        self._lock = threading.Lock()
        self._checking = threading.Lock()

    @property
    def is_open(self) -> bool:
        """Whether nobody is asked."""
        return self.secret is None

    def fits(self, given: str) -> bool:
        """Whether a secret is right; one slow check at a time."""
        if self.secret is None or len(given) > _MOST:
            return self.secret is None
        digest = self._digest(given)
        if digest in self._fitting:
            return True
        with self._checking:
            if not self.secret.fits(given):
                return False
        self._fitting.add(digest)
        return True

    def remembers(self, given: str) -> bool:
        """Whether this secret has fitted before: then it is checked at once, whatever others have tried."""
        return self._digest(given) in self._fitting

    def new_session(self) -> str:
        """For who has said the secret: a name that only they know."""
        session = secrets.token_urlsafe(32)
        with self._lock:
            self._sessions[self._digest(session)] = time.monotonic() + _SESSION_SECONDS
            while len(self._sessions) > _SESSIONS:
                self._sessions.popitem(last=False)
        return session

    def knows_session(self, session: str) -> bool:
        """Whether it was given out and has not ended."""
        with self._lock:
            ends = self._sessions.get(self._digest(session))
        return ends is not None and time.monotonic() < ends

    def end_session(self, session: str) -> None:
        """Sign out."""
        with self._lock:
            self._sessions.pop(self._digest(session), None)

    def seal(self, path: str) -> str:
        """What, behind the address of one picture, opens it for a day to who cannot sign in: the viewer of an app."""
        until = int(time.time()) + _SEAL_SECONDS
        return f"until={until}&seal={self._signed(path, until)}"

    def is_sealed(self, path: str, until: str, seal: str) -> bool:
        """Whether that was said of this very path, and is not over."""
        if not (until.isascii() and until.isdigit() and len(until) < 12) or int(until) < time.time():
            return False
        return hmac.compare_digest(self._signed(path, int(until)).encode(), seal.encode())

    def _signed(self, path: str, until: int) -> str:
        return hmac.new(self._key, f"{until} {path}".encode(), sha256).hexdigest()[:40]

    def _digest(self, text: str) -> bytes:
        return hmac.new(self._key, text.encode(), sha256).digest()
