"""An XMP packet into and out of the bytes of a JPEG, PNG or WebP file; every other byte stays as it is.

    packet = read_xmp(data)                 # bytes, or None
    changed = with_xmp(data, packet)
    parts(data) == parts(changed)           # everything but the packet

JPEG: an APP1 segment of at most 65,504 bytes of XMP (a longer packet is refused; extended XMP that is there stays).
PNG: an iTXt chunk `XML:com.adobe.xmp`. WebP: a chunk `XMP `, and a VP8X header that says so.
"""

from __future__ import annotations

import struct
import zlib
from collections.abc import Iterator
from typing import Final

from efuda.tagging.writing.places import Refused

__all__ = ["kind_of", "parts", "read_xmp", "with_xmp"]

_JPEG_XMP: Final = b"http://ns.adobe.com/xap/1.0/\0"
_JPEG_MOST: Final = 65_533 - len(_JPEG_XMP)
_PNG: Final = b"\x89PNG\r\n\x1a\n"
_PNG_XMP: Final = b"XML:com.adobe.xmp\0"
_WEBP_FLAG: Final = 0x04
_DAMAGED: Final = "the picture is damaged"
_MOST: Final = 16_000_000
Part = tuple[bytes, bytes]  # what it is, and all its bytes


def kind_of(data: bytes) -> str | None:
    """ "jpeg", "png", "webp" or None, by the first bytes."""
    if data.startswith(b"\xff\xd8\xff"):
        return "jpeg"
    if data.startswith(_PNG):
        return "png"
    return "webp" if data[:4] == b"RIFF" and data[8:12] == b"WEBP" else None


def read_xmp(data: bytes) -> bytes | None:
    """The packet of a picture.

    Raises:
        Refused: no JPEG, PNG or WebP, or a damaged one.
    """
    found = next((part for part in _split(data) if _is_xmp(part)), None)
    if found is None:
        return None
    name, whole = found
    if name == b"\xe1":
        return whole[4 + len(_JPEG_XMP) :]
    return _of_itxt(whole[8:-4]) if name == b"iTXt" else whole[8 : 8 + struct.unpack("<I", whole[4:8])[0]]


def with_xmp(data: bytes, packet: bytes) -> bytes:
    """The picture with this packet in place of the one it has.

    Raises:
        Refused: no JPEG, PNG or WebP, a damaged one, or one that the packet does not fit in.
    """
    split = list(_split(data))
    kind = kind_of(data)
    if kind == "jpeg":
        return b"".join(whole for _, whole in _into_jpeg(split, packet))
    if kind == "png":
        body = _PNG_XMP + b"\0\0\0\0" + packet
        chunk = struct.pack(">I", len(body)) + b"iTXt" + body + struct.pack(">I", zlib.crc32(b"iTXt" + body))
        return b"".join(whole for _, whole in _replaced(split, (b"iTXt", chunk), before=b"IDAT"))
    return _into_webp(split, packet)


def parts(data: bytes) -> list[Part]:
    """Everything but the packet and what only says that there is one: equal before and after."""
    found = [part for part in _split(data) if not _is_xmp(part)]
    if kind_of(data) == "webp":
        return [(name, whole) for name, whole in found if name not in (b"RIFF", b"VP8X")]
    return found


def _split(data: bytes) -> Iterator[Part]:
    split = {"jpeg": _jpeg, "png": _png, "webp": _webp}.get(kind_of(data) or "")
    if split is None:
        raise Refused("XMP is embedded into JPEG, PNG and WebP only")
    try:
        yield from split(data)
    except (struct.error, IndexError, ValueError) as error:
        raise Refused(_DAMAGED) from error


def _is_xmp(part: Part) -> bool:
    name, whole = part
    return (
        (name == b"\xe1" and whole[4:].startswith(_JPEG_XMP))
        or (name == b"iTXt" and whole[8:].startswith(_PNG_XMP))
        or name == b"XMP "
    )


def _replaced(split: list[Part], new: Part, before: bytes) -> list[Part]:
    """In place of the first packet, or before the first part of that name."""
    place = next((at for at, part in enumerate(split) if _is_xmp(part)), None)
    if place is not None:
        return [*split[:place], new, *split[place + 1 :]]
    place = next((at for at, (name, _) in enumerate(split) if name == before), None)
    if place is None:
        raise Refused(_DAMAGED)
    return [*split[:place], new, *split[place:]]


# JPEG: markers, each with a length, up to the scan; from there on the rest is one part


def _jpeg(data: bytes) -> Iterator[Part]:
    yield b"\xd8", data[:2]
    at = 2
    while True:
        start = at
        if data[at] != 0xFF:
            raise ValueError("no marker")
        while data[at + 1] == 0xFF:
            at += 1
        if at > start:  # fill bytes may stand before a marker
            yield b"fill", data[start:at]
        start, at = at, at + 1
        marker = data[at]
        if marker in (0xDA, 0xD9):
            yield bytes([marker]), data[start:]
            return
        (length,) = struct.unpack(">H", data[at + 1 : at + 3])
        at += 1 + length
        if length < 2 or at > len(data):
            raise ValueError("beyond the end")
        yield bytes([marker]), data[start:at]


