"""The studies of the AVRL paper (sections IV-D to V), run as published: references, fusions, dark videos, patches."""

import hashlib
import json
import os
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any, Literal

import numpy as np
import torch
from torch import Tensor
from transformers import AutoConfig, AutoModelForVideoClassification, AutoProcessor

from avad_hf.corpora.splits import SEEDS
from avad_hf.features.dataset import FeatureDataset
from avad_hf.files import folder_written_whole
from avad_hf.models.shaderef.configuration_shaderef import TITLES
from avad_hf.models.shaderef.untrained_shaderef import beside
from avad_hf.models.untrained_parts import Size
from avad_hf.processes import process_state
from avad_hf.untrained import init_avrl

from .hiding import PATCH_TITLES, PATCHES, spatial_patch, temporal_patch
from .pictures_avrl import draw_confusions, draw_costs, draw_hidden, draw_samples, stored_frames
from .protocol import Figure, Protocol, held, load, write_tables

STUDIES = ("references", "modality", "fusion", "dark", "patches")
MODALITIES = ("visual", "audio", "audio_visual")
FUSIONS = ("concat", "concat_norm", "concat_scaled", "add", "low_level")
# Share of frames, or of each frame, that is black; the paper's figure goes up to 80%.
RATIOS = (0.2, 0.4, 0.6, 0.8)
# For the synthetic crowd, whose small networks learn from nothing. Chosen by the training losses and the validation
# videos of its world 0, where the sound's network did not begin to learn with the profile's weight decay.
SYNTHETIC_SETTINGS = {
    "epochs": 50,
    "batch_size": 12,
    "learning_rate": 3e-3,
    "weight_decay": 1e-2,
    "patience": None,
    "fine_tune": False,
}
# Another world than that, which nothing was chosen on.
WORLD_SEED = 1

# Top-1 accuracy of each class as published, in the order of AvrlConfig's classes; the paper has no mean of them.
CLASSES = ("arrest", "chase", "fight", "knockdown", "run", "shoot", "scatter", "normal1", "normal2")
_PUBLISHED = {
    "visual": (0.823, 0.578, 0.640, 0.771, 0.606, 0.898, 0.905, 0.656, 0.787),  # 3D ResNet, Tables II and V
    "audio": (0.417, 0.326, 0.133, 0.638, 0.476, 0.918, 0.591, 0.433, 0.326),  # VGGish, Table V
    "concat": (0.900, 0.551, 0.644, 0.808, 0.595, 0.959, 0.954, 0.700, 0.804),  # Tables II, III and V
    "concat_norm": (0.783, 0.531, 0.644, 0.723, 0.714, 0.898, 0.954, 0.816, 0.848),
    "concat_scaled": (0.833, 0.510, 0.689, 0.766, 0.619, 0.918, 0.977, 0.800, 0.869),
    "add": (0.800, 0.469, 0.689, 0.851, 0.762, 0.918, 0.931, 0.733, 0.848),
    "low_level": (0.783, 0.531, 0.644, 0.745, 0.666, 0.918, 0.954, 0.633, 0.913),
    "dark": (1.0, 0.914, 0.961, 1.0, 0.925, 0.977, 1.0, 0.925, 0.921),  # AVRL, Table IV
    # Table II, of networks that see alone.
    "MLP": (0.643, 0.582, 0.572, 0.663, 0.627, 0.866, 0.822, 0.611, 0.712),
    "LSTM": (0.703, 0.619, 0.612, 0.649, 0.650, 0.916, 0.896, 0.635, 0.718),
    "LRCN": (0.714, 0.641, 0.630, 0.621, 0.648, 0.905, 0.896, 0.627, 0.750),
    "N3D ResNet": (0.837, 0.660, 0.577, 0.742, 0.646, 0.920, 0.923, 0.671, 0.804),
}
PAPER = {name: dict(zip(CLASSES, values, strict=True)) for name, values in _PUBLISHED.items()}
PAPER["audio_visual"] = PAPER["AVRL"] = PAPER["concat"]
PAPER["3D ResNet"] = PAPER["visual"]
N3D_DARK = dict(zip(CLASSES, (0.635, 0.591, 0.551, 0.495, 0.632, 0.832, 0.805, 0.628, 0.754), strict=True))


