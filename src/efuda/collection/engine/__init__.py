"""The search engine in memory: `Index` is one version of it, `Engine` keeps the newest and its snapshot on the disk."""

from efuda.collection.engine.cards import Card, cards_of
from efuda.collection.engine.engine import Engine
from efuda.collection.engine.facets import Facets
from efuda.collection.engine.index import Index
from efuda.collection.engine.version import Resemblance

__all__ = ["Card", "Engine", "Facets", "Index", "Resemblance", "cards_of"]
