"""What all detectors of normality are: two senses, each with its own measure of distance, joined by how rare they are.

```text
feature map -> pooled -> relative to the camera -> distance -> tail -> surprise of sight -+
                                                                                          +-> joined -> score
sound       -> pooled -> relative to the camera -> distance -> tail -> surprise of sound -+
```

A folder of an architecture gives the distance: a [`Sense`] of its own.
"""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, ClassVar

import torch
from torch import Tensor, nn
from transformers import initialization as init
from transformers.utils import ModelOutput

from avad_hf.models.checkpoints import CheckpointModel
from avad_hf.models.detector import DetectorModel
from avad_hf.models.forwarding import network_forward
from avad_hf.models.tracing import Network

from .configuration_normality import NormalityConfig
from .kept import KeptClips, videos_of
from .pooling import pooled_picture, pooled_sound
from .senses import Relative, Sense, fixed
from .tails import Tail, joined

# What users call the senses.
SENSE_NAMES = {"visual_features": "sight", "audio_features": "sound"}
# Features of places are counted in units of this part of 1, so that sums are exact.
PLACE_UNIT = 1 << 16
# Likewise probabilities of classes.
CLASS_UNIT = 1 << 30
# Least surprise: below, the logarithm of it says nothing. It gives a score of 0.0001.
LEAST_SURPRISE = 1e-4


@dataclass
class NormalityModelOutput(ModelOutput):
    """How far clips are from normal ones.

    Args:
        distances (`torch.Tensor` of shape `(B, T, senses)`): By sight, by sound, in the order of the config's senses.
        hidden_states (`tuple` of `torch.Tensor`): On request: of each sense what clips are compared by, and the same
            relative to its camera, of shape `(B, T, width)` each.
    """

    distances: Tensor | None = None
    hidden_states: tuple[Tensor, ...] | None = None


@dataclass
class NormalityOutput(ModelOutput):
    """Scores of clips.

    Args:
        logits (`torch.Tensor` of shape `(B, T)`):
            Logarithm of the surprise ``s``, so that the score is ``s / (1 + s)``: 0.5 for one of 10 normal clips, 0.75
            for one of 1,000. The lowest number of their type for padding.
        surprises (`torch.Tensor` of shape `(B, T, senses)`):
            For each sense, ``-log10`` of the share of normal clips that are as far, or farther. 0 for sound that is
            not there.
        distances (`torch.Tensor` of shape `(B, T, senses)`): As of [`NormalityModelOutput`].
        hidden_states (`tuple` of `torch.Tensor`): On request: as of [`NormalityModelOutput`].
    """

    logits: Tensor | None = None
    surprises: Tensor | None = None
    distances: Tensor | None = None
    hidden_states: tuple[Tensor, ...] | None = None


class NormalityPreTrainedModel(CheckpointModel):
    """Initialisation and loading shared by body and detector."""

    config_class = NormalityConfig
    main_input_name = "visual_features"
    input_modalities = ("video", "audio")
    unread_inputs = ("clip_times",)

    def _init_weights(self, module: nn.Module):
        if isinstance(module, Relative):
            init.zeros_(module.centres)
            init.ones_(module.scale)
        elif isinstance(module, (Sense, Tail)):
            module.reset()
        elif isinstance(module, nn.ParameterDict):  # the kept vectors
            for parameter in module.values():
                init.ones_(parameter)
        elif isinstance(module, NormalityForAnomalyDetection):
            for name, buffer in module.named_buffers(recurse=False):
                init.zeros_(buffer)
                if name == "kept_table":
                    init.copy_(buffer, torch.tensor(list(b"[" + b" " * (len(buffer) - 2) + b"]"), dtype=torch.uint8))


