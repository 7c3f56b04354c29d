"""BN-WVAD: batch norms for weakly supervised detection (Zhou et al., 2023, arXiv 2311.15367).

Written from facts about the published network; its code has no licence and was not used.
"""

from dataclasses import dataclass
from typing import Any, ClassVar

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from transformers.utils import ModelOutput

from avad_hf.models.clip_vectors import masked_logits, refuse_other_labels
from avad_hf.models.detector import DetectorModel
from avad_hf.models.forwarding import network_forward
from avad_hf.models.normalisation import masked_batch_norm
from avad_hf.models.urdmu.trunk_urdmu import TrunkModel, TrunkPreTrainedModel
from avad_hf.models.weak_labels import videos_of_classes

from .configuration_bnwvad import BnwvadConfig
from .losses_bnwvad import anomalous_clips, normal_loss, triplet_loss


@dataclass
class BnwvadModelOutput(ModelOutput):
    """Features of the clips, and how far they are from what is usual; in training of the segments.

    Args:
        clip_states (`torch.Tensor` of shape `(B, T, classifier_sizes[-1])`): Features of each clip.
        distances (`torch.Tensor` of shape `(B, T, num_norms)`):
            Mahalanobis distances of the clips from the mean of each batch norm; 0 for padding.
        clip_mask (`torch.Tensor` of shape `(B, T)`): False for padding, if a mask was given.
        hidden_states (`tuple` of `torch.Tensor`):
            On request: those of `TrunkOutput`, and the output of each hidden layer of the classifier.
    """

    clip_states: Tensor | None = None
    distances: Tensor | None = None
    clip_mask: Tensor | None = None
    hidden_states: tuple[Tensor, ...] | None = None


@dataclass
class BnwvadOutput(ModelOutput):
    """What scores of the clips are made of; in training of the segments, of shape `(B, num_segments)`.

    Args:
        loss (`torch.Tensor` of shape `()`): With labels: ``normal_weight * normal_loss + triplet_loss``.
        normal_loss (`torch.Tensor` of shape `()`): With labels: norm of the classifier's scores of normal videos.
        triplet_loss (`torch.Tensor` of shape `()`): With labels: weighted sum of the batch norms' triplet losses.
        logits (`torch.Tensor` of shape `(B, T)`):
            Output of the classifier before the sigmoid; the lowest number of its type for padding.
        distances (`torch.Tensor` of shape `(B, T, num_norms)`): As of [`BnwvadModelOutput`].
        hidden_states (`tuple` of `torch.Tensor`): On request: as of [`BnwvadModelOutput`].
    """

    loss: Tensor | None = None
    normal_loss: Tensor | None = None
    triplet_loss: Tensor | None = None
    logits: Tensor | None = None
    distances: Tensor | None = None
    hidden_states: tuple[Tensor, ...] | None = None


class BnwvadLayer(nn.Module):
    """Linear layer, batch norm and ReLU."""

    def __init__(self, in_features: int, out_features: int):
        super().__init__()
        self.linear = nn.Linear(in_features, out_features)
        self.norm = nn.BatchNorm1d(out_features)

    def forward(self, x: Tensor, clip_mask: Tensor | None) -> tuple[Tensor, Tensor]:
        """The features of the next layer, and how far the clips are from the mean of the batch norm, `(B, T)`.

        The distance is that of Mahalanobis, with the batch norm's variances, by its running statistics in training as
        well: so a clip's distance does not depend on the clips beside it, but for what the batch has added to them.
        """
        x = self.linear(x)
        normed = masked_batch_norm(self.norm, x.transpose(1, 2), clip_mask).transpose(1, 2)
        # Copies, for the backward pass: the next batch changes them.
        mean, variance = self.norm.running_mean.clone().float(), self.norm.running_var.clone().float()
        distances = torch.linalg.vector_norm((x.float() - mean) * torch.rsqrt(variance + self.norm.eps), dim=2)
        return F.relu(normed), distances


class BnwvadPreTrainedModel(TrunkPreTrainedModel):
    """Initialisation and loading shared by body and detector."""

    config_class = BnwvadConfig
    base_model_prefix = "bnwvad"


class BnwvadModel(BnwvadPreTrainedModel):
    """Body of BN-WVAD: UR-DMU's trunk and the hidden layers of the classifier, whose batch norms know what is usual.

    ```text
    TrunkModel -> linear -> batch norm -> ReLU -> linear -> batch norm -> ReLU -> (B, T, classifier_sizes[-1])
    (B, T, C)            |                               |
                         +--> distance from its mean     +--> distance from its mean
    ```
    """

    def __init__(self, config: BnwvadConfig):
        super().__init__(config)
        self.trunk = TrunkModel(config)
        widths = [config.hidden_size, *config.classifier_sizes]
        self.layers = nn.ModuleList(map(BnwvadLayer, widths[:-1], widths[1:]))
        self.post_init()

    @network_forward
    def forward(
        self,
        visual_features: Tensor | None = None,
        audio_features: Tensor | None = None,
        clip_mask: Tensor | None = None,
        output_hidden_states: bool | None = None,
    ) -> BnwvadModelOutput:
        """Compute the features of the clips, and how far they are from the means of the batch norms.

        Args:
            visual_features (`torch.Tensor` of shape `(B, T, visual_size, h, w)`): As for `TrunkModel`.
            audio_features (`torch.Tensor` of shape `(B, T, S, audio_size)`): As for `TrunkModel`.
            clip_mask (`torch.Tensor` of shape `(B, T)`): As for `TrunkModel`.
            output_hidden_states: Return the features after each layer as well.

        Returns:
            [`BnwvadModelOutput`].

        Raises:
            ValueError: For missing features, other shapes, or values that are not finite.
        """
        trunk = self.trunk(
            visual_features, audio_features, clip_mask, output_hidden_states=output_hidden_states, return_dict=True
        )
        clip_mask, states, distances = trunk.clip_mask, [trunk.clip_states], []
        for layer in self.layers:
            features, distance = layer(states[-1], clip_mask)
            states.append(features)
            distances.append(distance if clip_mask is None else distance.masked_fill(~clip_mask, 0.0))
        return BnwvadModelOutput(
            clip_states=states[-1],
            distances=torch.stack(distances, dim=2),
            clip_mask=clip_mask,
            hidden_states=(*trunk.hidden_states, *states[1:]) if output_hidden_states else None,
        )


