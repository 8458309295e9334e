"""What a process that decodes files of strangers may use: memory, threads, and no room for a core dump.

    limit_this_process(DECODING_MEMORY)      # first thing in a worker; a picture that needs more becomes an ImageError

Time is not limited here: a decoder that hangs in C hears no signal handler of ours, so whoever started the worker ends
it.
"""

from __future__ import annotations

import os
import sys
from pathlib import Path
from typing import Final

__all__ = ["DECODING_MEMORY", "is_limited", "limit_this_process"]

# The largest pictures we accept, 441 MP, need 2 to 4.3 GB by format (docs/pictures.md); an ordinary one 0.1.
DECODING_MEMORY: Final = 6 * 2**30
_limited = False


def limit_this_process(memory_bytes: int) -> bool:
    """Let this process have so much memory beside what it has now, write no core dump, and decode with one thread.

    What counts is its address space: also shared memory and libraries that come later, tens of MB. macOS takes the
    limit and does not keep it; Windows has none.

    Returns:
        Whether the system keeps the limit.
    """
    global _limited
    _decode_with_one_thread()
    if sys.platform == "win32":
        return False
    import resource

    for what, most in ((resource.RLIMIT_CORE, 0), (resource.RLIMIT_AS, _mapped() + memory_bytes)):
        _, hard = resource.getrlimit(what)
        most = most if hard == resource.RLIM_INFINITY else min(most, hard)
        resource.setrlimit(what, (most, most))
    _limited = sys.platform == "linux"
    return _limited


def _mapped() -> int:
    """Bytes of this process's address space that are in use, where the system says."""
    try:
        pages = int(Path("/proc/self/statm").read_text().split()[0])
    except OSError:
        return 0
    return pages * os.sysconf("SC_PAGE_SIZE")


def is_limited() -> bool:
    """Whether `limit_this_process` set a limit that the system keeps."""
    return _limited


def _decode_with_one_thread() -> None:
    """There is a worker a core already."""
    from PIL import AvifImagePlugin

    from efuda.images import plugins

    AvifImagePlugin.DEFAULT_MAX_THREADS = 1
    plugins.use_threads(1)
