"""AVRL: event classes of crowd videos, from what is seen and what is heard."""

import logging
import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from transformers import PreTrainedModel
from transformers import initialization as init
from transformers.utils import ModelOutput

from avad_hf.models.checkpointing import CheckpointedModule
from avad_hf.models.checkpoints import CheckpointModel
from avad_hf.models.detector import DetectorModel
from avad_hf.models.forwarding import network_forward
from avad_hf.models.resnet3d.modeling_resnet3d import ResNet3dModel
from avad_hf.models.tracing import Network
from avad_hf.models.vggish.modeling_vggish import GROUPS, VggishModel, vggish_convolutions

from .configuration_avrl import FRAMES_PER_STEP, AvrlConfig

logger = logging.getLogger(__name__)

# "Unified magnitude" (IV-E): what is seen had features ten times as large as what is heard.
AUDIO_SCALE = 10.0


@dataclass
class AvrlModelOutput(ModelOutput):
    """What the body makes of videos.

    Args:
        visual_features (`torch.Tensor` of shape `(B, 8 * stem_width)`, *optional*): Features of the 3D ResNet (f_v).
        audio_features (`torch.Tensor` of shape `(B, audio_config.hidden_sizes[-1])`, *optional*):
            Features of VGGish, averaged over time and mel bands (f_a, III-B); zero for videos without sound.
        fused_features (`torch.Tensor` of shape `(B, config.fused_size)`): What the classifier gets.
        hidden_states (`tuple` of `torch.Tensor`):
            On request: maps of the 3D ResNet after its stem and after each stage; none with modality ``"audio"``.
    """

    visual_features: Tensor | None = None
    audio_features: Tensor | None = None
    fused_features: Tensor | None = None
    hidden_states: tuple[Tensor, ...] | None = None


@dataclass
class AvrlOutput(ModelOutput):
    """Class scores of videos.

    Args:
        loss (`torch.Tensor` of shape `()`, *optional*): Cross-entropy (equation 4), with labels.
        logits (`torch.Tensor` of shape `(B, num_labels)`): Class scores before the softmax.
        anomaly_logits (`torch.Tensor` of shape `(B,)`):
            Anomaly scores before the sigmoid: ``sigmoid(anomaly_logits)`` is 1 minus the probability of the normal
            classes.
        hidden_states (`tuple` of `torch.Tensor`): On request: as of [`AvrlModelOutput`].
    """

    loss: Tensor | None = None
    logits: Tensor | None = None
    anomaly_logits: Tensor | None = None
    hidden_states: tuple[Tensor, ...] | None = None


class AvrlAudioEncoder(CheckpointedModule):
    """VGGish's convolutions on the whole log-mel spectrogram, averaged over what is sound and not padding."""

    def __init__(self, config: AvrlConfig):
        super().__init__()
        self.num_mel_bins = config.audio_config.num_mel_bins
        self.features = vggish_convolutions(config.audio_config)

    @property
    def groups(self) -> list[nn.Sequential]:
        """The four groups of convolutions, from the input on: what can be frozen one by one."""
        groups, begin = [], 0
        for depth in GROUPS:
            groups.append(self.features[begin : begin + 2 * depth + 1])
            begin += 2 * depth + 1
        return groups

    def forward(self, log_mel: Tensor, is_sound: Tensor | None) -> Tensor:
        """Average feature map.

        Args:
            log_mel: Log-mel frames of shape `(B, frames, num_mel_bins)`.
            is_sound: True for frames that are sound, which come first: none of a video, or 16 and more; of shape
                `(B, frames)`. All if not given.

        Returns:
            Of shape `(B, hidden_sizes[-1])`; zero where nothing is heard.
        """
        return self.computed(self._forward, log_mel, is_sound)

    def _forward(self, log_mel: Tensor, is_sound: Tensor | None) -> Tensor:
        x = log_mel.unsqueeze(1)
        if is_sound is None:
            return self.features(x).mean(dim=(2, 3))
        # What lies beyond the sound must be what lies beyond a single spectrogram: the convolutions' own zeros. Masks
        # and not lengths go along, which exported graphs would count in bfloat16.
        for layer in self.features:
            if isinstance(layer, nn.Conv2d):
                x = x.masked_fill(~is_sound[:, None, :, None], 0.0)
            x = layer(x)
            if isinstance(layer, nn.MaxPool2d):
                is_sound = is_sound[:, 1::2]  # half of them, where both halves of a step are sound
        x = x.masked_fill(~is_sound[:, None, :, None], 0.0)
        return x.sum(dim=(2, 3)) / (is_sound.sum(dim=1).clamp(min=1) * x.shape[3]).unsqueeze(1).to(x.dtype)