class BnwvadForAnomalyDetection(BnwvadPreTrainedModel, DetectorModel):
    """BN-WVAD with its classifier and losses; the score of a clip is said by `scores`.

    It needs the whole video: through the trunk a clip's score depends on all clips.
    """

    clip_outputs: ClassVar[tuple[str, ...]] = ("logits", "distances")

    def __init__(self, config: BnwvadConfig):
        super().__init__(config)
        self.bnwvad = BnwvadModel(config)
        self.classifier = nn.Linear(config.classifier_sizes[-1], 1)
        self.post_init()

    @network_forward
    def forward(
        self,
        visual_features: Tensor | None = None,
        audio_features: Tensor | None = None,
        clip_mask: Tensor | None = None,
        labels: Tensor | None = None,
        output_hidden_states: bool | None = None,
    ) -> BnwvadOutput:
        """Score clips and, with labels, compute the loss.

        Args:
            visual_features (`torch.Tensor` of shape `(B, T, visual_size, h, w)`): As for [`BnwvadModel`].
            audio_features (`torch.Tensor` of shape `(B, T, S, audio_size)`): As for [`BnwvadModel`].
            clip_mask (`torch.Tensor` of shape `(B, T)`): As for [`BnwvadModel`].
            labels (`torch.Tensor` of shape `(B,)`, *optional*): 1 for anomalous videos, 0 for normal ones.
            output_hidden_states: As for [`BnwvadModel`].

        Returns:
            [`BnwvadOutput`]; in training mode of segments, not of clips.

        Raises:
            ValueError: For missing features, other shapes, values that are not finite, or other labels than 0 and 1.
        """
        body = self.bnwvad(
            visual_features, audio_features, clip_mask, output_hidden_states=output_hidden_states, return_dict=True
        )
        outputs = BnwvadOutput(
            logits=masked_logits(self.classifier(body.clip_states).squeeze(2), body.clip_mask),
            distances=body.distances,
            hidden_states=body.hidden_states,
        )
        losses = {} if labels is None else self.losses(outputs, labels, body.clip_mask)
        return BnwvadOutput(**losses, **outputs)

    def scores(self, outputs: Any) -> Tensor:
        """Scores of clips between 0 (normal) and 1 (anomalous).

        The published score is the sum of a clip's distances times ``sigmoid(logit)``, which has no upper bound, and is
        scaled by the scores of all videos. Here it is divided by `usual_distance`, which is fixed, and x becomes
        ``x / (1 + x)``: that keeps the order of clips, whatever other clips there are.

        Args:
            outputs: What `forward` gives.

        Returns:
            `torch.Tensor` of shape `(B, T)`, float64 on the CPU.
        """
        logits, distances = (value.detach().cpu().double() for value in (outputs.logits, outputs.distances))
        x = distances.sum(dim=2) / self.config.usual_distance * logits.sigmoid()
        return x / (1 + x)

    def losses(self, outputs: Any, labels: Tensor, mask: Tensor | None = None) -> dict[str, Tensor]:
        """Losses of videos, also of videos that went through the network one by one.

        Each batch norm chooses the clips of its triplets by its own distances. Which clips they are depends on all
        anomalous videos that are given together.

        Args:
            outputs: What `forward` gives: ``logits`` of shape `(B, T)`, ``distances`` of shape `(B, T, num_norms)`.
            labels (`torch.Tensor` of shape `(B,)`): 1 for anomalous videos, 0 for normal ones.
            mask (`torch.Tensor` of shape `(B, T)`): False for padding; all clips are real if not given.

        Returns:
            ``loss``, ``normal_loss`` and ``triplet_loss``.

        Raises:
            TypeError: For logits alone.
            ValueError: For other labels than 0 and 1.
        """
        if getattr(outputs, "distances", None) is None:
            raise TypeError("BN-WVAD's losses need logits and distances of the clips, as forward gives them.")
        refuse_other_labels(labels)
        config, scores = self.config, outputs.logits.float().sigmoid()
        mask = torch.ones_like(scores, dtype=torch.bool) if mask is None else mask.bool()
        normal, anomalous = videos_of_classes(labels, mask)
        triplets = 0
        for weight, distances in zip(config.triplet_weights, outputs.distances.float().unbind(dim=2), strict=True):
            chosen = anomalous_clips(distances, mask, anomalous, config.sample_ratio, config.batch_ratio)
            triplets = triplets + weight * triplet_loss(distances, chosen, mask, normal, config.margin)
        losses = {"normal_loss": normal_loss(scores, mask, normal), "triplet_loss": triplets}
        return {"loss": config.normal_weight * losses["normal_loss"] + losses["triplet_loss"], **losses}

    def explain(self, outputs: Any) -> dict[str, Tensor]:
        """How far the clips are from what is usual, in `usual_distance`."""
        return {"distance": outputs.distances.detach().cpu().sum(dim=2) / self.config.usual_distance}


__all__ = ["BnwvadForAnomalyDetection", "BnwvadModel", "BnwvadPreTrainedModel"]
