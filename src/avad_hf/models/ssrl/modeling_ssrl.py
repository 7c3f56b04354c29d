"""SSRL: scale-aware spatio-temporal relation learning (Li et al., ECCV 2022).

Written anew after the published code (nutuniv/SSRL, MIT).
"""

from dataclasses import dataclass
from typing import Any, ClassVar

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from transformers import PreTrainedModel
from transformers.utils import ModelOutput

from avad_hf.models.aggregate import Aggregate, AggregatePreTrainedModel
from avad_hf.models.clip_vectors import clip_vectors, masked_logits, refuse_other_labels
from avad_hf.models.detector import DetectorModel
from avad_hf.models.forwarding import network_forward
from avad_hf.models.normalisation import masked_batch_norm
from avad_hf.models.rtfm.losses_rtfm import rtfm_losses
from avad_hf.models.rtfm.modeling_rtfm import to_segments

from .configuration_ssrl import SsrlConfig


@dataclass
class SsrlModelOutput(ModelOutput):
    """Features of the clips that know of places in their frames, and of the whole video.

    Args:
        clip_states (`torch.Tensor` of shape `(B, T, input_size)`):
            Features of each clip, zero for padding; in training of each segment, `(B, num_segments, input_size)`.
        clip_mask (`torch.Tensor` of shape `(B, T)`):
            False for padding, if a mask was given; in training of shape `(B, num_segments)`.
        hidden_states (`tuple` of `torch.Tensor`):
            On request: the averaged features of whole frames, what each grid adds to them, and what the network over
            time makes of the sum, of shape `(B, T, input_size)`.
    """

    clip_states: Tensor | None = None
    clip_mask: Tensor | None = None
    hidden_states: tuple[Tensor, ...] | None = None


