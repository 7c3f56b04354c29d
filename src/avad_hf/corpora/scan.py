"""Brings the folders in which people keep MAVAD, SHADE or corpora of their own into one manifest."""

import json
import os
import re
from collections import Counter
from collections.abc import Callable, Iterable
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from avad_hf.media.decode import MediaError
from avad_hf.media.sources import open_media

from . import shanghaitech
from .classes import CORPORA, MAVAD_SCENES, class_table, is_normal, own_anomalies
from .darkness import with_darkness
from .manifest import COLUMNS, ManifestError, complete, read_meta
from .splits import SPLIT_ALIASES
from .tree import FoundVideo, Tree, walk

# Names of files that say what folders do not.
ANNOTATIONS = ("annotations.csv", "annotations.txt", "annotations.json")
LISTS = {f"{alias}.txt": split for alias, split in SPLIT_ALIASES.items()}  # whatever the case of their letters
META = "meta.csv"
UNLABELLED = "clips without labels"


@dataclass(frozen=True)
class Scan:
    """What a folder holds.

    Args:
        corpus: ``"mavad"``, ``"shade"``, ``"shanghaitech"`` or ``"own"``.
        layout: How it is laid out, for people.
        rows: A manifest row a video.
        orphans: Sound files that belong to no video.
        unreadable: Videos that cannot be opened, and why; they are not in `rows`.
        silent: Ids of videos without sound.
    """

    corpus: str
    layout: str
    rows: list[dict[str, Any]]
    orphans: tuple[Path, ...] = ()
    unreadable: tuple[tuple[str, str], ...] = ()
    silent: tuple[str, ...] = ()


def scan(
    root: str | os.PathLike,
    corpus: str | None = None,
    classes: Iterable[str] | None = None,
    scene: str | None = None,
    fps: float | None = None,
    normal: Iterable[str] | None = None,
) -> Scan:
    """Recognise how a folder of videos is laid out, and list its videos with class, scene and split.

    Layouts (class folders by name, spelt as the corpus's table allows):

    - L1 ``scene/class/clip``, L2 ``class/clip``, sound inside or as ``clip.wav`` beside it;
    - L3 ``scene/video/class/clip`` and ``scene/audio/class/clip.wav``;
    - L4 ``scene/split/class/clip``, S1 ``split/class/clip``;
    - L5 clips and ``annotations.csv|txt|json``: path, label and, if fixed, split;
    - S2 ``class/clip`` and ``train.txt``, ``test.txt``: path and, if wanted, label;
    - S3 ``class/clip/000001.jpg`` and ``class/clip.wav``;
    - ShanghaiTech as released;
    - clips alone, in no class folder and without annotations: they are listed without labels.

    ``meta.csv`` (video, group, hour or time, weather, dark) adds what it says.

    Args:
        root: The folder.
        corpus: ``"mavad"``, ``"shade"`` or ``"shanghaitech"``; by default what the class names fit. Where all videos
            are normal, no name tells a corpus, and none is guessed.
        classes: Class names of a corpus of one's own; ``normal`` among them, unless `normal` says which are.
        scene: Name of the scene where no folder names it.
        fps: Frames a second of folders of pictures.
        normal: Names of the classes of one's own that are normal. All others are anomalies, and labels are the names
            as they are written; no corpus is guessed.

    Raises:
        FileNotFoundError: If there is no such folder.
        ManifestError: For a class or scene that the corpus does not know, or a normal class that is not there, listing
            the names that were seen; for folders that cannot be told apart; for files that are listed and not there.
    """
    tree = walk(Path(root).absolute())
    if normal is not None and corpus is not None:
        raise ManifestError(
            f"--normal is for classes of your own, but those of {corpus} are known. Give --normal or --corpus, not "
            "both."
        )
    nothing_said = corpus is None and classes is None and normal is None
    if corpus == "shanghaitech" or (nothing_said and shanghaitech.recognise(tree)):
        rows = complete(shanghaitech.rows_of(tree, fps), tree.root, str(tree.root))
        return Scan("shanghaitech", "ShanghaiTech", rows)
    if corpus is not None and corpus not in CORPORA:
        raise ManifestError(f"corpus must be one of {', '.join([*CORPORA, 'shanghaitech'])}, got {corpus!r}.")
    classes = None if classes is None else list(classes)
    if classes is not None and normal is None and not any(map(is_normal, classes)):
        raise ManifestError(
            f"None of the classes {', '.join(classes)} is normal. Name the one that is 'normal', or say which of them "
            "are normal (--normal)."
        )
    labels_and_scenes, listed, splits, layout = _places(tree, labels_needed=not nothing_said)
    names = {label for label, _ in labels_and_scenes.values() if label is not None}
    try:
        corpus, table = class_table(names, corpus, classes, as_written=normal is not None)
        anomalies = {} if normal is None else own_anomalies(table, normal)
    except ValueError as error:
        raise ManifestError(f"{tree.root}: {error}") from None
    rows = []
    for video in tree.videos:
        label, scene_name = labels_and_scenes[video.path]
        if (said := listed.get(video.path)) is not None and table.find(said) != table.find(label):
            raise ManifestError(f"{video.path} lies in the folder {label!r}, and a list says {said!r}. Which is it?")
        row = {
            "label": None if label is None else (label := table.find(label)),
            "anomaly": anomalies.get(label),
            "scene": scene_name or scene,
            "split": splits.get(video.path),
        }
        rows.append(_row(tree, video, fps) | row)
    if corpus == "mavad":
        _name_scenes(rows, tree.root)
    return _scan_of(tree, corpus, layout, rows)