class AvrlPreTrainedModel(CheckpointModel):
    """Initialisation, loading and freezing shared by body and classifier."""

    config_class = AvrlConfig
    base_model_prefix = "avrl"
    main_input_name = "pixel_values_videos"
    input_modalities = ("video", "audio")
    supports_gradient_checkpointing = True
    unread_inputs = ("clip_times", "has_audio")
    _no_split_modules = ("ResNet3dBasicBlock",)

    def _init_weights(self, module: nn.Module):
        if isinstance(module, nn.Conv3d):
            init.kaiming_normal_(module.weight, mode="fan_out", nonlinearity="relu")
        elif isinstance(module, nn.Conv2d):
            init.kaiming_normal_(module.weight, nonlinearity="relu")
            init.zeros_(module.bias)
        elif isinstance(module, nn.Linear):
            # torch's own: larger weights in the last layer would begin with a loss far above that of guessing.
            init.kaiming_uniform_(module.weight, a=math.sqrt(5))
            init.zeros_(module.bias)
        elif isinstance(module, (nn.LayerNorm, nn.BatchNorm3d)):
            super()._init_weights(module)

    def frozen_parts(self) -> list[nn.Module]:
        """The parts that the config says keep their weights and statistics."""
        config, body = self.config, getattr(self, self.base_model_prefix, self)
        parts = []
        if body.visual is not None:
            parts += [part for stage in body.visual.stages[: config.frozen_video_stages] for part in stage]
        if body.audio is not None:
            parts += body.audio.groups[: config.frozen_audio_stages]
        return parts

    def train(self, mode: bool = True):
        """Put the model into training mode but for its frozen parts, whose batch norms keep their statistics."""
        super().train(mode)
        for part in self.frozen_parts():
            part.eval().requires_grad_(False)
        return self


