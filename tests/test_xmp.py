"""XMP beside pictures and within them: other programs' fields stay, pixels and every other byte too."""

from __future__ import annotations

import io
import os
import struct
import zlib
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image, PngImagePlugin
from test_sinks import chosen_for, put

from efuda.tagging import Failed, open_sink
from efuda.tagging.writing.containers import parts, read_xmp, with_xmp
from efuda.tagging.writing.places import Refused
from efuda.tagging.writing.sidecars import same_pixels
from efuda.tagging.writing.xmp import read_tags, with_tags

TAGS = [("character", "hatsune_miku"), ("general", "1girl")]
DIGIKAM = """<?xpacket begin="\ufeff" id="W5M0MpCehiHzreSzNTczkc9d"?>
<x:xmpmeta xmlns:x="adobe:ns:meta/" x:xmptk="XMP Core 4.4.0-Exiv2">
 <rdf:RDF xmlns:rdf="http://www.w3.org/1999/02/22-rdf-syntax-ns#">
  <!-- by hand -->
  <rdf:Description rdf:about="" xmlns:xmp="http://ns.adobe.com/xap/1.0/" xmlns:dt="http://darktable.sf.net/"
    xmlns:dc="http://purl.org/dc/elements/1.1/" xmlns:digi="http://www.digikam.org/ns/1.0/" xmp:Rating="4">
   <dc:title><rdf:Alt><rdf:li xml:lang="x-default">Summer &amp; rain</rdf:li></rdf:Alt></dc:title>
   <dc:subject><rdf:Bag><rdf:li>1girl</rdf:li><rdf:li>my tag</rdf:li></rdf:Bag></dc:subject>
   <digi:TagsList><rdf:Seq><rdf:li>places/home</rdf:li></rdf:Seq></digi:TagsList>
   <dt:history dt:end="1"/>
  </rdf:Description>
 </rdf:RDF>
</x:xmpmeta>
<?xpacket end="w"?>"""


# Packets


def test_a_new_packet_has_all_three_fields() -> None:
    packet = with_tags(None, [*TAGS, ("general", ":/"), ("general", "||_||")]).decode()
    assert "<digiKam:TagsList><rdf:Seq><rdf:li>character/hatsune_miku</rdf:li><rdf:li>general/1girl</rdf:li>" in packet
    assert "<lr:hierarchicalSubject><rdf:Bag><rdf:li>character|hatsune_miku</rdf:li>" in packet
    assert "<dc:subject><rdf:Bag><rdf:li>hatsune_miku</rdf:li><rdf:li>1girl</rdf:li><rdf:li>:/</rdf:li>" in packet
    assert "general/:∕" in packet and "general|｜｜_｜｜" in packet  # what separates levels is none within a name
    assert packet.startswith("<?xpacket begin=") and packet.endswith('<?xpacket end="w"?>\n')


def test_another_programs_packet_is_added_to() -> None:
    merged = with_tags(DIGIKAM.encode(), TAGS)
    assert read_tags(merged) == ["1girl", "my tag", "hatsune_miku"]
    text = merged.decode()
    for kept in (
        'xmp:Rating="4"',
        "<!-- by hand -->",
        'x:xmptk="XMP Core 4.4.0-Exiv2"',
        '<rdf:li xml:lang="x-default">Summer &amp; rain</rdf:li>',
        '<dt:history dt:end="1"></dt:history>',
        "<digi:TagsList><rdf:Seq><rdf:li>places/home</rdf:li><rdf:li>character/hatsune_miku</rdf:li>",
        "<lr:hierarchicalSubject><rdf:Bag><rdf:li>character|hatsune_miku</rdf:li>",
    ):
        assert kept in text, kept
    assert with_tags(merged, TAGS) == merged, "a second time changes nothing"


def test_replaced_tags_and_the_other_fields_stay() -> None:
    replaced = with_tags(DIGIKAM.encode(), TAGS, replace=True)
    assert read_tags(replaced) == ["hatsune_miku", "1girl"]
    assert b"places/home" not in replaced and b'xmp:Rating="4"' in replaced
    assert with_tags(replaced, TAGS, replace=True) == replaced


