"""What is exported of a checkpoint: its networks, with input to trace them by and to calibrate them on."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor
from torch.export import Dim
from transformers import PreTrainedModel

from avad_hf.media.clips import Clip
from avad_hf.models.avaca.processing_avaca import AvacaProcessor
from avad_hf.models.avrl.inference_avrl import inference_form as avrl_form
from avad_hf.models.avrl.processing_avrl import AvrlProcessor
from avad_hf.models.slowfast.configuration_slowfast import SlowFastConfig
from avad_hf.models.slowfast.inference_slowfast import inference_form as slowfast_form
from avad_hf.models.slowfast.modeling_slowfast import SlowFastModel, SlowFastModelOutput
from avad_hf.models.vggish.inference_vggish import inference_form as vggish_form

Inputs = dict[str, Tensor]


@dataclass(frozen=True)
class Network:
    """A network to export.

    Args:
        folder: Of the checkpoint, ``""`` for its top.
        source: As it was trained.
        model: As it is exported.
        sample: Input to trace it by; sizes that may vary are 2 or more. Where the first is 1, and does not vary, a
            batch is computed one by one.
        varying: Numbers of the dimensions of each input that may vary.
        calibration: Input to calibrate it on; empty for a network that stays in float32.
        output: Name of the output that counts.
        bound: Relative error of it that int8 may bring on the calibration's clips. Chosen on the demonstration model,
            whose scores then move by less than 0.03: neighbouring seconds of sound, of which AVACA takes differences,
            need to be nearer than what is seen.
    """

    folder: str
    source: PreTrainedModel
    model: PreTrainedModel
    sample: Inputs
    varying: dict[str, tuple[int, ...]]
    calibration: Sequence[Inputs] = ()
    output: str = "logits"
    bound: float = 0.01

    @property
    def described_inputs(self) -> dict[str, dict[str, Any]]:
        """Shape of each input, ``None`` for sizes that may vary, and its type: what an engine's record says."""
        return {
            name: {
                "shape": [
                    None if place in self.varying.get(name, ()) else size for place, size in enumerate(value.shape)
                ],
                "dtype": str(value.dtype).removeprefix("torch."),
            }
            for name, value in self.sample.items()
        }

    @property
    def dynamic_shapes(self) -> dict[str, dict[int, Any]]:
        """For `torch.export`."""
        return {name: dict.fromkeys(self.varying.get(name, ()), Dim.AUTO) for name in self.sample}


class SlowFastOnPixels(PreTrainedModel):
    """SlowFast on frames as they are decoded, in 8 bits: what the processor would normalise, it normalises itself."""

    config_class = SlowFastConfig
    main_input_name = "pixels"

    def __init__(self, encoder: SlowFastModel, mean: float, std: float):
        super().__init__(encoder.config)
        self.encoder = encoder
        self.scale, self.shift = 1 / (255.0 * std), mean / std

    def forward(self, pixels: Tensor) -> SlowFastModelOutput:
        """Encode clips of shape `(B, num_frames, 3, H, W)` with values from 0 to 255."""
        return self.encoder(pixels.float() * self.scale - self.shift)


def networks_of(
    model: PreTrainedModel, processor: AvacaProcessor | AvrlProcessor, batches: Sequence[Any]
) -> Iterator[Network]:
    """The networks of a detector, one at a time.

    Args:
        model: The detector.
        processor: Its processor.
        batches: Lists of what the processor calls clips, for calibration, each of one video.
    """
    if isinstance(processor, AvacaProcessor):
        yield _video_encoder(processor, batches)
        yield _audio_encoder(processor, batches)
        yield _avaca(model, processor)
    else:
        yield _avrl(model, processor, batches)


def _video_encoder(processor: AvacaProcessor, batches: Sequence[Sequence[Clip]]) -> Network:
    # What torch scales is floating point; FFmpeg gives 8 bits.
    pixel_dtype = torch.uint8 if processor.resize == "area" else torch.float32
    encoder = SlowFastOnPixels(
        slowfast_form(processor.video_encoder.eval(), torch.float32), processor.image_mean, processor.image_std
    ).eval()
    height, width = processor.size, processor.size * 16 // 9
    return Network(
        folder="video_encoder",
        source=processor.video_encoder,
        model=encoder,
        sample={"pixels": torch.zeros(2, processor.clip_length, 3, height, width, dtype=pixel_dtype)},
        varying={"pixels": (0, 3, 4)},
        calibration=[
            {"pixels": torch.stack([frame.pixels for frame in clip.frames]).unsqueeze(0)}
            for clips in batches
            for clip in clips
        ],
        output="feature_map",
        bound=0.02,
    )


def _audio_encoder(processor: AvacaProcessor, batches: Sequence[Sequence[Clip]]) -> Network:
    encoder, extractor = processor.audio_encoder, processor.feature_extractor
    size = encoder.config.num_frames

    def spectrograms(clip: Clip) -> Tensor:
        windows = torch.stack([frame.sound for frame in clip.frames])
        return extractor.log_mel_of_windows(windows, [frame.first_sample for frame in clip.frames], size)

    return Network(
        folder="audio_encoder",
        source=encoder,
        model=vggish_form(encoder.eval(), torch.float32),
        sample={"input_features": torch.zeros(2, size, extractor.feature_size)},
        varying={"input_features": (0,)},
        calibration=[
            {"input_features": spectrograms(clip)}
            for clips in batches
            for clip in clips
            if clip.frames[0].sound is not None
        ],
        output="pooler_output",
        bound=0.006,
    )


def _avaca(model: PreTrainedModel, processor: AvacaProcessor) -> Network:
    """The detector itself, always in float32: it is less than a hundredth of the work."""
    config = model.config
    shape = (2, 3)
    return Network(
        folder="",
        source=model,
        model=model.eval(),
        sample={
            "visual_features": torch.zeros(*shape, config.visual_size, *processor.feature_grid),
            "audio_features": torch.zeros(*shape, processor.clip_length, config.audio_size),
            "clip_mask": torch.ones(*shape, dtype=torch.bool),
        },
        varying=dict.fromkeys(("visual_features", "audio_features", "clip_mask"), (0, 1)),
    )


def _avrl(model: PreTrainedModel, processor: AvrlProcessor, batches: Sequence[Any]) -> Network:
    bins, frames = processor.feature_extractor.feature_size, 64
    sample = {
        # One video at a time: with batches of any size OpenVINO 2026.4 gave none at all in bfloat16 for some lengths.
        "pixel_values_videos": torch.zeros(1, processor.num_frames, 3, *processor.size),
        "input_features": torch.zeros(1, frames, bins),
        "audio_frame_mask": torch.ones(1, frames, dtype=torch.bool),
    }
    # A detector that only sees, or only hears, has no other input.
    unused = {"visual": ("input_features", "audio_frame_mask"), "audio": ("pixel_values_videos",)}
    used = [name for name in sample if name not in unused.get(model.config.modality, ())]
    encoded = [processor.encode(windows) for windows in batches]
    if "pixel_values_videos" not in used:  # of silence nothing is learnt
        encoded = [batch for batch in encoded if batch["has_audio"].any()]
    return Network(
        folder="",
        source=model,
        model=avrl_form(model, torch.float32),
        sample={name: sample[name] for name in used},
        varying={
            name: places
            for name, places in (
                ("input_features", (1,)),
                ("audio_frame_mask", (1,)),
            )
            if name in used
        },
        calibration=[{name: batch[name] for name in used} for batch in encoded],
        bound=0.03,
    )
