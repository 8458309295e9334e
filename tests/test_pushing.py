"""Pushing to Hydrus and szurubooru, against servers that keep their rules: nothing comes back, nothing is lost."""

from __future__ import annotations

import hashlib
import socket
import threading
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, closing
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from pushing_world import AI_TAGS, KEY, LOGIN, MY_TAGS, SHARED, Booru, HttpError, HydrusClient, served

from efuda.errors import OutputError, UsageError
from efuda.pushing import Hydrus, Item, Outcome, Szurubooru, push
from efuda.vocabulary import Category

GENERAL, CHARACTER, COPYRIGHT, ARTIST = Category.GENERAL, Category.CHARACTER, Category.COPYRIGHT, Category.ARTIST
A, B, C = (hashlib.sha256(name).digest() for name in (b"a", b"b", b"c"))


def item(number: int, sha256: bytes, *tags: str | tuple[str, Category], **more: Any) -> Item:
    named = tuple((tag, GENERAL) if isinstance(tag, str) else tag for tag in tags)
    refused = tuple((tag, GENERAL) for tag in more.pop("refused", ()))
    return Item(number, more.pop("path", Path("nowhere.jpg")), sha256, named, refused, **more)


def after(items: Sequence[Item], outcomes: Sequence[Outcome]) -> list[Item]:
    """The items with what was pushed remembered."""
    return [
        replace(item, pushed=(item.pushed | set(done.added)) - set(done.removed), there=done.there)
        for item, done in zip(items, outcomes, strict=True)
    ]


STACK: list[ExitStack] = []


@pytest.fixture(autouse=True)
def hanging_up() -> Iterator[None]:
    """What a test connects to is let go of at its end."""
    with ExitStack() as stack:
        STACK.append(stack)
        yield
    STACK.pop()


def hydrus(url: str, key: str, service: str | None, **more: Any) -> Hydrus:
    return STACK[-1].enter_context(Hydrus(url, key, service, **more))


class Memory:
    """Remembers outcomes in the order in which they come."""

    def __init__(self) -> None:
        self.seen: list[Outcome] = []

    def __call__(self, outcomes: Sequence[Outcome]) -> None:
        self.seen += outcomes


# Hydrus


@pytest.fixture
def client() -> HydrusClient:
    return HydrusClient(files={A.hex(), B.hex()})


@pytest.fixture
def url(client: HydrusClient) -> Iterator[str]:
    with served(client.answer) as address:
        yield address


def test_hydrus_gets_tags_in_its_own_spelling(client: HydrusClient, url: str) -> None:
    target = hydrus(url, KEY, "AI tags")
    tags = ["long_hair", ":d", "^_^", ("hatsune_miku", CHARACTER), ("vocaloid", COPYRIGHT), ("some_one", ARTIST)]
    outcomes = target.push([item(1, A, *tags, rating="general")], dry_run=False)
    expected = {"long hair", "::d", "^_^", "character:hatsune miku", "series:vocaloid", "creator:some one"}
    assert client.tags(A) == expected | {"rating:general"}
    assert client.tags(A, MY_TAGS) == set()
    assert [(one.state, len(one.added)) for one in outcomes] == [("pushed", 7)]


def test_a_picture_that_hydrus_lacks_is_absent_and_stays_unknown(client: HydrusClient, url: str) -> None:
    client.trashed.add(C.hex())
    outcomes = hydrus(url, KEY, AI_TAGS).push(
        [item(1, A, "solo"), item(2, C, "solo"), item(3, b"?" * 32)], dry_run=False
    )
    assert [one.state for one in outcomes] == ["pushed", "absent", "absent"]
    assert client.tags(C) == set()


def test_what_was_deleted_in_hydrus_never_comes_back(client: HydrusClient, url: str) -> None:
    client.by_hand(A, add="hat")
    client.by_hand(A, delete="hat")
    (done,) = hydrus(url, KEY, AI_TAGS).push([item(1, A, "hat", "solo")], dry_run=False)
    assert client.tags(A) == {"solo"} and client.gone(A) == {"hat"}
    assert done.added == ("solo",) and done.left == ("hat",)


