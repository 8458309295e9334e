"""Pictures within archives are read like files, and an archive of bad will costs nothing but its own members."""

from __future__ import annotations

import io
import random
import zipfile
from contextlib import suppress
from pathlib import Path

import pytest
from drawn import COLOURS, encoded, video
from PIL import Image

from efuda.errors import ImageError
from efuda.images import archives, find_pictures, read_bytes, read_frames, read_rgb

PAGE = encoded(Image.new("RGB", (8, 6), COLOURS[0]), "PNG")


def packed(path: Path, files: dict[str, bytes], method: int = zipfile.ZIP_DEFLATED) -> Path:
    with zipfile.ZipFile(path, "w", method) as archive:
        for name, data in files.items():
            archive.writestr(zipfile.ZipInfo(name), data, method)
    return path


def found_in(path: Path, **options: bool) -> tuple[list[str], dict[str, str]]:
    """Names within the archive that are found, and those that are skipped, with the reason."""
    skipped: dict[str, str] = {}
    found = find_pictures(
        [path], skipped=lambda at, reason: skipped.update({str(at)[len(str(path)) + 1 :]: reason}), **options
    )
    return [str(one)[len(str(path)) + 1 :] for one in found], skipped


def reason(path: Path) -> str:
    with pytest.raises(ImageError) as caught:
        read_bytes(path)
    told = caught.value.reason
    assert str(caught.value) == f"{path}: {told}"
    with pytest.raises(ImageError) as caught:
        read_rgb(path)
    assert caught.value.reason == told
    return told


@pytest.mark.parametrize("method", [zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED, zipfile.ZIP_BZIP2, zipfile.ZIP_LZMA])
def test_a_page_is_read_like_a_file(tmp_path: Path, method: int) -> None:
    comic = packed(tmp_path / "comic.cbz", {"001.png": PAGE, "extra/ 二.png": PAGE}, method)
    for name in ("001.png", "extra/ 二.png"):
        assert read_rgb(comic / name).getpixel((0, 0)) == COLOURS[0]
        assert read_bytes(comic / name) == PAGE
        assert len(read_frames(comic / name, count=3)) == 1


def test_pages_are_found_in_their_order(tmp_path: Path) -> None:
    names = ["10.png", "9.jpg", "ch2/page 10.webp", "ch2/page 2.webp", "ch10/1.png", "1.PNG", "notes.txt", "film.mp4"]
    comic = packed(tmp_path / "comic.zip", dict.fromkeys(names, PAGE))
    found, skipped = found_in(comic)
    assert found == ["1.PNG", "9.jpg", "10.png", "ch2/page 2.webp", "ch2/page 10.webp", "ch10/1.png"]
    assert skipped == {}
    assert "film.mp4" in found_in(comic, videos=True)[0]
    assert [path.name for path in find_pictures([tmp_path])] == [name.split("/")[-1] for name in found]
    assert list(find_pictures([tmp_path], archives=False)) == []


def test_one_page_can_be_named(tmp_path: Path) -> None:
    page = packed(tmp_path / "comic.cbz", {"1.png": PAGE}) / "1.png"
    assert list(find_pictures([page])) == [page]


def test_names_that_lead_elsewhere_are_refused(tmp_path: Path) -> None:
    names = ["../up.png", "a/../../up.png", "/etc/root.png", "C:\\x.png", "..\\up.png", "a//b.png", "./here.png"]
    comic = packed(tmp_path / "comic.cbz", dict.fromkeys(names, PAGE) | {"good.png": PAGE})
    found, skipped = found_in(comic)
    assert found == ["good.png"]
    assert len(skipped) == len(names)
    assert set(skipped.values()) == {"a name that leads out of its archive"}
    with pytest.raises(ImageError, match="leads out"):
        read_bytes(comic / "../up.png")


def test_archives_within_archives_and_hidden_files_are_left_out(tmp_path: Path) -> None:
    inner = packed(tmp_path / "inner.zip", {"1.png": PAGE}).read_bytes()
    comic = packed(
        tmp_path / "comic.cbz",
        {"inner.zip": inner, "__MACOSX/._1.png": PAGE, ".hidden/1.png": PAGE, ".2.png": PAGE, "3.png": PAGE},
    )
    found, skipped = found_in(comic)
    assert found == ["3.png"]
    assert skipped == {"inner.zip": "an archive within an archive"}
    assert reason(comic / "inner.zip" / "1.png") == "not in its archive"


