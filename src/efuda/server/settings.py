"""What a server is told when it starts, and the limits it keeps.

settings = Settings(host="192.168.1.5", secret=read_secret(Path("password")), names=("art.example.org",))
settings.is_loopback        # False: whoever is on the network reaches it, so it has a secret
"""

from __future__ import annotations

import ipaddress
import socket
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Final

from efuda.errors import UsageError

if TYPE_CHECKING:
    from efuda.server.access import Secret

__all__ = ["Limits", "Settings", "is_loopback"]

_MB: Final = 1_000_000


@dataclass(frozen=True, slots=True)
class Limits:
    """How much a client may ask for; docs/serving.md lists them.

    Attributes:
        picture_bytes: one picture that is sent; larger ones are refused while they come.
        request_bytes: a request with pictures, in all.
        json_bytes: any other request.
        files, fields, field_bytes: of a form.
        pixels: of a picture that is sent, by its header.
        decode_bytes, decode_seconds: what decoding one picture may use.
        waiting, waiting_bytes: pictures that wait for the model, of all clients; beyond that 503.
        waiting_a_client: of one address; beyond that 429.
        picks: pictures that one edit may name.
        body_seconds: a request must have come in whole by then.
        stop_seconds: what runs at the end has so long to finish.
        sign_ins: wrong passwords or tokens a minute and address; `all_sign_ins` from everywhere.
        streams: pages that follow events at a time.
    """

    picture_bytes: int = 100 * _MB
    request_bytes: int = 256 * _MB
    base64_bytes: int = 64 * _MB
    json_bytes: int = 2 * _MB
    files: int = 64
    fields: int = 16
    field_bytes: int = 4096
    pixels: int = 100_000_000
    decode_bytes: int = 3 * 2**30
    decode_seconds: float = 30.0
    waiting: int = 256
    waiting_bytes: int = 1000 * _MB
    waiting_a_client: int = 128
    picks: int = 100_000
    body_seconds: float = 60.0
    stop_seconds: float = 20.0
    sign_ins: int = 5
    all_sign_ins: int = 100
    streams: int = 64


@dataclass(frozen=True, slots=True)
class Settings:
    """Where to listen and whom to let in.

    Attributes:
        host: an address of this machine; anything but loopback needs a secret.
        port: 0 for any that is free.
        secret: a password or a token, None for none.
        names: host names under which a reverse proxy or the network knows this server.
        read_only: nothing in the collection changes.
        workers: processes that decode pictures; a core each by default.
    """

    host: str = "127.0.0.1"
    port: int = 8420
    secret: Secret | None = None
    names: tuple[str, ...] = ()
    read_only: bool = False
    workers: int | None = None
    limits: Limits = field(default_factory=Limits)

    def __post_init__(self) -> None:
        if self.secret is None and not (self.is_loopback and not self.names):
            where = f"--host {self.host}" if not self.is_loopback else f"--name {self.names[0]}"
            raise UsageError(
                f"{where} lets others reach the server, so it needs a password or a token: efuda serve --set-password, "
                "then --password-file; or --token-file."
            )

    @property
    def is_loopback(self) -> bool:
        """Whether only this machine reaches it."""
        return is_loopback(self.host)

    @property
    def known_names(self) -> frozenset[str]:
        """Host names that a request may ask for, beside addresses."""
        own = socket.gethostname().lower()
        around = () if self.is_loopback else (own, f"{own.split('.')[0]}.local", self.host.lower())
        return frozenset(("localhost", *around, *(name.lower() for name in self.names)))


def is_loopback(host: str) -> bool:
    """Whether a host is this machine alone."""
    if host.lower() == "localhost":
        return True
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return False