@pytest.mark.parametrize(
    ("field", "expected"),
    [
        ('<rdf:Description dc:subject="plain"/>', ["plain", "hatsune_miku", "1girl"]),
        ("<rdf:Description><dc:subject> plain </dc:subject></rdf:Description>", ["plain", "hatsune_miku", "1girl"]),
        (
            "<rdf:Description><dc:subject><rdf:Seq><rdf:li>1girl</rdf:li></rdf:Seq></dc:subject></rdf:Description>",
            ["1girl", "hatsune_miku"],
        ),
        ("", ["hatsune_miku", "1girl"]),
    ],
)
def test_fields_of_other_forms(field: str, expected: list[str]) -> None:
    spaces = 'xmlns:rdf="http://www.w3.org/1999/02/22-rdf-syntax-ns#" xmlns:dc="http://purl.org/dc/elements/1.1/"'
    packet = f"<rdf:RDF {spaces}>{field}</rdf:RDF>"
    assert read_tags(with_tags(packet.encode(), TAGS)) == expected
    assert read_tags(with_tags(packet.encode("utf-16"), TAGS)) == expected


@pytest.mark.parametrize(
    "packet",
    [
        b"by hand",
        b"",
        b"\xff",
        b"<a/>",
        DIGIKAM.encode()[:-200],
        b'<!DOCTYPE a [<!ENTITY b "c">]><a>&b;</a>',
        '<!DOCTYPE a [<!ENTITY b "c">]><a>&b;</a>'.encode("utf-16"),
        b"<a>" * 200 + b"</a>" * 200,
        b" " * 17_000_000,
    ],
    ids=["text", "empty", "bytes", "other", "half", "entities", "utf-16", "deep", "large"],
)
def test_packets_that_are_refused(packet: bytes, tmp_path: Path) -> None:
    with pytest.raises(Refused, match="its XMP"):
        with_tags(packet, TAGS)
    if packet:
        (tmp_path / "a.jpg.xmp").write_bytes(packet)
        for existing in ("merge", "replace"):
            (failed,) = put("xmp", tmp_path / "a.jpg", existing=existing)
            assert failed.reason.startswith("its XMP")
        assert (tmp_path / "a.jpg.xmp").read_bytes() == packet


LEGAL = st.text(
    st.characters(exclude_categories=["Cs", "Cc"], exclude_characters="\ufffe\uffff")
    | st.sampled_from("\r\n\t&<>\"'|/")
)


@settings(deadline=None)
@given(st.lists(LEGAL.filter(bool), max_size=6))
def test_tags_in_any_script_come_back(tags: list[str]) -> None:
    packet = with_tags(None, [("general", tag) for tag in tags])
    assert read_tags(packet) == list(dict.fromkeys(tags))
    merged = with_tags(DIGIKAM.encode(), [("general", tag) for tag in tags])
    assert read_tags(merged) == list(dict.fromkeys(["1girl", "my tag", *tags]))


def test_what_xml_cannot_hold_is_replaced() -> None:
    assert read_tags(with_tags(None, [("general", "a\0b\x1bc\ud800")])) == ["a\ufffdb\ufffdc\ufffd"]


def test_sidecar_of_another_program(tmp_path: Path) -> None:
    (tmp_path / "a.jpg.xmp").write_text(DIGIKAM, encoding="utf-8")
    with open_sink("xmp", "fake") as sink:
        assert not sink.wants(tmp_path / "a.jpg")
    assert put("xmp", tmp_path / "a.jpg", existing="merge") == []
    assert read_tags((tmp_path / "a.jpg.xmp").read_bytes()) == ["1girl", "my tag", "long_hair", "general"]
    assert not (tmp_path / "a.jpg.xmp.bak").exists()
    assert put("xmp", tmp_path / "a.jpg", existing="replace") == []
    assert b'xmp:Rating="4"' in (tmp_path / "a.jpg.xmp").read_bytes()
    assert (tmp_path / "a.jpg.xmp.bak").exists()


# Within pictures


def drawn(kind: str, mode: str = "RGB", size: tuple[int, int] = (7, 5), frames: int = 1, **more: object) -> bytes:
    """A small picture of noise."""
    data, count = io.BytesIO(), size[0] * size[1] * len(Image.new(mode, (1, 1)).getbands())
    pictures = [
        Image.frombytes(mode, size, bytes((13 * at + 71 * frame) % 251 for at in range(count)))
        for frame in range(frames)
    ]
    if frames > 1:
        more.update(save_all=True, append_images=pictures[1:], duration=100)
    if kind == "webp":
        more.setdefault("lossless", True)
    pictures[0].save(data, kind, **more)
    return data.getvalue()