def list_videos(root: str | os.PathLike, fps: float | None = None) -> Scan:
    """List the videos of a folder however they lie in it, without labels; ``meta.csv`` adds what it says.

    Args:
        root: The folder.
        fps: Frames a second of folders of pictures.

    Raises:
        FileNotFoundError: If there is no such folder.
        ValueError: If there is no video in it, or its links or ``meta.csv`` cannot be used.
    """
    tree = walk(Path(root).absolute())
    rows = [_row(tree, video, fps) for video in tree.videos]
    return _scan_of(tree, "own", UNLABELLED, rows)


def _scan_of(tree: Tree, corpus: str, layout: str, rows: list[dict[str, Any]]) -> Scan:
    _add_meta(tree.root, rows)
    return Scan(corpus, layout, complete(rows, tree.root, str(tree.root)), tuple(tree.orphans))


def _row(tree: Tree, video: FoundVideo, fps: float | None) -> dict[str, Any]:
    """What a manifest says of a video of which only the place is known."""
    return dict.fromkeys(COLUMNS) | {
        "id": video.path.relative_to(tree.root).as_posix(),
        "video": str(video.path),
        "audio": str(tree.audio[video.path]) if video.path in tree.audio else None,
        "fps": fps if video.path.is_dir() else None,
    }


def probe(found: Scan, on_progress: Callable[[int], None] | None = None) -> Scan:
    """Open every video: fill in its frame rate, and set those aside that cannot be opened.

    Of SHADE's videos without hour and darkness the brightness is measured as well.

    Args:
        found: What [`scan`] gives.
        on_progress: Called after each video with the number that are done.
    """

    def look(row: dict[str, Any]) -> tuple[dict[str, Any], bool] | str:
        try:
            if found.corpus == "shade":
                (row,) = with_darkness([row], measure=True)
            with open_media(row) as media:
                return row | {"fps": round(media.info.fps, 6)}, media.info.has_audio
        except (MediaError, OSError) as error:
            return str(error)

    rows, unreadable, silent = [], [], []
    # Closed first: whoever is stopped does not wait for those that are not begun.
    with ThreadPoolExecutor(os.cpu_count()) as pool, closing(pool.map(look, found.rows)) as looks:
        for done, (row, seen) in enumerate(zip(found.rows, looks, strict=True), 1):
            if isinstance(seen, str):
                unreadable.append((row["id"], seen))
            else:
                looked, has_audio = seen
                rows.append(looked)
                if not has_audio:
                    silent.append(row["id"])
            if on_progress is not None:
                on_progress(done)
    return replace(found, rows=rows, unreadable=tuple(unreadable), silent=tuple(silent))


# Where the class of each video is written


