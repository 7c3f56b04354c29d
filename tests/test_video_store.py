"""Stores of whole videos: equal to the processor, joined to batches that the model scores as it scores one video."""

import json
import shutil
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import save

from avad_hf import (
    AudioVisualAnomalyPipeline,
    AvacaProcessor,
    AvrlConfig,
    AvrlForVideoClassification,
    AvrlProcessor,
    FeatureDataset,
    VggishFeatureExtractor,
    evaluate,
    extract_features,
)
from avad_hf.features.extraction import verify_features
from avad_hf.features.store import FACTS, feature_file, json_line, read_features, recipe_sha256

from .feature_stores import plant
from .media_files import frame_times, sound, write_media

RATE = 16000
CLASSES = ["run", "fight", "normal1"]


def make_processor(**changes) -> AvrlProcessor:
    return AvrlProcessor(VggishFeatureExtractor(), **({"size": (32, 24), "num_frames": 8} | changes))


def tiny_model() -> AvrlForVideoClassification:
    torch.manual_seed(1)
    return AvrlForVideoClassification(
        AvrlConfig(
            video_config={"stem_width": 8, "depths": (1, 1, 1, 1)},
            audio_config={"hidden_sizes": (8, 16, 32, 64), "intermediate_size": 16, "embedding_size": 8},
            hidden_sizes=(32, 16),
            id2label=dict(enumerate(CLASSES)),
            normal_labels=["normal1"],
        )
    ).eval()


@pytest.fixture(scope="module")
def processor():
    return make_processor()


