"""MACIL-SD: contrast between the senses, and self-distillation (Yu et al., ACM MM 2022, arXiv 2207.05500).

Written anew after the published code (JustinYuu/MACIL_SD, MIT). Its networks hold layers that nothing uses; they are
left out here: 99,584 of the detector's 347,009 parameters, and as many of its twin's 330,497.
"""

import math
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

from .configuration_macilsd import MacilsdConfig
from .losses_macilsd import contrast_loss, video_loss


@dataclass
class MacilsdModelOutput(ModelOutput):
    """Sight and sound of the clips, each of which knows of the other.

    Args:
        visual_states (`torch.Tensor` of shape `(B, T, hidden_size)`): Sight, zero for padding.
        audio_states (`torch.Tensor` of shape `(B, T, hidden_size)`): Sound, zero for padding.
        visual_vectors (`torch.Tensor` of shape `(B, T, visual_size)`): The averaged feature maps.
        clip_mask (`torch.Tensor` of shape `(B, T)`): False for padding, if a mask was given.
        hidden_states (`tuple` of `torch.Tensor`):
            On request: sight and sound before they see each other, and after it, of shape `(B, T, hidden_size)`.
    """

    visual_states: Tensor | None = None
    audio_states: Tensor | None = None
    visual_vectors: Tensor | None = None
    clip_mask: Tensor | None = None
    hidden_states: tuple[Tensor, ...] | None = None


@dataclass
class MacilsdOutput(ModelOutput):
    """Scores of the clips; in training of `max_clips` of a longer video.

    Args:
        loss (`torch.Tensor` of shape `()`): With labels: the sum of the other three, the contrast with its weight.
        video_loss (`torch.Tensor` of shape `()`): With labels: cross-entropy of the videos.
        contrast_loss (`torch.Tensor` of shape `()`): With labels: the four contrastive losses between the senses.
        twin_loss (`torch.Tensor` of shape `()`): With labels: cross-entropy of the videos as the twin scores them.
        logits (`torch.Tensor` of shape `(B, T)`):
            Clip scores before the sigmoid, the sum of the two below; the lowest number of their type for padding.
        audio_logits (`torch.Tensor` of shape `(B, T)`): What sound adds to the score.
        visual_logits (`torch.Tensor` of shape `(B, T)`): What sight adds to the score.
        twin_logits (`torch.Tensor` of shape `(B, T)`): Scores of the twin, which sees alone.
        audio_states (`torch.Tensor` of shape `(B, T, hidden_size)`): As of [`MacilsdModelOutput`].
        visual_states (`torch.Tensor` of shape `(B, T, hidden_size)`): As of [`MacilsdModelOutput`].
        hidden_states (`tuple` of `torch.Tensor`): On request: as of [`MacilsdModelOutput`].
    """

    loss: Tensor | None = None
    video_loss: Tensor | None = None
    contrast_loss: Tensor | None = None
    twin_loss: Tensor | None = None
    logits: Tensor | None = None
    audio_logits: Tensor | None = None
    visual_logits: Tensor | None = None
    twin_logits: Tensor | None = None
    audio_states: Tensor | None = None
    visual_states: Tensor | None = None
    hidden_states: tuple[Tensor, ...] | None = None


class MacilsdLayer(CheckpointedModule):
    """Attention of clips to clips of the other sense, or of their own, and two linear layers; each added to its input.

    What attends is normalised; what is attended to is not, as published.
    """

    def __init__(self, config: MacilsdConfig):
        super().__init__()
        width = config.hidden_size
        self.num_heads = config.num_heads
        self.query_norm = nn.LayerNorm(width)
        self.query = nn.Linear(width, width)
        self.key = nn.Linear(width, width)
        self.value = nn.Linear(width, width)
        self.output = nn.Linear(width, width)
        self.norm = nn.LayerNorm(width)
        self.inner = nn.Linear(width, config.feedforward_size)
        self.outer = nn.Linear(config.feedforward_size, width)
        self.dropout = nn.Dropout(config.dropout)

    def forward(self, x: Tensor, other: Tensor, clip_mask: Tensor | None) -> Tensor:
        return self.computed(self._forward, x, other, clip_mask)

    def _forward(self, x: Tensor, other: Tensor, clip_mask: Tensor | None) -> Tensor:
        heads = (self.query(self.query_norm(x)), self.key(other), self.value(other))
        heads = [part.unflatten(2, (self.num_heads, -1)).transpose(1, 2) for part in heads]
        if clip_mask is not None:  # a video of padding alone attends to it: a softmax of nothing is NaN
            clip_mask = (clip_mask | ~clip_mask.any(dim=1, keepdim=True))[:, None, None]
        dropped = self.dropout.p if self.training else 0.0
        attended = F.scaled_dot_product_attention(*heads, attn_mask=clip_mask, dropout_p=dropped)
        x = x + self.dropout(self.output(attended.transpose(1, 2).flatten(2)))
        return x + self.dropout(self.outer(self.dropout(F.relu(self.inner(self.norm(x))))))


