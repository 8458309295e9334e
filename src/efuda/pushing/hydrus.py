"""Hydrus: decided tags into a local tag service, without bringing back what was deleted there.

    with Hydrus("http://127.0.0.1:45869", key, "AI tags") as target:
        target.push(items, dry_run=False)

A picture is known by its SHA-256. Hydrus keeps a record of every tag that someone deleted; an automatic tagger must say
that it respects those (`override_previously_deleted_mappings` is true by default) and efuda besides never sends them.
A tag is taken away only where a person refused it in efuda and efuda had added it.
"""

from __future__ import annotations

import json
import re
import time
from collections import defaultdict
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import Any, Final, Self

from efuda.errors import OutputError, UsageError
from efuda.pushing.items import Item, Outcome, State, wanted
from efuda.pushing.talking import Refused, Server
from efuda.tagging.writing.forms import hydrus_tag

__all__ = ["Hydrus"]

_KEY: Final = re.compile("[0-9a-fA-F]{64}")
_EDIT_TAGS, _SEARCH = 2, 3
_NEEDED: Final = {_EDIT_TAGS: "edit file tags", _SEARCH: "search for and fetch files"}
_LOCAL, _REPOSITORY = 5, 0
_OLDEST: Final = 65  # of the client API: from it on deleted tags can be respected (Hydrus 580)
_CURRENT, _DELETED = "0", "2"
_ADD, _DELETE = "0", "1"


@dataclass(frozen=True, slots=True)
class _Plan:
    """What is to change on one picture: name → Hydrus's spelling."""

    item: Item
    add: dict[str, str]
    remove: dict[str, str]
    left: tuple[str, ...]


class Hydrus:
    """A local tag service of a Hydrus client.

    Args:
        url: of the client API.
        key: an access key, 64 hexadecimal digits.
        service: the tag service's name or key.
        certificate: a file with the server's own certificate.

    Raises:
        UsageError: no such key or address; on entering, no such service, with those that there are.
        OutputError: on entering: it cannot be reached, is too old, or the key does not permit what is needed.
    """

    batch = 256

    def __init__(
        self,
        url: str,
        key: str,
        service: str | None,
        *,
        certificate: Path | None = None,
        pause: Callable[[float], None] = time.sleep,
    ) -> None:
        if not _KEY.fullmatch(key):
            raise UsageError("This is no access key of Hydrus: it should be 64 hexadecimal digits.")
        self._server = Server(url, {"Hydrus-Client-API-Access-Key": key}, certificate=certificate, pause=pause)
        self._wish, self._service, self.identity = service, "", ""

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
        """Nothing beside the counts."""
        return []

    def push(self, batch: Sequence[Item], *, dry_run: bool) -> list[Outcome]:
        """Add what is missing and was not deleted there; see `Target`."""
        known = self._metadata([item.sha256.hex() for item in batch])
        outcomes: dict[int, Outcome] = {}
        groups: dict[tuple[tuple[str, ...], tuple[str, ...]], list[_Plan]] = defaultdict(list)
        for item in batch:
            storage = known.get(item.sha256.hex())
            if storage is None:
                outcomes[item.id] = Outcome(item.id, "absent")
                continue
            plan = _plan(item, _tags(storage, _CURRENT), _tags(storage, _DELETED))
            groups[tuple(sorted(plan.add.values())), tuple(sorted(plan.remove.values()))].append(plan)
        for (add, remove), plans in groups.items():
            reason = "" if dry_run or not (add or remove) else self._change(plans, add, remove)
            outcomes.update((plan.item.id, _outcome(plan, reason)) for plan in plans)
        return [outcomes[item.id] for item in batch]

    def _change(self, plans: Sequence[_Plan], add: Sequence[str], remove: Sequence[str]) -> str:
        """Returns why not, or nothing."""
        actions = {_ADD: list(add), _DELETE: list(remove)}
        body = {
            "hashes": [plan.item.sha256.hex() for plan in plans],
            "service_keys_to_actions_to_tags": {self._service: {key: tags for key, tags in actions.items() if tags}},
            "override_previously_deleted_mappings": False,
            "create_new_deleted_mappings": False,
        }
        try:
            self._server.post("/add_tags/add_tags", body)
        except Refused as error:
            if error.status in (401, 403, 419):
                raise self._no_access(error) from error
            return f"Hydrus refused it ({error})"
        return ""

    def _metadata(self, hashes: Sequence[str]) -> dict[str, Mapping[str, Any]]:
        """Hash → the service's tags by status, of the pictures that the client has."""
        query = {"hashes": json.dumps(list(hashes)), "include_services_object": "false"}
        try:
            rows = self._answer(self._server.get("/get_files/file_metadata", query), "metadata", list)
        except Refused as error:
            raise self._no_access(error) from error
        found = {}
        for row in rows:
            if row.get("file_id") is None or not row.get("is_local", True):
                continue
            service = (row.get("tags") or {}).get(self._service) or {}
            found[str(row.get("hash"))] = service.get("storage_tags") or {}
        return found

    def _connect(self) -> None:
        self._verify()
        self._service = self._find_service(self._wish)
        self.identity = f"hydrus {self._server.url} {self._service}"

    def _verify(self) -> None:
        try:
            said = self._answer(self._server.get("/verify_access_key"), "basic_permissions", list, whole=True)
        except Refused as error:
            raise self._no_access(error) from error
        version = said.get("version")
        if isinstance(version, int) and version < _OLDEST:
            raise OutputError(
                f"{self._server.url} is a Hydrus too old to respect deleted tags (client API {version}, {_OLDEST} is "
                "needed). Update it to version 580 or later."
            )
        missing = [] if said.get("permits_everything") else [n for n in _NEEDED if n not in said["basic_permissions"]]
        if missing:
            raise OutputError(
                f"The key for {self._server.url} does not permit to {' and to '.join(_NEEDED[n] for n in missing)}. "
                "Permit it in Hydrus: services, review services, client api."
            )

    def _find_service(self, wish: str | None) -> str:
        try:
            services = _services(self._server.get("/get_services"))
        except Refused as error:
            raise self._no_access(error) from error
        local = {key: name for key, (name, kind) in services.items() if kind == _LOCAL}
        found = [key for key, name in local.items() if wish is not None and wish in (key, name)]
        if len(found) == 1:
            return found[0]
        if any(kind == _REPOSITORY and wish in (key, name) for key, (name, kind) in services.items()):
            raise UsageError(f"--service {wish} is a repository shared with others; efuda pushes to local ones only.")
        listed = ", ".join(f"{name} ({key})" for key, name in local.items()) or "none"
        why = "no --service is given" if wish is None else f"--service {wish} is {'two' if found else 'none'} of them"
        raise UsageError(f"{self._server.url} has the local tag services {listed}; {why}. Name one, best by its key.")

    def _answer(self, said: Any, field: str, kind: type, *, whole: bool = False) -> Any:
        if not isinstance(said, dict) or not isinstance(said.get(field), kind):
            raise OutputError(f"{self._server.url} answers, but not as Hydrus does. Check the address.")
        return said if whole else said[field]

    def _no_access(self, error: Refused) -> OutputError:
        words = {
            401: "wants an access key",
            403: "does not accept the key, or not for this",
            419: "says that the key has expired",
        }
        if error.status not in words:
            return OutputError(f"{self._server.url} refuses ({error}). Check the address, and Hydrus itself.")
        return OutputError(
            f"{self._server.url} {words[error.status]} ({error.text}). See services, review services, client api there."
        )


