"""`pipeline("audio-visual-anomaly")`: a video in, scores over time out."""

import os
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import closing
from dataclasses import replace
from difflib import get_close_matches
from functools import cache
from pathlib import Path
from typing import Any

from torch.utils.data import Dataset as TorchDataset
from transformers import AutoProcessor, BatchFeature, PreTrainedConfig, PreTrainedModel, ProcessorMixin
from transformers.pipelines.base import ChunkPipeline
from transformers.utils import PROCESSOR_NAME, has_file

from avad_hf.hub.errors import explain
from avad_hf.hub.push import PushedWithCard
from avad_hf.media.ahead import read_ahead
from avad_hf.media.sources import Media, open_media
from avad_hf.models.detector import WHOLE_VIDEO, refuse_other_widths, spec_of

from .context import ClipContext, Piece
from .describe import Description, classes_of, left_out
from .events import ScoredClip, detect_events
from .together import interleave

# What is used where no model is named. Every result says that it is a demonstration.
DEMO_MODEL = Path(__file__).parents[1] / "demo_model"
# It calls nearly every real clip anomalous, which would say no more than that the clip is not drawn.
NOT_JUDGED = "This video was not drawn by avad_hf: the demonstration model gives it scores, but no label or events."

# What can be set when the pipeline is made and in each call, and in calls alone.
OPTIONS = ("threshold", "audio_path", "describe", "on_progress", "batch_size")
OPTIONS_OF_CALLS = ("streams",)
# Kinds of numpy's types that can hold paths: objects, text, text of any length.
PATH_KINDS = ("O", "U", "T")


