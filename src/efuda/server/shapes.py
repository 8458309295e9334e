"""The answers of `/api` as types: what the OpenAPI document says, and what every answer is checked against."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import BaseModel, Field

__all__ = [
    "Candidate",
    "Card",
    "Completed",
    "Counted",
    "DuplicateGroup",
    "DuplicatePicture",
    "Duplicates",
    "Edit",
    "FacetGroup",
    "FacetList",
    "FolderOf",
    "Folders",
    "Found",
    "Health",
    "History",
    "JobFailure",
    "JobOf",
    "JobOrder",
    "Jobs",
    "Merge",
    "ModelOf",
    "OneOperation",
    "PictureOf",
    "RatingName",
    "Redo",
    "SignIn",
    "Similar",
    "SimilarCard",
    "Status",
    "TagOf",
    "Undo",
]

RatingName = Literal["general", "sensitive", "questionable", "explicit"]
Id = Annotated[int, Field(ge=1, lt=2**32)]
TagName = Annotated[str, Field(min_length=1, max_length=200)]


class ModelOf(BaseModel):
    """A model that has tagged pictures here."""

    name: str
    identity: str
    pictures: int


class Status(BaseModel):
    """What the page needs first; what is null is told after signing in."""

    name: str | None
    version: str
    pictures: int | None
    tags: int | None
    revision: int | None
    models: list[ModelOf] | None
    tagger: str | None
    read_only: bool
    signed_in: bool
    needs_sign_in: bool
    ratings: dict[str, int] | None


class Card(BaseModel):
    """A picture in a grid; `version` belongs into its thumbnail's address: ids of another collection are others."""

    id: int
    width: int
    height: int
    rating: str | None
    filetype: str
    duration: float | None = None
    version: str


class Found(BaseModel):
    """A part of a search's result."""

    total: int
    revision: int
    offset: int
    pictures: list[Card]


class Candidate(BaseModel):
    """One word that would complete a search."""

    value: str
    label: str
    category: str | None
    count: int | None
    antecedent: str | None


class Completed(BaseModel):
    """Completions, and which characters they replace."""

    start: int
    end: int
    suggestions: list[Candidate]


class Counted(BaseModel):
    """A tag and how many of the pictures found carry it."""

    name: str
    count: int


class FacetGroup(BaseModel):
    """Tags of one category."""

    category: str
    tags: list[Counted]


class FacetList(BaseModel):
    """What the pictures found have in common."""

    total: int
    exact: bool
    ratings: dict[str, int]
    groups: list[FacetGroup]


class TagOf(BaseModel):
    """A tag of a picture: with what score, and by whom."""

    name: str
    category: str
    score: float | None
    by: Literal["person", "model", "import", "implied"]
    source: str
    at: str | None
    count: int | None = None


class PictureOf(BaseModel):
    """All about a picture but where it lies."""

    id: int
    name: str
    folder: str
    width: int
    height: int
    bytes: int
    filetype: str
    md5: str | None
    sha256: str
    added: str
    date: str | None
    missing: str | None
    source: str | None
    parent: int | None
    children: list[int]
    rating: str | None
    ratings: dict[str, float]
    model: str
    tags: list[TagOf]
    refused: list[TagOf]


class SimilarCard(Card):
    """A picture and how alike it is, up to 1."""

    similarity: float


class Similar(BaseModel):
    """Pictures like another, the likest first."""

    pictures: list[SimilarCard]


class Edit(BaseModel):
    """Words about pictures: tags they have, tags they do not have, words taken back, a rating."""

    pictures: list[Id] | None = Field(None, max_length=100_000)
    query: str | None = Field(None, max_length=4000)
    add: list[TagName] = Field(default_factory=list, max_length=200)
    remove: list[TagName] = Field(default_factory=list, max_length=200)
    forget: list[TagName] = Field(default_factory=list, max_length=200)
    rating: RatingName | None = None


class Undo(BaseModel):
    """Which operation; the latest if none is named."""

    operation: Annotated[int, Field(ge=1, lt=2**53)] | None = None


class Redo(BaseModel):
    """Nothing: what was undone last."""


class Merge(BaseModel):
    """Duplicates: one that is kept, and those whose tags it gets."""

    keep: Id
    drop: list[Id] = Field(min_length=1, max_length=1000)


class OneOperation(BaseModel):
    """A change of the collection."""

    id: int
    at: str
    by: str
    kind: str
    summary: str
    changed: int
    skipped: int
    undoes: int | None
    undone: bool


class History(BaseModel):
    """Changes, the latest first."""

    operations: list[OneOperation]
    can_undo: OneOperation | None
    can_redo: OneOperation | None


class DuplicatePicture(Card):
    """One of several that are alike."""

    bytes: int
    only_tags: list[str]


class DuplicateGroup(BaseModel):
    """Pictures that are alike."""

    kind: Literal["pixels", "near"]
    verdict: Literal["duplicate", "variant"]
    pictures: list[DuplicatePicture]
    shared_tags: int


class Duplicates(BaseModel):
    """A part of all groups."""

    total: int
    groups: list[DuplicateGroup]


class FolderOf(BaseModel):
    """A folder whose pictures were added."""

    id: int
    name: str
    pictures: int


class Folders(BaseModel):
    """All of them."""

    folders: list[FolderOf]


class JobOrder(BaseModel):
    """Work to begin."""

    kind: Literal["add"]
    folder: Id


class JobFailure(BaseModel):
    """A file that could not be used."""

    name: str
    reason: str


class JobOf(BaseModel):
    """A job and how far it is."""

    id: int
    kind: str
    state: Literal["running", "done", "failed", "cancelled"]
    done: int
    total: int | None
    rate: float
    remaining_s: float | None
    note: str
    failed: list[JobFailure]
    summary: str


class Jobs(BaseModel):
    """The latest first."""

    jobs: list[JobOf]


class SignIn(BaseModel):
    """The password, or the token."""

    password: str = Field(max_length=1024)


class Health(BaseModel):
    """Whether it answers."""

    status: Literal["ok", "starting", "stopping"]
    revision: int | None
