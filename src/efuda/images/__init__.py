"""Pictures of any kind, safely: an upright opaque RGB picture, or some frames, or an `ImageError` with a short reason.

    for path in find_pictures([Path("art")]):         # folders, archives and, if asked, videos
        picture = read_rgb(path)                      # PIL image, mode RGB, upright, alpha on white, sRGB
        frames = read_frames(path, count=4)           # of what moves; of a picture, the picture
        about = examine(read_bytes(path))             # its size, perceptual hash and whether it is one colour, faster

Only the formats in `FORMATS` and those of `plugins` are ever decoded, whatever the file's name says, and never more
than `MAX_PIXELS`. docs/pictures.md has the list of formats and limits.
"""

from __future__ import annotations

from efuda.images.archives import ARCHIVES, MAX_BYTES, read_bytes
from efuda.images.colours import on_white
from efuda.images.finding import SUFFIXES, VIDEOS, find_names, find_pictures, paths_from
from efuda.images.frames import read_frames
from efuda.images.hashing import Examined, examine, is_single_colour, is_small_jpeg, phash, thumbnail
from efuda.images.limits import DECODING_MEMORY, limit_this_process
from efuda.images.opening import FORMATS, MAX_PIXELS, MAX_SIDE, full_size, read_rgb, read_size
from efuda.images.watching import watch

__all__ = [
    "ARCHIVES",
    "DECODING_MEMORY",
    "FORMATS",
    "MAX_BYTES",
    "MAX_PIXELS",
    "MAX_SIDE",
    "SUFFIXES",
    "VIDEOS",
    "Examined",
    "examine",
    "find_names",
    "find_pictures",
    "full_size",
    "is_single_colour",
    "is_small_jpeg",
    "limit_this_process",
    "on_white",
    "paths_from",
    "phash",
    "read_bytes",
    "read_frames",
    "read_rgb",
    "read_size",
    "thumbnail",
    "watch",
]