class NormalityModel(NormalityPreTrainedModel):
    """Distances of clips from normal ones, of each sense apart.

    Attributes:
        sense_class: The architecture's [`Sense`].
    """

    sense_class: ClassVar[type[Sense]]

    def __init__(self, config: NormalityConfig):
        super().__init__(config)
        num_scenes = len(config.scene_rows or {})
        self.relative = nn.ModuleDict({name: Relative(num_scenes, config.widths[name]) for name in config.senses})
        self.senses = nn.ModuleDict({name: self.sense_class(config, name) for name in config.senses})
        self.post_init()

    def _check(self, features: Mapping[str, Tensor | None], clip_mask: Tensor | None) -> None:
        shape, config = None, self.config
        for name in config.senses:
            value = features[name]
            is_map = name == "visual_features"
            width = config.visual_size if is_map else config.audio_size
            letters = f"(B, T, {width}, h, w)" if is_map else f"(B, T, S, {width})"
            if value is None or value.dim() != (5 if is_map else 4) or value.shape[2 if is_map else 3] != width:
                given = None if value is None else tuple(value.shape)
                raise ValueError(
                    f"{type(self).__name__} needs {name} of shape {letters}, got {given}. Give features of the "
                    "encoders that it was fitted with."
                )
            if shape is not None and value.shape[:2] != shape:
                raise ValueError(
                    f"visual_features and audio_features must be of as many videos and clips, got {tuple(shape)} and "
                    f"{tuple(value.shape[:2])}."
                )
            shape = value.shape[:2]
        if clip_mask is not None and clip_mask.shape != shape:
            raise ValueError(f"clip_mask must be of shape {tuple(shape)}, got {tuple(clip_mask.shape)}.")

    def pooled(self, features: Mapping[str, Tensor | None]) -> dict[str, Tensor]:
        """What clips are compared by, of shape `(B, T, width)`, float32, by the names of the features."""
        made = {}
        for name in self.config.senses:
            value = self.config.scaled(name, features[name].float())
            is_map = name == "visual_features"
            made[name] = pooled_picture(value, self.config.visual_parts) if is_map else pooled_sound(value)
        return made

    def scenes_of(self, scene: str | Sequence[str | None] | None, batch: int) -> list[int] | None:
        """Rows of the cameras of videos; that of the common mean for a camera that is not known."""
        rows = self.config.scene_rows
        if not rows or scene is None:
            return None
        names = [scene] * batch if isinstance(scene, str) else scene
        if len(names) != batch:
            raise ValueError(f"scene needs one name a video, {batch}, got {len(names)}.")
        return [rows.get(name, len(rows)) for name in names]

    @network_forward
    def forward(
        self,
        visual_features: Tensor | None = None,
        audio_features: Tensor | None = None,
        clip_mask: Tensor | None = None,
        has_audio: Tensor | None = None,
        scene: str | Sequence[str | None] | None = None,
        output_hidden_states: bool | None = None,
    ) -> NormalityModelOutput:
        """Measure how far clips are from normal ones.

        Args:
            visual_features (`torch.Tensor` of shape `(B, T, visual_size, h, w)`): Feature maps of the video encoder.
                Not read with ``inputs="audio"``.
            audio_features (`torch.Tensor` of shape `(B, T, S, audio_size)`): Embeddings of the sound. Not read with
                ``inputs="visual"``.
            clip_mask (`torch.Tensor` of shape `(B, T)`): False for padding; all clips are real if not given.
            has_audio (`torch.Tensor` of shape `(B,)`): Which videos have sound. Not read here.
            scene: Name of the camera, or one a video: features are relative to its mean. A camera that it was not
                fitted to has the common mean.
            output_hidden_states: Return what clips are compared by.

        Returns:
            [`NormalityModelOutput`].

        Raises:
            ValueError: For missing features, other shapes, or values that are not finite.
        """
        features = {"visual_features": visual_features, "audio_features": audio_features}
        self._check(features, clip_mask)
        pooled = self.pooled(features)
        scenes = self.scenes_of(scene, next(iter(pooled.values())).shape[0])
        distances, states = [], []
        for name, vectors in pooled.items():
            if clip_mask is not None:
                vectors = vectors.masked_fill(~clip_mask.bool().unsqueeze(2), 0.0)
            # Tracing for export has no values to look at.
            if not torch.compiler.is_compiling() and not torch.isfinite(vectors).all():
                raise ValueError(
                    f"{name} holds NaN or infinite values. Extract the features of that video again, or mask its "
                    "clips."
                )
            relative = self.relative[name](vectors, scenes)
            distances.append(self.senses[name](relative))
            states += [vectors, relative]
        return NormalityModelOutput(
            distances=torch.stack(distances, dim=2), hidden_states=tuple(states) if output_hidden_states else None
        )


