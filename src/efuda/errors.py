"""Everything a user can cause, as one tree; the bottom module, which imports nothing of ours.

    EfudaError                    exit code
    ├── UsageError                2   a flag or a combination of flags
    ├── InputError                3   something given to efuda is wrong
    │   ├── MetadataError             posts that cannot be read
    │   ├── ImageError                one picture: `.reason` is a short phrase for a report
    │   ├── RecipeError               a recipe file or a --set
    │   ├── ArtifactError             a dataset, run or model directory that is absent, unfinished or damaged
    │   │   └── MismatchError         two directories that do not belong together
    │   ├── CollectionError           a collection file
    │   └── QueryError                a search: `.query`, `.position`
    ├── OutputError               3   a place that cannot be written
    ├── Diverged                  3   training whose loss is no longer a number
    ├── ExportError               3   an exported model that does not do what the trained one does
    ├── MissingExtra              3   a part of efuda that is not installed
    └── Stopped                   130 Ctrl-C or SIGTERM was obeyed; `.resume` says how to go on (training: 0)

The library raises these; the command line prints `str(error)` and exits with `error.exit_code`.
Every message says what is wrong, where, and what to do next. Our own bugs are assertions, not these.
"""

from __future__ import annotations

import re

__all__ = [
    "ArtifactError",
    "CollectionError",
    "Diverged",
    "EfudaError",
    "ExportError",
    "ImageError",
    "InputError",
    "MetadataError",
    "MismatchError",
    "MissingExtra",
    "OutputError",
    "QueryError",
    "RecipeError",
    "Stopped",
    "UsageError",
]


class EfudaError(Exception):
    """Whatever a user can cause or mend."""

    exit_code = 3


class UsageError(EfudaError):
    """A flag, or flags that do not go together."""

    exit_code = 2


class InputError(EfudaError):
    """Something given to efuda is wrong."""


class MetadataError(InputError):
    """Posts that cannot be read."""


class ImageError(InputError):
    """One picture cannot be used; `reason` is a short phrase that groups well in a report."""

    def __init__(self, reason: str, where: str = "") -> None:
        self.reason = reason
        super().__init__(f"{where}: {reason}" if where else reason)


class RecipeError(InputError):
    """A recipe file, or one of its keys."""


class ArtifactError(InputError):
    """A dataset, run or model directory that is absent, unfinished or damaged."""


class MismatchError(ArtifactError):
    """Two directories that do not belong together, or one that changed beneath us."""


class CollectionError(InputError):
    """A collection that is absent, damaged or of another version."""


class QueryError(InputError):
    """A search that cannot be understood, with the place where understanding ended."""

    def __init__(self, message: str, query: str, position: int) -> None:
        self.message, self.query, self.position = message, query, position
        super().__init__(f"{message}\n  {query}\n  {' ' * position}^")

    @property
    def suggestions(self) -> list[str]:
        """What the message asks whether it was meant: words for the place of the one at the position."""
        asked = re.search(r"did you mean (\S+(?: or \S+)*)\?", self.message)
        return asked[1].split(" or ") if asked else []


class OutputError(EfudaError):
    """A place that cannot be written."""


class Diverged(EfudaError):
    """Training whose loss is no longer a number; the last good checkpoint is kept."""


class ExportError(EfudaError):
    """An exported model that does not do what the trained one does; nothing was written."""


class MissingExtra(EfudaError):
    """A part of efuda that is not installed: names the extra and the command that installs it."""

    def __init__(self, purpose: str, extra: str, package: str) -> None:
        self.extra = extra
        super().__init__(f'{purpose} needs {package}, which is not installed: pip install "efuda[{extra}]"')


class Stopped(EfudaError):
    """Ctrl-C or SIGTERM was obeyed and what was done is kept; `resume` says how to go on."""

    def __init__(self, done: str, resume: str, *, exit_code: int = 130) -> None:
        self.resume, self.exit_code = resume, exit_code
        super().__init__(f"Stopped: {done}. To go on: {resume}.")
