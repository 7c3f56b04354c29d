"""AVACA put together from public packages, as a user would who has none of this library: the benchmark's comparison.

PyAV decodes, torch normalises and scales in the order of pytorchvideo's own SlowFast example (x / 255, NormalizeVideo,
ShortSideScale), the networks are pytorchvideo's SlowFast and torchvggish's VGGish in float32, sound is resampled by
resampy, and the head is that of the checkpoint.
"""

import os
import warnings
from collections.abc import Iterator
from typing import Any, ClassVar

import av
import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor
from transformers import AutoModelForVideoClassification, AutoProcessor

from avad_hf.models.slowfast.configuration_slowfast import SlowFastConfig
from avad_hf.models.vggish.configuration_vggish import VggishConfig

CLIP_FRAMES, SLOW_FRAMES, SHORT_SIDE, GRID = 32, 8, 256, (2, 9)
MEAN, STD = 0.45, 0.225


class PublicParts:
    """Scores of a file's clips, with the weights of a checkpoint in the public packages' networks.

    Args:
        folder: The checkpoint, to which nothing in `refusal` may apply.

    Attributes:
        packages: Modules that must be installed.
    """

    packages: ClassVar[tuple[str, ...]] = ("pytorchvideo", "torchvggish", "resampy")

    @staticmethod
    def refusal(folder: str | os.PathLike) -> str | None:
        """Why a checkpoint cannot be compared; ``None`` if it can."""
        processor = AutoProcessor.from_pretrained(folder, trust_remote_code=False)
        published = {"video_encoder": SlowFastConfig(), "audio_encoder": VggishConfig()}
        own = {role: encoder.network.config for role, encoder in processor.encoders.items()}
        if (
            processor.size != SHORT_SIDE
            or processor.feature_grid != GRID
            or (processor.clip_length, processor.clip_stride) != (CLIP_FRAMES, CLIP_FRAMES)
            or any(own[role].model_type != config.model_type for role, config in published.items())
            or any(_plain(own[role].facts()) != _plain(config.facts()) for role, config in published.items())
        ):
            return "the checkpoint's encoders have other sizes than the published ones, which alone are public"
        return None

    def __init__(self, folder: str | os.PathLike):
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", FutureWarning)  # of torch, about what pytorchvideo does on import
            from pytorchvideo.models.hub import slowfast_r50
        from torchvggish.torchvggish import VGG, make_layers

        processor = AutoProcessor.from_pretrained(folder, trust_remote_code=False)
        head = AutoModelForVideoClassification.from_pretrained(folder, dtype="float32", trust_remote_code=False)
        self.head = head.eval()
        # The classifier of Kinetics is left out: its input is what AVACA reads.
        self.slowfast = slowfast_r50(pretrained=False).blocks[:6].eval()
        weights = processor.video_encoder.state_dict().items()
        self.slowfast.load_state_dict({name.removeprefix("blocks."): tensor for name, tensor in weights})
        self.vggish = VGG(make_layers(), postprocess=False).eval()
        self.vggish.load_state_dict(processor.audio_encoder.state_dict())

    @torch.no_grad()
    def __call__(self, path: str) -> list[float]:
        """Score every clip of a file."""
        sound = self.read_sound(path)
        scores = []
        for frames, times in self.read_clips(path):
            visual = self.see(frames)
            audio = self.hear(sound, times)
            logits = self.head(visual_features=visual[None], audio_features=audio[None]).logits
            scores += logits[0].sigmoid().tolist()
        return scores

    @staticmethod
    def read_clips(path: str) -> Iterator[tuple[np.ndarray, list[float]]]:
        """Clips of full-size frames of shape `(32, H, W, 3)` and their times in seconds; the last frame repeats."""
        frames, times = [], []
        with av.open(path) as container:
            stream = container.streams.video[0]
            stream.thread_type = "AUTO"
            for frame in container.decode(stream):
                frames.append(frame.to_ndarray(format="rgb24"))
                times.append(frame.time)
                if len(frames) == CLIP_FRAMES:
                    yield np.stack(frames), times
                    frames, times = [], []
        if frames:
            rest = CLIP_FRAMES - len(frames)
            yield np.stack(frames + [frames[-1]] * rest), times + [times[-1]] * rest

    @staticmethod
    def read_sound(path: str) -> np.ndarray:
        """The whole sound, mono at 16 kHz, of shape `(samples,)`."""
        import resampy

        with av.open(path) as container:
            stream = container.streams.audio[0]
            mono = np.concatenate([frame.to_ndarray().mean(axis=0) for frame in container.decode(stream)])
            return resampy.resample(mono, stream.rate, 16000)

    def see(self, frames: np.ndarray) -> Tensor:
        """Feature map of one clip, of shape `(1, 2304, h, w)`."""
        video = torch.from_numpy(frames).permute(3, 0, 1, 2).float()
        video = (video / 255 - MEAN) / STD
        height, width = video.shape[-2:]
        scale = SHORT_SIDE / min(height, width)
        size = (SHORT_SIDE, int(width * scale)) if height <= width else (int(height * scale), SHORT_SIDE)
        video = F.interpolate(video, size=size, mode="bilinear", align_corners=False)
        fast = video[None]
        slow = fast[:, :, torch.linspace(0, CLIP_FRAMES - 1, SLOW_FRAMES).long()]
        pathways = [slow, fast]
        for block in self.slowfast:
            pathways = block(pathways)
        features = pathways.squeeze(2)
        return features if features.shape[-2:] == GRID else F.adaptive_avg_pool2d(features, GRID)

    def hear(self, sound: np.ndarray, times: list[float]) -> Tensor:
        """Embeddings of the second before each time, of shape `(1, 32, 128)`."""
        from torchvggish import mel_features

        padded = np.pad(sound, 16000)
        examples = []
        for time in times:
            stop = 16000 + min(round(time * 16000), len(sound) + 16000)
            log_mel = mel_features.log_mel_spectrogram(
                padded[stop - 16000 : stop],
                audio_sample_rate=16000,
                log_offset=0.01,
                window_length_secs=0.025,
                hop_length_secs=0.010,
                num_mel_bins=64,
                lower_edge_hertz=125,
                upper_edge_hertz=7500,
            )
            examples.append(torch.from_numpy(log_mel[:96]).float())
        return self.vggish(torch.stack(examples)[:, None])[None]


def _plain(facts: dict[str, Any]) -> dict[str, Any]:
    """Settings as JSON gives them back: tuples are lists."""
    return {name: list(value) if isinstance(value, tuple) else value for name, value in facts.items()}


__all__ = ["PublicParts"]
