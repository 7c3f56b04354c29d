"""UR-DMU: dual memory units with uncertainty regulation (Zhou et al., AAAI 2023, arXiv 2302.05160)."""

from dataclasses import dataclass
from typing import Any, ClassVar

import torch
from torch import Tensor, nn
from transformers import initialization as init
from transformers.utils import ModelOutput

from avad_hf.models.clip_vectors import masked_logits, refuse_other_labels
from avad_hf.models.detector import DetectorModel
from avad_hf.models.forwarding import network_forward
from avad_hf.models.weak_labels import highest, mean_of, videos_of_classes

from .configuration_urdmu import UrdmuConfig
from .losses_urdmu import distance_loss, memory_loss, num_judging, triplet_loss, video_loss
from .trunk_urdmu import TrunkModel, TrunkPreTrainedModel


@dataclass
class UrdmuOutput(ModelOutput):
    """Scores of the clips; in training of the segments, of shape `(B, num_segments)`.

    Args:
        loss (`torch.Tensor` of shape `()`): With labels: the weighted sum of the other five.
        video_loss (`torch.Tensor` of shape `()`): With labels: cross-entropy of the videos.
        memory_loss (`torch.Tensor` of shape `()`): With labels: what each memory knows that it should not, and not.
        triplet_loss (`torch.Tensor` of shape `()`): With labels: distances of usual and abnormal clips.
        divergence_loss (`torch.Tensor` of shape `()`): With labels: Kullback-Leibler divergence of normal clips.
        distance_loss (`torch.Tensor` of shape `()`): With labels: norms of what the memories give.
        logits (`torch.Tensor` of shape `(B, T)`):
            Clip scores before the sigmoid; the lowest number of their type for padding, so that its score is 0.
        memory_attention (`torch.Tensor` of shape `(B, T, 2)`):
            How much the abnormal and the normal memory know each clip, within 0 and 1; 0 for padding.
        states (`torch.Tensor` of shape `(B, T, hidden_size)`): Features of the clips; 0 for padding.
        memory_norms (`torch.Tensor` of shape `(B, T, 2)`):
            Norms of what the abnormal and the normal memory give for the video, the same for each of its clips; 0 for
            padding.
        divergences (`torch.Tensor` of shape `(B, T)`):
            Divergence of what the normal memory gives for a clip from a standard normal distribution, averaged over
            its channels; 0 for padding.
        hidden_states (`tuple` of `torch.Tensor`): On request: as of `TrunkOutput`.
    """

    loss: Tensor | None = None
    video_loss: Tensor | None = None
    memory_loss: Tensor | None = None
    triplet_loss: Tensor | None = None
    divergence_loss: Tensor | None = None
    distance_loss: Tensor | None = None
    logits: Tensor | None = None
    memory_attention: Tensor | None = None
    states: Tensor | None = None
    memory_norms: Tensor | None = None
    divergences: Tensor | None = None
    hidden_states: tuple[Tensor, ...] | None = None