class AudioVisualAnomalyPipeline(PushedWithCard, ChunkPipeline):
    r"""Finds anomalies in videos by sight and sound.

    A long video is read, encoded and scored a few clips at a time, so that memory does not grow with its length. For
    detectors that must see a whole video at once its features are held until it ends. Detectors of event classes name
    the event of a whole video, or of each window of one that is longer than their processor's ``window_s``, which are
    the clips then.

    Args:
        model: A detector.
        processor: Its processor; encoders in it are moved to the pipeline's device.
        threshold: Score from which on a clip is anomalous; the model's own by default.
        audio_path: How sound is used, of detectors that have several ways (AVACA: ``"focused"``, ``"plain"`` or
            ``"zeroed"``); the model's own by default.
        batch_size: Clips that go through the networks together; by default one on a CPU, and on a GPU as many as fit
            into its memory, up to 16.
        describe: Whether results also say what is seen and heard, by the classes of the processor's encoders.
        kwargs: As for every pipeline, ``device`` and ``dtype`` among them. By default frozen networks compute in
            bfloat16 where the device has hardware for it, else in float32; scores of the demonstration model then
            differ by less than 0.01. Beside a model and a processor that are loaded already, ``dtype`` is theirs.

    Example:
    ```python
    >>> import avad_hf
    >>> from transformers import pipeline

    >>> detect = pipeline("audio-visual-anomaly", model="checkpoints/avaca")
    >>> result = detect("street.mp4", threshold=0.7)
    >>> result["score"], result["events"]
    ```
    """

    # A processor that fails to load is looked at in __init__: the model's type comes first.
    _load_processor = None
    _load_image_processor = False
    _load_video_processor = False
    _load_feature_extractor = False
    _load_tokenizer = False

    def __init__(self, model: PreTrainedModel, processor: ProcessorMixin | None = None, **kwargs):
        try:
            self.spec = spec_of(model)
        except TypeError as error:
            raise ValueError(
                f"audio-visual-anomaly needs a detector, but {model.name_or_path or type(model).__name__} holds a "
                f"model of type '{model.config.model_type}'. {error}"
            ) from None
        if processor is None:
            raise ValueError(_why_no_processor(model))
        refuse_other_widths(self.spec, processor)
        kwargs.pop("local_files_only", None)  # transformers passes it on after use
        super().__init__(model=model, processor=processor, **kwargs)
        self.model.eval()
        self.device = self.model.device  # that of exported ones is the CPU, whatever else there is
        # What somebody chose for the processor stays.
        chosen = getattr(self.processor, "chosen_dtype", None)
        self.processor.to(self.device, self.model.inference_dtype if chosen in (None, "auto") else None)

    @property
    def computes_in(self) -> str:
        """Where, in which precision, and with what the networks compute, in words."""
        return getattr(self.processor, "computes_in", None) or self.model.computes_in

    def _sanitize_parameters(
        self,
        threshold: float | None = None,
        audio_path: str | None = None,
        clips_per_batch: int | None = None,
        on_progress: Callable[[float, float | None], None] | None = None,
        describe: bool | None = None,
        **unknown: Any,
    ) -> tuple[dict, dict, dict]:
        for name in unknown:
            near = get_close_matches(name, (*OPTIONS, *OPTIONS_OF_CALLS), n=1)
            meant = f" Did you mean {near[0]}?" if near else ""
            raise TypeError(
                f"audio-visual-anomaly takes no option {name!r}. It takes {', '.join(OPTIONS)}; calls also take "
                f"{', '.join(OPTIONS_OF_CALLS)}.{meant}"
            )
        preprocess, forward, postprocess = {}, {}, {}
        if threshold is not None:
            if not 0.0 <= threshold <= 1.0:
                raise ValueError(f"threshold must be between 0 and 1, got {threshold}.")
            postprocess["threshold"] = float(threshold)
        if audio_path is not None:
            # Refused here, before anything is decoded; the detector would refuse it too.
            if not hasattr(self.model.config, "audio_paths"):
                raise ValueError(
                    f"audio_path is an option of detectors that use sound in several ways, and this one, of type "
                    f"'{self.model.config.model_type}', has none. Leave it out."
                )
            if audio_path not in (choices := self.model.config.audio_paths):
                raise ValueError(f"audio_path must be one of {', '.join(choices)}, got {audio_path!r}.")
            forward["audio_path"] = audio_path
        if clips_per_batch is not None:
            if clips_per_batch < 1:
                raise ValueError(f"batch_size must be 1 or more, got {clips_per_batch}.")
            preprocess["clips_per_batch"] = clips_per_batch
        if on_progress is not None:
            preprocess["on_progress"] = on_progress
        if describe is not None:
            if describe:
                classes_of(self.processor)  # which refuses encoders without classes, before anything is decoded
            preprocess["describe"] = describe
        return preprocess, forward, postprocess

    def __call__(
        self,
        inputs: Any,
        *,
        batch_size: int | None = None,
        num_workers: int | None = None,
        streams: int = 1,
        **kwargs,
    ) -> dict | list[dict] | Iterator[dict]:
        """Score one video or several.

        Args:
            inputs: A path, URL, file object, bytes or dict of arrays (`avad_hf.media.sources.ACCEPTED_SOURCES`). Or
                several of them: a list, or anything else that gives one after the other, such as a generator, an array
                or a column of a table with paths, a data set of `datasets` (streamed or not), one of its columns, or
                transformers' ``KeyDataset``.
            batch_size: Clips that go through the networks together.
            num_workers: Must be 0: FFmpeg decodes in threads of its own, and the encoders cannot be forked.
            streams: How many videos of a list are read at the same time. They share the networks, and take turns.
            kwargs:
                - threshold: Score from which on a clip is anomalous.
                - audio_path: How sound is used.
                - describe: Whether to say what is seen and heard, too.
                - on_progress: Called after each batch of clips with the seconds read so far and the duration in
                  seconds (``None`` if the file does not say).

        Returns:
            A list for a list, and an iterator for whatever else gives several videos: it reads a video when its result
            is asked for, and ends at the first one that fails (`interleave` goes on). For each video it has
            a dict ready for JSON: ``score``, ``label``, ``events``, ``clips``, ``threshold``,
            ``duration``, ``fps``, ``has_audio``, ``read_until``, ``read`` and ``warnings``, as in
            [`~avad_hf.detection.events.Detection`]. Of detectors of event classes ``clips`` have ``label`` and
            ``probabilities`` as well. With ``describe`` the result, its clips and its events have ``seen`` and
            ``heard``: the five most probable names, each with ``label`` and ``score``, as of
            [`~avad_hf.detection.describe.Describer`].

        Raises:
            MediaError: If a video cannot be read.
            ValueError: For impossible options, and for a source without end if the detector must see whole videos.
        """
        if num_workers or self._num_workers:
            raise ValueError(
                f"num_workers must be 0, got {num_workers or self._num_workers}: the encoders run where videos are "
                "read, and cannot run in forked processes. Decoding has threads of its own."
            )
        if streams < 1:
            raise ValueError(f"streams must be 1 or more, got {streams}.")
        if isinstance(inputs, (list, tuple)):
            if not inputs:
                return []
            inputs = list(inputs)
            if streams > 1:
                return self._together(inputs, streams, batch_size, kwargs)
        elif _gives_videos(inputs):
            if streams > 1:
                raise ValueError(
                    f"streams={streams} needs a list of videos, got a {type(inputs).__name__}. Make a list of it, or "
                    "use interleave, which takes anything that gives videos."
                )
            if not isinstance(inputs, TorchDataset):  # which transformers takes as it is
                inputs = (video for video in inputs)
        # Clips of one video are the batch, not videos: sizes differ between videos, never within one.
        clips = self._batch_size if batch_size is None else batch_size
        if clips is not None:
            kwargs["clips_per_batch"] = clips
        return super().__call__(inputs, batch_size=1, num_workers=0, **kwargs)

    def interleave(
        self,
        videos: Iterable[Any],
        streams: int = 1,
        *,
        batch_size: int | None = None,
        on_progress: Callable[[int, float, float | None], None] | None = None,
        **kwargs,
    ) -> Iterator[tuple[int, dict | Exception]]:
        """Score many videos, some at the same time, and go on where one fails: for several cameras, or a night's work.

        Each video is decoded in a thread of its own, a few clips ahead; the networks, which all of them share, take
        whichever clips are there first.

        Args:
            videos: As for `__call__`; they are begun in their order.
            streams: How many are read at the same time.
            batch_size: Clips of one video that go through the networks together.
            on_progress: Called after each batch with the video's number, the seconds read so far and its duration in
                seconds (``None`` if the file does not say).
            kwargs: As for `__call__`.

        Yields:
            The number of each video, from 0, and its result, or what was raised: as soon as it is there.
        """
        if streams < 1:
            raise ValueError(f"streams must be 1 or more, got {streams}.")
        clips = self._batch_size if batch_size is None else batch_size
        preprocess, forward, postprocess = self._sanitize_parameters(
            **kwargs, **({} if clips is None else {"clips_per_batch": clips})
        )
        preprocess = self._preprocess_params | preprocess
        forward, postprocess = self._forward_params | forward, self._postprocess_params | postprocess
        # Refused above, when it is called, and not when the first result is asked for.
        return interleave(
            videos,
            streams,
            decode=lambda media: self._decode(media, preprocess.get("clips_per_batch")),
            begin=lambda: _ScoredVideo(self, self._description(preprocess.get("describe")), forward, postprocess),
            on_progress=on_progress,
        )

    def _decode(self, media: Media, clips_per_batch: int | None) -> Iterator[Any]:
        """A video in batches of clips."""
        self._refuse_endless(media)
        yield from self.processor.decode(media, clips_per_batch)

    def _description(self, describe: bool | None) -> Description | None:
        """What collects names, if they are asked for."""
        return Description(classes_of(self.processor)) if describe else None

    def _encode(self, batch: Any, description: Description | None) -> BatchFeature:
        """Features of some clips, whose names are added to a description, by the same pass of the encoders."""
        if description is None:
            return self.processor.encode(batch)
        features, probabilities = self.processor.encode_and_name(batch)
        description.add(features["clip_times"][0].tolist(), probabilities)
        return features

    def _refuse_endless(self, media: Media) -> None:
        """Refuse a source that never ends where the detector has to wait for its end."""
        if self.spec.context == WHOLE_VIDEO and getattr(media, "is_endless", False):
            raise ValueError(
                f"{media.info.name} has no end, and {self.spec.title} must see a whole video before it scores any of "
                "it. Give recorded videos, or use a detector that scores clip by clip."
            )

    def _together(self, videos: list, streams: int, batch_size: int | None, kwargs: dict[str, Any]) -> list[dict]:
        results: list[dict | None] = [None] * len(videos)
        move = kwargs.pop("on_progress", None) or self._preprocess_params.get("on_progress")
        move = None if move is None else lambda number, seconds, whole, then=move: then(seconds, whole)
        for number, result in self.interleave(videos, streams, batch_size=batch_size, on_progress=move, **kwargs):
            if isinstance(result, Exception):
                raise result
            results[number] = result
        return results

    def preprocess(
        self,
        video: Any,
        clips_per_batch: int | None = None,
        on_progress: Callable[[float, float | None], None] | None = None,
        describe: bool = False,
    ) -> Iterator[dict]:
        """Decode and encode a video, some clips at a time."""
        description = self._description(describe)
        with open_media(video) as media:
            pending = None
            for piece in self._pieces(media, clips_per_batch, on_progress, description):
                if pending is not None:
                    yield {"piece": pending, "media": media, "description": description, "is_last": False}
                pending = piece
            yield {"piece": pending, "media": media, "description": description, "is_last": True}

    def _pieces(
        self,
        media: Media,
        clips_per_batch: int | None,
        on_progress: Callable[[float, float | None], None] | None,
        description: Description | None,
    ) -> Iterator[Piece]:
        """What goes through the detector at once; the next clips are decoded meanwhile, in a thread of their own."""
        context = ClipContext(self.spec.context, self.spec.inputs)
        with closing(read_ahead(self._decode(media, clips_per_batch), depth=1)) as ahead:
            for batch in ahead:
                features = self._encode(batch, description)
                until = float(features["clip_times"][0, -1, 1])
                yield from context.add(features)
                if on_progress is not None:
                    on_progress(until, media.info.duration)
        yield from context.end()

    def _forward(self, model_inputs: dict, audio_path: str | None = None) -> dict:
        options = {} if audio_path is None else {"audio_path": audio_path}
        piece: Piece = model_inputs["piece"]
        features = {name: value.to(self.device) for name, value in piece.features.items()}
        outputs = self.model.for_inference()(**features, **options)
        scored = slice(piece.first, piece.first + len(piece.times))
        probabilities, why = self.model.probabilities(outputs), self.model.explain(outputs)
        # Numbers, which Python keeps apart from the C library's heap: small tensors that stay until the video's end
        # would lie between the large blocks that come and go with every clip, and the heap would grow.
        return {name: model_inputs[name] for name in ("media", "description", "is_last")} | {
            "clip_times": piece.times,
            "scores": self.model.scores(outputs).flatten()[scored].tolist(),
            "probabilities": [] if probabilities is None else probabilities.flatten(0, -2)[scored].tolist(),
            "why": {name: values.flatten()[scored].tolist() for name, values in (why or {}).items()},
            "has_audio": bool(features["has_audio"].item()),
        }

    def postprocess(self, model_outputs: list[dict], threshold: float | None = None) -> dict:
        """Put the clips of one video together."""
        clips = [clip for chunk in model_outputs for clip in self._scored(chunk)]
        media, description, config = model_outputs[-1]["media"], model_outputs[-1]["description"], self.model.config
        warnings = [*([config.notice] if config.notice else []), *self.processor.notices]
        is_judged = config.notice != _demo_notice() or media.info.is_synthetic
        if not is_judged:
            warnings.insert(1, NOT_JUDGED)
        names = None
        if description is not None:
            clips = [
                replace(clip, seen=named["seen"], heard=named["heard"])
                for clip, named in zip(clips, description.clips, strict=True)
            ]
            names = description.overall()
            warnings += left_out(description.classes)
        has_audio = model_outputs[0]["has_audio"]
        if not has_audio and config.silence_notice is not None:
            warnings.append(config.silence_notice)
        return detect_events(
            clips,
            threshold=config.threshold if threshold is None else threshold,
            duration=media.info.duration,
            fps=media.info.fps,
            has_audio=has_audio,
            warnings=list(dict.fromkeys(warnings)),
            problems=media.problems,
            normal_labels=self.spec.normal_labels,
            read=getattr(media, "read", None),
            names=names,
            is_judged=is_judged,
        ).to_dict()

    def _scored(self, chunk: dict) -> Iterator[ScoredClip]:
        """Clips of one part of a video, with their classes and reasons where the detector knows some."""
        names = self.model.config.id2label
        rows = chunk["probabilities"] or [None] * len(chunk["scores"])
        for number, ((start, end), score, row) in enumerate(
            zip(chunk["clip_times"], chunk["scores"], rows, strict=True)
        ):
            classes = None if row is None else {names[index]: value for index, value in enumerate(row)}
            why = {name: values[number] for name, values in chunk["why"].items()} or None
            yield ScoredClip(round(start, 6), round(end, 6), score, probabilities=classes, why=why)

    def save_pretrained(self, save_directory: str | os.PathLike, **kwargs) -> None:
        """Save everything that `pipeline(..., model=save_directory)` needs: model, processor and encoders.

        transformers' own method leaves the processor out, and marks the checkpoint as one with code of its own.
        """
        self.model.save_pretrained(save_directory, **kwargs)
        self.processor.save_pretrained(save_directory, **kwargs)