class MacilsdTwin(nn.Module):
    """A detector that sees alone. Its weights have the names of those that sight takes over from it.

    Attributes:
        videos_seen: How many videos training has seen.
        epochs_passed: After how many epochs weights were taken over.
    """

    def __init__(self, config: MacilsdConfig):
        super().__init__()
        self.visual_projection = nn.Linear(config.visual_size, config.hidden_size)
        self.layer = MacilsdLayer(config)
        self.classifier = nn.Linear(config.hidden_size, 1)
        self.register_buffer("videos_seen", torch.zeros((), dtype=torch.int64))
        self.register_buffer("epochs_passed", torch.zeros((), dtype=torch.int64))

    def forward(self, vectors: Tensor, clip_mask: Tensor | None) -> Tensor:
        """Logits of clips, `(B, T, visual_size)` -> `(B, T)`."""
        x = self.visual_projection(vectors)
        return self.classifier(self.layer(x, x, clip_mask)).squeeze(2)


class MacilsdPreTrainedModel(CheckpointModel):
    """Initialisation and loading shared by body and detector."""

    config_class = MacilsdConfig
    base_model_prefix = "macilsd"
    main_input_name = "visual_features"
    input_modalities = ("video", "audio")
    supports_gradient_checkpointing = True
    unread_inputs = ("clip_times", "has_audio")

    def _init_weights(self, module: nn.Module):
        if isinstance(module, nn.Linear):
            # torch's own, as published; there the four layers of an attention begin with the same weights.
            bound = 1 / math.sqrt(module.in_features)
            init.uniform_(module.weight, -bound, bound)
            init.uniform_(module.bias, -bound, bound)
        elif isinstance(module, MacilsdTwin):
            init.zeros_(module.videos_seen)
            init.zeros_(module.epochs_passed)
        else:
            super()._init_weights(module)


