"""The tables of the AVACA paper (section V), run as published: features, training, evaluation, Markdown.

Every stage stays in the output folder and is not done again: features by video, trained detectors by epoch,
evaluations whole.
"""

import os
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, Literal

from transformers import ProcessorMixin

from avad_hf.comparison.compare import compare
from avad_hf.comparison.runs import PUBLISHED
from avad_hf.corpora.classes import MAVAD_CLASSES, MAVAD_SCENES
from avad_hf.corpora.splits import SEEDS
from avad_hf.features.dataset import FeatureDataset
from avad_hf.features.extraction import index_rows
from avad_hf.models.avaca.configuration_avaca import AvacaConfig
from avad_hf.processes import process_state

from .classes_avaca import class_settings, classes_as_markdown
from .pictures_avaca import corpus_tables, draw_examples
from .protocol import Figure, Protocol, held, load, write_tables

AUDIO_PATHS = ("zeroed", "focused", "plain")
# The paper's own fusion, and how the others are called.
FUSION = AvacaConfig.fusion
FUSION_NAMES = {
    "transformer": "intermediate transformer",
    "attention": "intermediate attention",
    "late": "late transformer",
}
STREETS = ("crossing", "underpass", "overlook")
# Detectors of the synthetic world, as the demonstration model has them: the videos are few and their maps small.
SYNTHETIC_WIDTHS = {"hidden_size": 32, "intermediate_size": 64}
# AUC in per cent as published, mean and standard deviation over three splits (Tables III and V); Table IV.
PAPER = {
    ("mgarr", "zeroed"): "87.91 ± 3.47",
    ("mgarr", "focused"): "89.76 ± 1.33",
    ("mgarr", "plain"): "88 ± 1.82",
    ("zejtun_scrapyard", "zeroed"): "63.18 ± 5.85",
    ("zejtun_scrapyard", "focused"): "64.10 ± 6.07",
    ("zejtun_scrapyard", "plain"): "64.69 ± 4.4",
    ("zejtun_field", "zeroed"): "76.58 ± 13.09",
    ("zejtun_field", "focused"): "80.45 ± 9.73",
    ("zejtun_field", "plain"): "78.6 ± 6.82",
    ("mgarr", "raw"): "91.49 ± 1.29",
    ("zejtun_scrapyard", "raw"): "66.5 ± 4.61",
    ("zejtun_field", "raw"): "80.29 ± 9.01",
}
# Detectors of other papers that are trained on ShanghaiTech beside AVACA; without sound they read sight.
OTHERS = ("arnet", "mist", "rtfm", "s3r", "urdmu", "bnwvad")
SHANGHAITECH = {
    "AR-Net": 91.24,
    "AVACA (paper)": 93.79,
    "MIST": 94.83,
    "RTFM": 97.21,
    "S3R": 97.48,
    "SSRL": 97.98,
    "PEL4VAD": 98.14,
}


def _run(
    protocol: Protocol,
    store: Path,
    scene: str | None,
    seed: int,
    audio_path: str,
    fusion: str = FUSION,
    classes: dict[str, Any] | None = None,
) -> dict[str, Any]:
    """Figures of one detector; `classes` are settings of those that it names, if it shall name some."""
    name, options, described = audio_path, {"audio_path": audio_path}, f"{audio_path} audio"
    if fusion != FUSION:
        name, options, described = f"{fusion}-{name}", options | {"fusion": fusion}, f"{fusion} fusion, {described}"
    if classes is not None:
        name, options, described = f"classes-{name}", options | classes, f"classes, {described}"
    return protocol.run(store, scene, seed, name, options, described)


def table_iii(protocol: Protocol, store: Path, scenes: Sequence[str], claim: str, fusion: str = FUSION) -> str:
    """Scenes by audio path, each cell over all splits: AUC of videos, of clips, and of frames if they have labels."""
    cells = {
        (scene, audio_path): [_run(protocol, store, scene, seed, audio_path, fusion) for seed in protocol.seeds]
        for scene in scenes
        for audio_path in AUDIO_PATHS
    }
    kinds = {
        "Videos, each judged by its highest clip": "video",
        "Clips, each with its video's label": "clip",
        "Frames, each with its own label": "frame",
    }
    parts = []
    for title, kind in kinds.items():
        if any(found[kind] is None for runs in cells.values() for found in runs):
            continue
        lines = ["| scene | zeroed audio | focused audio path | plain audio path |", "|---|---|---|---|"]
        for scene in scenes:
            row = []
            for audio_path in AUDIO_PATHS:
                published = PAPER.get((scene, audio_path), "") if kind == "video" and fusion == FUSION else ""
                row.append(str(Figure(_areas(cells[scene, audio_path], kind), published)))
            lines.append(f"| {scene} | " + " | ".join(row) + " |")
        parts.append(f"{title}, AUC in per cent:\n\n" + "\n".join(lines))
    return f"## Table III: {claim}{_with_fusion(fusion)}\n\n" + "\n\n".join(parts)


