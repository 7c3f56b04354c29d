"""A fixed number of frames of a whole video, or of windows of a long one, with the sound that belongs to them."""

import math
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from .clips import Frame
from .sections import Section
from .sources import Media

# Sound of a file that goes on for longer after the picture is left out: a damaged clock may promise days of it.
SOUND_AFTER_S = 60.0
# Seconds of sound that are heard at once: four hours at 16 kHz take 0.9 GB. Only wrong times make a file longer.
LONGEST_SOUND_S = 4 * 3600.0


@dataclass(frozen=True)
class Window:
    """Some frames of a stretch of video, with all of its sound.

    Args:
        frames: `torch.Tensor` of shape `(num_frames, 3, H, W)`, RGB, uint8.
        start: When the first frame appears, in seconds.
        end: When the stretch is over, in seconds.
        sound: `torch.Tensor` of shape `(samples,)`; ``None`` without sound.
    """

    frames: Tensor
    start: float
    end: float
    sound: Tensor | None


def read_whole(media: Media, num_frames: int, size: int | tuple[int, int], rate: int | None) -> Window:
    """Read a whole video, however long, as one window; frames that are not picked are not kept.

    Of l frames those numbered ``i * max(1, l // num_frames)`` are picked (AVRL III-A); a video with fewer frames than
    are wanted begins again.

    Args:
        media: The video.
        num_frames: Frames to pick.
        size: Height and width of the frames, in pixels; or their short side, which keeps the proportion.
        rate: Samples a second of the sound, in Hz; ``None`` leaves the sound out.

    Raises:
        MediaError: If not a single frame can be decoded.
    """
    step = max(1, media.num_frames() // num_frames)
    while True:
        picks: list[Frame] = []
        count, start, end = 0, 0.0, 0.0
        for frame in media.frames(size, picked=_every(step, most=num_frames)):
            if frame.pixels is not None:
                picks.append(frame)
            start = start if count else frame.start
            count, end = count + 1, max(end, frame.end)
        # Files whose frames cannot be counted without decoding are read again.
        if (right := max(1, count // num_frames)) == step:
            break
        step = right
    sound = None
    if rate is not None and (track := media.sound(rate)).has_sound:
        # For a stretch, what is heard during it; for a file, everything up to a length that fits into memory.
        is_part = isinstance(media, Section) or end - start > LONGEST_SOUND_S
        sound = track.window(end, min(end - start, LONGEST_SOUND_S)) if is_part else track.read(end + SOUND_AFTER_S)
    pixels = [picks[index % len(picks)].pixels for index in range(num_frames)]
    return Window(torch.stack(pixels), start, end, sound)


def read_windows(media: Media, num_frames: int, length_s: float, size: tuple[int, int], rate: int) -> Iterator[Window]:
    """Read a short video as a whole, and a longer one window by window, in memory that does not grow with its length.

    A window is `num_frames` times the same number of frames, and as near to `length_s` as that can be, but not less
    than `num_frames` frames. What is not longer than either is read whole. Windows follow each other; the last one
    ends with the video, and overlaps the one before.

    Args:
        media: The video.
        num_frames: Frames to pick of each window.
        length_s: Length of a window, in seconds.
        size: Height and width of the frames, in pixels.
        rate: Samples a second of the sound, in Hz.

    Raises:
        MediaError: If not a single frame can be decoded.
    """
    step = max(1, round(length_s * media.info.fps / num_frames))
    most = max(step * num_frames, math.ceil(length_s * media.info.fps))
    if media.num_frames(limit=most + 1) <= most:
        yield read_whole(media, num_frames, size, rate)
        return
    track = media.sound(rate)
    recent: deque[Frame] = deque(maxlen=num_frames)

    def window(end: float) -> Window:
        start = recent[0].start
        # A pause of hours within would be hours of silence.
        sound = track.window(end, min(end - start, 10 * length_s)) if track.has_sound else None
        return Window(torch.stack([frame.pixels for frame in recent]), start, end, sound)

    count = fresh = 0  # frames, and picks that no window holds yet
    for frame in media.frames(size, picked=_every(step)):
        if frame.pixels is not None:
            if fresh == num_frames:
                yield window(frame.start)
                fresh = 0
            recent.append(frame)
            fresh += 1
        count, end = count + 1, frame.end
    if count <= step * num_frames:  # the file promised more frames than could be decoded
        yield read_whole(media, num_frames, size, rate)
    elif fresh:
        yield window(end)


def _every(step: int, most: int | None = None) -> Callable[[int], bool]:
    """Picks every so many frames, up to a number of them."""
    return lambda number: number % step == 0 and (most is None or number < step * most)


def normalised(frames: Tensor, rescale_factor: float, mean: Sequence[float], std: Sequence[float]) -> Tensor:
    """Scale pixels from 0 to 255, and subtract the mean and divide by the standard deviation of each channel.

    Args:
        frames: `torch.Tensor` of shape `(..., 3, H, W)`.
        rescale_factor: What pixels are multiplied by first.
        mean: Mean of each channel, subtracted then.
        std: Standard deviation of each channel, which divides then.

    Returns:
        `torch.Tensor` of the same shape, float32.
    """
    mean, std = (torch.tensor(values, device=frames.device).view(3, 1, 1) for values in (mean, std))
    return (frames.to(torch.float32) * rescale_factor).sub_(mean).div_(std)