def test_a_bomb_is_refused_by_what_it_declares_and_by_what_it_is(tmp_path: Path) -> None:
    comic = packed(tmp_path / "bomb.cbz", {"zeros.png": bytes(50_000_000), "1.png": PAGE})
    assert len(read_bytes(comic / "zeros.png")) == 32  # no picture by its first bytes: no more is unpacked
    assert read_bytes(comic / "1.png", max_bytes=len(PAGE)) == PAGE
    with pytest.raises(ImageError, match="more than 0 MB"):
        read_bytes(comic / "1.png", max_bytes=len(PAGE) - 1)
    lying = bytearray(packed(tmp_path / "lie.cbz", {"1.png": b"\x89PNG" + bytes(50_000_000)}).read_bytes())
    central = lying.rfind(b"PK\x01\x02")
    lying[central + 24 : central + 28] = (1000).to_bytes(4, "little")
    (tmp_path / "lie.cbz").write_bytes(lying)
    with pytest.raises(ImageError, match="damaged in its archive"):
        read_bytes(tmp_path / "lie.cbz" / "1.png")


def test_too_large_members_are_skipped(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(archives, "MAX_BYTES", 1 << 20)
    comic = packed(tmp_path / "comic.cbz", {"1.png": bytes((1 << 20) + 1), "2.png": PAGE})
    assert found_in(comic) == (["2.png"], {"1.png": "more than 1 MB"})


def test_too_many_members(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(archives, "MAX_MEMBERS", 3)
    comic = packed(tmp_path / "comic.cbz", {f"{number}.png": PAGE for number in range(4)})
    assert found_in(comic) == ([], {"": "an archive of more than 3 files"})
    assert reason(comic / "1.png") == "an archive of more than 3 files"


def test_encrypted_members_are_named(tmp_path: Path) -> None:
    data = bytearray(packed(tmp_path / "comic.cbz", {"1.png": PAGE}).read_bytes())
    for sign, at in ((b"PK\x03\x04", 6), (b"PK\x01\x02", 8)):
        data[data.find(sign) + at] |= 1
    (tmp_path / "comic.cbz").write_bytes(data)
    assert found_in(tmp_path / "comic.cbz") == ([], {"1.png": "encrypted in its archive"})
    assert reason(tmp_path / "comic.cbz" / "1.png") == "encrypted in its archive"


def test_damaged_archives(tmp_path: Path) -> None:
    whole = packed(tmp_path / "whole.cbz", {"1.png": PAGE, "2.png": PAGE}).read_bytes()
    for name, data in (("half.cbz", whole[: len(whole) // 2]), ("empty.cbz", b""), ("text.cbz", b"no archive")):
        (tmp_path / name).write_bytes(data)
        assert found_in(tmp_path / name) == ([], {"": "damaged archive"})
    assert reason(tmp_path / "half.cbz" / "1.png") == "damaged in its archive"
    assert reason(tmp_path / "text.cbz" / "1.png") == "missing"
    flipped = bytearray(whole)
    flipped[60] ^= 0xFF  # within the first page
    (tmp_path / "flipped.cbz").write_bytes(flipped)
    assert reason(tmp_path / "flipped.cbz" / "1.png") == "damaged in its archive"
    assert read_bytes(tmp_path / "flipped.cbz" / "2.png") == PAGE


def test_what_is_not_in_an_archive(tmp_path: Path) -> None:
    comic = packed(tmp_path / "comic.cbz", {"1.png": PAGE})
    assert reason(comic / "2.png") == "not in its archive"
    assert reason(tmp_path / "nothing.cbz" / "1.png") == "missing"
    assert reason(tmp_path / "nothing.png") == "missing"
    assert reason(tmp_path) == "a folder, not a picture"
    (tmp_path / "picture.png").write_bytes(PAGE)
    assert reason(tmp_path / "picture.png" / "1.png") == "missing"
    with pytest.raises(ImageError, match=r"^an archive, not a picture$"):
        read_rgb(comic.read_bytes())


def test_a_changed_archive_is_read_anew(tmp_path: Path) -> None:
    comic = packed(tmp_path / "comic.cbz", {"1.png": PAGE})
    assert read_rgb(comic / "1.png").size == (8, 6)
    other = packed(tmp_path / "other", {"1.png": encoded(Image.new("RGB", (3, 3)), "PNG"), "2.png": PAGE})
    other.replace(comic)
    assert read_rgb(comic / "1.png").size == (3, 3)


def test_a_film_in_an_archive(tmp_path: Path) -> None:
    comic = packed(tmp_path / "comic.cbz", {"film.mp4": video()})
    assert len(read_frames(comic / "film.mp4", count=3)) == 3


def test_every_mutation_of_an_archive_is_a_picture_or_a_reason(tmp_path: Path) -> None:
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w", zipfile.ZIP_DEFLATED) as archive:
        for name in ("1.png", "b/2.png"):
            archive.writestr(name, PAGE)
    whole, chance, path = buffer.getvalue(), random.Random(0), tmp_path / "comic.cbz"
    read = 0
    for _ in range(300):
        data = bytearray(whole)
        for _ in range(chance.choice((1, 2, 8))):
            data[chance.randrange(len(data))] = chance.randrange(256)
        path.write_bytes(data)
        for page in find_pictures([path]):
            with suppress(ImageError):
                read += read_rgb(page).size == (8, 6)
    assert read > 50