def table_classes(protocol: Protocol, store: Path, scenes: Sequence[str], claim: str, fusion: str = FUSION) -> str:
    """Detectors on the focused audio path that name the classes of their scene as well, and how well they do."""
    rows = FeatureDataset(store).rows
    settings = {scene: class_settings([row for row in rows if row["scene"] == scene]) for scene in scenes}
    found = {
        scene: [_run(protocol, store, scene, seed, "focused", fusion, chosen) for seed in protocol.seeds]
        for scene, chosen in settings.items()
        if chosen is not None
    }
    areas = {scene: str(Figure(_areas(runs, "video"))) for scene, runs in found.items()}
    return f"## Classes: {claim}{_with_fusion(fusion)}\n\n{classes_as_markdown(found, areas)}"


def _with_fusion(fusion: str) -> str:
    return "" if fusion == FUSION else f", {FUSION_NAMES[fusion]} fusion"


def table_iv(protocol: Protocol, store: Path) -> str:
    """ShanghaiTech without sound: AUC of frames beside published ones."""
    found = [_run(protocol, store, None, seed, "zeroed") for seed in protocol.seeds]
    if any(run["frame"] is None for run in found):
        reason = next(run["undefined"]["frame"] for run in found if run["frame"] is None)
        raise ValueError(f"Table IV counts frames, but {reason}. Put test_frame_mask/ into the corpus's folder.")
    lines = ["| method | AUC of frames, per cent |", "|---|---|"]
    lines += [f"| {name} | {value:.2f} |" for name, value in SHANGHAITECH.items()]
    lines.append(f"| AVACA (this run) | {Figure(_areas(found, 'frame'))} |")
    return "## Table IV: ShanghaiTech, weakly supervised, zero audio\n\n" + "\n".join(lines)


def table_of_others(protocol: Protocol, store: Path) -> str:
    """ShanghaiTech: other detectors of Table IV, each by the recipe of its own paper, on the same splits."""
    settings = {name: value for name, value in protocol.settings.items() if name != "model_options"}
    found = compare(
        store,
        protocol.output_dir / "compared",
        OTHERS,
        seeds=protocol.seeds,
        rates=(),
        profile=PUBLISHED,
        settings=settings,
        on_run=lambda words, done, total: protocol.on_stage(f"{words}: {done} of {total}"),
    )
    return "## Table IV: other detectors, trained here by their own recipes\n\n" + found.markdown.rstrip("\n")


def table_v(protocol: Protocol, anonymised: Path, raw: Path, scenes: Sequence[str]) -> str:
    """Raw against anonymised videos, focused audio path."""
    lines = ["| scene | raw | anonymised |", "|---|---|---|"]
    for scene in scenes:
        row = []
        for store, name in ((raw, "raw"), (anonymised, "focused")):
            runs = [_run(protocol, store, scene, seed, "focused") for seed in protocol.seeds]
            row.append(str(Figure(_areas(runs, "video"), PAPER.get((scene, name), ""))))
        lines.append(f"| {scene} | " + " | ".join(row) + " |")
    return "## Table V: raw and anonymised videos, AUC of videos in per cent\n\n" + "\n".join(lines)


def paired(raw: Any, anonymised: Any, match_by: str | None = None) -> list[dict[str, Any]]:
    """Rows of the raw videos, each with the id, the group and the splits of its anonymised copy.

    Splits are drawn by id, so that Table V compares "the exact same splits" (V-C) only where ids agree.

    Args:
        raw: Rows or a data set of the videos before they were anonymised.
        anonymised: Rows or a data set of their anonymised copies.
        match_by: Column of both that says which raw video is which copy; the id by default.

    Raises:
        ValueError: If a row has no partner, several, or one of another label or scene.
    """
    column = match_by or "id"
    copies, originals = index_rows(anonymised), index_rows(raw)
    by_name = [_by(rows, column, what) for rows, what in ((copies, "anonymised"), (originals, "raw"))]
    lone = [[name for name in one if name not in other] for one, other in (by_name, by_name[::-1])]
    if any(lone):
        raise ValueError(
            f"Table V compares the same videos, raw and anonymised, but by {column} {len(lone[0])} anonymised videos "
            f"have no raw one{_first(lone[0])}, and {len(lone[1])} raw videos have no anonymised "
            f"one{_first(lone[1])}. Give both the same ids in their manifests, name a column of both manifests that "
            "says which video is which (match_by, --match-by), or take the others off the manifests."
        )
    rows = []
    for name, row in by_name[1].items():
        partner = by_name[0][name]
        for known in ("label", "scene"):
            if row.get(known) != partner.get(known):
                raise ValueError(
                    f"Table V compares the same videos, but the {known} of {column} {name} is {row.get(known)!r} raw "
                    f"and {partner.get(known)!r} anonymised. Correct one of the manifests."
                )
        row = {key: value for key, value in row.items() if not _divides(key)}
        rows.append(row | {key: value for key, value in partner.items() if key == "id" or _divides(key)})
    return rows


