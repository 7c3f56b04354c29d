"""Seeded splits and folds: their arithmetic and sizes, that groups stay together, and that they are alike everywhere.

The division into folds is compared with scikit-learn's.
"""

import hashlib
import random
from collections import Counter, defaultdict
from fractions import Fraction

import numpy as np
import pytest
from sklearn.model_selection import GroupKFold, StratifiedGroupKFold

from avad_hf.corpora.classes import is_normal
from avad_hf.corpora.splits import (
    HELD_OUT,
    SHARES,
    SPLITS,
    assign_splits,
    divide,
    grouped_folds,
    small_validation,
    stratified,
    with_split_columns,
)
from avad_hf.features.dataset import select

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


def rule_without_groups(rows, seed, shares):
    """The rule as it was before there were groups, as it stood in version 0.1.0."""
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


def random_rows(seed, num_groups=None, mixed=True, num_classes=4):
    """Rows of several classes and scenes, some of them stretches of one video, some in groups of very unequal size."""
    rng = random.Random(seed)
    rarity = [rng.random() ** 2 + 0.02 for _ in range(num_classes)]
    classes = ["normal", "fire", "leak", "fall", "smoke", "fight"][:num_classes]
    made = []
    if num_groups is None:
        for index in range(rng.randint(1, 80)):
            scene = rng.choice(["a", "b", None])
            for stretch in range(rng.choice([1, 1, 1, 3])):
                label = rng.choices(classes, rarity)[0]
                made.append({"id": f"{index}#{stretch}", "video": f"{index}.mp4", "scene": scene, "label": label})
    else:
        for group in range(num_groups):
            shares = [share * rng.random() for share in rarity]
            only = rng.choices(classes, rarity)[0]
            for index in range(max(1, int(rng.lognormvariate(1, 1)))):
                label = rng.choices(classes, shares)[0] if mixed else only
                made.append({"id": f"{group}-{index}", "scene": "a", "label": label, "group": f"day {group}"})
    return [{"split": None} | row for row in made]


def groups_in(rows, splits):
    sets = defaultdict(set)
    for row in rows:
        if row.get("group") is not None:
            sets[row["group"]].add(splits[row["id"]])
    return sets


@pytest.mark.parametrize("seed", range(30))
def test_rows_without_group_are_divided_as_before_there_were_groups(seed):
    own = random_rows(seed)
    for shares in (SHARES, HELD_OUT):
        before = rule_without_groups(own, seed, shares)
        assert stratified(own, seed, shares) == before
        assert stratified([row | {"group": None} for row in own], seed, shares) == before
        # What groups other rows have changes nothing.
        assert before.items() <= stratified(own + random_rows(seed, 5), seed, shares).items()


@pytest.mark.parametrize("mixed", [False, True])
@pytest.mark.parametrize("num_groups", [1, 2, 3, 7, 40])
def test_groups_stay_together(num_groups, mixed):
    for seed in range(5):
        own = random_rows(seed, num_groups, mixed) + random_rows(seed)
        for shares in (SHARES, HELD_OUT):
            splits = stratified(own, seed, shares)
            assert splits.keys() == {row["id"] for row in own}
            sets = groups_in(own, splits)
            assert all(len(names) == 1 for names in sets.values())
            # As many sets as there can be have a group; one group alone goes to train.
            assert len(set.union(*sets.values())) == min(num_groups, len(shares))
            assert any("train" in names for names in sets.values())
            assert stratified(own[::-1], seed, shares) == splits


@pytest.mark.parametrize(
    ("sizes", "expected"),
    [
        ([4], (4, 0, 0)),
        ([10, 10], (10, 10, 0)),
        ([10, 10, 10], (10, 10, 10)),
        ([10] * 5, (30, 10, 10)),
        ([1] * 100, (60, 20, 20)),
        ([7] * 20, (84, 28, 28)),
        # Where one group is larger than its share, the others are divided between the other sets.
        ([80] + [2] * 10, (80, 10, 10)),
        ([100, 1, 1], (100, 1, 1)),
    ],
)
def test_sets_of_groups_are_near_their_shares(sizes, expected):
    own = [
        {"id": f"{group}-{index}", "scene": "s", "label": "normal", "group": f"{group}"}
        for group, size in enumerate(sizes)
        for index in range(size)
    ]
    for seed in range(3):
        counts = Counter(stratified(own, seed).values())
        assert (counts["train"], counts["test"], counts["validation"]) == expected


def days(scenes, num_days, group):
    """Days with many normal videos and a few anomalies, other ones each day."""
    rng = random.Random(0)
    made = []
    for scene in scenes:
        for day in range(num_days):
            events = [label for label in ("fire", "leak", "fall") for _ in range(rng.choice([0, 0, 1, 2]))]
            for index, label in enumerate(["normal"] * rng.randint(10, 30) + events):
                names = {"scene": scene, "group": group.format(scene=scene, day=day)}
                made.append({"id": f"{scene}/{day}/{index}", "label": label, "split": None} | names)
    return made