def exif() -> bytes:
    made = Image.Exif()
    made[0x010E] = "described"
    made[0x0112] = 6
    return made.tobytes()


PROFILE = bytes(range(256)) * 600  # over 64 KB: several segments in a JPEG
TEXT = PngImagePlugin.PngInfo()
TEXT.add_text("parameters", "1girl, masterpiece")
TEXT.add_itxt("prompt", "二人", zip=True)
PICTURES = {
    "jpeg": drawn("jpeg"),
    "jpeg with everything": drawn("jpeg", exif=exif(), icc_profile=PROFILE, comment=b"mine", progressive=True),
    "jpeg, grey": drawn("jpeg", "L"),
    "jpeg, CMYK": drawn("jpeg", "CMYK"),
    "jpeg with xmp": drawn("jpeg", xmp=DIGIKAM.encode(), exif=exif()),
    "png": drawn("png"),
    "png with everything": drawn("png", "RGBA", exif=exif(), icc_profile=PROFILE, pnginfo=TEXT, dpi=(72, 72)),
    "png, animated": drawn("png", "RGBA", frames=3),
    "png, palette": drawn("png", "P"),
    "webp": drawn("webp"),
    "webp, transparent": drawn("webp", "RGBA"),
    "webp, lossy": drawn("webp", lossless=False),
    "webp, odd sizes": drawn("webp", "RGB", (1, 33), lossless=False),
    "webp with everything": drawn("webp", "RGBA", exif=exif(), icc_profile=PROFILE),
    "webp with xmp": drawn("webp", xmp=DIGIKAM.encode()),
    "webp, animated": drawn("webp", "RGBA", frames=3),
}


@pytest.mark.parametrize("name", PICTURES)
def test_only_the_packet_changes(name: str, tmp_path: Path) -> None:
    before = PICTURES[name]
    path = tmp_path / "a.picture"
    path.write_bytes(before)
    path.chmod(0o640)
    assert put("embed", path, existing="merge") == []
    after = path.read_bytes()
    assert parts(after) == parts(before) and same_pixels(before, after)
    mine = ["1girl", "my tag"] if "with xmp" in name else []
    packet = read_xmp(after)
    assert packet is not None and [tag for tag in read_tags(packet) if tag not in mine] == [
        tag for tag in ("long_hair", "1girl", "general") if tag not in mine
    ]
    with Image.open(path) as picture:  # another reader finds it too
        assert picture.info["xmp"].strip(b"\0") == packet
        for key in ("exif", "icc_profile", "comment", "parameters", "prompt"):
            with Image.open(io.BytesIO(before)) as old:
                assert picture.info.get(key) == old.info.get(key)
    assert path.stat().st_mode & 0o777 == 0o640
    assert put("embed", path, existing="merge") == [] and path.read_bytes() == after
    assert [*tmp_path.iterdir()] == [path]


@settings(max_examples=60, deadline=None)
@given(
    kind=st.sampled_from(["jpeg", "png", "webp"]),
    mode=st.sampled_from(["RGB", "L", "RGBA"]),
    size=st.tuples(st.integers(1, 40), st.integers(1, 40)),
    packets=st.lists(st.binary(max_size=3000), min_size=1, max_size=3),
    lossless=st.booleans(),
)
def test_any_packet_into_any_picture(
    kind: str, mode: str, size: tuple[int, int], packets: list[bytes], lossless: bool
) -> None:
    mode = "RGB" if kind == "jpeg" and mode == "RGBA" else mode
    before = after = drawn(kind, mode, size, **({"lossless": lossless} if kind == "webp" else {}))
    for packet in packets:
        after = with_xmp(after, packet)
        assert read_xmp(after) == packet
    assert parts(after) == parts(before) and same_pixels(before, after)


@settings(deadline=None)
@given(name=st.sampled_from(sorted(PICTURES)), cut=st.floats(0, 1), at=st.floats(0, 1), byte=st.integers(0, 255))
def test_a_damaged_picture_is_refused_or_stays_as_it_is(name: str, cut: float, at: float, byte: int) -> None:
    damaged = bytearray(PICTURES[name][: int(cut * len(PICTURES[name]))])
    if damaged:
        damaged[int(at * (len(damaged) - 1))] = byte
    try:
        changed = with_xmp(bytes(damaged), b"<packet/>")
    except Refused:
        return
    assert read_xmp(changed) == b"<packet/>"