def _divides(column: str) -> bool:
    return column in ("group", "split") or column.startswith("split_")


def _by(rows: Sequence[dict[str, Any]], column: str, what: str) -> dict[str, dict[str, Any]]:
    """Rows by the value of a column, which each must have, and no other."""
    if not any(column in row for row in rows):
        raise ValueError(
            f"match_by names the column {column!r}, which the {what} videos do not have. Their columns: "
            f"{', '.join(rows[0])}."
        )
    named: dict[str, list[dict[str, Any]]] = {}
    for row in rows:
        if row.get(column) is None:
            raise ValueError(
                f"The {what} video {row['id']!r} has no {column}. Fill it in, or match by another column."
            )
        named.setdefault(str(row[column]), []).append(row)
    if twice := [name for name, same in named.items() if len(same) > 1]:
        raise ValueError(
            f"{len(twice)} values of {column} belong to several {what} videos{_first(twice)}. Each video needs one of "
            "its own, to be matched by it."
        )
    return {name: same[0] for name, same in named.items()}


def _first(names: Sequence[str]) -> str:
    return f" (first {', '.join(names[:3])})" if names else ""


def _refuse_other_splits(anonymised: Path, raw: Path, seeds: Sequence[int]) -> None:
    """Refuse stores of other videos or splits: one may hold more, of an earlier run."""
    for seed in seeds:
        parts = [
            {row["id"]: row["split"] for row in FeatureDataset(store, seed=seed).rows} for store in (anonymised, raw)
        ]
        if different := sorted(name for name in {*parts[0], *parts[1]} if parts[0].get(name) != parts[1].get(name)):
            raise ValueError(
                f"Table V compares the exact same splits, but {len(different)} videos{_first(different)} are in only "
                f"one of {anonymised} and {raw}, or in different sets of split {seed}. Remove {raw}, which an earlier "
                "run filled with other videos, or give another output folder."
            )


def _by_fusion(
    protocol: Protocol, store: Path, scenes: Sequence[str], claim: str, fusions: Sequence[str], classes: bool
) -> list[str]:
    """Table III of each fusion, and the table of classes if it is asked for."""
    tables = [table_iii(protocol, store, scenes, claim, fusion) for fusion in fusions]
    return tables + [table_classes(protocol, store, scenes, claim, fusion) for fusion in fusions if classes]


def _corpus(protocol: Protocol, store: Path, rows: Sequence[dict[str, Any]], scenes: Sequence[str]) -> str:
    """What the corpus holds, with a picture of examples of each scene."""
    text = corpus_tables(FeatureDataset(store).rows, scenes, MAVAD_CLASSES.names)
    for scene in scenes:
        path = protocol.output_dir / f"examples-{scene}.png"
        if process_state().is_main_process:
            draw_examples(
                [row for row in rows if row["scene"] == scene], MAVAD_CLASSES.names, path, f"{scene} (Figure 2)"
            )
        text += f"\n\n![Frames and spectrogram of one video of each class, {scene}]({path.name})"
    return text


def _areas(runs: Sequence[dict[str, Any]], kind: str) -> list[float]:
    return [float("nan") if (area := found[kind]["roc_auc"]) is None else area for found in runs]