class AvrlModel(AvrlPreTrainedModel):
    """Body of AVRL: a 3D ResNet and VGGish's convolutions, and the fusion of what they give.

    ```text
    frames (B, 50, 3, 240, 240) --> 3D ResNet ------------> f_v (B, 512) --+
                                                                           +-- fusion --> fused features
    log-mel (B, frames, 64) ------> VGGish, mean over all -> f_a (B, 512) --+

    low_level: f_a f_a^T (512 x 512), scaled to the frames, is a fourth channel of each; f_v is what is fused.
    ```

    VGGish gives 128 values of each 0.96 s, but the paper has 512 of a whole video "along channel" (III-B, III-E):
    those of its convolutions, which take sound of any length.
    """

    def __init__(self, config: AvrlConfig):
        super().__init__(config)
        hears, sees = config.modality != "visual", config.modality != "audio"
        self.visual = self.audio = self.norm = None
        if sees:
            # With fusion low_level the sound's map is a fourth channel of every frame.
            video_config = type(config.video_config).from_dict(
                config.video_config.to_dict() | {"num_channels": 3 + self.has_sound_channel}
            )
            self.visual = ResNet3dModel(video_config)
        if hears:
            self.audio = AvrlAudioEncoder(config)
        if config.uses_both and config.fusion == "concat_norm":
            self.norm = nn.LayerNorm(config.fused_size)
        self.post_init()
        self.train(self.training)  # which freezes what is to be frozen

    @property
    def has_sound_channel(self) -> bool:
        """Whether frames have a fourth channel, which is made from sound."""
        return self.config.uses_both and self.config.fusion == "low_level"

    @torch.no_grad()
    def load_backbones(
        self,
        video_encoder: ResNet3dModel | None = None,
        audio_encoder: VggishModel | AvrlAudioEncoder | None = None,
    ) -> None:
        """Copy the weights of trained encoders; of one that this modality does not use, nothing.

        The 3D ResNet of fusion ``"low_level"`` sees a fourth channel, for which its first convolution gets weights of
        zero: at first it sees what it saw before.

        Raises:
            ValueError: If an encoder's architecture is another one than the config's.
        """
        for name, own, given in (
            ("video_encoder", self.visual, video_encoder),
            ("audio_encoder", None if self.audio is None else self.audio.features, audio_encoder),
        ):
            if given is None or own is None:
                continue
            given = getattr(given, given.base_model_prefix, given) if isinstance(given, PreTrainedModel) else given
            weights = (given if name == "video_encoder" else given.features).state_dict()
            if name == "video_encoder":
                kernel = weights["conv1.weight"][:, :3]  # without the sound's channel, which another model may have
                missing = 1 if self.has_sound_channel else 0
                weights["conv1.weight"] = F.pad(kernel, (0, 0, 0, 0, 0, 0, 0, missing))
            try:
                own.load_state_dict(weights)
            except RuntimeError as error:
                raise ValueError(f"{name} does not have the architecture of {name[:5]}_config: {error}") from error

    @network_forward
    def forward(
        self,
        pixel_values_videos: Tensor | None = None,
        input_features: Tensor | None = None,
        audio_frame_mask: Tensor | None = None,
        output_hidden_states: bool | None = None,
    ) -> AvrlModelOutput:
        """Encode and fuse sight and sound of whole videos.

        Args:
            pixel_values_videos (`torch.Tensor` of shape `(B, F, 3, H, W)`):
                Normalised RGB frames; 50 of 240 x 240 pixels in the paper. Not read with modality ``"audio"``.
            input_features (`torch.Tensor` of shape `(B, frames, num_mel_bins)`):
                Log-mel frames of the whole sound, of 10 ms each. Without them, and for videos whose mask is false
                throughout, the sound's features are zero; the log says so. Not read with modality ``"visual"``.
            audio_frame_mask (`torch.Tensor` of shape `(B, frames)`):
                True for sound, which comes first, false for padding; all frames are sound if not given. Padding
                never changes a score.
            output_hidden_states: Return the maps of the 3D ResNet.

        Returns:
            [`AvrlModelOutput`].

        Raises:
            ValueError: For other shapes, frames that are missing, sound of 1 to 15 frames, values that are not
                finite, or, with modality ``"audio"``, without any sound.
        """
        audio_features = visual_features = hidden_states = None
        if self.visual is not None:
            given = "none" if pixel_values_videos is None else tuple(pixel_values_videos.shape)
            if given == "none" or len(given) != 5 or given[2] != 3 or 0 in given:
                raise ValueError(
                    f"AVRL needs pixel_values_videos of shape (B, F, 3, H, W), got {given}. AvrlProcessor makes them "
                    "from videos."
                )
            _refuse_nan("pixel_values_videos", pixel_values_videos)
        if self.audio is not None:
            num_videos = None if self.visual is None else pixel_values_videos.shape[0]
            audio_features = self._hear(num_videos, input_features, audio_frame_mask)
        if self.visual is not None:
            frames = pixel_values_videos.to(self.dtype)
            if self.has_sound_channel:
                frames = self._with_sound_channel(frames, audio_features)
            seen = self.visual(frames, output_hidden_states=output_hidden_states, return_dict=True)
            visual_features, hidden_states = seen.pooler_output, seen.hidden_states
        return AvrlModelOutput(
            visual_features=visual_features,
            audio_features=audio_features,
            fused_features=self._fused(visual_features, audio_features),
            hidden_states=hidden_states,
        )

    def _hear(self, num_videos: int | None, log_mel: Tensor | None, mask: Tensor | None) -> Tensor:
        bins = self.audio.num_mel_bins
        if log_mel is None:
            if num_videos is None:
                raise ValueError(
                    f"A model of modality 'audio' needs input_features of shape (B, frames, {bins}). Give zeros and "
                    "an audio_frame_mask that is false for videos without sound."
                )
            if mask is not None and mask.any():
                raise ValueError(
                    "audio_frame_mask says that there is sound, but input_features are missing. Give both, or neither."
                )
            log_mel, mask = torch.zeros(num_videos, 0, bins, device=self.device), None
        wanted = ("B" if num_videos is None else num_videos, "frames", bins)
        if log_mel.dim() != 3 or log_mel.shape[2] != bins or num_videos not in (None, log_mel.shape[0]):
            raise ValueError(
                f"AVRL needs input_features of shape ({', '.join(map(str, wanted))}), got {tuple(log_mel.shape)}. "
                "VggishFeatureExtractor makes them from a waveform at 16 kHz."
            )
        if mask is not None and mask.shape != log_mel.shape[:2]:
            raise ValueError(f"audio_frame_mask must be of shape {tuple(log_mel.shape[:2])}, got {tuple(mask.shape)}.")
        lengths = None if mask is None and log_mel.shape[1] >= FRAMES_PER_STEP else _lengths(log_mel, mask)
        if lengths is not None and not torch.compiler.is_compiling():
            silent = int((lengths == 0).sum())
            if silent:
                logger.info("%d of %d videos have no sound: their sound features are zero.", silent, len(lengths))
        is_sound = None
        if lengths is not None:
            frames = torch.arange(log_mel.shape[1], device=log_mel.device)
            is_sound = frames < lengths.unsqueeze(1) if mask is None else mask.bool()
        if not torch.compiler.is_compiling():
            # Padding may hold anything, and is not looked at.
            _refuse_nan("input_features", log_mel if is_sound is None else log_mel[is_sound])
        # Convolved also where nothing is heard, so that every parameter has a gradient, if one of zero.
        missing = max(0, FRAMES_PER_STEP - log_mel.shape[1])
        if is_sound is not None:
            is_sound = F.pad(is_sound, (0, missing))
        return self.audio(F.pad(log_mel, (0, 0, 0, missing)).to(self.dtype), is_sound)

    @staticmethod
    def _with_sound_channel(frames: Tensor, audio_features: Tensor) -> Tensor:
        """The correlation map of the sound, scaled to the frames, beside their colours (IV-E, "LF").

        The paper does not say how the map's values are scaled: they are left as they are. What the 3D ResNet gives
        then goes through the classifier of Table I, though figure 3 (e) shows none.
        """
        correlation = (audio_features.unsqueeze(2) * audio_features.unsqueeze(1)).unsqueeze(1)
        channel = F.interpolate(correlation, size=frames.shape[-2:], mode="bilinear", align_corners=False)
        channel = channel.unsqueeze(1).expand(-1, frames.shape[1], -1, -1, -1)
        return torch.cat([frames, channel], dim=2)

    def _fused(self, visual: Tensor | None, audio: Tensor | None) -> Tensor:
        fusion = self.config.fusion
        if not self.config.uses_both or fusion == "low_level":
            return audio if visual is None else visual
        if fusion == "add":
            return visual + audio
        fused = torch.cat([visual, audio * AUDIO_SCALE if fusion == "concat_scaled" else audio], dim=1)
        return fused if self.norm is None else self.norm(fused)