def picture(index: int, width: int, height: int) -> np.ndarray:
    picture = np.full((height, width, 3), (20 + index * 37 % 199, 90, 200 - index * 11 % 180), dtype=np.uint8)
    picture[: height // 2, : width // 2] = (250, 240, 10)
    return picture


def video(path, count: int, seconds: float | None) -> str:
    samples = None if seconds is None else sound(count, seconds, RATE)
    return write_media(path, frame_times(25, count / 25), samples, RATE, audio_codec="aac", pictures=picture)


@pytest.fixture(scope="module")
def rows(tmp_path_factory) -> list[dict]:
    """Long and short ones, of fewer frames than are picked, with sound of every length and none, and a stretch."""
    folder = tmp_path_factory.mktemp("videos")
    rows = [
        {"id": f"{label} {index}", "video": video(folder / f"{index}.mp4", count, seconds), "label": label}
        for index, (count, seconds, label) in enumerate(
            [(40, 1.6, "fight"), (5, 0.1, "run"), (17, None, "normal1"), (100, 3.3, "run"), (25, None, "fight")]
        )
    ]
    rows.append(rows[3] | {"id": "stretch", "start": 1.0, "end": 2.0, "label": "normal1"})
    return [row | {"anomaly": int(row["label"] != "normal1")} for row in rows]


@pytest.fixture(scope="module")
def store(rows, processor, tmp_path_factory) -> Path:
    directory = tmp_path_factory.mktemp("stores") / "store"
    done = extract_features(rows, processor, directory)
    assert (done.num_stored, done.num_new, done.failed) == (6, 6, [])
    return directory


def contents(store: Path) -> dict[str, bytes]:
    return {str(path.relative_to(store)): path.read_bytes() for path in sorted(store.rglob("*")) if path.is_file()}


def source_of(rows: list[dict], video_id: str) -> dict:
    return next(row for row in rows if row["id"] == video_id)


def test_items_are_what_the_processor_gives(rows, store, processor):
    dataset = FeatureDataset(store)
    assert dataset.holds_videos and len(dataset) == 6
    assert {row["id"]: row["has_audio"] for row in dataset.rows} == {
        row["id"]: not row["id"].endswith((" 2", " 4")) for row in rows
    }
    assert {row["num_clips"] for row in dataset.rows} == {1}
    for index, row in enumerate(dataset.rows):
        expected = processor(source_of(rows, row["id"]))
        item = dataset[index]
        assert set(item) == set(expected)  # and so no labels, whatever is known of anomalies
        for name in ("pixel_values_videos", "input_features", "audio_frame_mask", "clip_times"):
            assert item[name].dtype == expected[name].dtype and torch.equal(item[name], expected[name][0]), name
        assert torch.equal(item["has_audio"], expected["has_audio"])
    durations = {row["id"]: row["duration"] for row in dataset.rows}
    assert durations["stretch"] == pytest.approx(1.0) and durations["run 3"] == pytest.approx(4.0)


def test_frames_are_stored_in_eight_bits(rows, store, processor):
    """Whatever precision is asked for, which is that of features."""
    dataset = FeatureDataset(store)
    for row in dataset.rows:
        _, tensors = read_features(store / row["file"])
        assert {name: tensor.dtype for name, tensor in tensors.items()} == {
            "frames": torch.uint8, "log_mel": torch.float32, "clip_times": torch.float64,
        }  # fmt: skip
        assert tensors["frames"].shape == (8, 3, 32, 24)
        if not row["has_audio"]:
            assert tensors["log_mel"].shape == (0, 64)
    assert dataset.recipe["visual_dtype"] == "uint8" and dataset.recipe["audio_dtype"] == "float32"
    assert dataset.recipe["processor"]["size"] == [32, 24]
    assert extract_features(rows, processor, store, visual_dtype="float32", clips_per_batch=4).num_new == 0


def test_batches_are_padded_and_masked(store):
    dataset = FeatureDataset(store)
    items = [dataset[index] for index in range(len(dataset))]
    batch = dataset.collate(items)
    lengths = [len(item["input_features"]) for item in items]
    longest = max(lengths)
    assert len(set(lengths)) >= 4 and 0 in lengths and 16 in lengths and longest > 300
    assert {name: tuple(value.shape) for name, value in batch.items()} == {
        "pixel_values_videos": (6, 8, 3, 32, 24),
        "input_features": (6, longest, 64),
        "audio_frame_mask": (6, longest),
        "clip_times": (6, 1, 2),
        "has_audio": (6,),
    }
    assert batch["audio_frame_mask"].dtype == batch["has_audio"].dtype == torch.bool
    assert batch["has_audio"].tolist() == [length > 0 for length in lengths]
    for index, (item, length) in enumerate(zip(items, lengths, strict=True)):
        assert batch["audio_frame_mask"][index].tolist() == [True] * length + [False] * (longest - length)
        for name in ("pixel_values_videos", "clip_times"):
            assert torch.equal(batch[name][index], item[name])
        assert torch.equal(batch["input_features"][index, :length], item["input_features"])
    silent = [item for item, length in zip(items, lengths, strict=True) if not length]
    assert dataset.collate(silent)["input_features"].shape == (len(silent), 0, 64)


def test_class_numbers_are_labels(store):
    dataset = FeatureDataset(store)
    labelled = dataset.with_classes(CLASSES)
    assert labelled is not dataset and dataset.class_numbers is None and "labels" not in dataset[0]
    assert labelled.class_numbers == [CLASSES.index(row["label"]) for row in dataset.rows]
    assert [labelled[index]["labels"].item() for index in range(6)] == labelled.class_numbers
    assert set(labelled.class_numbers) == {0, 1, 2}
    batch = labelled.collate([labelled[index] for index in range(6)])
    assert batch["labels"].tolist() == labelled.class_numbers and batch["labels"].dtype == torch.int64
    reverse = labelled.with_classes(CLASSES[::-1])
    assert reverse.class_numbers == [2 - number for number in labelled.class_numbers]
    more = dataset.with_classes(["chase", *CLASSES, "shoot"])
    assert more.class_numbers == [number + 1 for number in labelled.class_numbers]
    with pytest.raises(
        ValueError, match=r"labelled normal1, run, which is no class of the model \(fight, shoot\)\. Give a model"
    ):
        dataset.with_classes(["fight", "shoot"])


def test_videos_without_a_class_are_refused(rows, processor, tmp_path):
    some = [rows[0], {name: value for name, value in rows[1].items() if name != "label"}, rows[2] | {"label": None}]
    extract_features(some, processor, tmp_path / "s")
    dataset = FeatureDataset(tmp_path / "s")
    with pytest.raises(ValueError, match=r"2 of 3 videos have no class, first 'normal1 2'\. Fill in the man"):
        dataset.with_classes(CLASSES)
    # The message's cure: the label is put into the index, and nothing is computed again.
    assert extract_features(rows[:3], processor, tmp_path / "s").num_new == 0
    assert sorted(FeatureDataset(tmp_path / "s").with_classes(CLASSES).class_numbers) == [0, 1, 2]


def test_frames_can_be_changed_before_they_are_normalised(store, processor):
    """As stored, with the number of the item; in a data set of its own."""
    dataset, stored = FeatureDataset(store), contents(store)
    given = []

    def mirrored(index, frames):
        given.append((index, frames.dtype, tuple(frames.shape)))
        return frames.flip(-1)

    for changed in (
        dataset.with_frames(mirrored),
        dataset.with_classes(CLASSES).with_frames(mirrored),
        dataset.with_frames(mirrored).with_classes(CLASSES),
    ):
        given.clear()
        for index in range(6):
            before, after = dataset[index], changed[index]
            assert torch.equal(after["pixel_values_videos"], before["pixel_values_videos"].flip(-1))
            assert not torch.equal(after["pixel_values_videos"], before["pixel_values_videos"])
            for name in set(before) - {"pixel_values_videos"}:
                assert torch.equal(after[name], before[name])
        assert given == [(index, torch.uint8, (8, 3, 32, 24)) for index in range(6)]
    assert "labels" in changed[0] and "labels" not in dataset[0]
    black = dataset.with_frames(lambda index, frames: torch.zeros_like(frames))[0]["pixel_values_videos"]
    expected = -torch.tensor(processor.image_mean) / torch.tensor(processor.image_std)
    torch.testing.assert_close(black, expected.view(3, 1, 1).expand_as(black))
    assert contents(store) == stored


def test_some_of_the_videos(store):
    """Class numbers are those of all videos, and are to be given again."""
    dataset = FeatureDataset(store).with_classes(CLASSES)
    some = dataset.where(lambda row: row["label"] == "run")
    kept = [index for index, row in enumerate(dataset.rows) if row["label"] == "run"]
    assert len(some) == len(kept) == 2 and len(dataset) == 6 and some.class_numbers is None
    for number, index in enumerate(kept):
        assert torch.equal(some[number]["pixel_values_videos"], dataset[index]["pixel_values_videos"])
    assert some.with_classes(CLASSES).class_numbers == [0, 0]


@pytest.mark.parametrize(
    "settings",
    [
        {"rescale_factor": 1.0, "image_mean": (114.7748, 107.7354, 99.475), "image_std": (1.0, 1.0, 1.0)},
        {"size": (16, 48), "num_frames": 3},
    ],
)
def test_stores_of_other_settings(rows, tmp_path, settings):
    processor = make_processor(**settings)
    extract_features(rows[:2], processor, tmp_path / "s")
    dataset = FeatureDataset(tmp_path / "s")
    for item, row in zip((dataset[0], dataset[1]), rows, strict=False):
        assert torch.equal(item["pixel_values_videos"], processor(row)["pixel_values_videos"][0])


def test_a_store_is_verified(rows, processor, store, tmp_path):
    assert verify_features(rows, processor, store, 6) == dict.fromkeys([row["id"] for row in rows], 0.0)
    some = tmp_path / "s"
    extract_features(rows[:3], processor, some)
    path = some / feature_file(rows[0]["id"])
    facts, tensors = read_features(path)
    for name, value in (("frames", 1), ("log_mel", 0.5), ("clip_times", 0.1)):
        spoiled = {key: tensor.clone() for key, tensor in tensors.items()}
        spoiled[name].flatten()[-1] += value
        path.write_bytes(save(spoiled, {FACTS: json_line(facts)}))
        found = verify_features(rows[:3], processor, some, 3)
        assert found[rows[0]["id"]] > 1e-3 and found[rows[1]["id"]] == found[rows[2]["id"]] == 0.0
    # Sound where there is none now.
    quiet = some / feature_file(rows[2]["id"])
    facts, tensors = read_features(quiet)
    quiet.write_bytes(save(tensors | {"log_mel": torch.zeros(16, 64)}, {FACTS: json_line(facts)}))
    assert verify_features(rows[:3], processor, some, 3)[rows[2]["id"]] == float("inf")


def test_spectrograms_that_are_no_numbers_are_refused(rows, processor, tmp_path):
    extract_features(rows[:1], processor, tmp_path / "s")
    path = tmp_path / "s" / feature_file(rows[0]["id"])
    facts, tensors = read_features(path)
    tensors = {name: tensor.clone() for name, tensor in tensors.items()}
    tensors["log_mel"][3, 4] = float("nan")
    path.write_bytes(save(tensors, {FACTS: json_line(facts)}))
    with pytest.raises(ValueError, match=r"fight 0: its input_features hold NaN or infinite values. Extract this vid"):
        FeatureDataset(tmp_path / "s")[0]


@pytest.mark.parametrize(
    ("changes", "difference"),
    [
        ({"size": (24, 32)}, r"  processor.size: \[32, 24\] in the store, \[24, 32\] now"),
        ({"num_frames": 9}, "  processor.num_frames: 8 in the store, 9 now"),
        ({"rescale_factor": 1.0}, r"  processor.rescale_factor: 0.0039\d* in the store, 1.0 now"),
        (
            {"image_mean": (0.5, 0.5, 0.5)},
            r"  processor.image_mean: \[0.4345, .*\] in the store, \[0.5, 0.5, 0.5\] now",
        ),
        ({"image_std": (1.0, 1.0, 1.0)}, r"  processor.image_std: \[0.2768, .*\] in the store, \[1.0, 1.0, 1.0\] now"),
    ],
)
def test_a_store_of_other_settings_is_refused(rows, store, changes, difference):
    before = contents(store)
    other = make_processor(**changes)
    for act in (extract_features, lambda rows, processor, store: verify_features(rows, processor, store)):
        with pytest.raises(
            ValueError, match=r"another recipe, and features of two recipes must not mix:\n"
        ) as refused:
            act(rows, other, store)
        refused.match(difference)
        assert str(refused.value).count(" in the store, ") == 1
    assert contents(store) == before
    assert recipe_sha256(other.recipe()) != recipe_sha256(make_processor().recipe())


def test_stores_of_another_kind_of_processor_are_refused(rows, store, tiny):
    with pytest.raises(ValueError, match=r"processor.num_frames: 8 in the store, nothing now"):
        extract_features(rows, AvacaProcessor.from_pretrained(tiny), store)


def test_how_long_windows_are_does_not_matter(rows, store):
    """Videos are stored whole."""
    assert extract_features(rows, make_processor(window_s=3.0), store).num_new == 0


def test_what_is_missing_is_made_again(rows, processor, store, tmp_path):
    again = tmp_path / "again"
    extract_features(rows[:4], processor, again)
    extract_features(rows, processor, again, clips_per_batch=3)
    whole = contents(store)
    assert contents(again) == whole
    lost = again / feature_file(rows[3]["id"])
    lost.unlink()
    (again / "index.jsonl").unlink()
    done = extract_features(rows, processor, again)
    assert (done.num_stored, done.num_new) == (6, 1) and contents(again) == whole
    assert len(whole) == 6 + 2


def test_videos_that_cannot_be_read_are_listed(rows, processor, tmp_path):
    bad = tmp_path / "bad.mp4"
    bad.write_text("<html>")
    done = extract_features([rows[0], {"id": "bad", "video": str(bad)}, rows[2]], processor, tmp_path / "s")
    assert (done.num_stored, done.num_new) == (2, 2)
    assert [failure["id"] for failure in done.failed] == ["bad"] and "bad.mp4 cannot be opened" in str(done.failed)
    found = FeatureDataset(tmp_path / "s")
    assert torch.equal(found[1]["pixel_values_videos"], processor(rows[2])["pixel_values_videos"][0])


def test_a_model_scores_a_batch_as_it_scores_each_video(rows, store, processor):
    model = tiny_model()
    dataset = FeatureDataset(store).with_classes(CLASSES)
    batch = dataset.collate([dataset[index] for index in range(6)])
    with torch.no_grad():
        outputs = model(**batch)
        singles = [model(**processor(source_of(rows, row["id"]))) for row in dataset.rows]
        together = model(**processor([source_of(rows, row["id"]) for row in dataset.rows]))
        deaf = model(**(batch | {"audio_frame_mask": torch.zeros_like(batch["audio_frame_mask"])}))
    expected = torch.cat([single.logits for single in singles])
    torch.testing.assert_close(outputs.logits, expected, rtol=1e-5, atol=1e-5)
    torch.testing.assert_close(together.logits, expected, rtol=1e-5, atol=1e-5)
    losses = torch.nn.functional.cross_entropy(expected, torch.tensor(dataset.class_numbers))
    torch.testing.assert_close(outputs.loss, losses, rtol=1e-5, atol=1e-5)
    # The videos differ to the model, and so does their sound.
    assert torch.pdist(expected).min() > 1e-4
    change = (deaf.logits - expected).abs().amax(dim=1)
    assert [bool(value > 1e-4) for value in change] == batch["has_audio"].tolist()


def test_stores_of_features_are_read_as_before(rows, tiny, tmp_path):
    processor = AvacaProcessor.from_pretrained(tiny)
    extract_features(rows[:2], processor, tmp_path / "real")
    planted = FeatureDataset(plant(tmp_path / "planted", num_videos=6))
    dataset = FeatureDataset(tmp_path / "real")
    assert dataset.recipe["processor"]["processor_class"] == "AvacaProcessor"
    for found in (dataset, planted):
        assert not found.holds_videos
        item = found[0]
        assert set(item) == {
            "visual_features", "audio_features", "clip_mask", "clip_times", "has_audio", "labels",
        }  # fmt: skip
        assert item["labels"].dtype == torch.float32 and item["labels"] == found.rows[0]["anomaly"]
        assert item["clip_mask"].all() and item["clip_mask"].shape == (found.rows[0]["num_clips"],)
        batch = found.collate([found[index] for index in range(len(found))])
        assert batch["labels"].tolist() == [float(row["anomaly"]) for row in found.rows]
        assert batch["clip_mask"].sum(dim=1).tolist() == [row["num_clips"] for row in found.rows]
    features = processor(rows[0])
    torch.testing.assert_close(dataset[0]["audio_features"], features["audio_features"][0])
    torch.testing.assert_close(dataset[0]["visual_features"], features["visual_features"][0], rtol=2**-11, atol=1e-6)
    stored = json.loads((tmp_path / "real" / "recipe.json").read_text())
    assert stored["visual_dtype"] == "float16" and stored["audio_dtype"] == "float32"


def test_long_videos_are_scored_by_windows_as_the_pipeline_does(tmp_path, bikes):
    """Ten seconds in windows of three: the store keeps the whole to learn from, and the windows to be scored."""
    processor = make_processor(window_s=3.0)
    extract_features([{"id": "long", "video": bikes, "label": "fight", "anomaly": 1}], processor, tmp_path / "store")
    data = FeatureDataset(tmp_path / "store")
    assert data.num_parts(0) == data.rows[0]["num_windows"] > 1
    model = tiny_model().eval()
    detect = AudioVisualAnomalyPipeline(model, processor, device="cpu")
    model.asked_dtype = torch.float32, torch.float32
    result = detect(bikes)
    figures = evaluate(model, data, num_resamples=0)
    (video,) = figures.videos
    assert [clip["score"] for clip in video["clips"]] == pytest.approx([c["score"] for c in result["clips"]], abs=1e-6)
    assert video["score"] == pytest.approx(result["score"], abs=1e-6)
    assert [(c["start"], c["end"]) for c in video["clips"]] == [(c["start"], c["end"]) for c in result["clips"]]
    # What is learnt from is the whole.
    torch.testing.assert_close(data[0]["pixel_values_videos"], processor(bikes)["pixel_values_videos"][0])


def test_long_videos_of_older_stores_are_scored_whole_and_said(rows, store, tmp_path):
    folder = tmp_path / "old"
    shutil.copytree(store, folder)
    index = folder / "index.jsonl"
    lines = [json.loads(line) | {"duration": 30.0} for line in index.read_text().splitlines()]
    index.write_text("".join(json.dumps(line) + "\n" for line in lines))
    data = FeatureDataset(folder)
    figures = evaluate(tiny_model(), data.where(lambda row: row["label"] in ("fight", "normal1")), num_resamples=0)
    assert "were stored by an older version, without windows" in " ".join(figures.figures["notes"])
