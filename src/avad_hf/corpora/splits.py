"""Training, validation and test sets: those that a corpus fixes, and seeded ones where it fixes none."""

import hashlib
from collections import Counter, defaultdict
from collections.abc import Hashable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from fractions import Fraction
from math import lcm
from typing import Any

from .classes import is_normal

SPLITS = ("train", "validation", "test")
# What people write for them, in lower case.
SPLIT_ALIASES = {
    "train": "train",
    "training": "train",
    "val": "validation",
    "valid": "validation",
    "validation": "validation",
    "dev": "validation",
    "test": "test",
    "testing": "test",
}
# AVACA V: three random splits, 60/20/20 "applied to each class, if possible". The order breaks ties.
SEEDS = (0, 1, 2)
SHARES = {"train": 60, "test": 20, "validation": 20}
# What a validation set takes from the training set of a corpus that fixes only training and test.
HELD_OUT = {"train": 75, "validation": 25}
# Validation videos of a kind below which a figure says little: of 20, one video is 5 points of recall.
FEW_VIDEOS = 20


def divide(count: int, shares: dict[str, int]) -> dict[str, int]:
    """Divide a number of videos by largest remainder; of equal remainders the first set comes first.

    Args:
        count: Videos to divide.
        shares: Per cent of each set.
    """
    # In whole numbers, since rounding errors of floats would break ties.
    parts = {name: count * share // 100 for name, share in shares.items()}
    by_remainder = sorted(shares, key=lambda name: -(count * shares[name] % 100))
    for name in by_remainder[: count - sum(parts.values())]:
        parts[name] += 1
    return parts


@dataclass(frozen=True)
class _Unit:
    """Rows that stay together.

    Args:
        rows: One video, stretches of one video, or a group.
        stratum: ``scene/label`` of its first anomalous class.
        order: Hash that puts units in a line; the seed shuffles it.
    """

    rows: list[dict[str, Any]]
    stratum: str
    order: str


def stratified(rows: Iterable[dict[str, Any]], seed: int, shares: dict[str, int] = SHARES) -> dict[str, str]:
    """Divide videos within each scene and class, alike on every machine, and keep groups together.

    Within each scene and class, videos are ordered by the SHA-256 of ``seed/scene/label/id`` (UTF-8) and cut into
    train, test and validation, 60/20/20. What rounding down leaves over goes to the largest remainders; ties go to
    train first, then to test. A class of one video goes to train. Stretches of one video stay together, as one
    video of their first anomalous class and id.

    Rows with a ``group`` are divided by themselves, a whole group at a time: those of most rows first (by powers of
    two; within one, in the order of that hash). Each group goes to the set that has least of the group's classes and
    scenes for its share. Scenes with fewer groups than there are sets are left out of this count. While there are
    groups for it, no set stays empty. Groups that share a video are one.

    Args:
        rows: With ``id``, ``scene`` and ``label`` each. Rows with the same ``video``, or the same ``group``, stay
            together.
        seed: Another number gives another split.
        shares: Per cent of each set.

    Returns:
        The set of each id.
    """
    strata, groups = defaultdict(list), []
    for unit in _units(rows, seed):
        if any(row.get("group") is not None for row in unit.rows):
            groups.append(unit)
        else:
            strata[unit.stratum].append(unit)
    splits = {}
    for units in strata.values():
        names = [name for name, size in divide(len(units), shares).items() for _ in range(size)]
        for unit, name in zip(sorted(units, key=lambda unit: unit.order), names, strict=True):
            splits |= {row["id"]: name for row in unit.rows}
    for unit, name in _balanced(groups, shares):
        splits |= {row["id"]: name for row in unit.rows}
    return splits


def grouped_folds(rows: Sequence[dict[str, Any]], num_folds: int = 5, seed: int = 0) -> list[dict[str, str]]:
    """Divide videos into folds for cross-validation, alike on every machine, and keep groups together.

    Each video is tested in exactly one fold. The folds hold about equally much of each class and scene: videos and
    groups are placed by the rule that `stratified` has for groups. Of the videos that a fold does not test, a quarter
    is held out for validation, by `stratified` as well. So five folds are divided 60/20/20. Splits that the corpus
    fixes play no part.

    Args:
        rows: With ``id``, ``scene`` and ``label`` each, as in `stratified`.
        num_folds: How many folds, 2 or more.
        seed: Another number gives other folds.

    Returns:
        For each fold, the set of each id: ``"train"``, ``"validation"`` or ``"test"``.

    Raises:
        ValueError: If there are fewer groups than folds.
    """
    units = _units(rows, seed)
    if not 2 <= num_folds <= len(units):
        raise ValueError(
            f"num_folds is {num_folds}, but must be within 2 and the number of groups. The {len(rows)} rows form "
            f"{len(units)} groups (rows with the same group or video are one). Give fewer folds, or more groups."
        )
    tested = {}
    for unit, fold in _balanced(units, dict.fromkeys(range(num_folds), 1)):
        tested |= {row["id"]: fold for row in unit.rows}
    folds = []
    for fold in range(num_folds):
        others = [row for row in rows if tested[row["id"]] != fold]
        # Another seed for each fold, so that they do not all choose the same videos for validation.
        divided = stratified(others, seed + fold, HELD_OUT)
        folds.append({row["id"]: divided.get(row["id"], "test") for row in rows})
    return folds


def _units(rows: Iterable[dict[str, Any]], seed: int) -> list[_Unit]:
    rows = list(rows)
    parents: dict[Hashable, Hashable] = {}

    def root(node: Hashable) -> Hashable:
        while (parent := parents.setdefault(node, node)) != node:
            parents[node] = parents[parent]  # halves the way for the next one
            node = parents[node]
        return node

    for row in rows:
        if row.get("group") is not None:
            parents[root(("group", row["group"]))] = root(_video(row))
    together = defaultdict(list)
    for row in rows:
        together[root(_video(row))].append(row)
    units = []
    for members in together.values():
        first = min(members, key=lambda row: (is_normal(row["label"] or "normal"), row["label"] or "", row["id"]))
        stratum = f"{first['scene'] or ''}/{first['label'] or ''}"
        order = hashlib.sha256(f"{seed}/{stratum}/{first['id']}".encode()).hexdigest()
        units.append(_Unit(members, stratum, order))
    return units


def _video(row: dict[str, Any]) -> tuple[str, str]:
    return "video", row.get("video") or row["id"]


def _balanced(units: Sequence[_Unit], shares: dict[Any, int]) -> Iterator[tuple[_Unit, Any]]:
    """Place each unit so that the sets come near their shares of every class and scene.

    It goes where it adds least to the squared differences, each divided by its share (chi-squared), in whole numbers
    so that all machines agree.
    """
    groups_of_scene = Counter(scene for unit in units for scene in {row["scene"] for row in unit.rows})
    # A scene of one or two groups cannot be in all sets, and would draw them into the largest.
    spread = {scene for scene, count in groups_of_scene.items() if scene is not None and count >= len(shares)}
    contents = [_contents(unit, spread) for unit in units]
    totals = sum(contents, Counter())
    common = lcm(*totals.values())
    weights = {kind: (common // total) ** 2 for kind, total in totals.items()}
    counts: dict[Any, Counter] = {name: Counter() for name in shares}
    sizes = dict.fromkeys(shares, 0)
    # By powers of two, since by exact sizes every seed would give the same split.
    line = sorted(zip(units, contents, strict=True), key=lambda pair: (-len(pair[0].rows).bit_length(), pair[0].order))
    for place, (unit, content) in enumerate(line):
        empty = [name for name in shares if not sizes[name]]

        def fullness(name: Any, content: Counter = content) -> tuple[Fraction, Fraction]:
            added = sum(n * (2 * counts[name][kind] + n) * weights[kind] for kind, n in content.items())
            return Fraction(added, shares[name]), Fraction(sizes[name], shares[name])

        chosen = min(empty if len(units) - place <= len(empty) else shares, key=fullness)
        counts[chosen] += content
        sizes[chosen] += len(unit.rows)
        yield unit, chosen


def _contents(unit: _Unit, scenes: set[str]) -> Counter:
    """How many rows of each class, and of each of these scenes."""
    kinds: Counter = Counter()
    for row in unit.rows:
        kinds["class", row.get("anomaly") if row["label"] is None else row["label"]] += 1
        if row["scene"] in scenes:
            kinds["scene", row["scene"]] += 1
    return kinds


def check_groups(rows: Iterable[dict[str, Any]], parts: Iterable[str | None], column: str) -> None:
    """Refuse a split that has rows of one ``group`` in two sets.

    Args:
        rows: With ``id`` and, where they belong to one, ``group``.
        parts: The set of each row.
        column: Where the split is written, for the message.

    Raises:
        ValueError: Naming the group and a row in each set.
    """
    sets_of: dict[Any, dict[str, str]] = defaultdict(dict)
    for row, part in zip(rows, parts, strict=True):
        if part and row.get("group") is not None:
            sets_of[row["group"]].setdefault(part, row["id"])
    if divided := [group for group, examples in sets_of.items() if len(examples) > 1]:
        examples = " and ".join(f"{part} ({example})" for part, example in sets_of[divided[0]].items())
        raise ValueError(
            f"The column {column} divides {len(divided)} groups, first {divided[0]!r}: it is in {examples}. Rows of "
            f"one group belong in one set. Correct {column} or group; or remove {column}, and every other split "
            "column that was made without groups, to have whole groups divided."
        )


def small_validation(labels: Iterable[int]) -> str | None:
    """What to know of a validation set with fewer than 20 normal or 20 anomalous videos; ``None`` of a larger one.

    Args:
        labels: 1 for each anomalous validation video, 0 for each normal one.
    """
    labels = [int(label) for label in labels]
    anomalous = sum(labels)
    normal = len(labels) - anomalous
    if min(normal, anomalous) >= FEW_VIDEOS:
        return None
    return (
        f"The validation set has {normal} normal and {anomalous} anomalous videos. With fewer than {FEW_VIDEOS} of a "
        "kind, its figures and the threshold that it chooses are rough. Add videos, or repeat with several seeds or "
        "grouped_folds and look at the spread."
    )


def split_column(seed: int) -> str:
    """Name of the column that holds the split of a seed."""
    return f"split_{seed}"


def with_split_columns(rows: Sequence[dict[str, Any]], seeds: Iterable[int] = SEEDS) -> list[dict[str, Any]]:
    """Add the splits of some seeds as columns, so that they stay the same for any part of the rows.

    Columns that are there already stay. Rows of a corpus that fixes all three sets are left as they are.
    """
    columns = {}
    if not any(row["split"] == "validation" for row in rows):
        for seed in seeds:
            if not all(row.get(split_column(seed)) for row in rows):
                columns[split_column(seed)] = assign_splits(rows, seed)
    return [row | {name: splits[i] for name, splits in columns.items()} for i, row in enumerate(rows)]


def assign_splits(rows: Sequence[dict[str, Any]], seed: int | None = None) -> list[str]:
    """Say for each row which set it belongs to.

    Args:
        rows: With ``id``, ``scene``, ``label`` and ``split``, which is ``None`` where the corpus fixes no split. A
            column ``split_<seed>`` is taken as it stands; without it the rule of `stratified` divides.
        seed: Seed of the random split, 0 by default. Where a corpus fixes training and test alone, a seed holds a
            quarter of each training class out for validation. Groups stay together in both.

    Raises:
        ValueError: If a seed is given where the corpus fixes all three, or if the sets that it fixes divide a group.
    """
    fixed = [row["split"] for row in rows]
    if seed is None and all(fixed):
        return fixed
    column = split_column(seed or 0)
    if all(row.get(column) or (row["split"] and seed is None) for row in rows):
        return [row["split"] if row["split"] and seed is None else row[column] for row in rows]
    if seed is not None and all(fixed) and "validation" in fixed:
        raise ValueError(
            f"seed={seed} asks for a random split, but this corpus fixes training, validation and test itself. Leave "
            "seed out, or empty the split column."
        )
    divided = stratified([row for row in rows if not row["split"]], seed or 0)
    if seed is not None and "validation" not in fixed:
        divided |= stratified([row for row in rows if row["split"] == "train"], seed, HELD_OUT)
    parts = [divided.get(row["id"], row["split"]) for row in rows]
    check_groups(rows, parts, "split")
    return parts
