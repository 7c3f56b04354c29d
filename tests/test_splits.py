"""Seeded splits: their arithmetic against fractions, their sizes, and that they are alike everywhere."""

from collections import Counter
from fractions import Fraction

import pytest

from avad_hf.corpora.splits import SHARES, assign_splits, divide, stratified, with_split_columns

# AVACA, Table I: videos by class (normal, pedestrians, crossing, bicycle, bus, exit, heavy goods, obstruction, u-turn,
# scooter, horse) of Mgarr.
MGARR = {"normal": 161, "pedestrians": 65, "crossing": 21, "bicycle": 10, "bus": 20, "exit": 44, "hgv": 21,
         "obstruction": 3, "u_turn": 1}  # fmt: skip


def rows(counts, scene="mgarr", **fields):
    return [
        {"id": f"{scene}/{label}/{index}.mp4", "scene": scene, "label": label, "split": None} | fields
        for label, count in counts.items()
        for index in range(count)
    ]


@pytest.mark.parametrize("count", range(0, 60))
def test_parts_are_those_of_largest_remainder(count):
    parts = divide(count, SHARES)
    exact = {name: Fraction(count * share, 100) for name, share in SHARES.items()}
    assert sum(parts.values()) == count
    assert all(int(exact[name]) <= parts[name] <= int(exact[name]) + 1 for name in parts)
    # Whoever was rounded up had no smaller remainder than whoever was not.
    up = [exact[name] - int(exact[name]) for name in parts if parts[name] > int(exact[name])]
    down = [exact[name] - int(exact[name]) for name in parts if parts[name] == int(exact[name])]
    assert not up or not down or min(up) >= max(down)


@pytest.mark.parametrize(
    ("count", "expected"),
    [(1, (1, 0, 0)), (2, (1, 1, 0)), (3, (2, 1, 0)), (4, (2, 1, 1)), (5, (3, 1, 1)), (10, (6, 2, 2))],
)
def test_small_classes(count, expected):
    parts = divide(count, SHARES)
    assert (parts["train"], parts["test"], parts["validation"]) == expected


def test_each_class_of_each_scene_is_divided_by_itself():
    everything = rows(MGARR) + rows({"normal": 10}, "field")
    splits = stratified(everything, 0)
    counts = Counter((row["scene"], row["label"], splits[row["id"]]) for row in everything)
    assert counts["mgarr", "normal", "train"] == 97 and counts["mgarr", "normal", "test"] == 32
    assert counts["field", "normal", "train"] == 6 and counts["field", "normal", "validation"] == 2
    assert counts["mgarr", "u_turn", "train"] == 1 and counts["mgarr", "u_turn", "test"] == 0
    # A scene by itself is divided as among others.
    assert stratified(rows(MGARR), 0).items() <= splits.items()


def test_split_is_the_same_on_every_machine():
    """Golden: for i in 0 1 2 3 4; do printf "7//normal/é $i" | sha256sum; done, put in order by hand."""
    splits = stratified([{"id": f"é {i}", "scene": None, "label": "normal"} for i in range(5)], 7)
    assert splits == {"é 2": "train", "é 3": "train", "é 1": "train", "é 4": "test", "é 0": "validation"}


def test_order_of_rows_does_not_matter_and_seeds_differ():
    everything = rows(MGARR)
    assert stratified(everything[::-1], 1) == stratified(everything, 1)
    repeats = [stratified(everything, seed) for seed in (0, 1, 2)]
    assert repeats[0] != repeats[1] != repeats[2] != repeats[0]


def test_columns_of_a_manifest_count_before_the_rule():
    own = rows({"normal": 3}, split_0="validation", split_1="test")
    assert assign_splits(own) == ["validation"] * 3
    assert assign_splits(own, 1) == ["test"] * 3
    assert sorted(assign_splits(own, 2)) == ["test", "train", "train"]


def test_fixed_splits_stay():
    own = [row | {"split": split} for row, split in zip(rows({"normal": 9}), ["train"] * 8 + ["test"], strict=True)]
    assert assign_splits(own) == ["train"] * 8 + ["test"]
    held_out = assign_splits(own, 0)
    assert Counter(held_out) == {"train": 6, "validation": 2, "test": 1} and held_out[8] == "test"
    assert assign_splits(own, 1) != held_out


def test_refusals():
    fixed = [row | {"split": s} for row, s in zip(rows({"normal": 3}), ["train", "validation", "test"], strict=True)]
    with pytest.raises(ValueError, match="seed=1 asks for a random split, but this corpus fixes"):
        assign_splits(fixed, 1)


def test_stretches_of_one_video_stay_together():
    stretches = [
        {"id": f"{video}#t={start}", "video": f"{video}.mp4", "scene": "s", "label": label, "split": None}
        for video in range(20)
        for start, label in ((0, "normal"), (10, "fire"), (20, "smoke"))
    ]
    for seed in range(3):
        splits = stratified(stretches, seed)
        by_video = {video: {splits[r["id"]] for r in stretches if r["video"] == f"{video}.mp4"} for video in range(20)}
        assert all(len(parts) == 1 for parts in by_video.values())
        assert Counter(min(parts) for parts in by_video.values()) == {"train": 12, "test": 4, "validation": 4}


def test_columns_keep_the_split_of_the_whole():
    """A part of the rows, or a store in which some videos failed, is split as the whole was."""
    everything = with_split_columns(rows(MGARR))
    for seed in (0, 1, 2):
        assert assign_splits(everything, seed) == [stratified(rows(MGARR), seed)[r["id"]] for r in everything]
        assert assign_splits(everything[::3], seed) == assign_splits(everything, seed)[::3]
    fixed = [row | {"split": ("train", "test")[i % 2]} for i, row in enumerate(rows({"normal": 20}))]
    columns = with_split_columns(fixed)
    assert assign_splits(columns) == [row["split"] for row in fixed]
    assert assign_splits(columns, 1) == assign_splits(fixed, 1) and "validation" in assign_splits(columns, 1)
    # Several corpora in one store, with and without splits of their own.
    both = columns + everything
    assert assign_splits(both) == assign_splits(columns) + assign_splits(everything)
    assert assign_splits(both, 2) == assign_splits(columns, 2) + assign_splits(everything, 2)


def test_all_three_fixed_need_no_columns():
    own = [row | {"split": s} for row, s in zip(rows({"normal": 3}), ["train", "validation", "test"], strict=True)]
    assert with_split_columns(own) == own
