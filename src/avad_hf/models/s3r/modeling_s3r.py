"""S3R: self-supervised sparse representation (Wu et al., ECCV 2022).

Written anew after the published code (louisYen/S3R, MIT). Its network holds two convolutions that nothing uses; they
are left out here: 25.2 of 81.4 million parameters for features of 2,048 channels.
"""

import math
from dataclasses import dataclass
from itertools import pairwise
from typing import Any, ClassVar

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from transformers import initialization as init
from transformers.utils import ModelOutput

from avad_hf.models.aggregate import Aggregate, AggregatePreTrainedModel
from avad_hf.models.clip_vectors import clip_vectors, masked_logits, refuse_other_labels
from avad_hf.models.detector import DetectorModel
from avad_hf.models.forwarding import network_forward
from avad_hf.models.rtfm.losses_rtfm import rtfm_losses

from .configuration_s3r import S3rConfig
from .dictionary_s3r import MOST_VIDEOS, learn_dictionary, num_atoms_of


@dataclass
class S3rModelOutput(ModelOutput):
    """Features of the clips without what is normal in them, and what is normal.

    Args:
        clip_states (`torch.Tensor` of shape `(B, T, input_size)`):
            Features of each clip; in training of each segment, `(B, num_segments, input_size)`.
        normal_states (`torch.Tensor` of shape `(B, T, input_size)`): Those of its normal reconstruction.
        clip_mask (`torch.Tensor` of shape `(B, T)`):
            False for padding, if a mask was given; in training of shape `(B, num_segments)`.
        hidden_states (`tuple` of `torch.Tensor`):
            On request: the averaged features, their normal reconstruction, and what the networks over time make of
            both, of shape `(B, T, input_size)`.
    """

    clip_states: Tensor | None = None
    normal_states: Tensor | None = None
    clip_mask: Tensor | None = None
    hidden_states: tuple[Tensor, ...] | None = None


@dataclass
class S3rOutput(ModelOutput):
    """Scores of the clips; in training of the segments, of shape `(B, num_segments)`.

    Args:
        loss (`torch.Tensor` of shape `()`): With labels: the weighted sum of the other five.
        video_loss (`torch.Tensor` of shape `()`): With labels: cross-entropy of the videos.
        magnitude_loss (`torch.Tensor` of shape `()`): With labels: how far magnitudes are from where they should be.
        sparsity_loss (`torch.Tensor` of shape `()`): With labels: norm of the scores of anomalous videos.
        smoothness_loss (`torch.Tensor` of shape `()`): With labels: differences of their neighbouring scores.
        reconstruction_loss (`torch.Tensor` of shape `()`):
            With labels: cross-entropy of the reconstructions, all of which should be normal.
        logits (`torch.Tensor` of shape `(B, T)`):
            Clip scores before the sigmoid; the lowest number of their type for padding, so that its score is 0.
        magnitudes (`torch.Tensor` of shape `(B, T)`): L2 norms of the clips' features; 0 for padding.
        reconstruction_logits (`torch.Tensor` of shape `(B, T)`):
            Score of each video's normal reconstruction before the sigmoid, the same for all of its clips.
        hidden_states (`tuple` of `torch.Tensor`): On request: as of [`S3rModelOutput`].
    """

    loss: Tensor | None = None
    video_loss: Tensor | None = None
    magnitude_loss: Tensor | None = None
    sparsity_loss: Tensor | None = None
    smoothness_loss: Tensor | None = None
    reconstruction_loss: Tensor | None = None
    logits: Tensor | None = None
    magnitudes: Tensor | None = None
    reconstruction_logits: Tensor | None = None
    hidden_states: tuple[Tensor, ...] | None = None