def _lengths(log_mel: Tensor, mask: Tensor | None) -> Tensor:
    """Frames that are sound, of shape `(B,)`; refuses too few of them, and gaps."""
    if mask is None:
        lengths = torch.full((len(log_mel),), log_mel.shape[1], device=log_mel.device)
    else:
        mask = mask.bool()
        lengths = mask.sum(dim=1)
        if not torch.compiler.is_compiling() and (mask[:, 1:] & ~mask[:, :-1]).any():
            raise ValueError("audio_frame_mask must be true for the first frames of a video, and false after them.")
    if not torch.compiler.is_compiling() and ((lengths > 0) & (lengths < FRAMES_PER_STEP)).any():
        raise ValueError(
            f"AVRL needs {FRAMES_PER_STEP} or more log-mel frames of a video's sound (0.175 s), got "
            f"{int(lengths[lengths > 0].min())}. Append silence, log(0.01), or mask the sound for zero features; "
            "AvrlProcessor does the former."
        )
    return lengths


def _has_other_classifier(before: AvrlConfig, now: AvrlConfig) -> bool:
    """Whether a classifier gets other features, or names other classes, than before."""
    names = ["modality", "id2label", *(["fusion"] if now.uses_both else [])]
    is_wider = list(before.hidden_sizes) != list(now.hidden_sizes)
    return is_wider or any(getattr(before, name) != getattr(now, name) for name in names)