def _plan(item: Item, current: set[str], deleted: set[str]) -> _Plan:
    tags, refused = wanted(item)
    no = _spelled(refused)
    add, left = {}, []
    for name, form in _spelled(tags).items():
        if form in current or name in no:
            continue
        if form in deleted:
            left.append(name)
        else:
            add[name] = form
    remove = {name: form for name, form in no.items() if form in current and name in item.pushed}
    return _Plan(item, add, remove, tuple(left))


def _spelled(tags: Sequence[tuple[str, Any]]) -> dict[str, str]:
    """Name → Hydrus's spelling; what it would not take is left out."""
    forms = ((name, name if name.startswith("rating:") else hydrus_tag(name, category)) for name, category in tags)
    return {name: form.lower() for name, form in forms if form}


def _outcome(plan: _Plan, reason: str) -> Outcome:
    there = plan.item.sha256.hex()
    if reason:
        return Outcome(plan.item.id, "failed", there=there, reason=reason)
    state: State = "pushed" if plan.add or plan.remove else "unchanged"
    return Outcome(plan.item.id, state, tuple(plan.add), tuple(plan.remove), plan.left, there)


def _tags(storage: Mapping[str, Any], status: str) -> set[str]:
    return {str(tag).lower() for tag in storage.get(status) or ()}


def _services(said: Any) -> dict[str, tuple[str, int]]:
    """Key → name and type; newer clients list them, older ones have an object by key."""
    said = said if isinstance(said, dict) else {}
    listed = said.get("services_v2")
    if isinstance(listed, list):
        return {str(one["service_key"]): (str(one["name"]), int(one["type"])) for one in listed}
    by_key = said.get("services")
    by_key = by_key if isinstance(by_key, dict) else {}
    return {str(key): (str(one["name"]), int(one["type"])) for key, one in by_key.items()}
