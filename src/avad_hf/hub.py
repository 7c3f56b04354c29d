"""Checkpoints as folders: new ones to begin training from, and their cards."""

import os
import tempfile
from pathlib import Path
from typing import Literal

import torch

from avad_hf.models.avaca.configuration_avaca import AvacaConfig
from avad_hf.models.avaca.modeling_avaca import AvacaForAnomalyDetection
from avad_hf.models.avaca.processing_avaca import AvacaProcessor
from avad_hf.models.slowfast.configuration_slowfast import SlowFastConfig
from avad_hf.models.slowfast.modeling_slowfast import SlowFastModel
from avad_hf.models.vggish.configuration_vggish import VggishConfig
from avad_hf.models.vggish.feature_extraction_vggish import VggishFeatureExtractor
from avad_hf.models.vggish.modeling_vggish import VggishModel

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


def card(template: str, **values: str) -> str:
    """Fill in a card template of hub_cards/.

    Args:
        template: Its name without ``.md``.
        values: What stands in for each ``{{ name }}``.

    Raises:
        ValueError: If a place of the template is left empty.
    """
    # In a wheel the templates lie inside the package, in a checkout at its top.
    folders = (Path(__file__).parent / "hub_cards", Path(__file__).parents[2] / "hub_cards")
    text = next(folder / f"{template}.md" for folder in folders if folder.is_dir()).read_text(encoding="utf-8")
    for name, value in values.items():
        text = text.replace("{{ " + name + " }}", value)
    if "{{" in text:
        raise ValueError(f"The card {template} has a place without a value: {text[text.index('{{') :][:40]!r}.")
    return text


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
    if size not in SIZES:
        raise ValueError(f"size must be one of {', '.join(SIZES)}, got {size!r}.")
    directory = Path(directory)
    if directory.exists() and (not directory.is_dir() or any(directory.iterdir())):
        raise FileExistsError(f"{directory} is not an empty directory. Give a new one; nothing was overwritten.")
    widths = SIZES[size]

    def notice(what: str) -> str:
        return f"Untrained {what} (random weights, seed {seed}): scores mean nothing."

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
    untrained = "\n".join(f"- {text}" for text in [config.notice, *processor.notices])
    text = card(
        "avaca", title="Untrained AVACA", summary=summary, location=directory.resolve().name, weights=untrained
    )
    # Under another name first, so that a killed run leaves no half checkpoint.
    directory.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(prefix=".partial-", dir=directory.resolve().parent) as folder:
        model.save_pretrained(folder)
        processor.save_pretrained(folder)
        (Path(folder) / "README.md").write_text(text, encoding="utf-8")
        directory.mkdir(exist_ok=True)
        for path in sorted(Path(folder).iterdir()):
            os.replace(path, directory / path.name)
    return processor
