"""The collection: which pictures exist, what models say about them, and finding them again; one SQLite file.

with Collection.open(Path("art.efuda"), create=True) as collection:
    added = collection.add(tag(tagger, collection.untagged(pictures, tagger.identity)), tagger)
    found = collection.search("glasses -hat rating:g order:mpixels")
    print(found.total, [picture.path for picture in found.pictures])
"""

from efuda.collection.duplicates import Group
from efuda.collection.engine import Card, Facets
from efuda.collection.previews import Busy
from efuda.collection.scanning import Folder
from efuda.collection.store import Added, Collection, Found, Operation, Picture, TagOn

__all__ = [
    "Added",
    "Busy",
    "Card",
    "Collection",
    "Facets",
    "Folder",
    "Found",
    "Group",
    "Operation",
    "Picture",
    "TagOn",
]