class NormalityForAnomalyDetection(NormalityPreTrainedModel, DetectorModel):
    """A detector that knows normal footage alone. `avad_hf.fit` makes one.

    Its score says how rare a clip is among normal ones, ``s / (1 + s)`` where one of ``10**s`` is as rare. A video
    without sound is judged by sight alone.

    Attributes:
        body_class: The architecture's [`NormalityModel`].
    """

    body_class: ClassVar[type[NormalityModel]]
    clip_outputs: ClassVar[tuple[str, ...]] = ("logits", "surprises")

    def __init__(self, config: NormalityConfig):
        super().__init__(config)
        setattr(self, self.base_model_prefix, self.body_class(config))
        self.tails = nn.ModuleDict({name: Tail() for name in config.senses})
        count, num_scenes = config.num_kept, len(config.scene_rows or {})
        # Normal clips, which tell what is nearest, and from which it is fitted anew with others.
        self.kept_vectors = nn.ParameterDict({name: fixed(count, config.widths[name]) for name in config.senses})
        self.register_buffer("kept_video", torch.zeros(count, dtype=torch.int32))
        self.register_buffer("kept_times", torch.zeros(count, 2, dtype=torch.int64))
        self.register_buffer("kept_flags", torch.zeros(count, dtype=torch.uint8))
        self.register_buffer("kept_table", torch.zeros(config.table_size, dtype=torch.uint8))
        # How likely each class of the encoders is: sums over all footage, in whole numbers.
        for sense, classes in (config.num_classes or {}).items():
            self.register_buffer(f"{sense}_sums", torch.zeros(classes, dtype=torch.int64))
            self.register_buffer(f"{sense}_count", torch.zeros((), dtype=torch.int64))
        # For each place of the map in all footage, by camera: sums of features and of their squares, in whole numbers,
        # which add up to the same in any order.
        if "visual_features" in config.senses:
            places = (num_scenes + 1, config.visual_size, *config.feature_grid)
            self.register_buffer("place_sums", torch.zeros(places, dtype=torch.int64))
            self.register_buffer("place_squares", torch.zeros(places, dtype=torch.int64))
            self.register_buffer("place_counts", torch.zeros(num_scenes + 1, dtype=torch.int64))
        self.post_init()

    @property
    def body(self) -> NormalityModel:
        """What measures distances."""
        return getattr(self, self.base_model_prefix)

    @network_forward
    def forward(
        self,
        visual_features: Tensor | None = None,
        audio_features: Tensor | None = None,
        clip_mask: Tensor | None = None,
        has_audio: Tensor | None = None,
        scene: str | Sequence[str | None] | None = None,
        output_hidden_states: bool | None = None,
    ) -> NormalityOutput:
        """Score clips.

        Args:
            visual_features (`torch.Tensor` of shape `(B, T, visual_size, h, w)`): As for [`NormalityModel`].
            audio_features (`torch.Tensor` of shape `(B, T, S, audio_size)`): As for [`NormalityModel`].
            clip_mask (`torch.Tensor` of shape `(B, T)`): As for [`NormalityModel`].
            has_audio (`torch.Tensor` of shape `(B,)`): Which videos have sound; all if not given. Of those that have
                none, sound says nothing.
            scene: As for [`NormalityModel`].
            output_hidden_states: As for [`NormalityModel`].

        Returns:
            [`NormalityOutput`].

        Raises:
            ValueError: For missing features, other shapes, or values that are not finite.
        """
        body = self.body(
            visual_features,
            audio_features,
            clip_mask,
            scene=scene,
            output_hidden_states=output_hidden_states,
            return_dict=True,
        )
        senses = self.config.senses
        found = {name: self.tails[name](body.distances[..., index]) for index, name in enumerate(senses)}
        if has_audio is not None and "audio_features" in senses:
            found["audio_features"] = found["audio_features"] * has_audio.reshape(-1, 1).bool()
        surprises = torch.stack(list(found.values()), dim=-1)
        whole = surprises[..., 0]
        if len(senses) == 2:
            whole = joined(surprises)
            if has_audio is not None:
                whole = torch.where(has_audio.reshape(-1, 1).bool(), whole, surprises[..., 0])
        logits = whole.clamp_min(LEAST_SURPRISE).log()
        if clip_mask is not None:
            logits = logits.masked_fill(~clip_mask.bool(), torch.finfo(logits.dtype).min)
        return NormalityOutput(
            logits=logits, surprises=surprises, distances=body.distances, hidden_states=body.hidden_states
        )

    def explain(self, outputs: Any) -> dict[str, Tensor]:
        """Shares of sight and of sound in the surprise, which sum to 1, of shape `(B, T)` each."""
        surprises = outputs.surprises.detach().cpu().double().clamp_min(LEAST_SURPRISE)
        shares = surprises / surprises.sum(-1, keepdim=True)
        found = {SENSE_NAMES[name]: shares[..., index] for index, name in enumerate(self.config.senses)}
        return dict.fromkeys(SENSE_NAMES.values(), torch.zeros_like(shares[..., 0])) | found

    # What was normal

    def kept_clips(self) -> KeptClips:
        """The normal clips that it keeps.

        Raises:
            ValueError: If the checkpoint's table of videos is damaged.
        """
        videos, video = videos_of(self.kept_table), self.kept_video.cpu().long()
        if len(video) and (int(video.min()) < 0 or int(video.max()) >= len(videos)):
            raise ValueError("The checkpoint's table of normal videos is damaged. Copy or fit it again.")
        return KeptClips(
            videos,
            video,
            self.kept_times.cpu(),
            self.kept_flags.cpu(),
            {name: vectors.detach().cpu().float() for name, vectors in self.kept_vectors.items()},
        )

    def nearest_normal(
        self, features: Mapping[str, Tensor], clip: int, count: int = 3, scene: str | None = None
    ) -> list[dict[str, Any]]:
        """The normal clips that are most like a clip, by the sense that finds it rarer.

        Args:
            features: What ``forward`` takes, of one video.
            clip: Number of the clip.
            count: How many.
            scene: Name of the camera.

        Returns:
            For each ``id`` of its video, ``start`` and ``end`` in seconds, ``distance``, in usual differences of a
            channel, and the ``sense``: the nearest first.
        """
        with torch.no_grad():
            outputs = self(**self._inputs(features), scene=scene)
        index = int(outputs.surprises[0, clip].argmax())
        name, kept = self.config.senses[index], self.kept_clips()
        relative = self.body.relative[name]
        scenes = self.body.scenes_of(scene, 1)
        pooled = self.body.pooled(features)[name][:, clip : clip + 1]
        rows = torch.tensor([(self.config.scene_rows or {}).get(one, -1) for one in self._scenes_of(kept)])
        normal = (kept.vectors[name].to(pooled.device) - relative.centres.float()[rows]) / relative.scale.float()
        distances = (relative(pooled, scenes)[0] - normal).square().mean(1).sqrt().cpu()
        if name == "audio_features":
            distances[~kept.has(1)] = torch.inf
        order = distances.argsort(stable=True)[: min(count, int(distances.isfinite().sum()))]
        names = kept.column("id")
        return [
            {
                "id": names[number],
                "start": round(kept.times[number, 0].item() / 1e6, 3),
                "end": round(kept.times[number, 1].item() / 1e6, 3),
                "distance": round(distances[number].item(), 4),
                "sense": SENSE_NAMES[name],
            }
            for number in order.tolist()
        ]

    def _scenes_of(self, kept: KeptClips) -> list[Any]:
        column = self.config.scene_column
        return [None] * len(kept) if column is None else kept.column(column)

    def _inputs(self, features: Mapping[str, Tensor]) -> dict[str, Tensor]:
        names = (*self.config.senses, "clip_mask", "has_audio")
        return {name: features[name] for name in names if name in features}

    def heat(self, features: Mapping[str, Tensor], clip: int, scene: str | None = None) -> Tensor | None:
        """How unlike normal footage each place is, of shape `(h, w)`.

        The mean over its channels of the squared difference to that place's mean, in units of the mean variance of all
        places and channels. Channels that change much count more than in a distance: they are those that show where
        something is.
        """
        if "visual_features" not in self.config.senses or not int(self.place_counts[-1]):
            return None
        row = (self.body.scenes_of(scene, 1) or [-1])[0]
        mean, variance = self.place_statistics(row)
        maps = self.config.scaled("visual_features", features["visual_features"][0, clip].float())
        return (maps - mean).square().mean(0) / variance.mean().clamp_min(1e-12)

    def place_statistics(self, row: int) -> tuple[Tensor, Tensor]:
        """Mean and variance of the features of each place, of shape `(C, h, w)`, of a camera by its row."""
        count = self.place_counts[row].double().clamp_min(1)
        mean = self.place_sums[row].double() / count / PLACE_UNIT
        square = self.place_squares[row].double() / count / PLACE_UNIT
        return mean.float(), (square - mean.square()).clamp_min(0).float()

    def usual_classes(self) -> dict[str, Tensor]:
        """Mean probabilities of the encoders' classes in normal footage, of ``"seen"`` and ``"heard"``, if known."""
        return {
            sense: getattr(self, f"{sense}_sums").double() / CLASS_UNIT / getattr(self, f"{sense}_count").clamp_min(1)
            for sense in self.config.num_classes or {}
        }

    def networks_to_export(self, processor: Any, batches: Sequence[Any]) -> Iterator[Network]:
        """As of [`DetectorModel`]; it also reads which videos have sound.

        Raises:
            ValueError: For one that is relative to several cameras, which no exported network can tell apart.
        """
        if self.config.scene_rows:
            raise ValueError(
                f"This detector has the means of {len(self.config.scene_rows)} cameras, and an exported network "
                "cannot tell them apart. Fit one for each camera (avad-hf fit --scene NAME), and export these."
            )
        for network in super().networks_to_export(processor, batches):
            if network.is_head:
                network.sample["has_audio"] = torch.ones(2, dtype=torch.bool)
                network.varying["has_audio"] = (0,)
            yield network


__all__ = [
    "CLASS_UNIT",
    "PLACE_UNIT",
    "SENSE_NAMES",
    "NormalityForAnomalyDetection",
    "NormalityModel",
    "NormalityModelOutput",
    "NormalityOutput",
    "NormalityPreTrainedModel",
]
