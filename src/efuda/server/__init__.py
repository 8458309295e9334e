"""The server: the gallery, an HTTP API, and the tagging services that other programs already know how to ask.

    from efuda.server import Settings, serve

    serve(Settings(), collection=Path("art.efuda"), model="model")        # until Ctrl-C or SIGTERM

What it promises about safety stands in SECURITY.md at the repository's root; `security` and `access` keep most of it.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any, Final

if TYPE_CHECKING:
    from efuda.server.access import new_password, new_token, read_secret
    from efuda.server.running import serve
    from efuda.server.settings import Limits, Settings

__all__ = ["Limits", "Settings", "new_password", "new_token", "read_secret", "serve"]

_HOME: Final = {
    "Limits": "settings",
    "Settings": "settings",
    "new_password": "access",
    "new_token": "access",
    "read_secret": "access",
    "serve": "running",
}


def __getattr__(name: str) -> Any:
    """Import a part when it is first used: setting a password needs no web framework."""
    if name not in _HOME:
        raise AttributeError(f"efuda.server has no {name!r}; it has {', '.join(__all__)}")
    return getattr(importlib.import_module(f"efuda.server.{_HOME[name]}"), name)