@dataclass
class SsrlOutput(ModelOutput):
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
        hidden_states (`tuple` of `torch.Tensor`): On request: as of [`SsrlModelOutput`].
    """

    loss: Tensor | None = None
    video_loss: Tensor | None = None
    magnitude_loss: Tensor | None = None
    sparsity_loss: Tensor | None = None
    smoothness_loss: Tensor | None = None
    logits: Tensor | None = None
    magnitudes: Tensor | None = None
    hidden_states: tuple[Tensor, ...] | None = None


class SsrlScale(nn.Module):
    """What the patches of one grid add to a clip: they see each other, and then are joined by their places."""

    def __init__(self, config: SsrlConfig, rows: int, columns: int):
        super().__init__()
        self.grid = rows, columns
        width = config.patch_size or max(1, config.visual_size // 2)
        # Only grids that are too small for the kernel are padded, as published.
        padding = int(min(rows, columns) < 3)
        shrinks = 2 - 2 * padding
        self.aggregate = Aggregate(config.visual_size, "batch")
        self.reduction = nn.Conv2d(config.visual_size, width, 3, padding=padding)
        self.norm = nn.BatchNorm1d(width)
        self.output = nn.Linear(width * (rows - shrinks) * (columns - shrinks), config.input_size)

    def forward(self, patches: Tensor, clip_mask: Tensor | None) -> Tensor:
        """Patches row after row, `(B, T, rows x columns, visual_size)` -> `(B, T, input_size)`."""
        x = patches.flatten(0, 1).transpose(1, 2)
        mask = None if clip_mask is None else clip_mask.reshape(-1, 1)
        x = self.aggregate(x, None if mask is None else mask.expand(-1, x.shape[2]))
        x = F.relu(self.reduction(x.unflatten(2, self.grid))).flatten(2)
        x = masked_batch_norm(self.norm, x, None if mask is None else mask.expand(-1, x.shape[2]))
        return F.relu(self.output(x.flatten(1))).unflatten(0, patches.shape[:2])


class SsrlPreTrainedModel(AggregatePreTrainedModel):
    """Initialisation and loading shared by body and detector."""

    config_class = SsrlConfig
    base_model_prefix = "ssrl"


class SsrlModel(SsrlPreTrainedModel):
    """Body of SSRL: each clip's features with its patches, and with what happens before and after it.

    ```text
    whole frames, averaged (B, T, D) --------------------------------------+-> (+) -> aggregate over time
    patches of each grid   (B, T, P, C) -> aggregate over patches -> conv -+          (B, T, D)
                                           -> linear
    ```

    In training each video is resampled to `num_segments` first, as published; otherwise it keeps its length.
    """

    def __init__(self, config: SsrlConfig):
        super().__init__(config)
        self.scales = nn.ModuleList(SsrlScale(config, *grid) for grid in config.patches[: config.stage - 1])
        self.aggregate = Aggregate(config.input_size, "batch")
        self.dropout = nn.Dropout(config.dropout)
        self.post_init()

    @network_forward
    def forward(
        self,
        visual_features: Tensor | None = None,
        audio_features: Tensor | None = None,
        clip_mask: Tensor | None = None,
        patch_features: Tensor | None = None,
        output_hidden_states: bool | None = None,
    ) -> SsrlModelOutput:
        """Let the patches of each clip see each other, and the clips of each video.

        Padding never changes what is real: it is zero before every convolution, as is what lies beyond a video's ends;
        batch norm and attention leave it out.

        Args:
            visual_features (`torch.Tensor` of shape `(B, T, visual_size, h, w)`): Feature maps of whole frames.
            audio_features (`torch.Tensor` of shape `(B, T, S, audio_size)`):
                Embeddings of the sound; zeros where a video has none. Not read with ``inputs="visual"``.
            clip_mask (`torch.Tensor` of shape `(B, T)`): False for padding; all clips are real if not given.
            patch_features (`torch.Tensor` of shape `(B, T, num_patches, visual_size)`):
                Features of the patches of all grids, one after the other, row after row. Not read in the first stage.
            output_hidden_states: Return what is made of the features on the way.

        Returns:
            [`SsrlModelOutput`].

        Raises:
            ValueError: For missing features, other shapes, or values that are not finite.
        """
        config = self.config
        x, clip_mask = clip_vectors(config, visual_features, audio_features, clip_mask, self.dtype)
        patches = None if not self.scales else self._checked(patch_features, x, clip_mask)
        if self.training:
            real = x.new_ones(x.shape[:2], dtype=torch.bool) if clip_mask is None else clip_mask
            segments = config.num_segments
            x = to_segments(x, real, segments)
            if patches is not None:
                patches = to_segments(patches.flatten(2), real, segments).unflatten(2, patches.shape[2:])
            # Segments of a video are all real, unless the whole video is padding.
            clip_mask = None if clip_mask is None else clip_mask.any(dim=1, keepdim=True).expand(-1, segments)
        states = [x]
        if patches is not None:
            parts = patches.split([rows * columns for rows, columns in config.patches], dim=2)
            for number, (scale, part) in enumerate(zip(self.scales, parts, strict=False), 1):
                added = scale(part, clip_mask)
                # The finest grid's alone is dropped, as published.
                states.append(self.dropout(added) if number == len(config.patches) > 1 else added)
        x = sum(states)
        if clip_mask is not None:
            x = x.masked_fill(~clip_mask.unsqueeze(2), 0.0)
        clip_states = self.aggregate(x.transpose(1, 2), clip_mask).transpose(1, 2)
        return SsrlModelOutput(
            clip_states=self.dropout(clip_states),
            clip_mask=clip_mask,
            hidden_states=(*states, clip_states) if output_hidden_states else None,
        )

    def _checked(self, patches: Tensor | None, x: Tensor, clip_mask: Tensor | None) -> Tensor:
        """Patches as the network computes with them, zero for padding; raises ``ValueError`` for others."""
        config = self.config
        shape = (config.num_patches, config.visual_size)
        if patches is None or patches.dim() != 4 or patches.shape[2:] != shape or patches.shape[:2] != x.shape[:2]:
            found = "none" if patches is None else tuple(patches.shape)
            raise ValueError(
                f"{config.title} of stage {config.stage} needs patch_features of shape (B, T, {shape[0]}, {shape[1]}) "
                f"beside visual_features, got {found}. AvacaProcessor makes them with patches="
                f"{[list(grid) for grid in config.patches]}."
            )
        # By the scale of whole frames: one encoder makes both.
        patches = config.scaled("visual_features", patches.to(self.dtype))
        if clip_mask is not None:
            patches = patches.masked_fill(~clip_mask[:, :, None, None], 0.0)
        # Tracing for export has no values to look at.
        if not torch.compiler.is_compiling() and not torch.isfinite(patches).all():
            raise ValueError(
                "patch_features holds NaN or infinite values. Extract the features of that video again, or mask its "
                "clips."
            )
        return patches


class SsrlForAnomalyDetection(SsrlPreTrainedModel, DetectorModel):
    """SSRL with its classifier and losses; the score of a clip is ``sigmoid(logit)``.

    It needs the whole video: a clip's score depends on its neighbours and, through the attention, on all clips. A
    detector of a stage that begins with the weights of an earlier one (`begin_with`) leaves these as they are, and
    learns what its own grids add. What the published training has and this one has not: ten crops of whole frames, to
    each of which the patches' part is added, and whose scores are averaged.
    """

    clip_outputs: ClassVar[tuple[str, ...]] = ("logits", "magnitudes")

    def __init__(self, config: SsrlConfig):
        super().__init__(config)
        self.ssrl = SsrlModel(config)
        layers: list[nn.Module] = []
        width = config.input_size
        for size in config.classifier_sizes:
            layers += [nn.Linear(width, size), nn.ReLU(), nn.Dropout(config.dropout)]
            width = size
        self.classifier = nn.Sequential(*layers, nn.Linear(width, 1))
        # Parts of an earlier stage, whose batch norms keep their statistics.
        self._finished: list[nn.Module] = []
        self.post_init()

    def begin_with(self, source: PreTrainedModel) -> None:
        """Take the weights of a trained detector. Those of an earlier stage do not change from then on, as published.

        Raises:
            ValueError: For a detector of a later stage, or of other sizes.
        """
        if source.config.stage > self.config.stage:
            raise ValueError(
                f"The weights are of stage {source.config.stage}, and stage {self.config.stage} has fewer grids. Give "
                f"stage {source.config.stage} or a later one."
            )
        taken, own = source.state_dict(), self.state_dict()
        if differing := [
            name for name, value in taken.items() if value.shape != getattr(own.get(name), "shape", None)
        ]:
            raise ValueError(
                f"{len(differing)} weights are of other sizes than those of the earlier stage, first {differing[0]}. "
                "Give the same settings but for stage."
            )
        self.load_state_dict(own | taken)
        if source.config.stage == self.config.stage:
            return
        for name, parameter in self.named_parameters():
            parameter.requires_grad_(name not in taken)
        self._finished = [self.ssrl.aggregate, *self.ssrl.scales[: source.config.stage - 1]]

    def train(self, mode: bool = True) -> "SsrlForAnomalyDetection":
        """Put the detector into training mode, but for what an earlier stage has finished."""
        super().train(mode)
        for part in self._finished:
            part.eval()
        return self

    def clip_shapes(self, processor: Any) -> dict[str, tuple[int, ...]]:
        """Shapes of a clip's features, without their width, as a processor makes them."""
        return super().clip_shapes(processor) | {"patch_features": (self.config.num_patches,)}

    @network_forward
    def forward(
        self,
        visual_features: Tensor | None = None,
        audio_features: Tensor | None = None,
        clip_mask: Tensor | None = None,
        patch_features: Tensor | None = None,
        labels: Tensor | None = None,
        output_hidden_states: bool | None = None,
    ) -> SsrlOutput:
        """Score clips and, with labels, compute the loss.

        Args:
            visual_features (`torch.Tensor` of shape `(B, T, visual_size, h, w)`): As for [`SsrlModel`].
            audio_features (`torch.Tensor` of shape `(B, T, S, audio_size)`): As for [`SsrlModel`].
            clip_mask (`torch.Tensor` of shape `(B, T)`): As for [`SsrlModel`].
            patch_features (`torch.Tensor` of shape `(B, T, num_patches, visual_size)`): As for [`SsrlModel`].
            labels (`torch.Tensor` of shape `(B,)`, *optional*): 1 for anomalous videos, 0 for normal ones.
            output_hidden_states: As for [`SsrlModel`].

        Returns:
            [`SsrlOutput`]; in training mode with one score a segment, not a clip.

        Raises:
            ValueError: For missing features, other shapes, values that are not finite, or other labels than 0 and 1.
        """
        body = self.ssrl(
            visual_features,
            audio_features,
            clip_mask,
            patch_features,
            output_hidden_states=output_hidden_states,
            return_dict=True,
        )
        outputs = SsrlOutput(
            logits=masked_logits(self.classifier(body.clip_states).squeeze(2), body.clip_mask),
            magnitudes=torch.linalg.vector_norm(body.clip_states.float(), dim=2),
            hidden_states=body.hidden_states,
        )
        losses = {} if labels is None else self.losses(outputs, labels, body.clip_mask)
        return SsrlOutput(**losses, **outputs)

    def losses(self, outputs: Any, labels: Tensor, mask: Tensor | None = None) -> dict[str, Tensor]:
        """Losses of videos, also of videos that went through the network one by one: those of RTFM.

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
            raise TypeError("SSRL's losses need logits and magnitudes of the clips, as forward gives them.")
        refuse_other_labels(labels)
        return rtfm_losses(self.config, outputs.logits, outputs.magnitudes, labels, mask, self.training)

    def explain(self, outputs: Any) -> dict[str, Tensor]:
        """Magnitudes of the clips' features, which anomalous clips have large ones of."""
        return {"feature_magnitude": outputs.magnitudes.detach().cpu()}


__all__ = ["SsrlForAnomalyDetection", "SsrlModel", "SsrlPreTrainedModel"]
