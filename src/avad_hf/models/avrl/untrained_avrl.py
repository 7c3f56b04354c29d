"""AVRL to begin training from."""

import os
from collections.abc import Sequence
from typing import Any

from avad_hf.models.resnet3d.configuration_resnet3d import ResNet3dConfig
from avad_hf.models.resnet3d.modeling_resnet3d import ResNet3dModel
from avad_hf.models.untrained_parts import Size, Untrained, encoder_facts, untrained_notice
from avad_hf.models.vggish.configuration_vggish import VggishConfig
from avad_hf.models.vggish.feature_extraction_vggish import VggishFeatureExtractor
from avad_hf.models.vggish.modeling_vggish import VggishModel

from .configuration_avrl import LABELS, NORMAL_LABELS, AvrlConfig
from .modeling_avrl import AvrlForVideoClassification
from .processing_avrl import AvrlProcessor

# Settings of each part that differ from its defaults, which are the published ones.
SIZES: dict[Size, dict[str, dict[str, Any]]] = {
    "base": {"resnet3d": {}, "vggish": {}, "avrl": {}, "processor": {}},
    "tiny": {
        "resnet3d": {"stem_width": 8, "depths": (1, 1, 1, 1)},
        "vggish": {"hidden_sizes": (8, 16, 32, 64), "intermediate_size": 64, "embedding_size": 32},
        "avrl": {"hidden_sizes": (64, 32)},
        "processor": {"num_frames": 25, "size": (48, 48)},
    },
}


def init(
    size: Size,
    seed: int,
    video_encoder: str | os.PathLike | None = None,
    audio_encoder: str | os.PathLike | None = None,
    classes: Sequence[str] = LABELS,
    normal_classes: Sequence[str] = NORMAL_LABELS,
    fusion: str = "concat",
    modality: str = "audio_visual",
    **options: Any,
) -> Untrained:
    """An AVRL detector to begin training from, and its processor; arguments as of `avad_hf.untrained.init`.

    Args:
        size: Size of the networks that no trained encoder gives.
        seed: What torch's generator was seeded with, for the notice.
        video_encoder: Folder or Hub id of a trained 3D ResNet to begin with; frames are normalised as it wants them.
        audio_encoder: Folder or Hub id of a trained VGGish to begin with.
        classes: Names of the events, in the order of their numbers; SHADE's nine by default.
        normal_classes: Those that are no anomalies.
        fusion: How sight and sound are put together, as in [`AvrlConfig`].
        modality: ``"audio_visual"``, ``"visual"`` or ``"audio"``.
        options: Other fields of [`AvrlConfig`].

    Raises:
        ValueError: For an unknown fusion or modality, classes of which none or all are normal, or encoders that do
            not fit each other.
    """
    widths = SIZES[size]
    for name, value, known in (("fusion", fusion, AvrlConfig.fusions), ("modality", modality, AvrlConfig.modalities)):
        if value not in known:
            raise ValueError(f"{name} must be one of {', '.join(known)}, got {value!r}.")
    video = None if video_encoder is None else ResNet3dModel.from_pretrained(video_encoder)
    audio = None if audio_encoder is None else VggishModel.from_pretrained(audio_encoder)
    random_parts = [
        *(["video encoder"] if video is None and modality != "audio" else []),
        *(["audio encoder"] if audio is None and modality != "visual" else []),
        "classifier",
    ]
    video_config = ResNet3dConfig(**widths["resnet3d"]) if video is None else video.config
    audio_config = VggishConfig(**widths["vggish"]) if audio is None else audio.config
    notices = [untrained_notice(" and ".join(random_parts), seed), video_config.notice, audio_config.notice]
    settings = {
        "video_config": video_config,
        "audio_config": audio_config,
        "fusion": fusion,
        "modality": modality,
        "id2label": dict(enumerate(classes)),
        "normal_labels": list(normal_classes),
        "notice": " ".join(notice for notice in notices if notice),
    }
    model = AvrlForVideoClassification(AvrlConfig(**widths["avrl"] | settings | options))
    model.avrl.load_backbones(video, audio)
    processor = AvrlProcessor(
        VggishFeatureExtractor(),
        # Trained networks want frames of the size that they were trained on.
        **({} if video else widths["processor"]),
        rescale_factor=video_config.rescale_factor,
        image_mean=video_config.image_mean,
        image_std=video_config.image_std,
    )
    facts = [*encoder_facts(video_encoder, video, "video"), *encoder_facts(audio_encoder, audio, "audio")]
    return Untrained(model, processor, facts)


__all__ = ["SIZES", "init"]
