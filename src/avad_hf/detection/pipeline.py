"""`pipeline("audio-visual-anomaly")`: a video in, scores over time out."""

import os
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import closing
from dataclasses import replace
from functools import cache, partial
from pathlib import Path
from typing import Any

from torch import Tensor
from torch.utils.data import Dataset as TorchDataset
from transformers import BatchFeature, PreTrainedConfig, PreTrainedModel, ProcessorMixin
from transformers.pipelines.base import ChunkPipeline

from avad_hf.hub.push import PushedWithCard
from avad_hf.media.ahead import read_ahead
from avad_hf.media.clips import deciding_clips
from avad_hf.media.decode import MediaInfo
from avad_hf.media.sources import Media, open_media
from avad_hf.models.detector import WHOLE_VIDEO, refuse_other_widths, spec_of

from .context import ClipContext, Piece
from .describe import Description, classes_of, left_out
from .events import ScoredClip, detect_events, reused_in_words
from .explaining import Explainer
from .one_video import Encoded, Notes, ScoredVideo
from .options import check_audio_path, check_scene, check_threshold, refuse_unknown, scene_for, why_no_processor
from .together import gives_videos, interleave

# What is used where no model is named. Every result says that it is a demonstration.
DEMO_MODEL = Path(__file__).parents[1] / "demo_model"
# It calls nearly every real clip anomalous, which would say no more than that the clip is not drawn.
NOT_JUDGED = "This video was not drawn by avad_hf: the demonstration model gives it scores, but no label or events."


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
        scene: The scene (camera or place) of the videos: its own threshold is used where the detector has one for it
            and none is given.
        describe: Whether results also say what is seen and heard, by the classes of the processor's encoders.
        explain: Whether events also say why they are events, by sight or by sound, and where in the picture.
        gate: Whether still clips take the features of the last clip that was computed.
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
            raise ValueError(why_no_processor(model))
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
        explain: bool | None = None,
        gate: bool | None = None,
        scene: str | None = None,
        **unknown: Any,
    ) -> tuple[dict, dict, dict]:
        refuse_unknown(unknown)
        preprocess, forward, postprocess = {}, {}, {}
        if threshold is not None:
            check_threshold(threshold)
            # Both must know where events begin.
            forward["threshold"] = postprocess["threshold"] = float(threshold)
        if scene is not None:
            check_scene(self.model.config, scene)
            forward["scene"] = postprocess["scene"] = scene
        if audio_path is not None:
            check_audio_path(self.model.config, audio_path)
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
        if explain is not None:
            preprocess["explain"] = explain
        if gate is not None:
            if gate:
                self.processor.gated()  # which refuses what cannot be, before anything is decoded
            preprocess["gate"] = gate
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
                - scene: The scene of the videos.
                - describe: Whether to say what is seen and heard, too.
                - explain: Whether to say why events are events.
                - gate: Whether still clips take the features of the last clip that was computed: those whose picture
                  moves no more than the camera's noise does. Their sound is computed where it changes.
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

            With ``explain`` events have ``why``, of the clip with the highest score: ``sight`` and ``sound``, the
            shares of the senses, which sum to 1; ``heat``, how much each place of the picture counts (``rows``,
            ``columns``, ``values`` within 0 and 1, and ``start`` and ``end`` of the clip); where they are known also
            ``nearest``, the most similar normal clips, each with ``id``, ``start``, ``end`` and ``distance``, and
            ``likelier``, the classes of the encoders that became likelier than ``usual_from``, ``seen`` and ``heard``,
            each with ``label``, ``score``, ``usual`` and ``times``; and the detector's own numbers.

            With ``gate`` the result has ``reused``: how many clips took earlier features of their ``pictures`` and
            ``sound``.

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
        elif gives_videos(inputs):
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
            begin=lambda: ScoredVideo(self, preprocess, forward, postprocess),
            on_progress=on_progress,
        )

    def _decode(self, media: Media, clips_per_batch: int | None) -> Iterator[Any]:
        """A video in batches of clips."""
        self._refuse_endless(media)
        yield from self.processor.decode(media, clips_per_batch)

    def notes(self, media: Media, describe: bool = False, explain: bool = False, gate: bool = False) -> Notes:
        """What collects names and reasons of a video, and spares its still clips, where that is asked for."""
        description = Description(classes_of(self.processor)) if describe else None
        explainer = None
        if explain and self._judges(media.info):
            classes = getattr(self.processor, "classes", {})
            explainer = Explainer(self.model, classes, self.processor.turns_maps(media.info))
        return Notes(description, explainer, self.processor.gated() if gate else None)

    def _judges(self, info: MediaInfo) -> bool:
        """Whether scores say something of a video."""
        return self.model.config.notice != _demo_notice() or info.is_synthetic

    def encode(self, batch: Any, notes: Notes, encoded: Encoded | None = None) -> BatchFeature:
        """Features of some clips, whose names are noted, by the same pass of the encoders.

        Args:
            batch: The clips.
            notes: As `notes` gives them.
            encoded: What the processor's `encode_together` gave of them, if it was called.
        """
        encoder = self.processor if notes.gate is None else notes.gate
        if encoded is None and not notes.need_names:
            return encoder.encode(batch)
        features, probabilities = encoded or encoder.encode_and_name(batch)
        if notes.need_names:
            notes.name(features["clip_times"][0].tolist(), probabilities)
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
        explain: bool = False,
        gate: bool = False,
    ) -> Iterator[dict]:
        """Decode and encode a video, some clips at a time."""
        with open_media(video) as media:
            beside = {"media": media, "notes": self.notes(media, describe, explain, gate)}
            pending = None
            for piece in self._pieces(media, clips_per_batch, on_progress, beside["notes"]):
                if pending is not None:
                    yield {"piece": pending, **beside, "is_last": False}
                pending = piece
            yield {"piece": pending, **beside, "is_last": True}

    def _pieces(
        self,
        media: Media,
        clips_per_batch: int | None,
        on_progress: Callable[[float, float | None], None] | None,
        notes: Notes,
    ) -> Iterator[Piece]:
        """What goes through the detector at once; the next clips are decoded meanwhile, in a thread of their own."""
        context = ClipContext(self.spec.context, self.spec.inputs)
        with closing(read_ahead(self._decode(media, clips_per_batch), depth=1)) as ahead:
            for batch in ahead:
                features = self.encode(batch, notes)
                until = float(features["clip_times"][0, -1, 1])
                yield from context.add(features)
                if on_progress is not None:
                    on_progress(until, media.info.duration)
        yield from context.end()

    def _forward(
        self,
        model_inputs: dict,
        audio_path: str | None = None,
        scene: str | None = None,
        threshold: float | None = None,
    ) -> dict:
        model_class = getattr(self.model, "made_from", None) or type(self.model)  # also of an exported one
        options = scene_for(model_class.forward, scene) | ({} if audio_path is None else {"audio_path": audio_path})
        piece: Piece = model_inputs["piece"]
        features = {name: value.to(self.device) for name, value in piece.features.items()}
        outputs = self._outputs(features, options)
        scored = slice(piece.first, piece.first + len(piece.times))
        probabilities, why = self.model.probabilities(outputs), self.model.explain(outputs)
        # Numbers, which Python keeps apart from the C library's heap: small tensors that stay until the video's end
        # would lie between the large blocks that come and go with every clip, and the heap would grow.
        chunk = {name: model_inputs[name] for name in ("media", "notes", "is_last")} | {
            "clip_times": piece.times,
            "scores": self.model.scores(outputs).flatten()[scored].tolist(),
            "probabilities": [] if probabilities is None else probabilities.flatten(0, -2)[scored].tolist(),
            "why": {name: values.flatten()[scored].tolist() for name, values in (why or {}).items()},
            "has_audio": bool(features["has_audio"].item()),
        }
        if (explainer := model_inputs["notes"].explainer) is not None:
            scores = partial(self._scores, options=options)
            limit = self.threshold_used(threshold, scene)
            explainer.add(self.scored_clips(chunk), piece.first, features, limit, scores, scene)
        return chunk

    def _outputs(self, features: Mapping[str, Tensor], options: Mapping[str, Any]) -> Any:
        return self.model.for_inference()(**features, **options)

    def _scores(self, features: Mapping[str, Tensor], options: Mapping[str, Any]) -> Tensor:
        """Scores of clips, for who asks what they rest on."""
        return self.model.scores(self._outputs(features, options))

    def threshold_used(self, threshold: float | None, scene: str | None) -> float:
        """The threshold that is given, or the scene's, or the detector's."""
        return self.model.config.threshold_of(scene) if threshold is None else threshold

    def postprocess(self, model_outputs: list[dict], threshold: float | None = None, scene: str | None = None) -> dict:
        """Put the clips of one video together."""
        clips = [clip for chunk in model_outputs for clip in self.scored_clips(chunk)]
        media, notes, config = model_outputs[-1]["media"], model_outputs[-1]["notes"], self.model.config
        warnings = [*([config.notice] if config.notice else []), *self.processor.notices]
        is_judged = self._judges(media.info)
        if not is_judged:
            warnings.insert(1, NOT_JUDGED)
        names = reasons = None
        if (description := notes.description) is not None:
            clips = [
                replace(clip, seen=named["seen"], heard=named["heard"])
                for clip, named in zip(clips, description.clips, strict=True)
            ]
            names = description.overall()
            warnings += left_out(description.classes)
        if notes.explainer is not None:
            reasons = notes.explainer.end(deciding_clips([(clip.start, clip.end) for clip in clips])[-1])
        has_audio = model_outputs[0]["has_audio"]
        if not has_audio and config.silence_notice is not None:
            warnings.append(config.silence_notice)
        reused = None
        if (gate := notes.gate) is not None:
            reused = dict(gate.reused)
            warnings += reused_in_words(gate.num_clips, reused)
        return detect_events(
            clips,
            threshold=self.threshold_used(threshold, scene),
            duration=media.info.duration,
            fps=media.info.fps,
            has_audio=has_audio,
            warnings=list(dict.fromkeys(warnings)),
            problems=media.problems,
            normal_labels=self.spec.normal_labels,
            read=getattr(media, "read", None),
            names=names,
            is_judged=is_judged,
            reasons=reasons,
            reused=reused,
        ).to_dict()

    def scored_clips(self, chunk: dict) -> Iterator[ScoredClip]:
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


@cache
def _demo_notice() -> str:
    """By which the demonstration model is known, wherever it was copied to, and its engines."""
    return PreTrainedConfig.get_config_dict(DEMO_MODEL)[0]["notice"]


__all__ = ["AudioVisualAnomalyPipeline"]
