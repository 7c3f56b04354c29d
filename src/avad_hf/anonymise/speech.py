"""Finds when somebody speaks, by Silero's voice activity detector (package silero-vad, MIT licence)."""

import hashlib
import math
from collections.abc import Iterable, Iterator
from importlib import metadata
from itertools import count
from pathlib import Path
from typing import Any

import numpy as np

from avad_hf.media.container import SoundFile
from avad_hf.media.errors import MediaError

from .extra import needs_extra

# The form of the detector that takes many frames in one call: it is four times as fast as the one that takes one.
WEIGHTS = "silero_vad/data/silero_vad_16k_sequence.onnx"
RATE_HZ = 16000
# What the detector was trained on: frames of 32 ms, each with the 4 ms before it.
FRAME, CONTEXT = 512, 64
# Frames of one call: 16.4 s of sound, 1 MB.
BLOCK_FRAMES = 512
FRAME_S = FRAME / RATE_HZ
BLOCK_S = BLOCK_FRAMES * FRAME_S

# Speech must reach the first probability somewhere, and goes on for as long as the second is reached. The package has
# 0.5 and 0.35: these are lower, since a word that stays is worse than a moment too much. See bench_speech.py.
SURE_ENOUGH, STILL_POSSIBLE = 0.2, 0.05
# Speech begins and ends softly: so much on either side is hidden too.
PAD_S = 0.3
# Pauses shorter than this, after padding, are hidden too: who speaks again so soon has not stopped.
JOIN_S = 0.5
# The clock of a sound track may run this far ahead of the timestamps before it is set right; see `SoundTrack`.
CLOCK_SLACK_S = 0.1

Span = tuple[float, float]


class SpeechFinder:
    """Silero's detector with its weights, which may be used for any number of files.

    Raises:
        ImportError: If silero-vad or onnxruntime is not installed, or silero-vad is too old.
    """

    def __init__(self) -> None:
        with needs_extra():
            import onnxruntime

            # The package is not imported: that would set torch to one thread for the whole process.
            package = metadata.distribution("silero-vad")
        path = Path(str(package.locate_file(WEIGHTS)))
        if not path.is_file():
            raise ImportError(
                f"silero-vad {package.version} has no {WEIGHTS}. Install a newer one: pip install -U silero-vad"
            )
        weights = path.read_bytes()
        # Which weights find the speech, for a report.
        self.origin = {
            "package": f"silero-vad {package.version}",
            "weights": path.name,
            "sha256": hashlib.sha256(weights).hexdigest(),
        }
        options = onnxruntime.SessionOptions()
        # One core does 500 seconds of sound in a second; the others have pictures to do.
        options.intra_op_num_threads = options.inter_op_num_threads = 1
        self._session = onnxruntime.InferenceSession(weights, options, providers=["CPUExecutionProvider"])

    def find(self, media: SoundFile) -> list[Span]:
        """Find the speech of a file. The sound is read once, in bounded memory.

        Args:
            media: A video or a sound file; of a video with its sound in a file beside it, that one is heard.

        Returns:
            Start and end of each stretch with speech, padded, in seconds on the file's clock; in order, and apart.

        Raises:
            MediaError: If there is sound that cannot be decoded, so that nobody knows what is said in it.
        """
        sound_file = getattr(media, "sound_file", media)
        if sound_file is None:  # pictures in a folder
            return []
        track = sound_file.sound(RATE_HZ)
        if track.has_sound:
            return list(join_frames(self._probabilities(_blocks(track, sound_file.heard)), track.start))
        if sound_file.has_audio:
            raise MediaError(
                f"{sound_file.name}: its sound cannot be decoded, so speech in it can be neither found nor hidden. "
                "Convert the sound, or take it out of the file."
            )
        return []

    def _probabilities(self, blocks: Iterable[np.ndarray]) -> Iterator[np.ndarray]:
        """How likely each frame of each block is speech, of shape `(frames,)`."""
        hidden = cell = np.zeros((1, 1, 128), dtype=np.float32)
        context = np.zeros(CONTEXT, dtype=np.float32)
        for block in blocks:
            if not block.any():  # a camera without a microphone, or a pause of hours
                yield np.zeros(BLOCK_FRAMES, dtype=np.float32)
                continue
            samples = np.concatenate([context, block])
            frames = np.lib.stride_tricks.sliding_window_view(samples, CONTEXT + FRAME)[::FRAME]
            inputs = {"input": np.ascontiguousarray(frames), "h": hidden, "c": cell}
            probabilities, hidden, cell = self._session.run(["speech_probs", "hn", "cn"], inputs)
            context = block[-CONTEXT:]
            yield probabilities.ravel()


def _blocks(track: Any, heard: Any) -> Iterator[np.ndarray]:
    """The whole sound in blocks, the last one with silence at its end.

    Args:
        track: A `SoundTrack` at `RATE_HZ`.
        heard: The `Coverage` that grows while the track is read.
    """
    for number in count(1):
        end = track.start + number * BLOCK_S
        yield track.window(end, BLOCK_S).numpy()
        # All that there is was read: else the window would have been filled.
        if heard.end < end - CLOCK_SLACK_S:
            return


def join_frames(probabilities: Iterable[np.ndarray], start: float) -> Iterator[Span]:
    """Make padded stretches of speech from the probabilities of frames.

    Args:
        probabilities: Those of neighbouring frames, of shape `(frames,)`, piece by piece.
        start: When the first frame begins, in seconds.
    """
    first, last, likeliest, number = start, -math.inf, 0.0, 0
    for piece in probabilities:
        for index in np.flatnonzero(piece >= STILL_POSSIBLE).tolist():
            begin = start + (number + index) * FRAME_S - PAD_S
            if begin - last >= JOIN_S:
                if likeliest >= SURE_ENOUGH:
                    yield first, last
                first, likeliest = max(start, begin), 0.0
            last, likeliest = begin + FRAME_S + 2 * PAD_S, max(likeliest, float(piece[index]))
        number += len(piece)
    if likeliest >= SURE_ENOUGH:
        yield first, last


__all__ = ["SpeechFinder"]
