"""Training, validation and test sets: those that a corpus fixes, and seeded ones where it fixes none."""

import hashlib
from collections import defaultdict
from collections.abc import Iterable, Sequence
from typing import Any

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
RULE = (
    "Within each scene and class, videos are ordered by the SHA-256 of 'seed/scene/label/id' (UTF-8) and cut into "
    "train, test and validation, 60/20/20. What rounding down leaves over goes to the largest remainders, of equal "
    "ones first to train, then to test. A class of one video goes to train."
)


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
    """Divide videos within each scene and class, alike on every machine (`RULE`).

    Args:
        rows: With ``id``, ``scene`` and ``label`` each.
        seed: Another number gives another split.
        shares: Per cent of each set.

    Returns:
        The set of each id.
    """
    groups = defaultdict(list)
    for row in rows:
        key = f"{row['scene'] or ''}/{row['label'] or ''}"
        order = hashlib.sha256(f"{seed}/{key}/{row['id']}".encode()).hexdigest()
        groups[key].append((order, row["id"]))
    splits = {}
    for group in groups.values():
        names = [name for name, size in divide(len(group), shares).items() for _ in range(size)]
        splits |= {video: name for (_, video), name in zip(sorted(group), names, strict=True)}
    return splits


def split_column(seed: int) -> str:
    """Name of the manifest column that holds the split of a seed."""
    return f"split_{seed}"


def assign_splits(rows: Sequence[dict[str, Any]], seed: int | None = None) -> list[str]:
    """Say for each row which set it belongs to.

    Args:
        rows: With ``id``, ``scene``, ``label`` and ``split``, which is ``None`` in all rows of a corpus that fixes no
            split. A column ``split_<seed>`` is then taken as it stands, otherwise `RULE` divides.
        seed: Of the random split, 0 by default. In a corpus that fixes training and test alone, a seed holds a quarter
            of each training class out for validation.

    Raises:
        ValueError: If only some rows have a split, or a seed is given where the corpus fixes all three.
    """
    fixed = [row["split"] for row in rows]
    if not any(fixed):
        column = split_column(seed or 0)
        if rows and all(row.get(column) for row in rows):
            return [row[column] for row in rows]
        by_rule = stratified(rows, seed or 0)
        return [by_rule[row["id"]] for row in rows]
    if without := [row["id"] for row in rows if not row["split"]]:
        raise ValueError(
            f"{len(without)} of {len(rows)} videos have no split, first {without[0]}. Fill split in all rows, "
            "or in none to have them divided 60/20/20."
        )
    if seed is None:
        return fixed
    if "validation" in fixed:
        raise ValueError(
            f"seed={seed} asks for a random split, but this corpus fixes training, validation and test itself. Leave "
            "seed out, or empty the split column."
        )
    held_out = stratified([row for row in rows if row["split"] == "train"], seed, HELD_OUT)
    return [held_out.get(row["id"], row["split"]) for row in rows]