@pytest.mark.parametrize(
    ("own", "shares_of"),
    [
        (days("abc", 20, "{scene} {day}"), ("label", "scene")),
        (days([None], 30, "{day}"), ("label",)),
        # A camera is one group: scenes cannot be in all sets, and classes still are.
        (days([f"camera {index}" for index in range(30)], 1, "{scene}"), ("label",)),
    ],
)
def test_groups_are_balanced_over_classes_and_scenes(own, shares_of):
    for seed in range(3):
        splits = stratified(own, seed)
        for column in shares_of:
            counts = Counter((row[column], splits[row["id"]]) for row in own)
            for value in {row[column] for row in own}:
                total = sum(counts[value, name] for name in SPLITS)
                for name in SPLITS:
                    assert abs(counts[value, name] / total - SHARES[name] / 100) < 0.15, (value, name)
    assert stratified(own, 0) != stratified(own, 1)


def test_seeds_divide_groups_of_different_sizes_differently():
    """If the larger group always came first, all repeats of a study would be one."""
    own = [
        {"id": f"{size}-{index}", "scene": "s", "label": "normal", "group": f"{size}"}
        for size in range(16, 32)
        for index in range(size)
    ]
    assert len({tuple(stratified(own, seed).values()) for seed in range(10)}) == 10


def test_no_set_is_favoured():
    shares = []
    for seed in range(200):
        own = random_rows(seed, 6 + seed % 40, mixed=seed % 2 == 0)
        counts = Counter(stratified(own, seed).values())
        shares.append([counts[name] / len(own) for name in SPLITS])
    assert np.allclose(np.mean(shares, axis=0), [0.6, 0.2, 0.2], atol=0.02)


def test_groups_without_labels_are_balanced_by_anomaly():
    own = [
        {"id": f"{group}-{index}", "scene": None, "label": None, "anomaly": int(group < 5), "group": f"{group}"}
        for group in range(20)
        for index in range(4)
    ]
    splits = stratified(own, 0)
    assert Counter(splits[row["id"]] for row in own if row["anomaly"]) == {"train": 12, "test": 4, "validation": 4}


def test_split_of_groups_is_the_same_on_every_machine():
    """Golden: for g in a b c d e f; do printf "7//normal/$g 0" | sha256sum; done, put in order by hand: b f e a d c.

    Of equal groups the first three go to one set each; the others to train, which still lacks most of its share.
    """
    own = [
        {"id": f"{group} {index}", "scene": None, "label": "normal", "group": group}
        for group in "abcdef"
        for index in range(2)
    ]
    expected = dict.fromkeys("badc", "train") | {"f": "test", "e": "validation"}
    assert stratified(own, 7) == {row["id"]: expected[row["group"]] for row in own}


def test_groups_that_share_a_video_are_one():
    own = [
        {"id": f"{index}", "video": f"{video}.mp4", "scene": None, "label": "normal", "group": group, "split": None}
        for index, (video, group) in enumerate(
            [(0, "a"), (1, "a"), (1, "b"), (2, "b"), (2, None), (3, "c"), (4, "d"), (4, None), (5, None), (6, None)]
        )
    ]
    for seed in range(20):
        splits = stratified(own, seed)
        assert len({splits[str(index)] for index in range(5)}) == 1  # a and b, by the videos 1 and 2
        assert splits["6"] == splits["7"]


def test_what_is_held_out_keeps_groups_together():
    own = random_rows(3, 30)
    fixed = stratified(own, 0, {"train": 70, "test": 30})
    own = [row | {"split": fixed[row["id"]]} for row in own]
    for seed in range(5):
        parts = assign_splits(own, seed)
        assert set(parts) == {"train", "validation", "test"}
        assert [part == "test" for part in parts] == [row["split"] == "test" for row in own]
        splits = {row["id"]: part for row, part in zip(own, parts, strict=True)}
        assert all(len(names) == 1 for names in groups_in(own, splits).values())
    first = next(row for row in own if row["split"] == "train")
    divided = [*own, first | {"id": "again", "split": "test"}]
    with pytest.raises(ValueError, match=f"The column split divides 1 groups, first '{first['group']}'"):
        assign_splits(divided, 0)
    with pytest.raises(ValueError, match=r"Correct split or group; or remove split, and every other split column"):
        with_split_columns(divided)


def test_groups_of_a_store():
    """A feature store's index has the manifest's columns, without its paths; seed 9 has no column there."""
    own = random_rows(1, 30)
    stored = [
        {name: value for name, value in row.items() if name != "video"} | {"num_clips": 1}
        for row in with_split_columns(own)
    ]
    for seed in (0, 9):
        divided = select(stored, None, seed, None, "The feature store x")
        assert all(len(names) == 1 for names in groups_in(divided, {r["id"]: r["split"] for r in divided}).values())
        assert [row["split"] for row in divided] == assign_splits(own, seed)
    # A store that was written before there were groups has no such column.
    old = [{name: value for name, value in row.items() if name != "group"} for row in stored]
    assert len(select(old, None, 9, None, "The feature store x")) == len(old)


