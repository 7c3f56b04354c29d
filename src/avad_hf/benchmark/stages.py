"""Where the time goes: the stages from file to scores, each on its own, one after the other."""

import statistics
import time
from collections.abc import Callable
from dataclasses import replace
from itertools import pairwise
from typing import Any

import av
import torch
from av.video.reformatter import VideoReformatter

from avad_hf.media.scaling import asked_size
from avad_hf.media.sources import open_media
from avad_hf.models.processing import DetectorProcessor

from .backends import Detector
from .peaks import now
from .videos import Version

# Stages of reading one file, in this order; the first two are FFmpeg alone, which ours is measured by.
MEDIA_STAGES = ("decode", "decode_and_scale", "frames", "sound")
NETWORK_STAGES = ("log_mel", "video_encoder", "audio_encoder", "detector")


def media_stages(version: Version, processor: DetectorProcessor, rounds: int) -> dict[str, Any]:
    """Time the reading of one file, in turn, against the bare decoder and scaler of FFmpeg.

    Args:
        version: The file.
        processor: A processor of frozen encoders; it says how frames are scaled, and the windows and rate of sound.
        rounds: Turns.

    Returns:
        Seconds of each turn by stage: ``decode`` (PyAV's loop over all frames), ``decode_and_scale`` (the same with
        FFmpeg's scaler), ``frames`` (ours), ``sound`` (ours, resampled, a window for each frame); the fastest turns'
        frames a second; and ``frames_share_of_reference``, the median over the turns of how fast ours is in parts of
        ``decode_and_scale``.
    """
    stages: dict[str, Callable[[], None]] = {
        "decode": lambda: _bare(version.path, None),
        "decode_and_scale": lambda: _bare(version.path, asked_size(version.width, version.height, processor.size)),
        "frames": lambda: _frames(version, processor),
        "sound": lambda: _sound(version, processor),
    }
    seconds: dict[str, list[float]] = {name: [] for name in stages}
    for turn in range(rounds + 1):
        for name, act in stages.items():
            begin = time.perf_counter()
            act()
            if turn:  # the first one warms up
                seconds[name].append(time.perf_counter() - begin)
    shares = [bare / ours for bare, ours in zip(seconds["decode_and_scale"], seconds["frames"], strict=True)]
    return {
        "seconds": seconds,
        "frames_per_second": {name: version.num_frames / min(seconds[name]) for name in MEDIA_STAGES[:3]},
        "frames_share_of_reference": statistics.median(shares),
    }


def _bare(path: str, size: tuple[int, int] | None) -> None:
    """FFmpeg alone: decode every frame and, if asked, scale it."""
    reformatter = VideoReformatter()
    with av.open(path) as container:
        stream = container.streams.video[0]
        stream.thread_type = "AUTO"
        for frame in container.decode(stream):
            if size is not None:
                width, height = size
                smaller = width <= frame.width and height <= frame.height
                method = "AREA" if smaller else "BILINEAR"
                reformatter.reformat(frame, width=width, height=height, format="rgb24", interpolation=method)


def _frames(version: Version, processor: DetectorProcessor) -> None:
    with open_media(version.path) as media:
        for _ in media.frames(processor.size, processor.resize):
            pass


def _sound(version: Version, processor: DetectorProcessor) -> None:
    with open_media(version.path) as media:
        spec = processor.encoders["audio_encoder"].spec
        track = media.sound(spec.sampling_rate)
        for number in range(version.num_frames):
            track.window(number / version.fps, spec.window_s)


def network_stages(detector: Detector, version: Version) -> dict[str, float]:
    """Time the networks of a pipeline on a file that is decoded already.

    Args:
        detector: The pipeline.
        version: The file.

    Returns:
        Seconds a clip of ``log_mel``, ``video_encoder`` (with normalising), ``audio_encoder`` and ``detector``: the
        median over the batches.
    """
    with open_media(version.path) as media:
        batches = list(detector.pipe.processor.decode(media))
    times: dict[str, list[float]] = {name: [] for name in NETWORK_STAGES}
    for batch in [batches[0], *batches]:  # the first one twice: it warms up
        for name, seconds in _timed(detector, batch).items():
            times[name].append(seconds / len(batch.clips))
    return {name: statistics.median(seconds[1:]) for name, seconds in times.items()}


@torch.no_grad()
def _timed(detector: Detector, batch: Any) -> dict[str, float]:
    """Seconds of each network on some clips. The only place that looks into the processor."""
    processor, model, device = detector.pipe.processor, detector.pipe.model, detector.backend.device
    hearing = processor.encoders["audio_encoder"]
    # Copies: what the processor has heard already it would not hear again.
    clips = [replace(clip, frames=tuple(replace(frame) for frame in clip.frames)) for clip in batch.clips]
    is_by_frame = hearing.spec.gives == "vector"
    frames = [frame for clip in clips for frame in (processor.pictures(clip) if is_by_frame else clip.frames[-1:])]
    windows, firsts = torch.stack([frame.sound for frame in frames]), [frame.first_sample for frame in frames]
    marks = [now(device)]
    hearing.inputs_of(windows, firsts if is_by_frame else None)
    marks.append(now(device))
    visual, _ = processor._see(batch.pixels)
    marks.append(now(device))
    audio, _ = processor._hear(clips)
    marks.append(now(device))
    model.scores(model(visual_features=visual.unsqueeze(0), audio_features=audio.unsqueeze(0)))
    marks.append(now(device))
    log_mel, video, sound, head = (end - begin for begin, end in pairwise(marks))
    # The processor makes the log-mel frames itself; without them, what is left is the network.
    return dict(zip(NETWORK_STAGES, (log_mel, video, max(0.0, sound - log_mel), head), strict=True))


__all__ = ["MEDIA_STAGES", "NETWORK_STAGES", "media_stages", "network_stages"]