def reference_table(protocol: Protocol, store: Path, checkpoints: Mapping[str, Path], is_shade: bool) -> str:
    """Table II: networks that see alone, each trained as AVRL is, beside AVRL.

    Args:
        protocol: How AVRL is trained.
        store: The videos.
        checkpoints: What the training of each begins with, by their titles.
        is_shade: Whether the paper's figures stand beside.
    """
    # First, since it refuses a folder that holds runs of another checkpoint.
    avrl = [_run(protocol, store, seed, "audio_visual") for seed in protocol.seeds]
    runs: dict[str, list[dict[str, Any]]] = {}
    for title, checkpoint in checkpoints.items():
        # The 3D ResNet alone has weights that were trained before.
        is_tuned = bool(protocol.settings["fine_tune"]) and title == "3D ResNet"
        settings = protocol.settings | {"model": str(checkpoint), "fine_tune": is_tuned, "model_options": {}}
        name, own = checkpoint.name, replace(protocol, settings=settings)
        runs[title] = [own.run(store, None, seed, name, {}, title) for seed in protocol.seeds]
    if is_shade:
        runs["N3D ResNet"] = []
    return (
        "## Table II: networks that see alone\n\nEach ends in one linear layer, and is trained as AVRL is, on the "
        "same frames: the paper does not say how they are built or trained. N3D ResNet is not trained here, since it "
        "is not published in enough detail to build it"
        + ("; its figures are the paper's" if is_shade else "")
        + ".\n\n"
        + _table(runs | {"AVRL": avrl}, PAPER if is_shade else {})
    )


def modality_table(protocol: Protocol, store: Path, is_shade: bool) -> str:
    """Table V: the 3D ResNet alone, VGGish alone, and both.

    Each goes through the classifier of Table I, whose first layer is as wide as its features. Whether the paper's 3D
    ResNet has that classifier or one layer of its own (III-A speaks of the latter) it does not say of these tables.
    """
    runs = {name: [_run(protocol, store, seed, name) for seed in protocol.seeds] for name in MODALITIES}
    return "## Table V: what is seen, what is heard, and both\n\n" + _table(runs, PAPER if is_shade else {})


def fusion_table(protocol: Protocol, store: Path, is_shade: bool) -> str:
    """Table III: the five fusions; Figure 4, their confusions, is drawn as fusions.png."""
    runs = {name: [_run(protocol, store, seed, name) for seed in protocol.seeds] for name in FUSIONS}
    if process_state().is_main_process:
        names = list(runs["concat"][0]["events"]["top1_recall"])
        matrices = {
            name.replace("_", " "): sum(np.array(run["events"]["confusion_matrix"]) for run in found)
            for name, found in runs.items()
        }
        draw_confusions(matrices, names, protocol.output_dir / "fusions.png")
    return (
        "## Table III: fusions\n\nWhat the videos of each class are called (Figure 4) is drawn in fusions.png, over "
        "all splits.\n\n" + _table(runs, PAPER if is_shade else {})
    )


def dark_table(
    protocol: Protocol, store: Path, dark: set[str], dark_from: Literal["test", "all"], is_shade: bool
) -> str:
    """Table IV: dark videos alone, those of the test set or, as the paper's probably are, of all sets."""
    # Another manifest may call other videos dark.
    part = f"dark-{dark_from}-{hashlib.sha256(json.dumps(sorted(dark)).encode()).hexdigest()[:8]}"
    runs: dict[str, list[dict[str, Any]]] = {}
    for name in ("visual", "audio_visual"):
        for seed in protocol.seeds:
            videos = FeatureDataset(store, "test" if dark_from == "test" else None, seed)
            videos = videos.where(lambda row: row["id"] in dark)
            if not len(videos):
                raise ValueError(
                    "None of these videos is dark, so there is no Table IV. Say in the manifest's column dark or hour "
                    "which are, or leave the study out."
                )
            place = _trained(protocol, store, seed, name)
            runs.setdefault(name, []).append(protocol.evaluated(place, videos, part))
    counts = sorted({run["num_videos"] for run in runs["visual"]})
    videos = f"{counts[0]}" if len(counts) == 1 else f"{counts[0]} to {counts[-1]}"
    what = "of the test set" if dark_from == "test" else "of all sets, those of training among them"
    paper = {"audio_visual": PAPER["dark"], "visual": N3D_DARK} if is_shade else {}
    note = "The paper has N3D ResNet in the first column.\n\n" if is_shade else ""
    return f"## Table IV: dark videos {what} ({videos} a split)\n\n" + note + _table(runs, paper)


