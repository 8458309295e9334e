"""szurubooru: decided tags onto the posts that it has, without losing what others write meanwhile.

    with Szurubooru("https://booru.example/api", "user:token") as target:
        target.push(items, dry_run=False)

A post's tags are replaced as a whole there, so efuda reads them with the post's version, adds its own and sends all
back; where someone was quicker (409) it reads again. A post is found by the SHA-1 of its content. Tags that others set
stay, tags that others took away stay away, and safety is changed by a person's rating, or raised by a model's.
"""

from __future__ import annotations

import base64
import hashlib
import random
import re
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import Any, Final, Self
from urllib.parse import quote

from efuda.errors import OutputError, UsageError
from efuda.pushing.items import Item, Outcome, wanted
from efuda.pushing.talking import Refused, Server
from efuda.vocabulary import Category

__all__ = ["Szurubooru"]

_FIELDS: Final = {"fields": "id,version,tags,safety,checksum"}
_TRIES: Final = 6  # of a post that someone else keeps changing
_SAFETY: Final = {"general": "safe", "sensitive": "safe", "questionable": "sketchy", "explicit": "unsafe"}
_ORDER: Final = ("safe", "sketchy", "unsafe")
_COLOURS: Final = {
    Category.ARTIST: "#c00004",
    Category.COPYRIGHT: "#a800aa",
    Category.CHARACTER: "#00ab2c",
    Category.META: "#fd9200",
}
_SYNONYMS: Final = {Category.COPYRIGHT: ("series", "franchise"), Category.ARTIST: ("creator",)}
_IN_THE_MEANTIME: Final = "in the meantime"  # older servers answer a stale version with 400 and these words
_NAME_ERROR: Final = "InvalidTagNameError"
_SHORT_ENOUGH: Final = 64  # characters that the oldest servers take


@dataclass(frozen=True, slots=True)
class _Plan:
    tags: list[str]
    added: tuple[str, ...]
    removed: tuple[str, ...]
    left: tuple[str, ...]
    safety: str | None


