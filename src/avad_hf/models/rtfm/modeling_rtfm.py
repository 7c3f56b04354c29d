"""RTFM: robust temporal feature magnitude learning (Tian et al., ICCV 2021, arXiv 2101.10030).

Written from the paper and from facts about the published network; its code has no licence and was not used.
"""

from dataclasses import dataclass
from typing import Any, ClassVar

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from transformers import initialization as init
from transformers.utils import ModelOutput

from avad_hf.models.checkpointing import CheckpointedModule
from avad_hf.models.checkpoints import CheckpointModel
from avad_hf.models.clip_vectors import clip_vectors, masked_logits, refuse_other_labels
from avad_hf.models.detector import DetectorModel
from avad_hf.models.forwarding import network_forward
from avad_hf.models.normalisation import masked_batch_norm

from .configuration_rtfm import RtfmConfig
from .losses_rtfm import rtfm_losses


@dataclass
class RtfmModelOutput(ModelOutput):
    """Features of the clips that know of the whole video.

    Args:
        clip_states (`torch.Tensor` of shape `(B, T, input_size)`):
            Features of each clip, zero for padding; in training of each segment, `(B, num_segments, input_size)`.
        clip_mask (`torch.Tensor` of shape `(B, T)`):
            False for padding, if a mask was given; in training of shape `(B, num_segments)`.
        hidden_states (`tuple` of `torch.Tensor`):
            On request: the averaged features, of shape `(B, T, input_size)`, and what each dilated convolution and the
            attention make of them, of shape `(B, T, hidden_size)`.
    """

    clip_states: Tensor | None = None
    clip_mask: Tensor | None = None
    hidden_states: tuple[Tensor, ...] | None = None


@dataclass
class RtfmOutput(ModelOutput):
    """Scores of the clips; in training of the segments, of shape `(B, num_segments)`.

    Args:
        loss (`torch.Tensor` of shape `()`): With labels: the weighted sum of the other four.
        video_loss (`torch.Tensor` of shape `()`): With labels: cross-entropy of the videos.
        magnitude_loss (`torch.Tensor` of shape `()`): With labels: how far magnitudes are from where they should be.
        sparsity_loss (`torch.Tensor` of shape `()`): With labels: norm of the scores of anomalous videos.
        smoothness_loss (`torch.Tensor` of shape `()`): With labels: differences of their neighbouring scores.
        logits (`torch.Tensor` of shape `(B, T)`):
            Clip scores before the sigmoid; the lowest number of their type for padding, so that its score is 0.
        magnitudes (`torch.Tensor` of shape `(B, T)`): L2 norms of the clips' features; 0 for padding.
        hidden_states (`tuple` of `torch.Tensor`): On request: as of [`RtfmModelOutput`].
    """

    loss: Tensor | None = None
    video_loss: Tensor | None = None
    magnitude_loss: Tensor | None = None
    sparsity_loss: Tensor | None = None
    smoothness_loss: Tensor | None = None
    logits: Tensor | None = None
    magnitudes: Tensor | None = None
    hidden_states: tuple[Tensor, ...] | None = None


class RtfmConvLayer(CheckpointedModule):
    """Convolution of kernel 3 over time, ReLU and then batch norm; it keeps the length."""

    def __init__(self, in_channels: int, out_channels: int, dilation: int = 1, bias: bool = True):
        super().__init__()
        self.conv = nn.Conv1d(in_channels, out_channels, 3, padding=dilation, dilation=dilation, bias=bias)
        self.norm = nn.BatchNorm1d(out_channels)

    def forward(self, x: Tensor, clip_mask: Tensor | None) -> Tensor:
        return self.computed(self._forward, x, clip_mask)

    def _forward(self, x: Tensor, clip_mask: Tensor | None) -> Tensor:
        return masked_batch_norm(self.norm, F.relu(self.conv(x)), clip_mask)


class RtfmZeroNorm(nn.BatchNorm1d):
    """Batch norm that gives zeros at first. transformers initialises only what has weights, and by its class."""


class RtfmAttention(CheckpointedModule):
    """Narrower features, and non-local attention among them (Wang et al., CVPR 2018, section 3.2, dot product).

    At first the attention adds nothing, since its batch norm gives zeros (their section 4.1).
    """

    def __init__(self, config: RtfmConfig):
        super().__init__()
        self.projection = nn.Conv1d(config.input_size, config.hidden_size, 1, bias=False)
        self.theta = nn.Conv1d(config.hidden_size, config.attention_size, 1)
        self.phi = nn.Conv1d(config.hidden_size, config.attention_size, 1)
        self.g = nn.Conv1d(config.hidden_size, config.attention_size, 1)
        self.output = nn.Conv1d(config.attention_size, config.hidden_size, 1)
        self.norm = RtfmZeroNorm(config.hidden_size)

    def forward(self, x: Tensor, clip_mask: Tensor | None) -> Tensor:
        return self.computed(self._forward, x, clip_mask)

    def _forward(self, x: Tensor, clip_mask: Tensor | None) -> Tensor:
        x = self.projection(x)
        queries, keys, values = self.theta(x), self.phi(x), self.g(x)
        # Divided before the sum over clips, which in half precision has no room for long videos.
        if clip_mask is None:
            values = values / x.shape[2]
        else:
            lengths = clip_mask.sum(dim=1).clamp_min(1)
            values = values.masked_fill(~clip_mask.unsqueeze(1), 0.0) / lengths.to(x.dtype)[:, None, None]
        # There is no softmax between the two products. So the one of keys and values can come first, and memory does
        # not grow with the square of a video's length.
        attended = (values @ keys.transpose(1, 2)) @ queries
        return x + masked_batch_norm(self.norm, self.output(attended), clip_mask)