def sample_clips(x: Tensor, clip_mask: Tensor | None, most: int) -> tuple[Tensor, Tensor | None]:
    """Take so many clips of each longer video, evenly spread from its first to its last.

    Args:
        x (`torch.Tensor` of shape `(B, T, C)`): Features of clips.
        clip_mask (`torch.Tensor` of shape `(B, T)`): False for padding; all clips are real if not given.
        most: How many at most.

    Returns:
        Features and mask, of at most `most` clips; as they are, where T is not more.
    """
    if x.shape[1] <= most:
        return x, clip_mask
    if clip_mask is None:
        clip_mask = x.new_ones(x.shape[:2], dtype=torch.bool)
    lengths = clip_mask.sum(dim=1, keepdim=True)
    places = torch.arange(most, device=x.device).unsqueeze(0)
    numbers = torch.where(lengths > most, places * (lengths - 1) // max(1, most - 1), places)
    real_first = (~clip_mask).int().argsort(dim=1, stable=True)
    taken = real_first.gather(1, numbers)
    return x.gather(1, taken.unsqueeze(2).expand(-1, -1, x.shape[2])), places < lengths


class MacilsdModel(MacilsdPreTrainedModel):
    """Body of MACIL-SD: sight and sound of the clips of a video, by one layer that both share.

    ```text
    sight (B, T, visual_size) -> linear -+-> attends to sound -> sight (B, T, hidden_size)
                                         X   (one layer for both)
    sound (B, T, audio_size)  -> linear -+-> attends to sight -> sound (B, T, hidden_size)
    ```
    """

    def __init__(self, config: MacilsdConfig):
        super().__init__(config)
        self.visual_projection = nn.Linear(config.visual_size, config.hidden_size)
        self.audio_projection = nn.Linear(config.audio_size, config.hidden_size)
        self.layer = MacilsdLayer(config)
        self.post_init()

    @network_forward
    def forward(
        self,
        visual_features: Tensor | None = None,
        audio_features: Tensor | None = None,
        clip_mask: Tensor | None = None,
        output_hidden_states: bool | None = None,
    ) -> MacilsdModelOutput:
        """Let sight and sound of each video attend to each other; padding is not attended to.

        Args:
            visual_features (`torch.Tensor` of shape `(B, T, visual_size, h, w)`): Feature maps of the video encoder.
            audio_features (`torch.Tensor` of shape `(B, T, S, audio_size)`):
                Embeddings of the sound; zeros where a video has none.
            clip_mask (`torch.Tensor` of shape `(B, T)`): False for padding; all clips are real if not given.
            output_hidden_states: Return both senses before and after.

        Returns:
            [`MacilsdModelOutput`].

        Raises:
            ValueError: For missing features, other shapes, or values that are not finite.
        """
        config = self.config
        x, clip_mask = clip_vectors(config, visual_features, audio_features, clip_mask, self.dtype)
        if self.training:
            x, clip_mask = sample_clips(x, clip_mask, config.max_clips)
        seen, heard = x.split([config.visual_size, config.audio_size], dim=2)
        visual, audio = self.visual_projection(seen), self.audio_projection(heard)
        states = self.layer(visual, audio, clip_mask), self.layer(audio, visual, clip_mask)
        if clip_mask is not None:
            states = tuple(state.masked_fill(~clip_mask.unsqueeze(2), 0.0) for state in states)
        return MacilsdModelOutput(
            visual_states=states[0],
            audio_states=states[1],
            visual_vectors=seen,
            clip_mask=clip_mask,
            hidden_states=(visual, audio, *states) if output_hidden_states else None,
        )


class MacilsdForAnomalyDetection(MacilsdPreTrainedModel, DetectorModel):
    """MACIL-SD with its classifier, its twin and its losses; the score of a clip is ``sigmoid(logit)``.

    The twin sees alone and is trained beside it. After each epoch the weights of sight, of the shared layer and of the
    classifier move towards the twin's. What the published training has and this one has not: a learning rate of its
    own for the twin, a fifth of the other one, and five crops of each picture.
    """

    clip_outputs: ClassVar[tuple[str, ...]] = (
        "logits",
        "audio_logits",
        "visual_logits",
        "twin_logits",
        "audio_states",
        "visual_states",
    )

    def __init__(self, config: MacilsdConfig):
        super().__init__(config)
        self.macilsd = MacilsdModel(config)
        self.classifier = nn.Linear(config.hidden_size, 1)
        self.twin = MacilsdTwin(config)
        self.post_init()

    def prepare(self, data: Any) -> None:
        """Learn how many videos an epoch has: of each class as many as of the larger one."""
        anomalous = sum(bool(row["anomaly"]) for row in data.rows)
        self.config.videos_per_epoch = 2 * max(anomalous, len(data.rows) - anomalous)

    @network_forward
    def forward(
        self,
        visual_features: Tensor | None = None,
        audio_features: Tensor | None = None,
        clip_mask: Tensor | None = None,
        labels: Tensor | None = None,
        output_hidden_states: bool | None = None,
    ) -> MacilsdOutput:
        """Score clips and, with labels, compute the loss.

        In training mode with labels it counts the videos, and sight takes over weights of the twin where an epoch has
        passed.

        Args:
            visual_features (`torch.Tensor` of shape `(B, T, visual_size, h, w)`): As for [`MacilsdModel`].
            audio_features (`torch.Tensor` of shape `(B, T, S, audio_size)`): As for [`MacilsdModel`].
            clip_mask (`torch.Tensor` of shape `(B, T)`): As for [`MacilsdModel`].
            labels (`torch.Tensor` of shape `(B,)`, *optional*): 1 for anomalous videos, 0 for normal ones.
            output_hidden_states: As for [`MacilsdModel`].

        Returns:
            [`MacilsdOutput`]; in training mode of `max_clips` of a longer video.

        Raises:
            ValueError: For missing features, other shapes, values that are not finite, or other labels than 0 and 1.
        """
        if self.training and labels is not None:
            self._take_over()
            self._count(len(labels))
        body = self.macilsd(
            visual_features, audio_features, clip_mask, output_hidden_states=output_hidden_states, return_dict=True
        )
        visual_logits = self.classifier(body.visual_states).squeeze(2)
        audio_logits = self.classifier(body.audio_states).squeeze(2)
        logits = {
            "logits": audio_logits + visual_logits,
            "audio_logits": audio_logits,
            "visual_logits": visual_logits,
            "twin_logits": self.twin(body.visual_vectors, body.clip_mask),
        }
        outputs = MacilsdOutput(
            **{name: masked_logits(value, body.clip_mask) for name, value in logits.items()},
            audio_states=body.audio_states,
            visual_states=body.visual_states,
            hidden_states=body.hidden_states,
        )
        losses = {} if labels is None else self.losses(outputs, labels, body.clip_mask)
        return MacilsdOutput(**losses, **outputs)

    def losses(self, outputs: Any, labels: Tensor, mask: Tensor | None = None) -> dict[str, Tensor]:
        """Losses of videos, also of videos that went through the network one by one.

        In training mode the weight of the contrast grows with the epochs; else it is the largest, so that the epochs'
        losses of validation videos can be compared.

        Args:
            outputs: What `forward` gives, with all of `clip_outputs`.
            labels (`torch.Tensor` of shape `(B,)`): 1 for anomalous videos, 0 for normal ones.
            mask (`torch.Tensor` of shape `(B, T)`): False for padding; all clips are real if not given.

        Returns:
            ``loss``, ``video_loss``, ``contrast_loss`` and ``twin_loss``.

        Raises:
            TypeError: For logits alone.
            ValueError: For other labels than 0 and 1.
        """
        values = {name: getattr(outputs, name, None) for name in self.clip_outputs}
        if missing := [name for name, value in values.items() if value is None]:
            raise TypeError(f"MACIL-SD's losses need {', '.join(missing)}, as forward gives them.")
        refuse_other_labels(labels)
        values = {name: value.float() for name, value in values.items()}
        mask = torch.ones_like(values["logits"], dtype=torch.bool) if mask is None else mask.bool()
        twin_logits = values.pop("twin_logits")
        parts = {
            "video_loss": video_loss(values["logits"], labels, mask),
            "contrast_loss": contrast_loss(**values, clip_mask=mask, temperature=self.config.temperature),
            "twin_loss": video_loss(twin_logits, labels, mask),
        }
        total = parts["video_loss"] + self._contrast_weight() * parts["contrast_loss"] + parts["twin_loss"]
        return {"loss": total, **parts}

    def explain(self, outputs: Any) -> dict[str, Tensor]:
        """What sight and sound add to the logit of each clip."""
        return {name: getattr(outputs, name).detach().cpu() for name in ("visual_logits", "audio_logits")}

    def _contrast_weight(self) -> Tensor | float:
        config = self.config
        if not self.training:
            return config.contrast_weight
        epoch = self.twin.videos_seen // config.videos_per_epoch
        return (config.contrast_growth * epoch).clamp_max(config.contrast_weight)

    def _count(self, num_videos: int) -> None:
        """Count videos of a batch, in which every process of a run has about as many."""
        is_shared = torch.distributed.is_available() and torch.distributed.is_initialized()
        self.twin.videos_seen += num_videos * (torch.distributed.get_world_size() if is_shared else 1)

    @torch.no_grad()
    def _take_over(self) -> None:
        """Move sight towards the twin, if an epoch has passed since that was done."""
        config, twin = self.config, self.twin
        epoch = twin.videos_seen // config.videos_per_epoch
        # The epoch that has passed is the one before; the first is 0.
        progress = ((epoch - 1) / config.distillation_epochs).clamp(0, 1)
        share = config.distillation * (1 + (math.pi * progress).cos()) / 2 * (epoch > twin.epochs_passed)
        for own, other in (
            (self.macilsd.visual_projection, twin.visual_projection),
            (self.macilsd.layer, twin.layer),
            (self.classifier, twin.classifier),
        ):
            for parameter, target in zip(own.parameters(), other.parameters(), strict=True):
                parameter.lerp_(target, share.to(parameter.dtype))
        twin.epochs_passed.copy_(epoch)


__all__ = ["MacilsdForAnomalyDetection", "MacilsdModel", "MacilsdPreTrainedModel"]
