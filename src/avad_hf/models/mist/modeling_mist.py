"""The first stage of MIST: a multiple-instance self-training framework (Feng et al., CVPR 2021, arXiv 2104.01633).

Written from facts about the published network; its code has no licence and was not used.
"""

from dataclasses import dataclass
from itertools import pairwise
from typing import Any

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
from avad_hf.models.weak_labels import highest, mean_of, videos_of_classes

from .configuration_mist import MistConfig
from .losses_mist import part_scores, ranking_loss


@dataclass
class MistModelOutput(ModelOutput):
    """Hidden features of the clips.

    Args:
        clip_states (`torch.Tensor` of shape `(B, T, hidden_sizes[-1])`): Features of each clip.
        clip_mask (`torch.Tensor` of shape `(B, T)`): False for padding, if a mask was given.
        hidden_states (`tuple` of `torch.Tensor`):
            On request: the averaged features, of shape `(B, T, input_size)`, and the output of each hidden layer.
    """

    clip_states: Tensor | None = None
    clip_mask: Tensor | None = None
    hidden_states: tuple[Tensor, ...] | None = None


@dataclass
class MistOutput(ModelOutput):
    """Scores of the clips.

    Args:
        loss (`torch.Tensor` of shape `()`): With labels: ``ranking_loss + sparsity_weight * sparsity_loss``.
        ranking_loss (`torch.Tensor` of shape `()`): With labels: hinge loss of pairs of videos.
        sparsity_loss (`torch.Tensor` of shape `()`): With labels: mean score of the parts of anomalous videos.
        logits (`torch.Tensor` of shape `(B, T)`):
            Clip scores before the sigmoid; the lowest number of their type for padding, so that its score is 0.
        hidden_states (`tuple` of `torch.Tensor`): On request: as of [`MistModelOutput`].
    """

    loss: Tensor | None = None
    ranking_loss: Tensor | None = None
    sparsity_loss: Tensor | None = None
    logits: Tensor | None = None
    hidden_states: tuple[Tensor, ...] | None = None


class MistLayer(CheckpointedModule):
    """Linear layer, ReLU if it is the first one, and dropout."""

    def __init__(self, in_features: int, out_features: int, dropout: float, has_relu: bool):
        super().__init__()
        self.has_relu = has_relu
        self.linear = nn.Linear(in_features, out_features)
        self.dropout = nn.Dropout(dropout)

    def forward(self, x: Tensor) -> Tensor:
        return self.computed(self._forward, x)

    def _forward(self, x: Tensor) -> Tensor:
        x = self.linear(x)
        return self.dropout(F.relu(x) if self.has_relu else x)


class MistPreTrainedModel(CheckpointModel):
    """Initialisation and loading shared by body and detector."""

    config_class = MistConfig
    base_model_prefix = "mist"
    main_input_name = "visual_features"
    input_modalities = ("video", "audio")
    supports_gradient_checkpointing = True
    unread_inputs = ("clip_times", "has_audio")

    def _init_weights(self, module: nn.Module):
        if isinstance(module, nn.Linear):
            init.xavier_uniform_(module.weight)
            init.zeros_(module.bias)


class MistModel(MistPreTrainedModel):
    """Body of MIST's first stage: the hidden layers, the same for each clip."""

    def __init__(self, config: MistConfig):
        super().__init__(config)
        widths = [config.input_size, *config.hidden_sizes]
        self.layers = nn.ModuleList(
            MistLayer(before, after, config.dropout, has_relu=index == 0)
            for index, (before, after) in enumerate(pairwise(widths))
        )
        self.post_init()

    @network_forward
    def forward(
        self,
        visual_features: Tensor | None = None,
        audio_features: Tensor | None = None,
        clip_mask: Tensor | None = None,
        output_hidden_states: bool | None = None,
    ) -> MistModelOutput:
        """Compute the hidden features of each clip by itself.

        Args:
            visual_features (`torch.Tensor` of shape `(B, T, visual_size, h, w)`):
                Feature maps of the video encoder. Not read with ``inputs="audio"``.
            audio_features (`torch.Tensor` of shape `(B, T, S, audio_size)`):
                Embeddings of the sound; zeros where a video has none. Not read with ``inputs="visual"``.
            clip_mask (`torch.Tensor` of shape `(B, T)`): False for padding; all clips are real if not given.
            output_hidden_states: Return the averaged features and the output of each layer as well.

        Returns:
            [`MistModelOutput`].

        Raises:
            ValueError: For missing features, other shapes, or values that are not finite.
        """
        x, clip_mask = clip_vectors(self.config, visual_features, audio_features, clip_mask, self.dtype)
        states = [x]
        for layer in self.layers:
            states.append(layer(states[-1]))
        return MistModelOutput(
            clip_states=states[-1], clip_mask=clip_mask, hidden_states=tuple(states) if output_hidden_states else None
        )


