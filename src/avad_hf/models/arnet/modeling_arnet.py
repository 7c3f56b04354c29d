"""AR-Net: anomaly regression net (Wan et al., ICME 2020, arXiv 2104.07268)."""

from dataclasses import dataclass
from typing import Any

import torch.nn.functional as F
from torch import Tensor, nn
from transformers import initialization as init
from transformers.utils import ModelOutput

from avad_hf.models.checkpointing import CheckpointedModule
from avad_hf.models.checkpoints import CheckpointModel
from avad_hf.models.clip_vectors import clip_vectors, masked_logits, refuse_other_labels
from avad_hf.models.detector import DetectorModel
from avad_hf.models.forwarding import network_forward
from avad_hf.models.losses import center_loss, dmil_loss

from .configuration_arnet import ArnetConfig


@dataclass
class ArnetModelOutput(ModelOutput):
    """Hidden features of the clips.

    Args:
        clip_states (`torch.Tensor` of shape `(B, T, hidden_size)`): Features of each clip.
        clip_mask (`torch.Tensor` of shape `(B, T)`): False for padding, if a mask was given.
        hidden_states (`tuple` of `torch.Tensor`):
            On request: the averaged features, of shape `(B, T, input_size)`, and ``clip_states``.
    """

    clip_states: Tensor | None = None
    clip_mask: Tensor | None = None
    hidden_states: tuple[Tensor, ...] | None = None


@dataclass
class ArnetOutput(ModelOutput):
    """Scores of the clips.

    Args:
        loss (`torch.Tensor` of shape `()`): With labels: ``dmil_loss + center_weight * center_loss``.
        dmil_loss (`torch.Tensor` of shape `()`): With labels: cross-entropy of the videos' highest clips.
        center_loss (`torch.Tensor` of shape `()`): With labels: variance of the scores within normal videos.
        logits (`torch.Tensor` of shape `(B, T)`):
            Clip scores before the sigmoid; the lowest number of their type for padding, so that its score is 0.
        hidden_states (`tuple` of `torch.Tensor`): On request: as of [`ArnetModelOutput`].
    """

    loss: Tensor | None = None
    dmil_loss: Tensor | None = None
    center_loss: Tensor | None = None
    logits: Tensor | None = None
    hidden_states: tuple[Tensor, ...] | None = None


class ArnetLayer(CheckpointedModule):
    """Linear layer, ReLU and dropout."""

    def __init__(self, in_features: int, out_features: int, dropout: float):
        super().__init__()
        self.linear = nn.Linear(in_features, out_features)
        self.dropout = nn.Dropout(dropout)

    def forward(self, x: Tensor) -> Tensor:
        return self.computed(self._forward, x)

    def _forward(self, x: Tensor) -> Tensor:
        return self.dropout(F.relu(self.linear(x)))


class ArnetPreTrainedModel(CheckpointModel):
    """Initialisation and loading shared by body and detector."""

    config_class = ArnetConfig
    base_model_prefix = "arnet"
    main_input_name = "visual_features"
    input_modalities = ("video", "audio")
    supports_gradient_checkpointing = True
    unread_inputs = ("clip_times", "has_audio")

    def _init_weights(self, module: nn.Module):
        if isinstance(module, nn.Linear):
            init.xavier_uniform_(module.weight)
            init.zeros_(module.bias)