def _places(
    tree: Tree, labels_needed: bool
) -> tuple[dict[Path, tuple[str | None, str | None]], dict[Path, str], dict[Path, str], str]:
    """Class and scene as written, what lists say of the class, and split, of each video; and the layout's name."""
    annotated = _annotations(tree)
    listed = _listed(tree)
    labels = {path: label for path, (label, _) in (annotated or listed).items() if label is not None}
    splits = {path: split for path, (_, split) in (annotated or listed).items() if split is not None}
    unlabelled = not labels_needed and not labels and _hold_no_classes(tree)
    places: dict[Path, tuple[str | None, str | None]] = {}
    depths = Counter()
    split_folders = False
    for video in tree.videos:
        named = [SPLIT_ALIASES[part.lower()] for part in video.folders if part.lower() in SPLIT_ALIASES]
        folders = [part for part in video.folders if part.lower() not in SPLIT_ALIASES]
        if len(named) > 1:
            raise ManifestError(f"{video.path} lies in folders of two splits. Move it into one.")
        if named:
            if splits.setdefault(video.path, named[0]) != named[0]:
                raise ManifestError(
                    f"{video.path} lies in a folder of {named[0]}, and a list says {splits[video.path]}. Which is it?"
                )
            split_folders = True
        if annotated:
            if video.path not in labels:
                raise ManifestError(f"{video.path} has no label in {tree.root}'s annotations. Add it, or remove it.")
            places[video.path] = (labels[video.path], folders[0] if folders else None)
        elif folders:
            places[video.path] = (folders[-1], folders[-2] if len(folders) > 1 else None)
        elif video.path in labels:
            places[video.path] = (labels[video.path], None)
        elif unlabelled:
            places[video.path] = (None, None)
        else:
            raise ManifestError(
                f"{video.path}: neither a folder nor annotations.csv (path, label) says what class it is. Sort videos "
                "into folders by class, or write annotations.csv beside them. A folder of clips alone is listed "
                "without labels where neither corpus nor classes are named."
            )
        depths[len(folders)] += 1
    if len(depths) > 1 or max(depths) > 2:
        examples = {len(v.folders): v.path.relative_to(tree.root).as_posix() for v in tree.videos}
        raise ManifestError(
            f"{tree.root}: which folders are scenes and which are classes? Videos lie at different depths, or too "
            f"deep: {', '.join(examples.values())}. Bring all to class/clip or scene/class/clip, or write a manifest."
        )
    if unlabelled:
        return places, labels, splits, UNLABELLED
    return places, labels, splits, _layout(tree.videos, bool(annotated), bool(listed), split_folders, max(depths))


def _hold_no_classes(tree: Tree) -> bool:
    """Whether no folder can name a class, and no file of annotations is there that should."""
    if any((tree.root / name).is_file() for name in ANNOTATIONS):
        return False
    return all(part.lower() in SPLIT_ALIASES for video in tree.videos for part in video.folders)


def _layout(videos: list[FoundVideo], annotated: bool, listed: bool, split_folders: bool, depth: int) -> str:
    if annotated:
        return "L5 (clips and annotations)"
    if listed:
        return "S2 (class/clip, train and test lists)"
    if any(video.path.is_dir() for video in videos):
        return "S3 (class/clip/pictures)"
    if split_folders:
        return "L4 (scene/split/class/clip)" if depth == 2 else "S1 (split/class/clip)"
    if any(video.in_kind_folder for video in videos):
        return "L3 (scene/video/class/clip)"
    return "L1 (scene/class/clip)" if depth == 2 else "L2 (class/clip)"


def _by_name(tree: Tree) -> dict[str, Path]:
    """Videos by their path from the root, with and without ending."""
    names = {}
    for video in tree.videos:
        relative = video.path.relative_to(tree.root)
        names[relative.as_posix()] = video.path
        names[(relative.parent / video.stem).as_posix()] = video.path
    return names


def _annotations(tree: Tree) -> dict[Path, tuple[str | None, str | None]]:
    """Label and split by video, of an annotations file if there is one (L5)."""
    there = [tree.root / name for name in ANNOTATIONS if (tree.root / name).is_file()]
    if not there:
        return {}
    if len(there) > 1:
        raise ManifestError(f"{tree.root} has {' and '.join(path.name for path in there)}. Keep the one that counts.")
    path, names = there[0], _by_name(tree)
    if path.suffix == ".json":
        records = _json_records(path)
    else:
        records = [_record(line, names) for line in _lines(path)]
        records = [record for record in records if record[0] in names or not record[0].startswith("#")]
        if records and records[0][0].lower() in ("path", "video", "file", "clip"):
            records = records[1:]
    return _found(path, records, names)


def _json_records(path: Path) -> list[list[str]]:
    try:
        content = json.loads(path.read_text(encoding="utf-8-sig"))
        if isinstance(content, dict):
            content = [{"path": name, "label": label} for name, label in content.items()]
        records = [
            [record.get("path") or record["video"], record["label"], *filter(None, [record.get("split")])]
            for record in content
        ]
        if not all(isinstance(cell, str) for record in records for cell in record):
            raise TypeError
        return records
    except (UnicodeDecodeError, json.JSONDecodeError) as error:
        raise ManifestError(f"{path} is no JSON in UTF-8: {error}.") from None
    except (KeyError, AttributeError, TypeError):
        raise ManifestError(
            f"{path} must be an object of path and label, or a list of objects with path, label and, if fixed, split."
        ) from None


