"""SHADE's references to begin training from."""

import os
from collections.abc import Sequence
from typing import Any

from avad_hf.models.avrl.configuration_avrl import LABELS, NORMAL_LABELS
from avad_hf.models.avrl.modeling_avrl import AvrlForVideoClassification
from avad_hf.models.avrl.processing_avrl import AvrlProcessor
from avad_hf.models.avrl.untrained_avrl import SIZES as AVRL_SIZES
from avad_hf.models.resnet3d.configuration_resnet3d import ResNet3dConfig
from avad_hf.models.resnet3d.modeling_resnet3d import ResNet3dModel
from avad_hf.models.untrained_parts import Size, Untrained, encoder_facts, untrained_notice
from avad_hf.models.vggish.feature_extraction_vggish import VggishFeatureExtractor

from .configuration_shaderef import TITLES, ShaderefConfig
from .modeling_shaderef import ShaderefForVideoClassification

# Settings that differ from the config's defaults, beside those of AVRL of the same size.
SIZES: dict[Size, dict[str, Any]] = {"base": {}, "tiny": {"hidden_sizes": (64, 32), "cnn_sizes": (8, 16, 32, 64)}}


def init(
    size: Size,
    seed: int,
    video_encoder: str | os.PathLike | None = None,
    audio_encoder: str | os.PathLike | None = None,
    classes: Sequence[str] = LABELS,
    normal_classes: Sequence[str] = NORMAL_LABELS,
    kind: str = "resnet3d",
    **options: Any,
) -> Untrained:
    """A reference to begin training from, and its processor; arguments as of `avad_hf.untrained.init`.

    Args:
        size: Size of a network that no trained encoder gives.
        seed: What torch's generator was seeded with, for the notice.
        video_encoder: Folder or Hub id of a trained 3D ResNet to begin with; of the kind ``"resnet3d"`` alone.
        audio_encoder: Must not be given: references see alone.
        classes: Names of the events, in the order of their numbers; SHADE's nine by default.
        normal_classes: Those that are no anomalies.
        kind: As in [`ShaderefConfig`].
        options: Other fields of [`ShaderefConfig`].

    Raises:
        ValueError: For an unknown kind, an encoder that it does not use, or classes of which none or all are normal.
    """
    if kind not in ShaderefConfig.kinds:
        raise ValueError(f"kind must be one of {', '.join(ShaderefConfig.kinds)}, got {kind!r}.")
    if audio_encoder is not None:
        raise ValueError(f"SHADE's references see alone, got audio_encoder {audio_encoder}. Leave it out.")
    if video_encoder is not None and kind != "resnet3d":
        raise ValueError(f"A reference of kind {kind!r} has no 3D ResNet, got video_encoder {video_encoder}.")
    video = None if video_encoder is None else ResNet3dModel.from_pretrained(video_encoder)
    video_config = ResNet3dConfig(**AVRL_SIZES[size]["resnet3d"]) if video is None else video.config
    # Trained networks want frames of the size that they were trained on.
    processor = AvrlProcessor(
        VggishFeatureExtractor(),
        **({} if video else AVRL_SIZES[size]["processor"]),
        rescale_factor=video_config.rescale_factor,
        image_mean=video_config.image_mean,
        image_std=video_config.image_std,
    )
    notices = [untrained_notice(TITLES[kind] if video is None else "classifier", seed), video_config.notice]
    settings = {
        "kind": kind,
        "video_config": video_config,
        "num_frames": processor.num_frames,
        "id2label": dict(enumerate(classes)),
        "normal_labels": list(normal_classes),
        "notice": " ".join(notice for notice in notices if notice),
    }
    model = ShaderefForVideoClassification(ShaderefConfig(**SIZES[size] | settings | options))
    if video is not None:
        model.shaderef.network.load_state_dict(video.state_dict())
    return Untrained(model, processor, encoder_facts(video_encoder, video, "video"))


def beside(avrl: AvrlForVideoClassification, kind: str, num_frames: int, size: Size) -> ShaderefForVideoClassification:
    """A reference to begin training from that sees what an AVRL detector sees, and names the same classes.

    Args:
        avrl: The detector. Its 3D ResNet, if it has one, is where the reference of kind ``"resnet3d"`` begins.
        kind: As in [`ShaderefConfig`].
        num_frames: Frames of a video.
        size: Size of the other kinds.
    """
    config = ShaderefConfig(
        **SIZES[size],
        kind=kind,
        video_config=avrl.config.video_config,
        num_frames=num_frames,
        id2label=dict(avrl.config.id2label),
        normal_labels=list(avrl.config.normal_labels),
    )
    model = ShaderefForVideoClassification(config)
    if kind == "resnet3d" and avrl.avrl.visual is not None:
        weights = avrl.avrl.visual.state_dict()
        weights["conv1.weight"] = weights["conv1.weight"][:, :3]  # without the sound's channel of fusion "low_level"
        model.shaderef.network.load_state_dict(weights)
    return model


__all__ = ["SIZES", "beside", "init"]