def _gives_videos(inputs: Any) -> bool:
    """Whether it gives several videos, one after the other, and is not a video itself."""
    if isinstance(inputs, (str, bytes, bytearray, memoryview, Mapping, Media)) or hasattr(inputs, "read"):
        return False
    # Arrays of numbers give their rows, which are no videos: a video of arrays is a dict.
    if hasattr(inputs, "__array__"):  # an array or a Series of paths
        return getattr(inputs, "ndim", None) == 1 and getattr(inputs.dtype, "kind", None) in PATH_KINDS
    return isinstance(inputs, (Iterable, TorchDataset))


class _ScoredVideo:
    """One of the videos that are scored at the same time."""

    def __init__(
        self, pipe: AudioVisualAnomalyPipeline, description: Description | None, forward: dict, postprocess: dict
    ):
        self.pipe, self.description, self.forward, self.options = pipe, description, forward, postprocess
        self.context = ClipContext(pipe.spec.context, pipe.spec.inputs)
        self.chunks: list[dict] = []

    def add(self, media: Media, batch: Any) -> float:
        features = self.pipe._encode(batch, self.description)
        until = float(features["clip_times"][0, -1, 1])
        self._score(media, self.context.add(features))
        return until

    def end(self, media: Media) -> dict:
        self._score(media, self.context.end())
        return self.pipe.postprocess(self.chunks, **self.options)

    def _score(self, media: Media, pieces: Iterable[Piece]) -> None:
        beside = {"media": media, "description": self.description, "is_last": False}
        self.chunks += [self.pipe.forward({"piece": piece, **beside}, **self.forward) for piece in pieces]


@cache
def _demo_notice() -> str:
    """By which the demonstration model is known, wherever it was copied to, and its engines."""
    return PreTrainedConfig.get_config_dict(DEMO_MODEL)[0]["notice"]


def _why_no_processor(model: PreTrainedModel) -> str:
    """Say why: transformers keeps the reason to itself; loading the processor once more shows it."""
    checkpoint = model.name_or_path
    advice = "Pass processor=AutoProcessor.from_pretrained(...) beside the model."
    if not checkpoint:
        return f"audio-visual-anomaly needs a processor too. {advice}"
    try:
        AutoProcessor.from_pretrained(checkpoint)
    except Exception as error:
        if (reason := explain(error, checkpoint)) is None and not has_file(checkpoint, PROCESSOR_NAME):
            return (
                f"{checkpoint} holds no processor: it was trained on stored features, and reads no videos by itself. "
                "Pass processor=AutoProcessor.from_pretrained(...) of the checkpoint that made the features."
            )
        return f"The processor of {checkpoint} cannot be loaded: {reason or error}"
    return f"The processor of {checkpoint} was not loaded. Try again, or pass it: {advice}"


__all__ = ["AudioVisualAnomalyPipeline"]