class UrdmuMemory(nn.Module):
    """Vectors that stand for what is normal, or abnormal."""

    def __init__(self, num_slots: int, width: int):
        super().__init__()
        self.slots = nn.Parameter(torch.empty(num_slots, width))

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor]:
        """How much the memory knows each clip, within 0 and 1, and what it gives for it.

        The first is the mean of the 1/16 of the vectors that are most like the clip; a clip may be like many at once.
        """
        num_slots, width = self.slots.shape
        attention = torch.sigmoid(x @ self.slots.T / width**0.5)
        return attention.topk(num_slots // 16 + 1, dim=2).values.mean(dim=2), attention @ self.slots


class UrdmuPreTrainedModel(TrunkPreTrainedModel):
    """Initialisation and loading shared by body and detector."""

    config_class = UrdmuConfig
    base_model_prefix = "urdmu"

    def _init_weights(self, module: nn.Module):
        super()._init_weights(module)
        if isinstance(module, UrdmuMemory):
            bound = module.slots.shape[1] ** -0.5
            init.uniform_(module.slots, -bound, bound)


class UrdmuModel(UrdmuPreTrainedModel, TrunkModel):
    """Body of UR-DMU: `TrunkModel`."""


class UrdmuForAnomalyDetection(UrdmuPreTrainedModel, DetectorModel):
    """UR-DMU with its memories, its classifier and losses; the score of a clip is ``sigmoid(logit)``.

    ```text
                 +-----------------------------------------------+
    UrdmuModel --+-> abnormal memory -> linear (mean) ----+      |
    (B, T, C)    |                                       (+) -> join -> classifier -> (B, T)
                 +-> normal memory ---> linear (mean) ----+
                                    |                     | in training, for normal videos
                                    +-> linear (variance) + x noise
    ```

    It needs the whole video: through the trunk a clip's score depends on all clips.
    """

    clip_outputs: ClassVar[tuple[str, ...]] = ("logits", "memory_attention", "states", "memory_norms", "divergences")

    def __init__(self, config: UrdmuConfig):
        super().__init__(config)
        width = config.hidden_size
        self.urdmu = UrdmuModel(config)
        self.abnormal_memory = UrdmuMemory(config.num_slots, width)
        self.normal_memory = UrdmuMemory(config.num_slots, width)
        self.mean = nn.Linear(width, width)
        self.log_variance = nn.Linear(width, width)
        self.classifier = nn.Sequential(
            nn.Linear(2 * width, config.classifier_size), nn.ReLU(), nn.Linear(config.classifier_size, 1)
        )
        self.post_init()

    @network_forward
    def forward(
        self,
        visual_features: Tensor | None = None,
        audio_features: Tensor | None = None,
        clip_mask: Tensor | None = None,
        labels: Tensor | None = None,
        output_hidden_states: bool | None = None,
    ) -> UrdmuOutput:
        """Score clips and, with labels, compute the loss.

        In training, what the normal memory gives for the videos that are labelled normal is drawn from its
        distribution; otherwise it is its mean.

        Args:
            visual_features (`torch.Tensor` of shape `(B, T, visual_size, h, w)`): As for `TrunkModel`.
            audio_features (`torch.Tensor` of shape `(B, T, S, audio_size)`): As for `TrunkModel`.
            clip_mask (`torch.Tensor` of shape `(B, T)`): As for `TrunkModel`.
            labels (`torch.Tensor` of shape `(B,)`, *optional*): 1 for anomalous videos, 0 for normal ones.
            output_hidden_states: As for `TrunkModel`.

        Returns:
            [`UrdmuOutput`]; in training mode with one score a segment, not a clip.

        Raises:
            ValueError: For missing features, other shapes, values that are not finite, or other labels than 0 and 1.
        """
        body = self.urdmu(
            visual_features, audio_features, clip_mask, output_hidden_states=output_hidden_states, return_dict=True
        )
        states, mask = body.clip_states, body.clip_mask
        real = states.new_ones(states.shape[:2], dtype=torch.bool) if mask is None else mask
        abnormal_attention, abnormal = self.abnormal_memory(states)
        normal_attention, normal = self.normal_memory(states)
        means, log_variance = self.mean(normal), self.log_variance(normal)
        abnormal, normal = self.mean(abnormal), means
        if self.training and labels is not None:
            noise = torch.randn_like(log_variance) * torch.exp(log_variance / 2)
            normal = normal + noise * (labels == 0)[:, None, None]

        attention = torch.stack([abnormal_attention, normal_attention], dim=2).float()
        norms = [
            _chosen_mean(given.float(), highest(attention[..., index], real, num_judging(real))).norm(dim=1)
            for index, given in enumerate((abnormal, normal))
        ]
        means, log_variance = means.float(), log_variance.float()
        divergences = (means.square() + log_variance.exp() - 1 - log_variance).mean(dim=2) / 2
        padding = ~real.unsqueeze(2)
        outputs = UrdmuOutput(
            logits=masked_logits(self.classifier(torch.cat([states, abnormal + normal], dim=2)).squeeze(2), mask),
            memory_attention=attention.masked_fill(padding, 0.0),
            states=states,
            memory_norms=torch.stack(norms, dim=1).unsqueeze(1).expand_as(attention).masked_fill(padding, 0.0),
            divergences=divergences.masked_fill(~real, 0.0),
            hidden_states=body.hidden_states,
        )
        losses = {} if labels is None else self.losses(outputs, labels, real)
        return UrdmuOutput(**losses, **outputs)

    def losses(self, outputs: Any, labels: Tensor, mask: Tensor | None = None) -> dict[str, Tensor]:
        """Losses of videos, also of videos that went through the network one by one.

        The published code sums the divergence over the segments of a video. Here it is the mean over its clips times
        `num_segments`, which is the same in training, and does not depend on the length of a video in validation.

        Args:
            outputs: What `forward` gives, or what has its `clip_outputs`.
            labels (`torch.Tensor` of shape `(B,)`): 1 for anomalous videos, 0 for normal ones.
            mask (`torch.Tensor` of shape `(B, T)`): False for padding; all clips are real if not given.

        Returns:
            ``loss``, and the five losses that it is the weighted sum of.

        Raises:
            TypeError: For logits alone.
            ValueError: For other labels than 0 and 1.
        """
        if getattr(outputs, "memory_attention", None) is None:
            raise TypeError(
                f"UR-DMU's losses need {', '.join(self.clip_outputs)} of the clips, as forward gives them."
            )
        refuse_other_labels(labels)
        config, logits, states = self.config, outputs.logits.float(), outputs.states.float()
        mask = torch.ones_like(logits, dtype=torch.bool) if mask is None else mask.bool()
        normal, anomalous = videos_of_classes(labels, mask)
        abnormal_attention, normal_attention = outputs.memory_attention.float().unbind(dim=2)
        compared = {
            "score": logits,
            "abnormal": abnormal_attention,
            "usual": normal_attention,
            "unusual": -normal_attention,
        }
        tops = {name: highest(values, mask, num_judging(mask)) for name, values in compared.items()}
        vectors = {name: _chosen_mean(states, tops[name]) for name in ("usual", "abnormal")}
        norms = outputs.memory_norms.float().amax(dim=1)  # the same for all clips of a video, 0 for padding
        losses = {
            "video_loss": video_loss(logits, labels, tops["score"]),
            "memory_loss": memory_loss(
                abnormal_attention, normal_attention, mask, tops, {"normal": normal, "anomalous": anomalous}
            ),
            "triplet_loss": triplet_loss(vectors, normal, anomalous),
            "divergence_loss": config.num_segments * mean_of(mean_of(outputs.divergences.float(), mask), normal),
            "distance_loss": distance_loss(norms, normal, anomalous, config.margin),
        }
        total = losses["video_loss"] + sum(
            getattr(config, f"{name}_weight") * losses[f"{name}_loss"]
            for name in ("memory", "triplet", "divergence", "distance")
        )
        return {"loss": total, **losses}

    def explain(self, outputs: Any) -> dict[str, Tensor]:
        """How much the abnormal and the normal memory know the clips, within 0 and 1."""
        abnormal, normal = outputs.memory_attention.detach().cpu().unbind(dim=2)
        return {"known_as_abnormal": abnormal, "known_as_normal": normal}


def _chosen_mean(x: Tensor, chosen: Tensor) -> Tensor:
    """Mean of the chosen clips of each video, of shape `(B, C)`."""
    return mean_of(x.transpose(1, 2), chosen.unsqueeze(1))


__all__ = ["UrdmuForAnomalyDetection", "UrdmuModel", "UrdmuPreTrainedModel"]
