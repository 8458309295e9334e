"""From entries to a table of posts with their tags: sampling, counting, cutting, groups and splits.

The order is the reference run's: every k-th entry, then tags counted on that sample, then the minimum count. Everything
works on DuckDB tables on disk, so that memory does not grow with the dump.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Mapping, Sequence
from typing import Final

import numpy as np
from numpy.typing import NDArray

from efuda.datasets.sources import Connection
from efuda.errors import InputError, MissingExtra
from efuda.recipes import Recipe, SplitRecipe
from efuda.vocabulary import RATINGS, Category, Tag, Vocabulary

__all__ = ["choose_vocabulary", "find_groups", "sample", "split_posts", "tag_posts"]

# Before Danbooru's "general" existed, s was "safe"; a dump that never says g is of that time.
_THREE_LEVELS: Final = {"s": "general", "q": "questionable", "e": "explicit"}
_FOUR_LEVELS: Final = {"g": "general", "s": "sensitive", "q": "questionable", "e": "explicit"}
_SPLITS: Final = ("train", "validation", "test")


def sample(connection: Connection, recipe: Recipe) -> dict[str, int]:
    """Fill `sampled` (every k-th entry) and `posts` (those with an id, the last of each id); returns the funnel so far.

    Posts left out are in the table `rejected` (id, stage, reason, path).
    """
    run = connection.execute
    every = recipe.posts.every
    run(f"CREATE OR REPLACE TABLE sampled AS SELECT rowid AS entry, * FROM entries WHERE rowid % {every} = 0")
    run("CREATE OR REPLACE TABLE rejected (id BIGINT, stage VARCHAR, reason VARCHAR, path VARCHAR)")
    run("INSERT INTO rejected SELECT id, 'posts', 'no id', NULL FROM sampled WHERE id IS NULL OR id < 1 ORDER BY entry")
    run("CREATE OR REPLACE TABLE posts AS SELECT * FROM sampled WHERE id >= 1 ORDER BY entry")
    run(
        "INSERT INTO rejected SELECT id, 'posts', 'a later entry has the same id', NULL FROM posts "
        "QUALIFY row_number() OVER (PARTITION BY id ORDER BY entry DESC) > 1 ORDER BY entry"
    )
    run("DELETE FROM posts WHERE entry NOT IN (SELECT max(entry) FROM posts GROUP BY id)")
    if not recipe.posts.deleted:
        run("INSERT INTO rejected SELECT id, 'posts', 'deleted', NULL FROM posts WHERE deleted ORDER BY entry")
        run("DELETE FROM posts WHERE deleted")
    counts = {name: run(f"SELECT count(*) FROM {name}").fetchone()[0] for name in ("entries", "sampled", "posts")}
    return {name: int(count) for name, count in counts.items()}


def choose_vocabulary(
    connection: Connection, recipe: Recipe, aliases: Mapping[str, str]
) -> tuple[Vocabulary, dict[str, list[str]], int]:
    """Count the tags of the sampled entries and keep those that occur often enough.

    Returns:
        The vocabulary, the aliases that were met (tag → names), and how many different tags there were before the cut.

    Raises:
        InputError: nothing is left.
    """
    run = connection.execute
    _fill_alias_table(connection, aliases if recipe.vocabulary.aliases else {})
    each = " UNION ALL ".join(
        f"SELECT entry, {int(Category[category.upper()])} AS category, unnest({category}) AS written FROM sampled"
        for category in recipe.vocabulary.categories
    )
    run(
        f"CREATE OR REPLACE TABLE postings AS SELECT entry, coalesce(tag, written) AS name, min(category) AS category "
        f"FROM ({each}) LEFT JOIN aliases ON alias = written WHERE written <> '' GROUP BY ALL"
    )
    _drop_held_out(connection, recipe)
    # A name that appears under two categories (an old entry, a moved tag) is one tag, of the commoner category.
    counted = run(
        "SELECT name, arg_max(category, 10 * n - category), sum(n)::BIGINT FROM "
        "(SELECT name, category, count(*) FILTER (entry NOT IN (FROM held_out)) AS n FROM postings GROUP BY ALL) "
        "GROUP BY name"
    ).fetchall()
    hidden = set(recipe.split.hold_out)
    kept = [
        Tag(name, Category(category), count)
        for name, category, count in counted
        if count >= recipe.vocabulary.minimum_count and name not in hidden
    ]
    if not kept:
        raise InputError(
            f"No tag is left: none of {len(counted):,} occurs in at least {recipe.vocabulary.minimum_count} of the "
            "sampled entries. Use more entries, or lower it with --set vocabulary.minimum_count=20"
        )
    kept += _ratings(connection) if recipe.vocabulary.ratings else []
    names = {tag.name for tag in kept}
    met = run("SELECT tag, list(alias ORDER BY alias) FROM aliases GROUP BY tag").fetchall()
    return Vocabulary.in_wd_order(kept), {tag: names_ for tag, names_ in met if tag in names}, len(counted)


def tag_posts(connection: Connection, vocabulary: Vocabulary) -> None:
    """Fill `labels` (entry, tags: sorted list of outputs) for the posts that carry any."""
    run = connection.execute
    run("CREATE OR REPLACE TABLE vocabulary (row INTEGER, name VARCHAR, rating BOOLEAN)")
    _insert(
        connection,
        "vocabulary",
        [(row, tag.name, tag.category == Category.RATING) for row, tag in enumerate(vocabulary)],
    )
    levels = _levels(connection)
    cases = " ".join(f"WHEN '{letter}' THEN '{word}'" for letter, word in levels.items())
    run(
        f"CREATE OR REPLACE TABLE labels AS SELECT entry, list_sort(list_distinct(list(row))) AS tags FROM ("
        f"SELECT entry, row FROM postings JOIN vocabulary USING (name) WHERE NOT rating UNION ALL "
        f"SELECT entry, row FROM posts JOIN vocabulary ON name = CASE posts.rating {cases} END WHERE vocabulary.rating"
        f") GROUP BY entry"
    )


def find_groups(connection: Connection) -> dict[int, int]:
    """Post → group, for the posts that have a parent or a child: the lowest id among all their relatives."""
    group: dict[int, int] = {}

    def root(post: int) -> int:
        while (above := group.setdefault(post, post)) != post:
            group[post] = post = group[above]
        return post

    pairs = connection.execute("SELECT id, parent_id FROM entries WHERE id >= 1 AND parent_id >= 1").fetchall()
    for post, parent in pairs:
        one, other = sorted((root(post), root(parent)))
        group[other] = one
    return {post: root(post) for post in list(group)}


def split_posts(
    ids: NDArray[np.int64], groups: NDArray[np.int64], held_out: NDArray[np.bool_], recipe: SplitRecipe
) -> list[str]:
    """Say for each post which split it belongs to.

    Args:
        ids: int64 [n].
        groups: int64 [n]; posts of one group share a split (`hash`; `random` is the reference's and knows no groups).
        held_out: bool [n]; these posts and their groups form the split "unseen".
    """
    unseen = np.isin(groups, groups[held_out])
    names = np.full(len(ids), "unseen", dtype=object)
    if recipe.method == "random":
        names[~unseen] = _random_splits(int((~unseen).sum()), recipe)
    else:
        names[~unseen] = [_split_of(int(group), recipe) for group in groups[~unseen]]
    return list(names)


def _split_of(group: int, recipe: SplitRecipe) -> str:
    digest = hashlib.sha256(f"{recipe.seed}:{group}".encode()).digest()
    place = int.from_bytes(digest[:8], "big") / 2**64
    return "train" if place < recipe.train else "validation" if place < recipe.train + recipe.validation else "test"


def _random_splits(posts: int, recipe: SplitRecipe) -> list[str]:
    """The reference's: one cut for the test set, another for validation."""
    try:
        from sklearn.model_selection import train_test_split
    except ModuleNotFoundError as error:
        raise MissingExtra("A random split", "train", "scikit-learn") from error
    if posts < 4:
        raise InputError(f"{posts} posts are too few to split in three; use more entries or pictures.")
    rest, test = train_test_split(np.arange(posts), test_size=recipe.test, random_state=recipe.seed)
    share = recipe.validation / (recipe.train + recipe.validation)
    train, validation = train_test_split(rest, test_size=share, random_state=recipe.seed)
    names = np.empty(posts, dtype=object)
    for name, rows in zip(_SPLITS, (train, validation, test), strict=True):
        names[rows] = name
    return list(names)


def _fill_alias_table(connection: Connection, aliases: Mapping[str, str]) -> None:
    connection.execute("CREATE OR REPLACE TABLE aliases (alias VARCHAR, tag VARCHAR)")
    _insert(connection, "aliases", list(aliases.items()))


def _insert(connection: Connection, table: str, rows: Sequence[Iterable[object]]) -> None:
    if rows:
        marks = ", ".join("?" for _ in list(rows[0]))
        connection.executemany(f"INSERT INTO {table} VALUES ({marks})", [list(row) for row in rows])


def _drop_held_out(connection: Connection, recipe: Recipe) -> None:
    """Tags are chosen among what can be learned: the held-out posts keep their labels but are not counted."""
    names = list(recipe.split.hold_out)
    marks = ", ".join("?" for _ in names) or "NULL"
    connection.execute(
        f"CREATE OR REPLACE TABLE held_out AS SELECT DISTINCT entry FROM postings WHERE name IN ({marks})", names
    )


def _levels(connection: Connection) -> dict[str, str]:
    (four,) = connection.execute("SELECT coalesce(bool_or(rating = 'g'), false) FROM entries").fetchone()
    return _FOUR_LEVELS if four else _THREE_LEVELS


def _ratings(connection: Connection) -> list[Tag]:
    found = connection.execute("SELECT rating, count(*) FROM sampled GROUP BY rating").fetchall()
    levels = _levels(connection)
    counts = {levels[letter]: count for letter, count in found if letter in levels}
    return [Tag(name, Category.RATING, counts.get(name, 0)) for name in RATINGS]