class Szurubooru:
    """The posts of a szurubooru.

    Args:
        url: of its API, which usually ends in /api.
        login: `user:token`, a token made in the account's settings.
        certificate: a file with the server's own certificate.

    Raises:
        UsageError: no such login or address.
        OutputError: on entering: it cannot be reached, or refuses the login.
    """

    batch = 40

    def __init__(
        self,
        url: str,
        login: str,
        *,
        certificate: Path | None = None,
        pause: Callable[[float], None] = time.sleep,
    ) -> None:
        user, colon, token = login.partition(":")
        if not (user and colon and token) or not login.isprintable() or " " in login:
            raise UsageError("This is no login of szurubooru: it should be USER:TOKEN, with a token of the account.")
        word = base64.b64encode(login.encode()).decode()
        self._server = Server(url, {"Authorization": f"Token {word}"}, certificate=certificate, pause=pause)
        self._pause = pause
        self._notes: dict[str, None] = {}
        self._may_set_safety = True
        self._known: set[str] = set()  # tags that are there, in whatever category
        self._names = re.compile("")
        self._categories: dict[str, str] = {}
        self._default = ""
        self.identity = f"szurubooru {self._server.url}"

    def __enter__(self) -> Self:
        try:
            self._connect()
        except BaseException:
            self._server.close()
            raise
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._server.close()

    def notes(self) -> list[str]:
        """What it did not permit."""
        return list(self._notes)

    def push(self, batch: Sequence[Item], *, dry_run: bool) -> list[Outcome]:
        """Union, with the version that was read; see `Target`."""
        posts, failed = self._find(batch)
        outcomes = []
        for item in batch:
            if item.id in failed:
                outcomes.append(Outcome(item.id, "failed", reason=failed[item.id]))
            elif (post := posts.get(item.id)) is None:
                outcomes.append(Outcome(item.id, "absent"))
            else:
                outcomes.append(self._push_one(item, post, dry_run))
        return outcomes

    def _push_one(self, item: Item, post: Mapping[str, Any], dry_run: bool) -> Outcome:
        there = str(post["id"])
        shortest = False
        for attempt in range(_TRIES):
            plan = self._plan(item, post, shortest)
            if not (plan.added or plan.removed or plan.safety):
                return Outcome(item.id, "unchanged", left=plan.left, there=there)
            if dry_run:
                return Outcome(item.id, "pushed", plan.added, plan.removed, plan.left, there)
            try:
                self._create_tags(item, plan.added)
                self._put(there, post["version"], plan)
                return Outcome(item.id, "pushed", plan.added, plan.removed, plan.left, there)
            except Refused as error:
                if error.status == 403 and plan.safety and self._may_set_safety:
                    self._may_set_safety = False
                    self._notes["This account may not change the safety of posts; it was left as it is."] = None
                    continue
                if error.name == _NAME_ERROR and not shortest:
                    shortest = True
                    continue
                if not _is_stale(error):
                    if error.status in (401, 403):
                        raise self._no_access(error) from error
                    return Outcome(item.id, "failed", there=there, reason=f"szurubooru refused it ({error})")
                self._pause(random.uniform(0, 0.05 * 2**attempt))
            again = self._read(there)
            if again is None:
                return Outcome(item.id, "absent")
            post = again
        return Outcome(item.id, "failed", there=there, reason="someone else keeps changing the post; run again")

    def _plan(self, item: Item, post: Mapping[str, Any], shortest: bool) -> _Plan:
        current = [[str(name) for name in tag["names"]] for tag in post.get("tags") or ()]
        has = {name.lower() for names in current for name in names}
        tags, refused = wanted(item)
        no = {name.lower() for name, category in refused if category is not Category.RATING}
        pushed = {name.lower() for name in item.pushed}
        added: list[str] = []
        left: list[str] = []
        for name, category in tags:
            if category is Category.RATING or name.lower() in has | no or not self._takes(name, shortest):
                continue
            (left if name.lower() in pushed else added).append(name)
        gone = [names for names in current if no.intersection(each.lower() for each in names)]
        gone = [names for names in gone if pushed.intersection(each.lower() for each in names)]
        kept = [names[0] for names in current if names not in gone]
        removed = tuple(name for name, _ in refused if any(name.lower() in map(str.lower, names) for names in gone))
        return _Plan([*kept, *added], tuple(added), removed, tuple(left), self._safety(item, post))

    def _safety(self, item: Item, post: Mapping[str, Any]) -> str | None:
        """Its new safety, or None where it stays."""
        wish, now = _SAFETY.get(item.rating or ""), post.get("safety")
        if wish is None or wish == now or now not in _ORDER or not self._may_set_safety:
            return None
        return wish if item.rating_by_person or _ORDER.index(wish) > _ORDER.index(now) else None

    def _put(self, there: str, version: Any, plan: _Plan) -> None:
        body: dict[str, Any] = {"version": version, "tags": plan.tags}
        if plan.safety is not None:
            body["safety"] = plan.safety
        self._server.put(f"/post/{there}", body, {"fields": "id,version"})

    def _takes(self, name: str, shortest: bool) -> bool:
        return self._names.search(name) is not None and not (shortest and len(name) > _SHORT_ENOUGH)

    # finding posts

    def _find(self, batch: Sequence[Item]) -> tuple[dict[int, Mapping[str, Any]], dict[int, str]]:
        """Picture → post, and picture → why it cannot be looked for."""
        found: dict[int, Mapping[str, Any]] = {}
        failed: dict[int, str] = {}
        sums: dict[str, int] = {}
        for item in batch:
            if item.there and (post := self._read(item.there)) is not None:
                found[item.id] = post
                continue
            try:
                with item.path.open("rb") as file:
                    sums[hashlib.file_digest(file, "sha1").hexdigest()] = item.id
            except OSError as error:
                failed[item.id] = f"its file cannot be read: {(error.strerror or 'unknown').lower()}"
        if sums:
            for post in self._search(list(sums)):
                if (number := sums.get(str(post.get("checksum")))) is not None:
                    found[number] = post
        return found, failed

    def _search(self, sums: Sequence[str]) -> list[Mapping[str, Any]]:
        query = {"query": f"content-checksum:{','.join(sums)}", "limit": "100", **_FIELDS}
        try:
            return self._results(self._server.get("/posts/", query))
        except Refused as error:
            raise self._no_access(error) from error

    def _read(self, there: str) -> Mapping[str, Any] | None:
        """The post, or None where it is gone."""
        try:
            post = self._server.get(f"/post/{quote(there, safe='')}", _FIELDS)
        except Refused as error:
            if error.status == 404:
                return None
            raise self._no_access(error) from error
        if not isinstance(post, dict) or "version" not in post or "id" not in post:
            raise self._strange()
        return post

    # tags and their categories

    def _create_tags(self, item: Item, names: Sequence[str]) -> None:
        """Tags that are no general ones, in their category: those that the server makes itself are of its default."""
        kinds = dict(item.tags)
        for name in names:
            category = kinds.get(name, Category.GENERAL)
            wish = self._category(category)
            if name in self._known or wish == self._default:
                continue
            try:
                self._server.get(f"/tag/{quote(name, safe='')}", {"fields": "names,category"})
            except Refused as error:
                if error.status == 403:
                    raise
                if error.status == 404:
                    self._create_tag(name, wish)
            self._known.add(name)

    def _create_tag(self, name: str, category: str) -> None:
        try:
            self._server.post("/tags/", {"names": [name], "category": category})
        except Refused as error:
            if error.status in (401, 403):
                raise
            if not _exists(error) and not _is_stale(error):  # someone was quicker; or putting the tag will say why not
                self._notes[f"Some tags could not be put into their category ({error})."] = None

    def _category(self, category: Category) -> str:
        """The server's name for it, made where it is missing and may be made."""
        for name in (category.label, *_SYNONYMS.get(category, ())):
            if name in self._categories:
                return self._categories[name]
        if category not in _COLOURS:
            return self._default
        label = category.label
        try:
            body = {"name": label, "color": _COLOURS[category], "order": int(category)}
            self._server.post("/tag-categories/", body)
            self._categories[label] = label
        except Refused as error:
            self._categories[label] = label if _exists(error) else self._default
            if not _exists(error):
                self._notes[
                    f"There is no tag category {label}, and this account may not make it: such tags are in "
                    f"{self._default}."
                ] = None
        return self._categories[label]

    def _connect(self) -> None:
        self._names = self._name_rule()
        self._categories, self._default = self._read_categories()

    def _read_categories(self) -> tuple[dict[str, str], str]:
        """Lower-case name → name, and the default one."""
        try:
            listed = self._results(self._server.get("/tag-categories/"))
        except Refused as error:
            raise self._no_access(error) from error
        names = [str(one.get("name")) for one in listed]
        default = next((str(one.get("name")) for one in listed if one.get("default")), names[0] if names else "default")
        return {name.lower(): name for name in names}, default

    def _name_rule(self) -> re.Pattern[str]:
        """Which names of tags the server takes."""
        try:
            said = self._server.get("/info")
        except Refused as error:
            raise self._no_access(error) from error
        if not isinstance(said, dict) or not isinstance(said.get("config"), dict):
            raise self._strange()
        try:
            return re.compile(str(said["config"].get("tagNameRegex") or r"^\S+$"))
        except re.error:
            return re.compile(r"^\S+$")

    def _results(self, said: Any) -> list[Mapping[str, Any]]:
        if not isinstance(said, dict) or not isinstance(said.get("results"), list):
            raise self._strange()
        return [one for one in said["results"] if isinstance(one, dict)]

    def _strange(self) -> OutputError:
        return OutputError(f"{self._server.url} answers, but not as szurubooru does. Its API usually ends in /api.")

    def _no_access(self, error: Refused) -> OutputError:
        if error.status in (401, 403):
            return OutputError(
                f"{self._server.url} does not permit this ({error.text}). Check user and token, and the user's rank."
            )
        if error.status == 404:
            return self._strange()
        return OutputError(f"{self._server.url} refuses ({error}). Check the address, and the server itself.")


def _is_stale(error: Refused) -> bool:
    return error.status == 409 or (error.status == 400 and _IN_THE_MEANTIME in error.text)


def _exists(error: Refused) -> bool:
    return "AlreadyExists" in error.name or "already used" in error.text