class S3rDictionary(nn.Module):
    """en-Normal: clips looked up among the atoms of normal videos, by attention without a scale, as published."""

    def __init__(self, config: S3rConfig):
        super().__init__()
        width = config.input_size
        inner = max(1, width // 4)
        self.query = nn.Linear(width, inner)
        self.key = nn.Linear(width, inner)
        self.value = nn.Linear(width, width)
        self.register_buffer("atoms", torch.empty(config.num_atoms, width))

    def forward(self, x: Tensor) -> Tensor:
        """What is normal of clips, `(B, T, C)` -> `(B, T, C)`."""
        likeness = self.query(x) @ self.key(self.atoms).T
        return likeness.softmax(dim=-1) @ self.value(self.atoms)


class S3rGate(nn.Module):
    """de-Normal: how much of each channel is kept of a video, and how much of its normal reconstruction."""

    def __init__(self, width: int):
        super().__init__()
        inner = max(1, width // 16)
        self.inner = nn.Linear(width, inner)
        self.outer = nn.Linear(inner, width)

    def forward(self, x: Tensor, normal: Tensor, clip_mask: Tensor | None) -> tuple[Tensor, Tensor]:
        """Both of shape `(B, T, C)`, weighted."""
        residual = mean_clip(x, clip_mask) - mean_clip(normal, clip_mask)
        kept = self.outer(F.relu(self.inner(residual))).sigmoid().unsqueeze(1)
        return x * kept, normal * (1 - kept)


def mean_clip(x: Tensor, clip_mask: Tensor | None) -> Tensor:
    """Mean over the clips of each video, `(B, T, C)` -> `(B, C)`; padding must be zero, and 0 comes of nothing."""
    if clip_mask is None:
        return x.mean(dim=1)
    # Divided first: in half precision the sum has no room.
    return (x / clip_mask.sum(dim=1).clamp_min(1).to(x.dtype)[:, None, None]).sum(dim=1)


def classifier(width: int, dropout: float) -> nn.Sequential:
    """Three layers to one logit."""
    sizes = [width, max(1, width // 4), max(1, width // 16)]
    layers: list[nn.Module] = []
    for before, after in pairwise(sizes):
        layers += [nn.Linear(before, after), nn.ReLU(), nn.Dropout(dropout)]
    return nn.Sequential(*layers, nn.Linear(sizes[-1], 1))


def resampled(x: Tensor, clip_mask: Tensor, num_segments: int) -> Tensor:
    """Resample videos to as many segments each, linearly between the two nearest clips, as pictures are resized.

    Args:
        x (`torch.Tensor` of shape `(B, T, C)`): Features of clips.
        clip_mask (`torch.Tensor` of shape `(B, T)`): False for padding.
        num_segments: How many.

    Returns:
        `torch.Tensor` of shape `(B, num_segments, C)`; the first clip again for a video without clips.
    """
    lengths = clip_mask.sum(dim=1, keepdim=True)
    centres = (torch.arange(num_segments, device=x.device) + 0.5) * lengths / num_segments - 0.5
    centres = centres.clamp_min(0).minimum((lengths - 1).clamp_min(0))
    before = centres.floor().long()
    after = (before + 1).minimum((lengths - 1).clamp_min(0))
    real_first = (~clip_mask).int().argsort(dim=1, stable=True)

    def at(numbers: Tensor) -> Tensor:
        return x.gather(1, real_first.gather(1, numbers).unsqueeze(2).expand(-1, -1, x.shape[2]))

    return torch.lerp(at(before), at(after), (centres - before).unsqueeze(2).to(x.dtype))


class S3rPreTrainedModel(AggregatePreTrainedModel):
    """Initialisation and loading shared by body and detector."""

    config_class = S3rConfig
    base_model_prefix = "s3r"

    def _init_weights(self, module: nn.Module):
        super()._init_weights(module)
        if isinstance(module, S3rDictionary):
            init.normal_(module.atoms)  # until one is learnt


class S3rModel(S3rPreTrainedModel):
    """Body of S3R: each clip's features, without what is normal in them.

    ```text
    features, averaged --+---------------------> aggregate -> dropout --+-----> x g ------> clip_states
    (B, T, D)            |                                              |-> g
                         +-> dictionary -------> aggregate -> dropout --+-----> x (1 - g) -> normal_states
                             (what is normal)
    ```

    In training each video is resampled to `num_segments` first, as published; otherwise it keeps its length.
    """

    def __init__(self, config: S3rConfig):
        super().__init__(config)
        self.dictionary = S3rDictionary(config)
        self.aggregate = Aggregate(config.input_size, "group")
        self.normal_aggregate = Aggregate(config.input_size, "group")
        self.gate = S3rGate(config.input_size)
        self.dropout = nn.Dropout(config.dropout)
        self.post_init()

    @network_forward
    def forward(
        self,
        visual_features: Tensor | None = None,
        audio_features: Tensor | None = None,
        clip_mask: Tensor | None = None,
        output_hidden_states: bool | None = None,
    ) -> S3rModelOutput:
        """Let the clips of each video see each other, and the dictionary.

        Padding never changes what is real: it is zero before every convolution, as is what lies beyond a video's ends;
        norms, attention and means leave it out.

        Args:
            visual_features (`torch.Tensor` of shape `(B, T, visual_size, h, w)`):
                Feature maps of the video encoder. Not read with ``inputs="audio"``.
            audio_features (`torch.Tensor` of shape `(B, T, S, audio_size)`):
                Embeddings of the sound; zeros where a video has none. Not read with ``inputs="visual"``.
            clip_mask (`torch.Tensor` of shape `(B, T)`): False for padding; all clips are real if not given.
            output_hidden_states: Return what is made of the features on the way.

        Returns:
            [`S3rModelOutput`].

        Raises:
            ValueError: For missing features, other shapes, or values that are not finite.
        """
        x, clip_mask = clip_vectors(self.config, visual_features, audio_features, clip_mask, self.dtype)
        if self.training:
            real = x.new_ones(x.shape[:2], dtype=torch.bool) if clip_mask is None else clip_mask
            segments = self.config.num_segments
            x = resampled(x, real, segments)
            # Segments of a video are all real, unless the whole video is padding.
            clip_mask = None if clip_mask is None else clip_mask.any(dim=1, keepdim=True).expand(-1, segments)
        normal = self.dictionary(x)
        if clip_mask is not None:
            normal = normal.masked_fill(~clip_mask.unsqueeze(2), 0.0)
        of_clips = self.aggregate(x.transpose(1, 2), clip_mask).transpose(1, 2)
        of_normal = self.normal_aggregate(normal.transpose(1, 2), clip_mask).transpose(1, 2)
        clip_states, normal_states = self.gate(self.dropout(of_clips), self.dropout(of_normal), clip_mask)
        return S3rModelOutput(
            clip_states=clip_states,
            normal_states=normal_states,
            clip_mask=clip_mask,
            hidden_states=(x, normal, of_clips, of_normal) if output_hidden_states else None,
        )


class S3rForAnomalyDetection(S3rPreTrainedModel, DetectorModel):
    """S3R with its classifiers and losses; the score of a clip is ``sigmoid(logit)``.

    It needs the whole video: a clip's score depends on its neighbours and, through attention and means, on all clips.
    Its dictionary is learnt from the training videos by `prepare`, and is part of the checkpoint. As published it sees
    ten crops of each picture and averages their scores; here it sees whole pictures.
    """

    clip_outputs: ClassVar[tuple[str, ...]] = ("logits", "magnitudes", "reconstruction_logits")

    def __init__(self, config: S3rConfig):
        super().__init__(config)
        self.s3r = S3rModel(config)
        self.classifier = classifier(config.input_size, config.dropout)
        self.normal_classifier = classifier(config.input_size, config.dropout)
        self.post_init()

    @torch.no_grad()
    def prepare(self, data: Any) -> None:
        """Learn the dictionary from the mean features of normal training videos; of very many some are taken.

        Raises:
            ValueError: If no video is normal.
        """
        normal = [index for index, row in enumerate(data.rows) if row["anomaly"] == 0]
        if not normal:
            raise ValueError("S3R learns a dictionary of normal videos, but no training video is normal. Add some.")
        normal = normal[:: math.ceil(len(normal) / MOST_VIDEOS)]
        means = []
        for index in normal:
            item = data[index]
            features = [
                item[name].unsqueeze(0) if name in item else None for name in ("visual_features", "audio_features")
            ]
            means.append(clip_vectors(self.config, *features, clip_mask=None)[0].mean(dim=(0, 1)))
        atoms = learn_dictionary(torch.stack(means), num_atoms_of(len(normal), self.config.atom_share))
        dictionary = self.s3r.dictionary
        dictionary.atoms = atoms.to(dictionary.atoms)
        self.config.num_atoms = len(atoms)

    @network_forward
    def forward(
        self,
        visual_features: Tensor | None = None,
        audio_features: Tensor | None = None,
        clip_mask: Tensor | None = None,
        labels: Tensor | None = None,
        output_hidden_states: bool | None = None,
    ) -> S3rOutput:
        """Score clips and, with labels, compute the loss.

        Args:
            visual_features (`torch.Tensor` of shape `(B, T, visual_size, h, w)`): As for [`S3rModel`].
            audio_features (`torch.Tensor` of shape `(B, T, S, audio_size)`): As for [`S3rModel`].
            clip_mask (`torch.Tensor` of shape `(B, T)`): As for [`S3rModel`].
            labels (`torch.Tensor` of shape `(B,)`, *optional*): 1 for anomalous videos, 0 for normal ones.
            output_hidden_states: As for [`S3rModel`].

        Returns:
            [`S3rOutput`]; in training mode with one score a segment, not a clip.

        Raises:
            ValueError: For missing features, other shapes, values that are not finite, or other labels than 0 and 1.
        """
        body = self.s3r(
            visual_features, audio_features, clip_mask, output_hidden_states=output_hidden_states, return_dict=True
        )
        logits = masked_logits(self.classifier(body.clip_states).squeeze(2), body.clip_mask)
        of_normal = self.normal_classifier(mean_clip(body.normal_states, body.clip_mask)).expand_as(logits)
        outputs = S3rOutput(
            logits=logits,
            magnitudes=torch.linalg.vector_norm(body.clip_states.float(), dim=2),
            reconstruction_logits=of_normal,
            hidden_states=body.hidden_states,
        )
        losses = {} if labels is None else self.losses(outputs, labels, body.clip_mask)
        return S3rOutput(**losses, **outputs)

    def losses(self, outputs: Any, labels: Tensor, mask: Tensor | None = None) -> dict[str, Tensor]:
        """Losses of videos, also of videos that went through the network one by one.

        They are RTFM's, as `RtfmForAnomalyDetection.losses` has them, and that of the reconstructions.

        Args:
            outputs: What `forward` gives, with all of `clip_outputs`.
            labels (`torch.Tensor` of shape `(B,)`): 1 for anomalous videos, 0 for normal ones.
            mask (`torch.Tensor` of shape `(B, T)`): False for padding; all clips are real if not given.

        Returns:
            ``loss``, ``video_loss``, ``magnitude_loss``, ``sparsity_loss``, ``smoothness_loss`` and
            ``reconstruction_loss``.

        Raises:
            TypeError: For logits alone.
            ValueError: For other labels than 0 and 1.
        """
        if missing := [name for name in self.clip_outputs if getattr(outputs, name, None) is None]:
            raise TypeError(f"S3R's losses need {', '.join(missing)} of the clips, as forward gives them.")
        refuse_other_labels(labels)
        parts = rtfm_losses(self.config, outputs.logits, outputs.magnitudes, labels, mask, self.training)
        of_normal = outputs.reconstruction_logits.float()
        real = torch.ones_like(of_normal, dtype=torch.bool) if mask is None else mask.bool()
        has_clips = real.any(dim=1)
        # All clips of a video have the same; validation pads with zeros.
        of_videos = (of_normal.masked_fill(~real, 0.0).sum(dim=1) / real.sum(dim=1).clamp_min(1))[has_clips]
        parts["reconstruction_loss"] = F.softplus(of_videos).sum() / max(1, len(of_videos))
        return parts | {"loss": parts["loss"] + parts["reconstruction_loss"]}

    def explain(self, outputs: Any) -> dict[str, Tensor]:
        """Magnitudes of the clips' features, which anomalous clips have large ones of."""
        return {"feature_magnitude": outputs.magnitudes.detach().cpu()}


__all__ = ["S3rForAnomalyDetection", "S3rModel", "S3rPreTrainedModel"]