class MistForAnomalyDetection(MistPreTrainedModel, DetectorModel):
    """MIST's first stage with its classifier and losses; the score of a clip is ``sigmoid(logit)``.

    ```text
    features, averaged (B, T, D) -> linear -> ReLU -> dropout -> linear -> dropout -> linear -> (B, T)
    ```

    Clips do not see each other.
    """

    def __init__(self, config: MistConfig):
        super().__init__(config)
        self.mist = MistModel(config)
        self.classifier = nn.Linear(config.hidden_sizes[-1], 1)
        self.post_init()

    @network_forward
    def forward(
        self,
        visual_features: Tensor | None = None,
        audio_features: Tensor | None = None,
        clip_mask: Tensor | None = None,
        labels: Tensor | None = None,
        output_hidden_states: bool | None = None,
    ) -> MistOutput:
        """Score clips and, with labels, compute the loss.

        Args:
            visual_features (`torch.Tensor` of shape `(B, T, visual_size, h, w)`): As for [`MistModel`].
            audio_features (`torch.Tensor` of shape `(B, T, S, audio_size)`): As for [`MistModel`].
            clip_mask (`torch.Tensor` of shape `(B, T)`): As for [`MistModel`].
            labels (`torch.Tensor` of shape `(B,)`, *optional*): 1 for anomalous videos, 0 for normal ones.
            output_hidden_states: As for [`MistModel`].

        Returns:
            [`MistOutput`].

        Raises:
            ValueError: For missing features, other shapes, values that are not finite, or other labels than 0 and 1.
        """
        body = self.mist(
            visual_features, audio_features, clip_mask, output_hidden_states=output_hidden_states, return_dict=True
        )
        logits = masked_logits(self.classifier(body.clip_states).squeeze(2), body.clip_mask)
        outputs = MistOutput(logits=logits, hidden_states=body.hidden_states)
        losses = {} if labels is None else self.losses(outputs, labels, body.clip_mask)
        return MistOutput(**losses, **outputs)

    def losses(self, outputs: Any, labels: Tensor, mask: Tensor | None = None) -> dict[str, Tensor]:
        """Losses of videos, also of videos that went through the network one by one.

        A video is judged by the mean score of its highest parts. In training a part begins anywhere in its stretch of
        the video, otherwise with it.

        Args:
            outputs: What `forward` gives, or what has ``logits`` of shape `(B, T)`.
            labels (`torch.Tensor` of shape `(B,)`): 1 for anomalous videos, 0 for normal ones.
            mask (`torch.Tensor` of shape `(B, T)`): False for padding; all clips are real if not given.

        Returns:
            ``loss``, ``ranking_loss`` and ``sparsity_loss``.

        Raises:
            ValueError: For other labels than 0 and 1.
        """
        refuse_other_labels(labels)
        config = self.config
        scores = outputs.logits.float().sigmoid()
        mask = torch.ones_like(scores, dtype=torch.bool) if mask is None else mask.bool()
        parts = part_scores(scores, mask, config.num_parts, config.part_length, at_random=self.training)
        normal, anomalous = videos_of_classes(labels, mask)
        chosen = highest(parts, torch.ones_like(parts, dtype=torch.bool), config.num_selected)
        losses = {
            "ranking_loss": ranking_loss(mean_of(parts, chosen), normal, anomalous, config.margin),
            "sparsity_loss": mean_of(parts.mean(dim=1), anomalous),
        }
        return {"loss": losses["ranking_loss"] + config.sparsity_weight * losses["sparsity_loss"], **losses}


__all__ = ["MistForAnomalyDetection", "MistModel", "MistPreTrainedModel"]