def patch_study(protocol: Protocol, store: Path, ratios: Sequence[float]) -> str:
    """Figure 6: black frames and black patches on test videos, by ratio; also drawn, as patches.png.

    Figure 5, examples of them, is drawn as hidden.png.
    """
    whole = [_run(protocol, store, seed, "audio_visual") for seed in protocol.seeds]
    trained = {
        seed: (_trained(protocol, store, seed, "audio_visual"), FeatureDataset(store, "test", seed))
        for seed in protocol.seeds
    }
    curves: dict[str, list[list[dict[str, Any]]]] = {}
    for kind, change in PATCHES.items():
        curves[kind] = [whole]
        for ratio in ratios:
            runs = []
            for seed, (place, videos) in trained.items():

                def hidden(index: int, frames: Tensor, change=change, ratio=ratio, seed=seed) -> Tensor:
                    return change(frames, ratio, np.random.default_rng((seed, round(1000 * ratio), index)))

                runs.append(protocol.evaluated(place, videos.with_frames(hidden), f"{kind}-{ratio:g}"))
            curves[kind].append(runs)
    heard = [_run(protocol, store, seed, "audio") for seed in protocol.seeds]
    if process_state().is_main_process:
        _draw_patches(protocol, trained[protocol.seeds[0]][1], curves, heard, ratios)
    lines = ["| hidden | black frames | black patches |", "|---|---|---|"]
    for number, ratio in enumerate((0.0, *ratios)):
        cells = (str(Figure(_overall(curves[kind][number]))) for kind in PATCHES)
        lines.append(f"| {ratio:.0%} | {' | '.join(cells)} |")
    lines.append(f"| sound alone | {Figure(_overall(heard))} | |")
    return (
        "## Figure 6: parts of the picture hidden\n\nTop-1 accuracy of all videos in per cent. The detectors were "
        "trained on whole pictures, and parts of the test videos are hidden from them; the paper does not say whether "
        "its detectors learnt with hidden parts. Each class is drawn in patches.png, and what is hidden (Figure 5) in "
        "hidden.png.\n\n" + "\n".join(lines)
    )


def _options(name: str) -> dict[str, Any]:
    # Both, whatever the checkpoint's are.
    is_modality = name in MODALITIES
    return {
        "modality": name if is_modality else "audio_visual",
        "fusion": "concat" if is_modality else name,
    }


def _run(protocol: Protocol, store: Path, seed: int, name: str) -> dict[str, Any]:
    # The same detector under two names.
    name = "audio_visual" if name == "concat" else name
    return protocol.run(store, None, seed, name, _options(name), name.replace("_", " "))


def _trained(protocol: Protocol, store: Path, seed: int, name: str) -> Path:
    _run(protocol, store, seed, name)
    return protocol.trained(store, None, seed, name, _options(name), name.replace("_", " "))


def _table(runs: dict[str, list[dict[str, Any]]], paper: dict[str, dict[str, float]]) -> str:
    """Top-1 accuracy of each class, of all videos, and their mean over classes, in per cent."""
    first = next(iter(runs.values()))[0]["events"]
    lines = ["| class | " + " | ".join(name.replace("_", " ") for name in runs) + " |", "|---" * (len(runs) + 1) + "|"]

    def line(title: str, key: Callable[[dict[str, Any]], float | None], published: str = "") -> None:
        cells = []
        for name, found in runs.items():
            beside = paper.get(name, {}).get(published)
            beside = f"{beside:.1%}"[:-1] if beside else ""
            if found:
                cells.append(str(Figure([_known(key(run["events"])) for run in found], beside)))
            else:  # what only the paper has
                cells.append(f"(paper {beside})" if beside else "")
        lines.append(f"| {title} | {' | '.join(cells)} |")

    for name in first["top1_recall"]:
        line(name, lambda events, name=name: events["top1_recall"][name], name)
    line("**all videos**", lambda events: events["top1_accuracy"])
    line("**mean over classes**", lambda events: events["top1_macro"])
    return "Top-1 accuracy in per cent:\n\n" + "\n".join(lines)