class RtfmPreTrainedModel(CheckpointModel):
    """Initialisation and loading shared by body and detector."""

    config_class = RtfmConfig
    base_model_prefix = "rtfm"
    main_input_name = "visual_features"
    input_modalities = ("video", "audio")
    supports_gradient_checkpointing = True
    unread_inputs = ("clip_times", "has_audio")

    def _init_weights(self, module: nn.Module):
        if isinstance(module, (nn.Conv1d, nn.Linear)):
            init.xavier_uniform_(module.weight)
            if module.bias is not None:
                init.zeros_(module.bias)
        elif isinstance(module, nn.BatchNorm1d):
            super()._init_weights(module)
            if isinstance(module, RtfmZeroNorm):
                init.zeros_(module.weight)


def to_segments(x: Tensor, clip_mask: Tensor, num_segments: int) -> Tensor:
    """Cut videos into as many segments each, as equal as can be, and average the clips within.

    A video of fewer clips repeats some of them: a segment that has none takes the clip at its start.

    Args:
        x (`torch.Tensor` of shape `(B, T, C)`): Features of clips, finite for padding as well.
        clip_mask (`torch.Tensor` of shape `(B, T)`): False for padding.
        num_segments: How many.

    Returns:
        `torch.Tensor` of shape `(B, num_segments, C)`; zero for a video without clips.
    """
    # In whole numbers; a linspace in floating point may round just below them.
    numbers = torch.arange(num_segments + 1, device=x.device)
    bounds = numbers * clip_mask.sum(dim=1, keepdim=True) // num_segments
    starts = bounds[:, :-1, None]
    ends = torch.maximum(bounds[:, 1:, None], starts + 1)
    clips = (clip_mask.cumsum(dim=1) - 1).unsqueeze(1)  # numbers of the real ones
    is_within = (clips >= starts) & (clips < ends) & clip_mask.unsqueeze(1)
    return (is_within / (ends - starts)).to(x.dtype) @ x


class RtfmModel(RtfmPreTrainedModel):
    """Body of RTFM: each clip's features with what happens before and after it.

    ```text
                       +-> convolution, dilation 1 -------------+
    features, averaged |-> convolution, dilation 2 -------------|
    (B, T, D) ---------|-> convolution, dilation 4 -------------+-> convolution -> (+) -> (B, T, D)
                       |-> 1x1 convolution -> attention --------+                   |
                       +------------------------------------------------------------+
    ```

    In training each video is resampled to `num_segments` first, as published; otherwise it keeps its length.
    """

    def __init__(self, config: RtfmConfig):
        super().__init__(config)
        width = config.hidden_size
        # These have biases, the fusing convolution and the projection of the attention have none: as published.
        self.dilated = nn.ModuleList(
            RtfmConvLayer(config.input_size, width, dilation) for dilation in config.dilations
        )
        self.attention = RtfmAttention(config)
        num_branches = len(config.dilations) + 1
        self.fusion = RtfmConvLayer(num_branches * width, config.input_size, bias=False)
        self.post_init()

    @network_forward
    def forward(
        self,
        visual_features: Tensor | None = None,
        audio_features: Tensor | None = None,
        clip_mask: Tensor | None = None,
        output_hidden_states: bool | None = None,
    ) -> RtfmModelOutput:
        """Let the clips of each video see each other.

        Padding never changes what is real: it is zero before every convolution, as is what lies beyond a video's ends;
        batch norm and attention leave it out.

        Args:
            visual_features (`torch.Tensor` of shape `(B, T, visual_size, h, w)`):
                Feature maps of the video encoder. Not read with ``inputs="audio"``.
            audio_features (`torch.Tensor` of shape `(B, T, S, audio_size)`):
                Embeddings of the sound; zeros where a video has none. Not read with ``inputs="visual"``.
            clip_mask (`torch.Tensor` of shape `(B, T)`): False for padding; all clips are real if not given.
            output_hidden_states: Return what each branch makes of the features.

        Returns:
            [`RtfmModelOutput`].

        Raises:
            ValueError: For missing features, other shapes, or values that are not finite.
        """
        x, clip_mask = clip_vectors(self.config, visual_features, audio_features, clip_mask, self.dtype)
        if self.training:
            real = x.new_ones(x.shape[:2], dtype=torch.bool) if clip_mask is None else clip_mask
            segments = self.config.num_segments
            x = to_segments(x, real, segments)
            # Segments of a video are all real, unless the whole video is padding.
            clip_mask = None if clip_mask is None else clip_mask.any(dim=1, keepdim=True).expand(-1, segments)
        averaged_features, x = x, x.transpose(1, 2)
        branches = [layer(x, clip_mask).transpose(1, 2) for layer in (*self.dilated, self.attention)]
        states = x + self.fusion(torch.cat(branches, dim=2).transpose(1, 2), clip_mask)
        return RtfmModelOutput(
            clip_states=states.transpose(1, 2),
            clip_mask=clip_mask,
            hidden_states=(averaged_features, *branches) if output_hidden_states else None,
        )


