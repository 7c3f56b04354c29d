"""Untrained checkpoints, to begin training from."""

import os
from collections.abc import Sequence
from pathlib import Path
from typing import Literal

import torch
from huggingface_hub.errors import StrictDataclassError
from transformers import PreTrainedModel

from avad_hf.corpora.classes import is_normal
from avad_hf.files import check_new
from avad_hf.hub.cards import card
from avad_hf.hub.folders import weights_hash, write_checkpoint
from avad_hf.models.avaca.configuration_avaca import AvacaConfig
from avad_hf.models.avaca.modeling_avaca import AvacaForAnomalyDetection
from avad_hf.models.avaca.processing_avaca import AvacaProcessor
from avad_hf.models.avrl.configuration_avrl import LABELS, AvrlConfig
from avad_hf.models.avrl.modeling_avrl import AvrlForVideoClassification
from avad_hf.models.avrl.processing_avrl import AvrlProcessor
from avad_hf.models.resnet3d.configuration_resnet3d import ResNet3dConfig
from avad_hf.models.resnet3d.modeling_resnet3d import ResNet3dModel
from avad_hf.models.slowfast.configuration_slowfast import SlowFastConfig
from avad_hf.models.slowfast.modeling_slowfast import SlowFastModel
from avad_hf.models.vggish.configuration_vggish import VggishConfig
from avad_hf.models.vggish.feature_extraction_vggish import VggishFeatureExtractor
from avad_hf.models.vggish.modeling_vggish import VggishModel

# Of random weights.
LICENSE = "apache-2.0"

# `base` is the published architecture. `tiny` is for trying things out: it runs faster than real time on two cores.
SIZES = {
    "base": {"slowfast": {}, "vggish": {}, "avaca": {}, "processor": {}},
    "tiny": {
        "slowfast": {"stem_width": 8, "fast_ratio": 4, "depths": (1, 1, 1, 1), "pool_size": 2},
        "vggish": {"hidden_sizes": (8, 16, 16, 32), "intermediate_size": 64, "embedding_size": 32},
        "avaca": {"hidden_size": 32, "intermediate_size": 64},
        "processor": {"size": 64, "feature_grid": (1, 3)},
    },
}

# The same for AVRL, whose networks are parts of the model.
AVRL_SIZES = {
    "base": {"resnet3d": {}, "vggish": {}, "avrl": {}, "processor": {}},
    "tiny": {
        "resnet3d": {"stem_width": 8, "depths": (1, 1, 1, 1)},
        "vggish": {"hidden_sizes": (8, 16, 32, 64), "intermediate_size": 64, "embedding_size": 32},
        "avrl": {"hidden_sizes": (64, 32)},
        "processor": {"num_frames": 25, "size": (48, 48)},
    },
}


def init_avaca(
    directory: str | os.PathLike,
    size: Literal["base", "tiny"] = "base",
    seed: int = 0,
    video_encoder: str | os.PathLike | None = None,
    audio_encoder: str | os.PathLike | None = None,
) -> AvacaProcessor:
    """Write an untrained AVACA checkpoint to begin training from: detector, processor, encoders and card.

    The checkpoint says that it is untrained in its card and, through the configs' ``notice``, in every result.

    Args:
        directory: Where to write it; must be empty or new.
        size: ``"base"`` is the published architecture, ``"tiny"`` a small one for trying things out.
        seed: Of the random weights.
        video_encoder: Folder or Hub id of a trained SlowFast to use instead of random weights.
        audio_encoder: Folder or Hub id of a trained VGGish to use instead of random weights.

    Returns:
        The processor of the checkpoint.

    Raises:
        ValueError: For an unknown size.
        FileExistsError: If the directory holds files already.
    """
    _check(directory, size)
    widths = SIZES[size]

    def notice(what: str) -> str:
        return _untrained(what, seed)

    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        processor = AvacaProcessor(
            VggishFeatureExtractor(),
            video_encoder or SlowFastModel(SlowFastConfig(**widths["slowfast"], notice=notice("video encoder"))),
            audio_encoder or VggishModel(VggishConfig(**widths["vggish"], notice=notice("audio encoder"))),
            # A trained encoder wants frames of the size that it was trained on, whatever the detector's widths.
            **({} if video_encoder else widths["processor"]),
        )
        config = AvacaConfig(
            **widths["avaca"],
            visual_size=processor.video_encoder.config.hidden_size,
            audio_size=processor.audio_encoder.config.embedding_size,
            num_audio_steps=processor.clip_length,
            notice=notice("detector"),
        )
        model = AvacaForAnomalyDetection(config)
    summary = f"**Untrained.** An AVACA checkpoint of size {size} to begin training from. Its scores mean nothing."
    text = card(
        "avaca",
        {"license": None if video_encoder or audio_encoder else LICENSE},
        title="Untrained AVACA",
        summary=summary,
        location=Path(directory).resolve().name,
        facts=[
            config.notice,
            *processor.notices,
            *_brought(video_encoder, processor.video_encoder, "video"),
            *_brought(audio_encoder, processor.audio_encoder, "audio"),
        ],
    )
    write_checkpoint(directory, [model, processor], text)
    return processor