def _refuse_nan(name: str, values: Tensor) -> None:
    # Tracing for export has no values to look at.
    if not torch.compiler.is_compiling() and not torch.isfinite(values).all():
        raise ValueError(f"{name} holds NaN or infinite values. Read that video again, or leave it out.")


class AvrlForVideoClassification(AvrlPreTrainedModel, DetectorModel):
    """AVRL with its fully connected classifier (Table I) and loss (equation 4)."""

    def __init__(self, config: AvrlConfig):
        super().__init__(config)
        # Classes may have been given while loading, when transformers sets only the one of the two.
        config.label2id = {name: number for number, name in config.id2label.items()}
        self.normal_ids = config.normal_ids  # refuses classes that give no anomaly score
        self.avrl = AvrlModel(config)
        first, second = config.hidden_sizes
        # Table I ends with "classification": the softmax, which the loss holds (equation 4 takes its logarithm).
        self.classifier = nn.Sequential(
            nn.Linear(config.fused_size, first),
            nn.ReLU(),
            nn.Linear(first, second),
            nn.ReLU(),
            nn.Linear(second, config.num_labels),
        )
        self.post_init()
        self.train(self.training)

    @network_forward
    def forward(
        self,
        pixel_values_videos: Tensor | None = None,
        input_features: Tensor | None = None,
        audio_frame_mask: Tensor | None = None,
        labels: Tensor | None = None,
        output_hidden_states: bool | None = None,
    ) -> AvrlOutput:
        """Classify whole videos and, with labels, compute the loss.

        Args:
            pixel_values_videos (`torch.Tensor` of shape `(B, F, 3, H, W)`): As for [`AvrlModel`].
            input_features (`torch.Tensor` of shape `(B, frames, num_mel_bins)`): As for [`AvrlModel`].
            audio_frame_mask (`torch.Tensor` of shape `(B, frames)`): As for [`AvrlModel`].
            labels (`torch.Tensor` of shape `(B,)`, *optional*): Class numbers, as in the config's ``id2label``.
            output_hidden_states: As for [`AvrlModel`].

        Returns:
            [`AvrlOutput`].

        Raises:
            ValueError: As [`AvrlModel`], and for labels that are no class.
        """
        outputs = self.avrl(
            pixel_values_videos,
            input_features,
            audio_frame_mask,
            output_hidden_states=output_hidden_states,
            return_dict=True,
        )
        logits = self.classifier(outputs.fused_features.to(self.classifier[0].weight.dtype))
        anomalous_ids = [number for number in range(logits.shape[1]) if number not in self.normal_ids]
        scores = logits.float()
        anomaly_logits = scores[:, anomalous_ids].logsumexp(dim=1) - scores[:, self.normal_ids].logsumexp(dim=1)
        losses = {} if labels is None else self.losses(logits, labels)
        return AvrlOutput(logits=logits, anomaly_logits=anomaly_logits, hidden_states=outputs.hidden_states, **losses)

    def _make_form(self, dtype: torch.dtype) -> PreTrainedModel:
        from .inference_avrl import inference_form  # which imports this

        return inference_form(self, dtype)

    clip_outputs = ("anomaly_logits",)

    def scores(self, outputs: AvrlOutput) -> Tensor:
        """1 minus the probability of the normal classes, of shape `(B,)`, as `DetectorModel.scores` says."""
        return outputs.anomaly_logits.detach().cpu().double().sigmoid()

    def probabilities(self, outputs: AvrlOutput) -> Tensor:
        """Probabilities of all classes, of shape `(B, num_labels)`."""
        return outputs.logits.detach().cpu().double().softmax(dim=-1)

    def begin_with(self, source: "AvrlForVideoClassification") -> None:
        """Take the weights of a trained detector; of one with another classifier both networks alone."""
        if _has_other_classifier(source.config, self.config):
            self.avrl.load_backbones(source.avrl.visual, source.avrl.audio)
        else:
            super().begin_with(source)

    def networks_to_export(self, processor: Any, batches: Sequence[Any]) -> Iterator[Network]:
        """All of it as one network, as `DetectorModel.networks_to_export` says."""
        bins, frames = processor.feature_extractor.feature_size, 64
        sample = {
            # One video at a time: with batches of any size OpenVINO 2026.4 gave none at all in bfloat16 for some
            # lengths.
            "pixel_values_videos": torch.zeros(1, processor.num_frames, 3, *processor.size),
            "input_features": torch.zeros(1, frames, bins),
            "audio_frame_mask": torch.ones(1, frames, dtype=torch.bool),
        }
        # A detector that only sees, or only hears, has no other input.
        unused = {"visual": ("input_features", "audio_frame_mask"), "audio": ("pixel_values_videos",)}
        used = [name for name in sample if name not in unused.get(self.config.modality, ())]
        encoded = [processor.encode(windows) for windows in batches]
        if "pixel_values_videos" not in used:  # of silence nothing is learnt
            encoded = [batch for batch in encoded if batch["has_audio"].any()]
        yield Network(
            folder="",
            source=self,
            model=self.for_inference(torch.float32),
            sample={name: sample[name] for name in used},
            varying={name: (1,) for name in ("input_features", "audio_frame_mask") if name in used},
            calibration=[{name: batch[name] for name in used} for batch in encoded],
            bound=0.03,
        )

    def losses(self, outputs: AvrlOutput | Tensor, labels: Tensor, mask: Tensor | None = None) -> dict[str, Tensor]:
        """Loss of class scores (equation 4), also of scores that were computed in several batches.

        Args:
            outputs: What `forward` gives; or its logits alone, of shape `(B, num_labels)`.
            labels (`torch.Tensor` of shape `(B,)`): Class numbers.
            mask: Not looked at: a video is one clip.

        Returns:
            ``loss``.

        Raises:
            ValueError: For labels that are no class, or not one a video.
        """
        logits = getattr(outputs, "logits", outputs)
        classes = logits.shape[1]
        if labels.shape != logits.shape[:1] or labels.is_floating_point() or labels.dtype == torch.bool:
            raise ValueError(
                f"labels must be one class number a video, shape ({len(logits)},), got {labels.dtype} of "
                f"{tuple(labels.shape)}."
            )
        if not torch.compiler.is_compiling() and not ((labels >= 0) & (labels < classes)).all():
            raise ValueError(
                f"labels must be class numbers from 0 to {classes - 1}, got {sorted(labels.unique().tolist())}. The "
                "config's id2label names the classes."
            )
        return {"loss": F.cross_entropy(logits.float(), labels.long())}


__all__ = ["AvrlForVideoClassification", "AvrlModel", "AvrlPreTrainedModel"]
