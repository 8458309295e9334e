"""Times as the dumps write them, to microseconds since 1970.

Known are ISO 8601 with an offset (`2021-09-14T14:33:47.088-04:00`), the old dumps' `2008-06-10 03:08:07.34205 UTC`,
a bare date and time (taken as UTC), and Unix seconds. Anything else is `UNKNOWN`.
"""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Any, Final

import numpy as np
import pyarrow as arrow
import pyarrow.compute as compute
from numpy.typing import NDArray

__all__ = ["UNKNOWN", "microseconds"]

UNKNOWN: Final = -(2**63)
_ISO: Final = r"^\d{4}-\d\d-\d\d[T ]\d\d:\d\d:\d\d(\.\d{1,6})?(Z|[+-]\d\d:\d\d)$"


def microseconds(strings: Any) -> NDArray[np.int64]:
    """int64 [n] from an Arrow column of strings."""
    written = compute.replace_substring(strings.fill_null(""), " UTC", "Z")
    if isinstance(written, arrow.ChunkedArray):
        written = written.combine_chunks()
    regular = compute.match_substring_regex(written, _ISO)
    if compute.all(regular).as_py():
        return _cast(written)
    times = np.full(len(written), UNKNOWN, dtype=np.int64)
    mask = regular.to_numpy(zero_copy_only=False)
    times[mask] = _cast(written.filter(regular))
    for row in np.flatnonzero(~mask).tolist():
        times[row] = _one(written[row].as_py())
    return times


def _cast(iso: Any) -> NDArray[np.int64]:
    try:
        stamps = iso.cast(arrow.timestamp("us", "UTC")).cast(arrow.int64()).fill_null(UNKNOWN)
        return np.asarray(stamps.to_numpy(zero_copy_only=False))
    except arrow.ArrowInvalid:  # one of them has no such day
        return np.array([_one(text) for text in iso.to_pylist()], dtype=np.int64)


def _one(text: str) -> int:
    try:
        if text.isdigit() and len(text) <= 12:
            return int(text) * 1_000_000
        time = datetime.fromisoformat(text)
        time = time if time.tzinfo else time.replace(tzinfo=UTC)
        return round((time - datetime(1970, 1, 1, tzinfo=UTC)).total_seconds() * 1e6)
    except (ValueError, OverflowError):
        return UNKNOWN
