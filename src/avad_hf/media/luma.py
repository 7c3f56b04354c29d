"""How bright a video is."""

from itertools import islice

import av
import numpy as np
import torch

from .decode import MediaError, MediaFile
from .folders import FrameFolder
from .sources import Media

# Enough for a mean, whatever the video's length.
NUM_SAMPLES = 16
# Shares of red, green and blue in brightness (ITU-R BT.601, which FFmpeg takes too).
LUMA = (0.299, 0.587, 0.114)


def mean_luma(media: Media) -> float:
    """Mean brightness of some frames, 0 for black to 255 for white.

    Of a file those frames are taken that can be decoded alone, which is fast; of a folder of pictures some that are
    spread over it; of anything else the first ones.

    Raises:
        MediaError: If no frame can be decoded.
    """
    if isinstance(media, MediaFile):
        with media.open() as container:
            stream = media.video_stream(container)
            stream.codec_context.skip_frame = "NONKEY"
            frames = media.decode(container, stream, "video")
            values = [_mean(frame) for frame in islice(frames, NUM_SAMPLES)]
    elif isinstance(media, FrameFolder):
        values = [_mean(frame) for frame in media.spread(NUM_SAMPLES)]
    else:
        values = [
            (frame.pixels.float().mean(dim=(1, 2)) * torch.tensor(LUMA)).sum().item()
            for frame in islice(media.frames(32), NUM_SAMPLES)
            if frame.pixels is not None
        ]
    if not values:
        raise MediaError(f"{media.info.name}: no frame can be decoded, so its brightness is not known.")
    return float(np.mean(values))


def _mean(frame: av.VideoFrame) -> float:
    return float(frame.reformat(width=64, height=36, format="gray", interpolation="AREA").to_ndarray().mean())