def test_a_tag_deleted_between_the_question_and_the_push_stays_deleted(client: HydrusClient, url: str) -> None:
    target = hydrus(url, KEY, AI_TAGS)
    listed = client._metadata

    def late(hash: str) -> dict[str, Any]:
        said = listed(hash)
        client.by_hand(A, delete="hat")
        return said

    client._metadata = late  # type: ignore[method-assign]
    target.push([item(1, A, "hat", "solo")], dry_run=False)
    assert client.tags(A) == {"solo"} and client.gone(A) == {"hat"}


def test_every_change_says_that_deletions_are_respected(client: HydrusClient, url: str) -> None:
    hydrus(url, KEY, AI_TAGS).push([item(1, A, "hat"), item(2, B, "solo")], dry_run=False)
    changes = [asked for path, asked in client.calls if path == "/add_tags/add_tags"]
    assert len(changes) == 2
    for asked in changes:
        assert asked["override_previously_deleted_mappings"] is False
        assert asked["create_new_deleted_mappings"] is False


def test_a_second_push_changes_nothing_and_asks_once(client: HydrusClient, url: str) -> None:
    target = hydrus(url, KEY, AI_TAGS)
    items = [item(1, A, "hat"), item(2, B, "hat")]
    items = after(items, target.push(items, dry_run=False))
    client.calls.clear()
    assert [one.state for one in target.push(items, dry_run=False)] == ["unchanged", "unchanged"]
    assert [path for path, _ in client.calls] == ["/get_files/file_metadata"]


def test_pictures_with_the_same_changes_go_in_one_call(client: HydrusClient, url: str) -> None:
    hydrus(url, KEY, AI_TAGS).push([item(1, A, "hat", "solo"), item(2, B, "solo", "hat")], dry_run=False)
    changes = [asked for path, asked in client.calls if path == "/add_tags/add_tags"]
    assert [sorted(asked["hashes"]) for asked in changes] == [sorted([A.hex(), B.hex()])]


def test_only_what_efuda_pushed_and_a_person_refused_is_taken_away(client: HydrusClient, url: str) -> None:
    client.by_hand(A, add="hat")
    target = hydrus(url, KEY, AI_TAGS)
    first = item(1, A, "hat", "solo", "scarf")
    (first,) = after([first], target.push([first], dry_run=False))
    assert first.pushed == {"solo", "scarf"}  # hat was there before: it is a person's
    (done,) = target.push([replace(first, tags=(), refused=(("hat", GENERAL), ("solo", GENERAL)))], dry_run=False)
    assert client.tags(A) == {"hat", "scarf"}  # scarf is only no longer said, which is nobody's refusal
    assert done.removed == ("solo",)


def test_refusing_leaves_no_deletion_record_of_what_is_not_there(client: HydrusClient, url: str) -> None:
    refusing = item(1, A, refused=["solo"], pushed=frozenset({"solo"}))
    (done,) = hydrus(url, KEY, AI_TAGS).push([refusing], dry_run=False)
    assert done.state == "unchanged" and client.gone(A) == set()


def test_a_persons_rating_takes_the_place_of_the_models(client: HydrusClient, url: str) -> None:
    target = hydrus(url, KEY, AI_TAGS)
    first = item(1, A, rating="general")
    (first,) = after([first], target.push([first], dry_run=False))
    (again,) = target.push([replace(first, rating="sensitive")], dry_run=False)
    assert again.state == "unchanged"  # a model's change of mind is nobody's decision
    target.push([replace(first, rating="sensitive", rating_by_person=True)], dry_run=False)
    assert client.tags(A) == {"rating:sensitive"}


def test_a_dry_run_changes_nothing(client: HydrusClient, url: str) -> None:
    memory = Memory()
    done = push([item(1, A, "hat")], hydrus(url, KEY, AI_TAGS), remember=memory, dry_run=True)
    assert (done.pushed, done.added) == (1, 1)
    assert client.tags(A) == set() and memory.seen == []


