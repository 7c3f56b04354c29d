"""What Prometheus reads of a watch: counts of cameras, scores and alerts, in its text format."""

from collections.abc import Callable, Iterator, Mapping
from typing import Any

from avad_hf.files import shown

from .board import SCORE_BINS, Board, ScoreCounts

# Key of a camera's health -> name of the counter and what it counts.
COUNTERS = {
    "frames": ("frames", "Pictures that were read."),
    "clips": ("clips", "Clips that were scored."),
    "reused": ("clips_reused", "Clips that were still and took earlier features of their pictures."),
    "reconnects": ("reconnects", "Times that the connection was made anew."),
    "gaps": ("gaps", "Stretches that are missing between clips."),
    "left_out": ("left_out_seconds", "Seconds of picture that were left out because computing was behind."),
}
# Key of a sink's health -> the same.
SINK_COUNTERS = {
    "delivered": ("alerts_delivered", "Alerts that were delivered."),
    "failed_tries": ("alerts_failed_tries", "Tries to deliver an alert that failed."),
    "dropped": ("alerts_dropped", "Alerts that were given up."),
}
PREFIX = "avad_hf"

SinksHealth = Callable[[], Mapping[str, Mapping[str, Any]]]


class Metrics:
    """The metrics of a watch, read from its board when they are asked for.

    Args:
        board: What is shown of the cameras.
        sinks_health: Returns the health of each sink by its name. Names must hold no secrets.
    """

    def __init__(self, board: Board, sinks_health: SinksHealth):
        from prometheus_client import CollectorRegistry

        self._board, self._sinks_health = board, sinks_health
        self._registry = CollectorRegistry(auto_describe=False)
        self._registry.register(self)

    def text(self) -> tuple[bytes, str]:
        """Return the metrics and their content type."""
        from prometheus_client import CONTENT_TYPE_LATEST, generate_latest

        return generate_latest(self._registry), CONTENT_TYPE_LATEST

    def describe(self) -> list[Any]:
        """Return nothing: the registry would otherwise collect everything to learn the names."""
        return []

    def collect(self) -> Iterator[Any]:
        """Yield all families of metrics, for the registry."""
        yield from self._camera_families()
        yield self._score_family(self._board.score_counts())
        yield from self._sink_families()

    def _camera_families(self) -> Iterator[Any]:
        from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily

        cameras = {shown(camera["name"]): camera["health"] for camera in self._board.state()["cameras"]}
        up = GaugeMetricFamily(f"{PREFIX}_camera_up", "Whether a camera is live.", labels=["camera"])
        lag = GaugeMetricFamily(
            f"{PREFIX}_lag_seconds", "Seconds from a clip's last picture to its score.", labels=["camera"]
        )
        for name, health in cameras.items():
            up.add_metric([name], float(health["state"] == "live"))
            if health.get("lag") is not None:
                lag.add_metric([name], health["lag"])
        yield up
        yield lag
        for key, (metric, words) in COUNTERS.items():
            counter = CounterMetricFamily(f"{PREFIX}_{metric}", words, labels=["camera"])
            for name, health in cameras.items():
                counter.add_metric([name], health.get(key, 0))
            yield counter
        events = CounterMetricFamily(f"{PREFIX}_events", "Events that began.", labels=["camera", "label"])
        for (camera, label), number in sorted(self._board.opened_counts().items()):
            events.add_metric([shown(camera), shown(label)], number)
        yield events

    def _score_family(self, counts: Mapping[str, ScoreCounts]) -> Any:
        from prometheus_client.core import HistogramMetricFamily

        family = HistogramMetricFamily(f"{PREFIX}_score", "Scores of clips.", labels=["camera"])
        for name, scores in counts.items():
            bins, until = [], 0
            for limit, number in zip((*SCORE_BINS, float("inf")), scores.bins, strict=True):
                until += number
                bins.append(("+Inf" if limit == float("inf") else str(limit), until))
            family.add_metric([shown(name)], bins, scores.total)
        return family

    def _sink_families(self) -> Iterator[Any]:
        from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily

        sinks = {shown(name): health for name, health in self._sinks_health().items()}
        waiting = GaugeMetricFamily(f"{PREFIX}_alerts_waiting", "Alerts that wait for delivery.", labels=["sink"])
        for name, health in sinks.items():
            waiting.add_metric([name], health.get("waiting", 0))
        yield waiting
        for key, (metric, words) in SINK_COUNTERS.items():
            counter = CounterMetricFamily(f"{PREFIX}_{metric}", words, labels=["sink"])
            for name, health in sinks.items():
                counter.add_metric([name], health.get(key, 0))
            yield counter


__all__ = ["Metrics", "SinksHealth"]
