"""What is seen and heard over time, in words: the classes that a processor's encoders were trained on."""

from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any

from torch import Tensor

from avad_hf.media.sources import Media

from .events import reading_warnings
from .together import interleave

# The most probable names of a clip that are kept: a person reads so many at a glance.
NUM_NAMES = 5
# What the encoders' classes are asked for, and which encoder has them.
SENSES = {"seen": "video encoder", "heard": "audio encoder"}


def classes_of(processor: Any) -> dict[str, Sequence[str]]:
    """Names of what the encoders of a processor see and hear, by ``"seen"`` and ``"heard"``.

    Raises:
        ValueError: If neither encoder has classes with names.
    """
    if classes := getattr(processor, "classes", {}):
        return classes
    encoders = getattr(processor, "encoders", {}).values()
    names = [f"{encoder.name} ({encoder.network.config.model_type})" for encoder in encoders]
    raise ValueError(
        f"Nothing can be described: {' and '.join(names) or type(processor).__name__} cannot name what is seen or "
        "heard. An encoder must have a classifier, and names of its classes. avad_hf.describe(video) brings such "
        "encoders."
    )


def left_out(classes: Mapping[str, Sequence[str]]) -> list[str]:
    """What a result must say of a sense that is not described."""
    return [
        f"What is {sense} is not described: the {encoder} has no classes with names."
        for sense, encoder in SENSES.items()
        if sense not in classes
    ]


class Description:
    """What is seen and heard in one video, clip after clip.

    Args:
        classes: Names of what is ``"seen"`` and ``"heard"``, as of `classes_of`; one of them may be missing.

    Attributes:
        clips: For each clip ``start`` and ``end`` in seconds, ``seen`` and ``heard``: the most probable names, each
            with its ``label`` and its ``score``, the probability, the most probable first. A video without sound and
            an encoder without classes give empty lists.
    """

    def __init__(self, classes: Mapping[str, Sequence[str]]):
        self.classes = classes
        self._sums: dict[str, Tensor] = {}  # of the probabilities of all clips
        self.clips: list[dict[str, Any]] = []

    def add(self, times: Sequence[Sequence[float]], probabilities: Mapping[str, Tensor]) -> None:
        """Take the next clips.

        Args:
            times: Start and end of each, in seconds.
            probabilities: Probabilities of what is seen and heard, of shape `(clips, classes)` each.

        Raises:
            ValueError: If they are no numbers.
        """
        probabilities = {sense: values.double().cpu() for sense, values in probabilities.items()}
        for sense, values in probabilities.items():
            if not values.isfinite().all():
                raise ValueError(
                    f"The {SENSES[sense]} gives probabilities that are no numbers, in the clips from "
                    f"{times[0][0]:.2f} s: its weights are broken, or the precision is too low for it. Try float32 or "
                    "another checkpoint."
                )
            self._sums[sense] = self._sums.get(sense, 0) + values.sum(dim=0)
        for number, (start, end) in enumerate(times):
            clip = {"start": round(start, 6), "end": round(end, 6)}
            self.clips.append(clip | self._names({sense: rows[number] for sense, rows in probabilities.items()}))

    def overall(self) -> dict[str, list[dict[str, Any]]]:
        """The same lists for the whole video, by the mean over its clips."""
        return self._names({sense: total / len(self.clips) for sense, total in self._sums.items()})

    def _names(self, rows: Mapping[str, Tensor]) -> dict[str, list[dict[str, Any]]]:
        named: dict[str, list[dict[str, Any]]] = {sense: [] for sense in SENSES}
        for sense, row in rows.items():
            scores, numbers = row.topk(min(NUM_NAMES, len(row)))
            named[sense] = [
                {"label": self.classes[sense][number], "score": round(score, 6)}
                for number, score in zip(numbers.tolist(), scores.tolist(), strict=True)
            ]
        return named