class RtfmForAnomalyDetection(RtfmPreTrainedModel, DetectorModel):
    """RTFM with its classifier and losses; the score of a clip is ``sigmoid(logit)``.

    It needs the whole video: a clip's score depends on its neighbours and, through the attention, on all clips.
    """

    clip_outputs: ClassVar[tuple[str, ...]] = ("logits", "magnitudes")

    def __init__(self, config: RtfmConfig):
        super().__init__(config)
        self.rtfm = RtfmModel(config)
        layers, width = [], config.input_size
        for size in config.classifier_sizes:
            layers += [nn.Linear(width, size), nn.ReLU(), nn.Dropout(config.dropout)]
            width = size
        self.dropout = nn.Dropout(config.dropout)
        self.classifier = nn.Sequential(*layers, nn.Linear(width, 1))
        self.post_init()

    @network_forward
    def forward(
        self,
        visual_features: Tensor | None = None,
        audio_features: Tensor | None = None,
        clip_mask: Tensor | None = None,
        labels: Tensor | None = None,
        output_hidden_states: bool | None = None,
    ) -> RtfmOutput:
        """Score clips and, with labels, compute the loss.

        Args:
            visual_features (`torch.Tensor` of shape `(B, T, visual_size, h, w)`): As for [`RtfmModel`].
            audio_features (`torch.Tensor` of shape `(B, T, S, audio_size)`): As for [`RtfmModel`].
            clip_mask (`torch.Tensor` of shape `(B, T)`): As for [`RtfmModel`].
            labels (`torch.Tensor` of shape `(B,)`, *optional*): 1 for anomalous videos, 0 for normal ones.
            output_hidden_states: As for [`RtfmModel`].

        Returns:
            [`RtfmOutput`]; in training mode with one score a segment, not a clip.

        Raises:
            ValueError: For missing features, other shapes, values that are not finite, or other labels than 0 and 1.
        """
        body = self.rtfm(
            visual_features, audio_features, clip_mask, output_hidden_states=output_hidden_states, return_dict=True
        )
        # Magnitudes are those of what the classifier sees, in training after dropout.
        states = self.dropout(body.clip_states)
        magnitudes = torch.linalg.vector_norm(states.float(), dim=2)
        logits = self.classifier(states).squeeze(2)
        logits = masked_logits(logits, body.clip_mask)
        outputs = RtfmOutput(logits=logits, magnitudes=magnitudes, hidden_states=body.hidden_states)
        losses = {} if labels is None else self.losses(outputs, labels, body.clip_mask)
        return RtfmOutput(**losses, **outputs)

    def losses(self, outputs: Any, labels: Tensor, mask: Tensor | None = None) -> dict[str, Tensor]:
        """Losses of videos, also of videos that went through the network one by one.

        The magnitude of a video is the mean of its chosen clips' magnitudes, as the paper defines it. The published
        code takes the norm of their mean feature instead, which is smaller where the clips differ; validation would
        need the features of all clips for that.

        Args:
            outputs: What `forward` gives: ``logits`` and ``magnitudes``, of shape `(B, T)`.
            labels (`torch.Tensor` of shape `(B,)`): 1 for anomalous videos, 0 for normal ones.
            mask (`torch.Tensor` of shape `(B, T)`): False for padding; all clips are real if not given.

        Returns:
            ``loss``, ``video_loss``, ``magnitude_loss``, ``sparsity_loss`` and ``smoothness_loss``.

        Raises:
            TypeError: For logits alone.
            ValueError: For other labels than 0 and 1.
        """
        if getattr(outputs, "magnitudes", None) is None:
            raise TypeError("RTFM's losses need logits and magnitudes of the clips, as forward gives them.")
        refuse_other_labels(labels)
        return rtfm_losses(self.config, outputs.logits, outputs.magnitudes, labels, mask, self.training)

    def explain(self, outputs: Any) -> dict[str, Tensor]:
        """Magnitudes of the clips' features, which anomalous clips have large ones of."""
        return {"feature_magnitude": outputs.magnitudes.detach().cpu()}


__all__ = ["RtfmForAnomalyDetection", "RtfmModel", "RtfmPreTrainedModel"]