@held
def reproduce(
    corpus: Literal["mavad", "shanghaitech", "synthetic"],
    processor: ProcessorMixin,
    output_dir: str | os.PathLike,
    *,
    data_dir: str | os.PathLike | None = None,
    raw_dir: str | os.PathLike | None = None,
    match_by: str | None = None,
    profile: str | None = None,
    seeds: Sequence[int] = SEEDS,
    num_videos: int = 200,
    world_seed: int = 0,
    fusions: Sequence[str] = (FUSION,),
    classes: bool = False,
    settings: dict[str, Any] | None = None,
    on_stage: Callable[[str], None] = lambda stage: None,
) -> str:
    """Run the protocol of the paper on a corpus and write its tables.

    MAVAD: one detector a scene, split and audio path (Table III), and raw beside anonymised copies (Table V); what the
    corpus holds, and a picture of examples of each scene (Tables I and II, Figures 1 and 2).
    ShanghaiTech: the published split with zero audio (Table IV), and other detectors by their own recipes, unless
    several processes were started; each seed holds another quarter of the training videos out to choose the epoch.
    The synthetic world: Table III on its three streets.

    What was done before is not done again: a run that was stopped goes on where it was.

    Args:
        corpus: Which one.
        processor: Makes the features: frozen encoders, on their device.
        output_dir: Folder of all stages, of ``tables.md``, and of each run's checkpoint and figures.
        data_dir: Folder of the corpus, or where the synthetic world is to be rendered.
        raw_dir: MAVAD's videos before they were anonymised, for Table V.
        match_by: Column of both manifests that says which raw video is which anonymised one; the id by default.
        profile: Training profile; the published one by default, and the default one for the synthetic world.
        seeds: One split each.
        num_videos: A scene of the synthetic world.
        world_seed: Seed of the drawn videos.
        fusions: Table III is made with each of these ways to put sight and sound together: ``"transformer"``,
            ``"attention"``, ``"late"``.
        classes: Whether detectors that name the class of a video are trained too, one a scene, split and fusion.
        settings: Training settings, which count before the profile's.
        on_stage: Told in words what is done next.

    Returns:
        The tables as Markdown, with the time that all stages took.

    Raises:
        ValueError: For an unknown corpus, videos that cannot be read, raw videos that are not those that were
            anonymised, or a folder that holds other runs, or that another process is writing.
    """
    if corpus not in ("mavad", "shanghaitech", "synthetic"):
        raise ValueError(f"corpus must be mavad, shanghaitech or synthetic, got {corpus!r}.")
    if raw_dir is not None and corpus != "mavad":
        raise ValueError("raw_dir is for MAVAD, whose Table V compares raw and anonymised videos.")
    if corpus == "shanghaitech" and (classes or tuple(fusions) != (FUSION,)):
        raise ValueError("fusions and classes are for Table III, of MAVAD and the synthetic world. Leave them out.")
    if not fusions or (unknown := [name for name in fusions if name not in AvacaConfig.fusions]):
        given = ", ".join(unknown) if fusions else "none"
        raise ValueError(f"fusions must be some of {', '.join(AvacaConfig.fusions)}, got {given}.")
    if match_by is not None and raw_dir is None:
        raise ValueError(
            f"match_by={match_by!r} is for Table V: give raw_dir, the videos before they were anonymised."
        )
    if profile is None:
        profile = {"mavad": "paper", "shanghaitech": "shanghaitech", "synthetic": "default"}[corpus]
    settings = dict(settings or {})
    if corpus == "synthetic":
        settings["model_options"] = SYNTHETIC_WIDTHS | settings.get("model_options", {})
    protocol = Protocol(Path(output_dir), profile, settings, seeds, on_stage)
    if corpus == "shanghaitech":
        store = protocol.features(corpus, load(corpus, data_dir=data_dir), processor)
        tables = [table_iv(protocol, store)]
        # Which runs processes of its own.
        tables += [table_of_others(protocol, store)] if process_state().num_processes == 1 else []
    elif corpus == "synthetic":
        drawn = {"data_dir": data_dir, "num_videos": num_videos, "world_seed": world_seed}
        scenes = {scene: load(corpus, scene, **drawn) for scene in STREETS}
        for rows in scenes.values():
            store = protocol.features(corpus, rows, processor)
        claim = f"synthetic world, {num_videos} drawn videos a scene"
        tables = _by_fusion(protocol, store, STREETS, claim, fusions, classes)
        tables.append(_corpus(protocol, store, [row for rows in scenes.values() for row in index_rows(rows)], STREETS))
    else:
        rows = load(corpus, data_dir=data_dir)
        # Before the hours that the first table takes.
        raw_rows = None if raw_dir is None else paired(load(corpus, data_dir=raw_dir), rows, match_by)
        store = protocol.features(corpus, rows, processor)
        scenes = [name for name in MAVAD_SCENES.names if name in {row["scene"] for row in FeatureDataset(store).rows}]
        tables = _by_fusion(protocol, store, scenes, "MAVAD", fusions, classes)
        if raw_rows is not None:
            raw = protocol.features(f"{corpus}-raw", raw_rows, processor)
            _refuse_other_splits(store, raw, seeds)
            tables.append(table_v(protocol, store, raw, scenes))
        tables.append(_corpus(protocol, store, index_rows(rows), scenes))
    notes = [
        f"Mean ± sample standard deviation over {len(seeds)} splits (seeds {', '.join(map(str, seeds))}), one "
        f"detector each, profile `{profile}`; epoch and threshold chosen on validation videos. All stages took "
        f"{protocol.seconds() / 60:.1f} minutes.",
        *processor.notices,
    ]
    return write_tables(protocol, [*tables, *notes])


__all__ = ["reproduce"]