def _into_jpeg(split: list[Part], packet: bytes) -> list[Part]:
    if len(packet) > _JPEG_MOST:
        raise Refused("its XMP would be longer than a JPEG holds (65,504 bytes)")
    new = (b"\xe1", b"\xff\xe1" + struct.pack(">H", len(packet) + len(_JPEG_XMP) + 2) + _JPEG_XMP + packet)
    place = next((at for at, part in enumerate(split) if _is_xmp(part)), None)
    behind = 1  # the JFIF and Exif segments, which must come first
    while split[behind][0] == b"\xe0" or split[behind][1][4:].startswith(b"Exif\0"):
        behind += 1
    start, end = (behind, behind) if place is None else (place, place + 1)
    if any(name == b"\xe2" and whole[4:].startswith(b"MPF\0") for name, whole in split[:start]):
        raise Refused("it holds several pictures, whose places would shift")
    return [*split[:start], new, *split[end:]]


# PNG: chunks with a length before and a checksum behind


def _png(data: bytes) -> Iterator[Part]:
    yield b"", data[:8]
    at = 8
    while True:
        length, name = struct.unpack(">I4s", data[at : at + 8])
        end = at + 12 + length
        if end > len(data):
            raise ValueError("beyond the end")
        yield name, data[at:end]
        at = end
        if name == b"IEND":
            yield b"rest", data[at:]
            return


def _of_itxt(body: bytes) -> bytes:
    """The text of an iTXt chunk, unpacked where it is compressed."""
    try:
        compressed = body[len(_PNG_XMP)]
        _, _, text = body[len(_PNG_XMP) + 2 :].split(b"\0", 2)
        if not compressed:
            return text
        unpacker = zlib.decompressobj()
        unpacked: bytes = unpacker.decompress(text, _MOST)
    except (IndexError, ValueError, zlib.error) as error:
        raise Refused(_DAMAGED) from error
    if unpacker.unconsumed_tail:
        raise Refused("its XMP is too large")
    return unpacked


# WebP: RIFF chunks of even length; a VP8X chunk in front where there is more than the picture


def _webp(data: bytes) -> Iterator[Part]:
    end = 8 + struct.unpack("<I", data[4:8])[0]
    if end > len(data) + 1:
        raise ValueError("beyond the end")
    yield b"RIFF", data[:12]
    at = 12
    while at + 8 <= min(end, len(data)):
        name, length = struct.unpack("<4sI", data[at : at + 8])
        if at + 8 + length > len(data):
            raise ValueError("beyond the end")
        whole = data[at : at + 8 + length + length % 2]
        yield name, whole if len(whole) % 2 == 0 else whole + b"\0"
        at += 8 + length + length % 2
    yield b"rest", data[at:]


def _into_webp(split: list[Part], packet: bytes) -> bytes:
    body = [part for part in split[1:-1] if not _is_xmp(part)]
    if not body:
        raise Refused(_DAMAGED)
    if body[0][0] == b"VP8X":
        header = bytearray(body[0][1])
        if len(header) < 18:
            raise Refused(_DAMAGED)
        header[8] |= _WEBP_FLAG
        body[0] = (b"VP8X", bytes(header))
    else:
        body.insert(0, (b"VP8X", _vp8x(*body[0])))
    chunk = b"XMP " + struct.pack("<I", len(packet)) + packet + b"\0" * (len(packet) % 2)
    inner = b"".join(whole for _, whole in body) + chunk
    return b"RIFF" + struct.pack("<I", len(inner) + 4) + b"WEBP" + inner + split[-1][1]


def _vp8x(name: bytes, whole: bytes) -> bytes:
    """The header of a file that had none: the size and transparency are those of its one picture."""
    data = whole[8:]
    try:
        if name == b"VP8 ":
            width, height = (side & 0x3FFF for side in struct.unpack("<HH", data[6:10]))
            alpha = 0
        elif name == b"VP8L":
            (bits,) = struct.unpack("<I", data[1:5])
            width, height, alpha = (bits & 0x3FFF) + 1, (bits >> 14 & 0x3FFF) + 1, bits >> 28 & 1
        else:
            raise Refused(_DAMAGED)
    except struct.error as error:
        raise Refused(_DAMAGED) from error
    flags = _WEBP_FLAG | alpha << 4
    size: bytes = (width - 1).to_bytes(3, "little") + (height - 1).to_bytes(3, "little")
    return struct.pack("<4sI4B", b"VP8X", 10, flags, 0, 0, 0) + size