def test_256_pictures_are_asked_for_at_once(client: HydrusClient, url: str) -> None:
    many = [item(n, hashlib.sha256(bytes([n % 256, n // 256])).digest(), "solo") for n in range(600)]
    client.files = {one.sha256.hex() for one in many}
    memory = Memory()
    done = push(many, hydrus(url, KEY, AI_TAGS), remember=memory)
    assert (done.pushed, done.added, len(memory.seen)) == (600, 600, 600)
    assert [path for path, _ in client.calls].count("/get_files/file_metadata") == 3
    assert [path for path, _ in client.calls].count("/add_tags/add_tags") == 3


def test_what_hydrus_refuses_of_one_picture_does_not_stop_the_others(client: HydrusClient, url: str) -> None:
    client.fail = [HttpError(500, b"the database is locked")]
    done = push([item(1, A, "hat"), item(2, B, "solo")], hydrus(url, KEY, AI_TAGS), remember=Memory())
    assert done.pushed == 1 and [one.reason for one in done.failed] == [
        "Hydrus refused it (500: the database is locked)"
    ]


def test_a_push_that_is_cut_off_goes_on_where_it_was(client: HydrusClient, url: str) -> None:
    many = [item(n, hashlib.sha256(bytes([n % 256, n // 256])).digest(), f"tag_{n}") for n in range(300)]
    client.files = {one.sha256.hex() for one in many}
    target, memory = hydrus(url, KEY, AI_TAGS, pause=lambda s: None), Memory()
    first = target.push(many[:256], dry_run=False)
    memory(first)
    client.fail = [HttpError(403, b"the key is gone")]
    with pytest.raises(OutputError, match="does not accept the key"):
        push(many[256:], target, remember=memory)
    assert len(memory.seen) == 256
    done = push(many, target, remember=memory)
    assert (done.unchanged, done.pushed) == (256, 44)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"permissions": [3]}, "does not permit to edit file tags"),
        ({"permissions": [0, 1]}, "does not permit to edit file tags and to search for and fetch files"),
        ({"version": 64}, "too old to respect deleted tags"),
    ],
)
def test_hydrus_that_does_not_permit_it(change: dict[str, Any], message: str) -> None:
    with served(HydrusClient(**change).answer) as address, pytest.raises(OutputError, match=message):
        hydrus(address, KEY, AI_TAGS)


def test_a_wrong_key_is_never_shown(url: str) -> None:
    wrong = "f" * 64
    with pytest.raises(OutputError, match="does not accept the key") as caught:
        hydrus(url, wrong, AI_TAGS)
    assert wrong not in str(caught.value)
    with pytest.raises(UsageError, match="64 hexadecimal digits") as usage:
        hydrus(url, "my secret", AI_TAGS)
    assert "my secret" not in str(usage.value)


@pytest.mark.parametrize(
    ("service", "message"),
    [
        (None, rf"my tags \({MY_TAGS}\), AI tags \({AI_TAGS}\); no --service is given"),
        ("no such", "--service no such is none of them"),
        ("a repository", "is a repository shared with others"),
        (SHARED, "is a repository shared with others"),
        ("files", "is none of them"),
    ],
)
def test_the_service_is_named_by_the_person(url: str, service: str | None, message: str) -> None:
    with pytest.raises(UsageError, match=message):
        hydrus(url, KEY, service)


def test_an_expired_key_has_its_own_words() -> None:
    def answer(*asked: Any) -> Any:
        raise HttpError(419, b"Session Key expired")

    with served(answer) as address, pytest.raises(OutputError, match="the key has expired"):
        hydrus(address, KEY, AI_TAGS)


# The connection


def test_a_server_that_is_away_for_a_moment_is_asked_again(client: HydrusClient, url: str) -> None:
    waited: list[float] = []
    client.fail = [HttpError(503, b"busy", Retry_After="7"), HttpError(502, b"busy")]
    done = push([item(1, A, "hat")], hydrus(url, KEY, AI_TAGS, pause=waited.append), remember=Memory())
    assert done.pushed == 1 and client.tags(A) == {"hat"}
    assert waited == [7.0, 1.0]


def test_a_server_that_stays_away_is_given_up(client: HydrusClient, url: str) -> None:
    waited: list[float] = []
    target = hydrus(url, KEY, AI_TAGS, pause=waited.append)
    client.fail = [HttpError(503, b"busy")] * 9
    with pytest.raises(OutputError, match=r"cannot be reached \(it answers 503\).*run the same command again"):
        target.push([item(1, A, "hat")], dry_run=False)
    assert waited == [0.5, 1.0, 2.0, 4.0]


def test_nothing_listens_there() -> None:
    with closing(socket.socket()) as free:
        free.bind(("127.0.0.1", 0))
        address = f"http://127.0.0.1:{free.getsockname()[1]}"
    with pytest.raises(OutputError, match="nothing listens there"):
        hydrus(address, KEY, AI_TAGS, pause=lambda s: None)


def test_a_redirection_is_not_followed_with_the_key() -> None:
    asked: list[str] = []

    def elsewhere(method: str, path: str, said: Any, headers: Any) -> Any:
        asked.append(path)

    with served(elsewhere) as other:

        def answer(*what: Any) -> Any:
            raise HttpError(302, b"", Location=f"{other}/verify_access_key")

        with served(answer) as address, pytest.raises(OutputError, match="sends on to"):
            hydrus(address, KEY, AI_TAGS)
    assert asked == []


def test_a_web_page_is_not_an_api() -> None:
    with served(lambda *asked: b"<html>hello</html>") as address, pytest.raises(OutputError, match="not with JSON"):
        hydrus(address, KEY, AI_TAGS)
    with served(lambda *asked: ["hello"]) as address, pytest.raises(OutputError, match="not as Hydrus does"):
        hydrus(address, KEY, AI_TAGS)


@pytest.mark.parametrize(
    ("address", "message"),
    [
        ("127.0.0.1:45869", "is not an address of the web"),
        ("file:///etc/passwd", "is not an address of the web"),
        ("http://me:secret@host", "holds a name or password"),
        ("http://host/api?x=1", "has more than a host and a path"),
        ("http://host:99999", "Port out of range"),
    ],
)
def test_addresses_that_are_none(address: str, message: str) -> None:
    with pytest.raises(UsageError, match=message) as caught:
        hydrus(address, KEY, AI_TAGS)
    assert "secret" not in str(caught.value)


def test_an_error_of_the_server_cannot_write_on_the_terminal() -> None:
    def answer(*asked: Any) -> Any:
        raise HttpError(500, b"\x1b[2J" + b"x" * 5000)

    with served(answer) as address, pytest.raises(OutputError) as caught:
        hydrus(address, KEY, AI_TAGS)
    assert "\x1b" not in str(caught.value) and len(str(caught.value)) < 500


# szurubooru


@pytest.fixture
def booru() -> Booru:
    return Booru()


@pytest.fixture
def api(booru: Booru) -> Iterator[str]:
    with served(booru.answer) as address:
        yield f"{address}/api"


@pytest.fixture
def picture(tmp_path: Path) -> Path:
    path = tmp_path / "a.jpg"
    path.write_bytes(b"the picture")
    return path


SHA1 = hashlib.sha1(b"the picture").hexdigest()


def open_booru(api: str) -> Szurubooru:
    return STACK[-1].enter_context(Szurubooru(api, LOGIN, pause=lambda s: None))


def test_tags_are_added_to_those_of_others(booru: Booru, api: str, picture: Path) -> None:
    number = booru.put_post(SHA1, ["solo", "theirs"])
    (done,) = open_booru(api).push([item(1, A, "solo", "hat", path=picture)], dry_run=False)
    assert booru.posts[number]["tags"] == ["solo", "theirs", "hat"]
    assert done == Outcome(1, "pushed", ("hat",), there=str(number))


def test_a_post_is_found_by_its_content_and_else_absent(booru: Booru, api: str, picture: Path, tmp_path: Path) -> None:
    booru.put_post(SHA1, [])
    other = tmp_path / "b.jpg"
    other.write_bytes(b"another")
    items = [item(1, A, "hat", path=other), item(2, B, "hat", path=picture), item(3, C, "hat", path=tmp_path / "none")]
    outcomes = open_booru(api).push(items, dry_run=False)
    assert [one.state for one in outcomes] == ["absent", "pushed", "failed"]
    assert outcomes[2].reason == "its file cannot be read: no such file or directory"


def test_someone_who_edits_meanwhile_loses_nothing(booru: Booru, api: str, picture: Path) -> None:
    number = booru.put_post(SHA1, ["solo"])
    edits = iter([["solo", "theirs"], ["theirs", "scarf"]])  # the second takes solo away
    booru.meanwhile = lambda n: booru.edit(n, edit) if (edit := next(edits, None)) else None
    (done,) = open_booru(api).push([item(1, A, "hat", path=picture)], dry_run=False)
    assert booru.posts[number]["tags"] == ["theirs", "scarf", "hat"]
    assert done.added == ("hat",)


def test_older_servers_say_a_stale_version_with_400(booru: Booru, api: str, picture: Path) -> None:
    number, booru.stale_status = booru.put_post(SHA1, []), 400
    edits = iter([["theirs"]])
    booru.meanwhile = lambda n: booru.edit(n, edit) if (edit := next(edits, None)) else None
    open_booru(api).push([item(1, A, "hat", path=picture)], dry_run=False)
    assert booru.posts[number]["tags"] == ["theirs", "hat"]


def test_a_post_that_is_changed_for_ever_is_given_up(booru: Booru, api: str, picture: Path) -> None:
    number = booru.put_post(SHA1, ["solo"])
    booru.meanwhile = lambda n: booru.edit(n, ["solo"])
    (done,) = open_booru(api).push([item(1, A, "hat", path=picture)], dry_run=False)
    assert done.state == "failed" and "keeps changing" in done.reason
    assert booru.posts[number]["tags"] == ["solo"]
    assert booru.calls.count(("PUT", f"/post/{number}")) == 6


def test_two_editors_at_once_end_with_the_tags_of_both(booru: Booru, api: str, tmp_path: Path) -> None:
    paths = [tmp_path / f"{n}.jpg" for n in range(10)]
    for path in paths:
        path.write_bytes(path.name.encode())
        booru.put_post(hashlib.sha1(path.name.encode()).hexdigest(), ["before"])

    def edit(tag: str) -> None:
        open_booru(api).push([item(n, A, tag, path=path) for n, path in enumerate(paths)], dry_run=False)

    threads = [threading.Thread(target=edit, args=(tag,)) for tag in ("one", "two", "three")]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert {tuple(sorted(post["tags"])) for post in booru.posts.values()} == {("before", "one", "three", "two")}


def test_tags_are_made_in_their_category(booru: Booru, api: str, picture: Path) -> None:
    booru.categories += ["Series"]
    booru.put_post(SHA1, [])
    tags = ["hat", ("hatsune_miku", CHARACTER), ("vocaloid", COPYRIGHT)]
    target = open_booru(api)
    target.push([item(1, A, *tags, path=picture)], dry_run=False)
    assert {name: tag["category"] for name, tag in booru.tags.items()} == {
        "hat": "default",
        "hatsune_miku": "character",
        "vocaloid": "Series",
    }
    assert target.notes() == []


def test_a_tag_that_is_there_keeps_its_category_and_an_alias_is_the_same_tag(
    booru: Booru, api: str, picture: Path
) -> None:
    booru.tag("Miku", "default")["names"].append("hatsune_miku")
    number = booru.put_post(SHA1, ["Miku"])
    (done,) = open_booru(api).push([item(1, A, ("hatsune_miku", CHARACTER), path=picture)], dry_run=False)
    assert done.state == "unchanged" and booru.posts[number]["tags"] == ["Miku"]
    booru.edit(number, [])
    open_booru(api).push([item(1, A, ("hatsune_miku", CHARACTER), path=picture)], dry_run=False)
    assert booru.posts[number]["tags"] == ["Miku"] and booru.tags["Miku"]["category"] == "default"


def test_without_the_right_to_make_categories_tags_go_into_the_default_one(
    booru: Booru, api: str, picture: Path
) -> None:
    booru.denied.add("tag_categories:create")
    booru.put_post(SHA1, [])
    target = open_booru(api)
    target.push([item(1, A, ("hatsune_miku", CHARACTER), path=picture)], dry_run=False)
    assert booru.tags["hatsune_miku"]["category"] == "default"
    assert target.notes() == [
        "There is no tag category character, and this account may not make it: such tags are in default."
    ]


@pytest.mark.parametrize(
    ("before", "rating", "by_person", "after"),
    [
        ("safe", "explicit", True, "unsafe"),
        ("safe", "questionable", False, "sketchy"),
        ("unsafe", "general", True, "safe"),
        ("unsafe", "general", False, "unsafe"),  # a model may warn, not give the all-clear
        ("safe", "sensitive", False, "safe"),
        ("sketchy", None, False, "sketchy"),
    ],
)
def test_safety_follows_the_rating(
    booru: Booru, api: str, picture: Path, before: str, rating: str | None, by_person: bool, after: str
) -> None:
    number = booru.put_post(SHA1, [], safety=before)
    open_booru(api).push([item(1, A, rating=rating, rating_by_person=by_person, path=picture)], dry_run=False)
    assert booru.posts[number]["safety"] == after and booru.posts[number]["tags"] == []


def test_without_the_right_to_set_safety_tags_are_pushed_all_the_same(booru: Booru, api: str, picture: Path) -> None:
    booru.denied.add("posts:edit:safety")
    number = booru.put_post(SHA1, [])
    target = open_booru(api)
    (done,) = target.push([item(1, A, "hat", rating="explicit", rating_by_person=True, path=picture)], dry_run=False)
    assert booru.posts[number]["tags"] == ["hat"] and booru.posts[number]["safety"] == "safe"
    assert done.state == "pushed" and "may not change the safety" in target.notes()[0]


def test_what_others_took_away_stays_away_and_what_a_person_refused_goes(booru: Booru, api: str, picture: Path) -> None:
    number = booru.put_post(SHA1, ["theirs"])
    target = open_booru(api)
    first = item(1, A, "hat", "solo", "scarf", path=picture)
    (first,) = after([first], target.push([first], dry_run=False))
    booru.edit(number, ["theirs", "solo", "scarf"])  # someone took hat away
    refusing = replace(first, tags=(("hat", GENERAL),), refused=(("solo", GENERAL), ("theirs", GENERAL)))
    (done,) = target.push([refusing], dry_run=False)
    assert booru.posts[number]["tags"] == ["theirs", "scarf"]
    assert done.removed == ("solo",) and done.left == ("hat",)


def test_names_that_the_server_does_not_take_are_left_out(booru: Booru, api: str, picture: Path) -> None:
    booru.name_regex, booru.longest = r"^[a-z_]+$", 64
    number = booru.put_post(SHA1, [])
    open_booru(api).push([item(1, A, "hat", "1girl", "x" * 65, path=picture)], dry_run=False)
    assert booru.posts[number]["tags"] == ["hat"]


def test_a_known_post_is_read_without_reading_the_file(booru: Booru, api: str, tmp_path: Path) -> None:
    number = booru.put_post(SHA1, [])
    (done,) = open_booru(api).push([item(1, A, "hat", path=tmp_path / "gone", there=str(number))], dry_run=False)
    assert done.state == "pushed" and booru.posts[number]["tags"] == ["hat"]


def test_a_dry_run_of_a_booru_only_reads(booru: Booru, api: str, picture: Path) -> None:
    booru.put_post(SHA1, [])
    done = push([item(1, A, "hat", path=picture)], open_booru(api), remember=Memory(), dry_run=True)
    assert (done.pushed, done.added) == (1, 1)
    assert {method for method, _ in booru.calls} == {"GET"}


def test_logins_and_addresses_of_a_booru_that_are_wrong(api: str) -> None:
    with pytest.raises(OutputError, match="does not permit this") as caught:
        Szurubooru(api, "bot:wrong-token").__enter__()
    assert "wrong-token" not in str(caught.value)
    with pytest.raises(UsageError, match="USER:TOKEN"):
        Szurubooru(api, "bot")
    with pytest.raises(OutputError, match="usually ends in /api"):
        Szurubooru(api.removesuffix("/api"), LOGIN).__enter__()