# Folds


@pytest.mark.parametrize("num_folds", [2, 3, 5])
@pytest.mark.parametrize("seed", range(5))
def test_folds_keep_groups_together_and_test_each_video_once(num_folds, seed):
    own = random_rows(seed, 20) + random_rows(seed + 100)
    folds = grouped_folds(own, num_folds, seed)
    assert len(folds) == num_folds
    for splits in folds:
        assert list(splits) == [row["id"] for row in own]
        assert set(splits.values()) == {"train", "validation", "test"}
        assert all(len(names) == 1 for names in groups_in(own, splits).values())
        videos = {row["id"]: row.get("video", row["id"]) for row in own}
        sides = defaultdict(set)
        for identity, name in splits.items():
            sides[videos[identity]].add(name)
        assert all(len(names) == 1 for names in sides.values())
    assert Counter(i for splits in folds for i, name in splits.items() if name == "test") == {r["id"]: 1 for r in own}
    # scikit-learn makes as many sets of groups, each tested once.
    names = [row.get("group") or row.get("video") for row in own]
    oracle = [test for _, test in GroupKFold(num_folds).split(own, groups=names)]
    assert len(oracle) == num_folds and sorted(np.concatenate(oracle)) == list(range(len(own)))
    shuffled = random.Random(seed).sample(own, len(own))
    assert [dict(sorted(fold.items())) for fold in grouped_folds(shuffled, num_folds, seed)] == [
        dict(sorted(fold.items())) for fold in folds
    ]


def imbalance(labels, tests):
    """Sum over folds and classes of the squared difference from an equal share of the class."""
    totals = Counter(labels)
    counts = [Counter(labels[index] for index in test) for test in tests]
    return sum((count[k] / totals[k] - 1 / len(tests)) ** 2 for count in counts for k in totals)


@pytest.mark.filterwarnings("ignore:The least populated class")
def test_folds_are_as_balanced_as_scikit_learns():
    ours, theirs = [], []
    for seed in range(60):
        own = random_rows(seed, 6 + seed % 50, mixed=seed % 2 == 0, num_classes=2 + seed % 5)
        labels, groups = [row["label"] for row in own], [row["group"] for row in own]
        num_folds = (3, 5)[seed % 2]
        if max(Counter(labels).values()) < num_folds:
            continue
        numbers = {row["id"]: index for index, row in enumerate(own)}
        folds = grouped_folds(own, num_folds, seed)
        tests = [[numbers[i] for i, name in splits.items() if name == "test"] for splits in folds]
        oracle = StratifiedGroupKFold(num_folds, shuffle=True, random_state=seed)
        ours.append(imbalance(labels, tests))
        theirs.append(imbalance(labels, [test for _, test in oracle.split(own, labels, groups)]))
    assert len(ours) > 50
    assert np.mean(ours) <= 1.05 * np.mean(theirs)
    assert np.max(np.subtract(ours, theirs)) < 0.15


def test_five_folds_are_divided_60_20_20():
    for splits in grouped_folds(rows({"normal": 100, "fire": 50}), 5):
        assert Counter(splits.values()) == {"train": 90, "validation": 30, "test": 30}
        fires = Counter(name for identity, name in splits.items() if "fire" in identity)
        assert fires == {"train": 30, "validation": 10, "test": 10}


def test_folds_differ_by_seed_and_choose_other_videos_for_validation():
    own = rows({"normal": 100, "fire": 50})
    folds = grouped_folds(own, 5, 0)
    assert folds == grouped_folds(own, 5, 0) != grouped_folds(own, 5, 1)
    often = Counter(i for splits in folds for i, name in splits.items() if name == "validation")
    assert max(often.values()) <= 4 and len(often) > 75


def test_too_few_groups_for_folds():
    own = [row | {"group": f"{index % 3}"} for index, row in enumerate(rows({"normal": 20}))]
    assert len(grouped_folds(own, 3)) == 3
    for num_folds in (4, 1, 0, -1):
        words = f"num_folds is {num_folds}, but must be within 2 and the number of groups. The 20 rows form 3 groups"
        with pytest.raises(ValueError, match=words):
            grouped_folds(own, num_folds)
        # So does the oracle.
        with pytest.raises(ValueError, match=r"number of splits|number of groups|k-fold cross-validation"):
            list(GroupKFold(num_folds).split(own, groups=[row["group"] for row in own]))
    with pytest.raises(ValueError, match="The 0 rows form 0 groups"):
        grouped_folds([], 2)


# Small validation sets


def test_small_validation_sets_are_named():
    assert small_validation([0, 1] * 20) is None
    words = small_validation([0] * 19 + [1] * 300)
    assert words.startswith("The validation set has 19 normal and 300 anomalous videos. With fewer than 20 of a kind,")
    assert "rough. Add videos, or repeat with several seeds or grouped_folds" in words
    assert "has 40 normal and 3 anomalous" in small_validation(np.array([1.0] * 3 + [0.0] * 40))
    assert "has 0 normal and 0 anomalous" in small_validation([])