def _lines(path: Path) -> list[str]:
    try:
        # Not splitlines, which also cuts at rare characters that names can hold.
        lines = path.read_text(encoding="utf-8-sig").split("\n")
    except UnicodeDecodeError as error:
        raise ManifestError(f"{path} is no text in UTF-8: {error.reason}. Save it again as UTF-8.") from None
    return [line.strip() for line in lines if line.strip()]


def _record(line: str, names: dict[str, Path]) -> list[str]:
    """Path, label and split of a line, as far as it has them; names and labels may hold spaces, names commas."""
    ends = [index for index, letter in enumerate(line) if letter in ", \t"]
    for end in [len(line), *reversed(ends)]:
        if (name := line[:end].strip('" ')) in names:
            rest = [cell.strip('" ') for cell in re.split(r"[,\t]", line[end:].lstrip(", \t"))]
            words = rest[0].split(" ")
            if len(rest) == 1 and len(words) > 1 and words[-1].lower() in SPLIT_ALIASES:
                rest = [" ".join(words[:-1]), words[-1]]
            return [name, *filter(None, rest)]
    return [cell.strip('" ') for cell in re.split(r"[,\t]" if re.search(r"[,\t]", line) else " +", line)]


def _listed(tree: Tree) -> dict[Path, tuple[str | None, str | None]]:
    """Label, if any, and split by video, of lists such as train.txt (S2)."""
    listed: dict[Path, tuple[str | None, str | None]] = {}
    names = _by_name(tree)
    for path in sorted(tree.root.iterdir()):
        split = LISTS.get(path.name.lower())
        if split is None or not path.is_file():
            continue
        found = _found(path, [_record(line, names)[:2] for line in _lines(path)], names)
        if twice := listed.keys() & found.keys():
            raise ManifestError(f"{path}: {min(twice)} is in the list of another split too. Keep it in one.")
        listed |= {video: (label, split) for video, (label, _) in found.items()}
    if listed and (forgotten := [video.path for video in tree.videos if video.path not in listed]):
        raise ManifestError(f"{len(forgotten)} videos are in no list, first {forgotten[0]}. Add or remove them.")
    return listed


def _found(path: Path, records: list[list[str]], names: dict[str, Path]) -> dict[Path, tuple[str | None, str | None]]:
    labels, missing = {}, []
    for name, *rest in records:
        video = names.get(Path(name).as_posix())
        if video is None:
            missing.append(name)
            continue
        label, split = (*rest, None, None)[:2]
        if video in labels:
            raise ManifestError(f"{path} lists {name} twice. Keep one line of each video.")
        if split is not None and split.lower() not in SPLIT_ALIASES:
            raise ManifestError(f"{path}: {name} is of split {split!r}, but must be of train, validation or test.")
        labels[video] = (label, split and SPLIT_ALIASES[split.lower()])
    if missing:
        raise ManifestError(
            f"{path} lists {len(missing)} videos that are not there, first {missing[0]!r}. Paths count from "
            f"{path.parent}."
        )
    return labels


def _name_scenes(rows: list[dict[str, Any]], root: Path) -> None:
    """Give MAVAD's scenes their canonical names; where no folder names one, the root itself may."""
    seen = {row["scene"] for row in rows if row["scene"] is not None}
    if unknown := sorted(scene for scene in seen if MAVAD_SCENES.find(scene) is None):
        raise ManifestError(
            f"{root}: {', '.join(map(repr, unknown))} is no scene of MAVAD. Scenes known: "
            f"{', '.join(MAVAD_SCENES.names)}. Rename the folders, or name classes of your own (--classes)."
        )
    for row in rows:
        row["scene"] = MAVAD_SCENES.find(row["scene"] or root.name)


def _add_meta(root: Path, rows: list[dict[str, Any]]) -> None:
    """Add hour, weather, dark and other columns of meta.csv, by path or name of the video."""
    path = root / META
    if not path.is_file():
        return
    by_name: dict[str, list[dict[str, Any]]] = {}
    for row in rows:
        relative = Path(row["id"])
        for name in {row["id"], relative.with_suffix("").as_posix(), relative.name, relative.stem}:
            by_name.setdefault(name, []).append(row)
    for where, record in read_meta(path):
        named = by_name.get(Path(record["video"]).as_posix(), [])
        if len(named) != 1:
            problem = "no video" if not named else f"{len(named)} videos"
            raise ManifestError(f"{where}: {record['video']!r} names {problem} of {root}. Give the path from there.")
        named[0].update({key: value for key, value in record.items() if key != "video" and value is not None})


__all__ = ["Scan", "list_videos", "probe", "scan"]