def init_avrl(
    directory: str | os.PathLike,
    size: Literal["base", "tiny"] = "base",
    seed: int = 0,
    video_encoder: str | os.PathLike | None = None,
    audio_encoder: str | os.PathLike | None = None,
    classes: Sequence[str] = LABELS,
    normal_classes: Sequence[str] | None = None,
    fusion: str = "concat",
    modality: str = "audio_visual",
) -> AvrlForVideoClassification:
    """Write an AVRL checkpoint to begin training from: networks, classifier, processor and card.

    The checkpoint says that it is untrained in its card and, through the config's ``notice``, in every result.

    Args:
        directory: Where to write it; must be empty or new.
        size: ``"base"`` is the published architecture, ``"tiny"`` a small one for trying things out.
        seed: Of the random weights.
        video_encoder: Folder or Hub id of a trained 3D ResNet to begin with; frames are normalised as it wants them.
        audio_encoder: Folder or Hub id of a trained VGGish to begin with.
        classes: Names of the events, in the order of their numbers; SHADE's nine by default.
        normal_classes: Those that are no anomalies; by default all that are called normal (normal, normal1, normal
            type 2, ...).
        fusion: How sight and sound are put together, as in [`AvrlConfig`].
        modality: ``"audio_visual"``, ``"visual"`` or ``"audio"``.

    Returns:
        The model of the checkpoint.

    Raises:
        ValueError: For an unknown size, fusion or modality, classes of which none or all are normal, or encoders that
            do not fit each other.
        FileExistsError: If the directory holds files already.
    """
    _check(directory, size)
    widths = AVRL_SIZES[size]
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
    notices = [_untrained(" and ".join(random_parts), seed), video_config.notice, audio_config.notice]
    if normal_classes is None:
        normal_classes = [name for name in classes if is_normal(name)]
    try:
        config = AvrlConfig(
            **widths["avrl"],
            video_config=video_config,
            audio_config=audio_config,
            fusion=fusion,
            modality=modality,
            id2label=dict(enumerate(classes)),
            normal_labels=list(normal_classes),
            notice=" ".join(notice for notice in notices if notice),
        )
    except StrictDataclassError as error:  # which is no ValueError
        raise ValueError(str(error)) from error
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        model = AvrlForVideoClassification(config)
    model.avrl.load_backbones(video, audio)
    processor = AvrlProcessor(
        VggishFeatureExtractor(),
        # Trained networks want frames of the size that they were trained on.
        **({} if video else widths["processor"]),
        rescale_factor=video_config.rescale_factor,
        image_mean=video_config.image_mean,
        image_std=video_config.image_std,
    )
    text = card(
        "avrl",
        {"license": None if video or audio else LICENSE},
        title="Untrained AVRL",
        summary=f"**Untrained.** An AVRL checkpoint of size {size} to begin training from. Its scores mean nothing.",
        location=Path(directory).resolve().name,
        facts=[config.notice, *_brought(video_encoder, video, "video"), *_brought(audio_encoder, audio, "audio")],
        **config.describe(),
    )
    write_checkpoint(directory, [model, processor], text)
    return model


def _check(directory: str | os.PathLike, size: str) -> None:
    if size not in SIZES:
        raise ValueError(f"size must be one of {', '.join(SIZES)}, got {size!r}.")
    check_new(directory)


def _brought(place: str | os.PathLike | None, encoder: PreTrainedModel | None, what: str) -> list[str]:
    """What a card says of an encoder that was brought along: by its hash the encoder's own card is found."""
    if place is None:
        return []
    name = Path(place).resolve().name if os.path.isdir(place) else os.fspath(place)
    return [
        f"Its {what} encoder is that of `{name}`, whose card says where it is from; SHA-256 of its weights: "
        f"`{weights_hash(encoder)}`."
    ]


def _untrained(what: str, seed: int) -> str:
    return f"Untrained {what} (random weights, seed {seed}): scores mean nothing."


__all__ = ["AVRL_SIZES", "SIZES", "init_avaca", "init_avrl"]