def test_tags_that_are_there_are_left_alone_and_replaced_on_request(tmp_path: Path) -> None:
    path = tmp_path / "a.jpg"
    path.write_bytes(PICTURES["jpeg with xmp"])
    with open_sink("embed", "fake") as sink:
        assert not sink.wants(path)
        sink.write_many([chosen_for(path)])
    assert path.read_bytes() == PICTURES["jpeg with xmp"]
    assert put("embed", path, existing="replace") == []
    packet = read_xmp(path.read_bytes())
    assert packet and read_tags(packet) == ["long_hair", "1girl", "general"]
    assert (tmp_path / "a.jpg.bak").read_bytes() == PICTURES["jpeg with xmp"]


def test_the_time_of_change_is_kept_on_request(tmp_path: Path) -> None:
    from efuda.tagging import Style

    for keep in (False, True):
        path = tmp_path / f"{keep}.png"
        path.write_bytes(PICTURES["png"])
        os.utime(path, ns=(10**18, 10**18))
        put("embed", path, style=Style(keep_mtime=keep))
        assert (path.stat().st_mtime_ns == 10**18) is keep


def test_pictures_that_cannot_hold_it_fail_alone(tmp_path: Path) -> None:
    paths = {
        name: tmp_path / name for name in ("a.gif", "half.jpg", "decoded.png", "several.jpg", "absent.jpg", "good.png")
    }
    Image.new("RGB", (4, 4)).save(paths["a.gif"])
    paths["half.jpg"].write_bytes(PICTURES["jpeg"][:100])
    paths["decoded.png"].write_bytes(_recoloured(PICTURES["png"]))
    mpf = b"\xff\xe2" + struct.pack(">H", 10) + b"MPF\0xxxx"
    data = PICTURES["jpeg with xmp"]
    paths["several.jpg"].write_bytes(data[:2] + mpf + data[2:])
    paths["good.png"].write_bytes(PICTURES["png"])
    before = {path: path.read_bytes() for path in paths.values() if path.exists()}
    failed = put("embed", *paths.values(), existing="merge")
    assert failed == [
        Failed(paths["a.gif"], "XMP is embedded into JPEG, PNG and WebP only"),
        Failed(paths["half.jpg"], "the picture is damaged"),
        Failed(paths["decoded.png"], "not written: it cannot be decoded"),
        Failed(paths["several.jpg"], "it holds several pictures, whose places would shift"),
        Failed(paths["absent.jpg"], "not written: the file or its folder is gone"),
    ]
    assert all(path.read_bytes() == data for path, data in before.items() if path != paths["good.png"])


def test_more_than_a_jpeg_holds_is_refused() -> None:
    assert read_xmp(with_xmp(PICTURES["jpeg"], b"x" * 65_504)) == b"x" * 65_504
    with pytest.raises(Refused, match="longer than a JPEG holds"):
        with_xmp(PICTURES["jpeg"], b"x" * 65_505)
    assert read_xmp(with_xmp(PICTURES["png"], b"x" * 100_000)) == b"x" * 100_000


def test_compressed_text_in_a_png() -> None:
    body = b"XML:com.adobe.xmp\0\1\0\0\0" + zlib.compress(DIGIKAM.encode())
    chunk = struct.pack(">I", len(body)) + b"iTXt" + body + struct.pack(">I", zlib.crc32(b"iTXt" + body))
    data = PICTURES["png"]
    with_chunk = data[:33] + chunk + data[33:]
    assert read_xmp(with_chunk) == DIGIKAM.encode()
    assert parts(with_xmp(with_chunk, b"<new/>")) == parts(data)


def _recoloured(png: bytes) -> bytes:
    """The same chunks with pixels that are no zlib stream."""
    at = png.index(b"IDAT")
    length = struct.unpack(">I", png[at - 4 : at])[0]
    body = b"IDAT" + b"\0" * length
    return (
        png[: at - 4] + struct.pack(">I", length) + body + struct.pack(">I", zlib.crc32(body)) + png[at + 8 + length :]
    )