class ArnetModel(ArnetPreTrainedModel):
    """Body of AR-Net: one hidden layer, the same for each clip."""

    def __init__(self, config: ArnetConfig):
        super().__init__(config)
        self.layer = ArnetLayer(config.input_size, config.hidden_size or config.input_size, config.dropout)
        self.post_init()

    @network_forward
    def forward(
        self,
        visual_features: Tensor | None = None,
        audio_features: Tensor | None = None,
        clip_mask: Tensor | None = None,
        output_hidden_states: bool | None = None,
    ) -> ArnetModelOutput:
        """Compute the hidden features of each clip by itself.

        Args:
            visual_features (`torch.Tensor` of shape `(B, T, visual_size, h, w)`):
                Feature maps of the video encoder. Not read with ``inputs="audio"``.
            audio_features (`torch.Tensor` of shape `(B, T, S, audio_size)`):
                Embeddings of the sound; zeros where a video has none. Not read with ``inputs="visual"``.
            clip_mask (`torch.Tensor` of shape `(B, T)`): False for padding; all clips are real if not given.
            output_hidden_states: Return the averaged features as well.

        Returns:
            [`ArnetModelOutput`].

        Raises:
            ValueError: For missing features, other shapes, or values that are not finite.
        """
        x, clip_mask = clip_vectors(self.config, visual_features, audio_features, clip_mask, self.dtype)
        states = self.layer(x)
        return ArnetModelOutput(
            clip_states=states, clip_mask=clip_mask, hidden_states=(x, states) if output_hidden_states else None
        )


class ArnetForAnomalyDetection(ArnetPreTrainedModel, DetectorModel):
    """AR-Net with its classifier and losses; the score of a clip is ``sigmoid(logit)``.

    ```text
    features, averaged (B, T, D) -> linear -> ReLU -> dropout -> linear -> (B, T)
    ```

    Clips do not see each other.
    """

    def __init__(self, config: ArnetConfig):
        super().__init__(config)
        self.arnet = ArnetModel(config)
        self.classifier = nn.Linear(config.hidden_size or config.input_size, 1)
        self.post_init()

    @network_forward
    def forward(
        self,
        visual_features: Tensor | None = None,
        audio_features: Tensor | None = None,
        clip_mask: Tensor | None = None,
        labels: Tensor | None = None,
        output_hidden_states: bool | None = None,
    ) -> ArnetOutput:
        """Score clips and, with labels, compute the loss.

        Args:
            visual_features (`torch.Tensor` of shape `(B, T, visual_size, h, w)`): As for [`ArnetModel`].
            audio_features (`torch.Tensor` of shape `(B, T, S, audio_size)`): As for [`ArnetModel`].
            clip_mask (`torch.Tensor` of shape `(B, T)`): As for [`ArnetModel`].
            labels (`torch.Tensor` of shape `(B,)`, *optional*): 1 for anomalous videos, 0 for normal ones.
            output_hidden_states: As for [`ArnetModel`].

        Returns:
            [`ArnetOutput`].

        Raises:
            ValueError: For missing features, other shapes, values that are not finite, or other labels than 0 and 1.
        """
        body = self.arnet(
            visual_features, audio_features, clip_mask, output_hidden_states=output_hidden_states, return_dict=True
        )
        logits = masked_logits(self.classifier(body.clip_states).squeeze(2), body.clip_mask)
        outputs = ArnetOutput(logits=logits, hidden_states=body.hidden_states)
        losses = {} if labels is None else self.losses(outputs, labels, body.clip_mask)
        return ArnetOutput(**losses, **outputs)

    def losses(self, outputs: Any, labels: Tensor, mask: Tensor | None = None) -> dict[str, Tensor]:
        """Losses of videos, also of videos that went through the network one by one.

        As in the paper, a video counts the same whatever its length. The published code averages the cross-entropy
        over the chosen clips of all videos instead, and takes the variance over the padding too.

        Args:
            outputs: What `forward` gives, or what has ``logits`` of shape `(B, T)`.
            labels (`torch.Tensor` of shape `(B,)`): 1 for anomalous videos, 0 for normal ones.
            mask (`torch.Tensor` of shape `(B, T)`): False for padding; all clips are real if not given.

        Returns:
            ``loss``, ``dmil_loss`` and ``center_loss``.

        Raises:
            ValueError: For other labels than 0 and 1.
        """
        refuse_other_labels(labels)
        logits = outputs.logits.float()
        parts = {
            "dmil_loss": dmil_loss(logits, labels, mask, self.config.alpha, rounding="ceil"),
            "center_loss": center_loss(logits, labels, mask, unbiased=True),
        }
        return {"loss": parts["dmil_loss"] + self.config.center_weight * parts["center_loss"], **parts}


__all__ = ["ArnetForAnomalyDetection", "ArnetModel", "ArnetPreTrainedModel"]
