"""What the server counts about itself, in the words of Prometheus.

measures = Measures()
measures.answered("GET", "/api/search", 200, 0.004)
measures.text()                 # what GET /metrics says
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Final

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, generate_latest
from prometheus_client.exposition import CONTENT_TYPE_PLAIN_0_0_4

__all__ = ["METRICS_TYPE", "Measures"]

METRICS_TYPE: Final = CONTENT_TYPE_PLAIN_0_0_4
_SECONDS: Final = (0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30)


class Measures:
    """Counters of one server."""

    def __init__(self) -> None:
        self._registry = CollectorRegistry()
        self._answers = Counter(
            "efuda_requests", "Requests answered.", ("method", "route", "status"), registry=self._registry
        )
        self._seconds = Histogram(
            "efuda_request_seconds", "Time to answer.", ("route",), buckets=_SECONDS, registry=self._registry
        )
        self._pictures = Counter("efuda_tagged_pictures", "Pictures that the model saw.", registry=self._registry)
        self._batches = Counter("efuda_batches", "Runs of the model.", registry=self._registry)

    def answered(self, method: str, route: str, status: int, seconds: float) -> None:
        """A request was answered; `route` as it is declared, so that numbers in it do not multiply what is kept."""
        known = method if method in ("GET", "HEAD", "POST", "DELETE", "OPTIONS") else "other"
        self._answers.labels(known, route, str(status)).inc()
        self._seconds.labels(route).observe(seconds)

    def inferred(self, pictures: int) -> None:
        """The model saw a batch."""
        self._batches.inc()
        self._pictures.inc(pictures)

    def gauge(self, name: str, what: str, read: Callable[[], float]) -> None:
        """A number that is read when somebody asks."""
        Gauge(name, what, registry=self._registry).set_function(read)

    def text(self) -> bytes:
        """All of it."""
        return generate_latest(self._registry)