def _known(value: float | None) -> float:
    return float("nan") if value is None else value


def _overall(runs: Sequence[dict[str, Any]]) -> list[float]:
    return [run["events"]["top1_accuracy"] for run in runs]


def _draw_patches(
    protocol: Protocol,
    videos: FeatureDataset,
    curves: dict[str, list[list[dict[str, Any]]]],
    heard: Sequence[dict[str, Any]],
    ratios: Sequence[float],
) -> None:
    """Figures 5 and 6; what is hidden shows in a video that is not dark."""
    frames, _ = stored_frames(videos, next((n for n, row in enumerate(videos.rows) if not row["dark"]), 0))
    rng = np.random.default_rng(0)
    hidden = {
        PATCH_TITLES[kind]: {ratio: change(frames, ratio, rng) for ratio in ratios} for kind, change in PATCHES.items()
    }
    draw_hidden(hidden, protocol.output_dir / "hidden.png")
    classes = heard[0]["events"]["top1_recall"]
    recalls = {
        PATCH_TITLES[kind]: [
            {name: float(np.mean([_known(run["events"]["top1_recall"][name]) for run in runs])) for name in classes}
            for runs in by_ratio
        ]
        for kind, by_ratio in curves.items()
    }
    overall = {PATCH_TITLES[kind]: [np.mean(_overall(runs)) for runs in by_ratio] for kind, by_ratio in curves.items()}
    path = protocol.output_dir / "patches.png"
    draw_costs(recalls, overall, float(np.mean(_overall(heard))), (0.0, *ratios), path)


def _references(protocol: Protocol, model: Path | str, size: Size) -> dict[str, Path]:
    """Checkpoints that the references begin with, by their titles."""
    places = {title: protocol.output_dir / "untrained-references" / f"reference-{k}" for k, title in TITLES.items()}
    with process_state().main_process_first():
        if all(place.is_dir() for place in places.values()):
            return places
        avrl = AutoModelForVideoClassification.from_pretrained(model, trust_remote_code=False)
        processor = AutoProcessor.from_pretrained(model, trust_remote_code=False)
        for kind, title in TITLES.items():
            with torch.random.fork_rng(devices=[]), folder_written_whole(places[title]) as folder:
                torch.manual_seed(0)
                beside(avrl, kind, processor.num_frames, size).save_pretrained(folder)
                processor.save_pretrained(folder)
    return places