class Describer:
    """Says what is seen and heard in videos. It needs no detector.

    Args:
        processor: Cuts videos into clips and asks its encoders, as [`~avad_hf.AvacaProcessor`] does. If one of them
            has no classes, that sense is left out, with a warning.

    Raises:
        ValueError: If neither encoder has classes with names.
    """

    def __init__(self, processor: Any):
        self.processor, self.classes = processor, classes_of(processor)
        self.warnings = [*dict.fromkeys(processor.notices), *left_out(self.classes)]

    @property
    def computes_in(self) -> str:
        """With what, where and in which precision the encoders compute, in words."""
        return self.processor.computes_in

    def __call__(self, videos: Any, **options: Any) -> dict[str, Any] | list[dict[str, Any]]:
        """Describe one video or several, which may be read at the same time.

        Args:
            videos: A path, URL, file object, bytes or dict of arrays (`avad_hf.media.sources.ACCEPTED_SOURCES`), or a
                list of them.
            options: Options of `interleave`.

        Returns:
            For each video a dict ready for JSON, all times in seconds: ``seen`` and ``heard``, the five most probable
            names by the mean over the clips, each with ``label`` and ``score``; ``clips`` with ``start``, ``end``,
            ``seen`` and ``heard``; ``duration``, ``fps``, ``has_audio``, ``read_until``, ``read`` and ``warnings`` as
            of a detector's result. ``heard`` is empty without sound.

        Raises:
            MediaError: If a video cannot be read.
        """
        video_list = list(videos) if isinstance(videos, (list, tuple)) else [videos]
        results: dict[int, dict[str, Any]] = {}
        for number, result in self.interleave(video_list, **options):
            if isinstance(result, Exception):
                raise result
            results[number] = result
        return [results[number] for number in sorted(results)] if isinstance(videos, (list, tuple)) else results[0]

    def interleave(
        self,
        videos: Any,
        streams: int = 1,
        *,
        batch_size: int | None = None,
        on_progress: Callable[[int, float, float | None], None] | None = None,
    ) -> Iterator[tuple[int, dict[str, Any] | Exception]]:
        """Describe many videos, and go on where one fails.

        Args:
            videos: They are begun in their order.
            streams: How many are read at the same time; they share the encoders.
            batch_size: Clips of one video that go through the encoders together.
            on_progress: Called after each batch with the video's number, the seconds read so far and its duration in
                seconds (``None`` if the file does not say).

        Yields:
            The number of each video, from 0, and its result, or what was raised: as soon as it is there.

        Raises:
            ValueError: For numbers below 1.
        """
        for name, value in (("streams", streams), ("batch_size", batch_size)):
            if value is not None and value < 1:
                raise ValueError(f"{name} must be 1 or more, got {value}.")
        return interleave(
            videos,
            streams,
            decode=lambda media: self.processor.decode(media, batch_size),
            begin=lambda: _DescribedVideo(self),
            on_progress=on_progress,
        )


class _DescribedVideo:
    """One of the videos that are described at the same time."""

    def __init__(self, describer: Describer):
        self.describer, self.description = describer, Description(describer.classes)

    def add(self, media: Media, batch: Any) -> float:
        features, probabilities = self.describer.processor.encode_and_name(batch)
        times = features["clip_times"][0].tolist()
        self.description.add(times, probabilities)
        self.has_audio = bool(features["has_audio"][0])
        return times[-1][1]

    def end(self, media: Media) -> dict[str, Any]:
        clips, info = self.description.clips, media.info
        read_until = max(clip["end"] for clip in clips)
        return {
            **self.description.overall(),
            "clips": clips,
            "duration": round(max(read_until, info.duration or 0.0), 6),
            "fps": round(info.fps, 6),
            "has_audio": self.has_audio,
            "read_until": read_until,
            "warnings": [*self.describer.warnings, *reading_warnings(read_until, info.duration, media.problems)],
            "read": getattr(media, "read", None),
        }


__all__ = ["NUM_NAMES", "SENSES", "Describer", "Description", "classes_of", "left_out"]
