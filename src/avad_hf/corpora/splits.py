"""Training, validation and test sets: those that a corpus fixes, and seeded ones where it fixes none."""

import hashlib
from collections import defaultdict
from collections.abc import Iterable, Sequence
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


def stratified(rows: Iterable[dict[str, Any]], seed: int, shares: dict[str, int] = SHARES) -> dict[str, str]:
    """Divide videos within each scene and class, alike on every machine.

    Within each scene and class, videos are ordered by the SHA-256 of ``seed/scene/label/id`` (UTF-8) and cut into
    train, test and validation, 60/20/20. What rounding down leaves over goes to the largest remainders, of equal ones
    first to train, then to test. A class of one video goes to train. Stretches of one video stay together, as one
    video of their first anomalous class and id.

    Args:
        rows: With ``id``, ``scene`` and ``label`` each; those with one ``video`` stay together.
        seed: Another number gives another split.
        shares: Per cent of each set.

    Returns:
        The set of each id.
    """
    stretches = defaultdict(list)
    for row in rows:
        stretches[row.get("video") or row["id"]].append(row)
    groups = defaultdict(list)
    for together in stretches.values():
        first = min(together, key=lambda row: (is_normal(row["label"] or "normal"), row["label"] or "", row["id"]))
        key = f"{first['scene'] or ''}/{first['label'] or ''}"
        order = hashlib.sha256(f"{seed}/{key}/{first['id']}".encode()).hexdigest()
        groups[key].append((order, [row["id"] for row in together]))
    splits = {}
    for group in groups.values():
        names = [name for name, size in divide(len(group), shares).items() for _ in range(size)]
        for (_, ids), name in zip(sorted(group), names, strict=True):
            splits |= dict.fromkeys(ids, name)
    return splits


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
        seed: Of the random split, 0 by default. Of a corpus that fixes training and test alone, a seed holds a quarter
            of each training class out for validation.

    Raises:
        ValueError: If a seed is given where the corpus fixes all three.
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
    return [divided.get(row["id"], row["split"]) for row in rows]