@held
def reproduce_shade(
    output_dir: str | os.PathLike,
    *,
    model: str | os.PathLike | None = None,
    data_dir: str | os.PathLike | None = None,
    studies: Sequence[str] = STUDIES,
    profile: str | None = None,
    seeds: Sequence[int] = SEEDS,
    dark_from: Literal["test", "all"] = "test",
    ratios: Sequence[float] = RATIOS,
    num_videos: int | None = None,
    settings: dict[str, Any] | None = None,
    on_stage: Callable[[str], None] = lambda stage: None,
) -> str:
    """Run the studies of the paper on SHADE, or on the synthetic crowd, and write their tables.

    Each seed holds another quarter of SHADE's training videos out, to choose the epoch and the learning rate; the
    synthetic crowd is divided anew by each seed. What was done before is not done again: a run that was stopped goes
    on where it was.

    Args:
        output_dir: Folder of all stages, of ``tables.md``, and of each run's checkpoint and figures.
        model: Checkpoint that training begins with, and whose processor stores the videos. The synthetic crowd needs
            none: small networks with new weights learn from it.
        data_dir: Folder of SHADE, or where the synthetic crowd is to be rendered.
        studies: ``"references"`` (Table II), ``"modality"`` (Table V), ``"fusion"`` (Table III, Figure 4), ``"dark"``
            (Table IV) and ``"patches"`` (Figures 5 and 6). Figure 1 is drawn in any case, as samples.png.
        profile: Training profile; the published one by default, and the default one for the synthetic crowd.
        seeds: One split each.
        dark_from: ``"test"``, or ``"all"`` for dark videos of all sets: that the paper counts 377 of them says that
            videos of its training set are among them.
        ratios: Shares that are hidden in Figure 6, between 0 and 1.
        num_videos: Videos of the synthetic crowd; SHADE by default.
        settings: Training settings, which count before the profile's.
        on_stage: Told in words what is done next.

    Returns:
        The tables as Markdown, with the time that all stages took.

    Raises:
        ValueError: For unknown studies, ratios out of range, videos that cannot be read, or a folder that holds other
            runs, or that another process is writing.
    """
    if unknown := [name for name in studies if name not in STUDIES]:
        raise ValueError(f"studies must be among {', '.join(STUDIES)}, got {', '.join(unknown)}.")
    if bad := [ratio for ratio in ratios if not 0 < ratio < 1]:
        raise ValueError(f"ratios must be between 0 and 1, got {', '.join(map(str, bad))}.")
    if dark_from not in ("test", "all"):
        raise ValueError(f"dark_from must be test or all, got {dark_from!r}.")
    is_shade = num_videos is None
    size: Size = "base" if model is not None else "tiny"
    if is_shade and model is None:
        raise ValueError("SHADE's studies need a model: the checkpoint that training begins with (init avrl).")
    if model is None:
        settings = SYNTHETIC_SETTINGS | dict(settings or {})
        model = Path(output_dir) / "untrained"
        with process_state().main_process_first():
            if not model.is_dir():
                init_avrl(model, size="tiny")
    else:
        config = AutoConfig.from_pretrained(model, trust_remote_code=False)
        if config.model_type != "avrl" or config.recipe_sha256 is not None:
            raise ValueError(
                f"{model} is {'a trained detector' if config.model_type == 'avrl' else 'no checkpoint of AVRL'}. All "
                "detectors of a table must begin alike and not have seen these videos: give a new checkpoint (avad-hf "
                "init avrl), with trained encoders."
            )
        settings = {"fine_tune": True} | dict(settings or {})
    profile = profile or ("avrl" if is_shade else "default")
    processor = AutoProcessor.from_pretrained(model, trust_remote_code=False)
    protocol = Protocol(Path(output_dir), profile, settings | {"model": str(model)}, seeds, on_stage)
    if is_shade:
        rows = load("shade", data_dir=data_dir)
    else:
        rows = load("synthetic", "crowd", data_dir=data_dir, num_videos=num_videos, world_seed=WORLD_SEED)
    store = protocol.features("shade" if is_shade else "crowd", rows, processor)
    parts, dark = [], set()
    if "dark" in studies:
        # First, since SHADE's dark subset looks at videos of which nothing else is known, and may be empty.
        found = load("shade", "dark", data_dir=data_dir) if is_shade else rows
        dark = {row["id"] for part in found.values() for row in part if row["dark"]}
    if process_state().is_main_process:
        extractor = processor.feature_extractor
        hop_s = extractor.hop_length / extractor.sampling_rate
        draw_samples(FeatureDataset(store, "test", seeds[0]), hop_s, Path(output_dir) / "samples.png")
    if "references" in studies:
        parts.append(reference_table(protocol, store, _references(protocol, model, size), is_shade))
    if "modality" in studies:
        parts.append(modality_table(protocol, store, is_shade))
    if "fusion" in studies:
        parts.append(fusion_table(protocol, store, is_shade))
    if "dark" in studies:
        parts.append(dark_table(protocol, store, dark, dark_from, is_shade))
    if "patches" in studies:
        parts.append(patch_study(protocol, store, ratios))
    name = (
        "SHADE" if is_shade else f"{num_videos} drawn videos of the synthetic crowd, which say nothing about real ones"
    )
    notes = [
        f"{name}. Mean ± sample standard deviation over {len(seeds)} splits (seeds {', '.join(map(str, seeds))}), one "
        f"detector each, profile `{profile}`; epochs chosen on validation videos"
        + (", a quarter of the training videos where training and test are fixed" if is_shade else "")
        + ". What is seen and heard of a video of each class (Figure 1) is drawn in samples.png. All stages took "
        f"{protocol.seconds() / 60:.1f} minutes.",
    ]
    return write_tables(protocol, [*parts, *notes])


__all__ = ["reproduce_shade", "spatial_patch", "temporal_patch"]
