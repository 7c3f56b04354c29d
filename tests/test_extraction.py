"""The feature store: equal to the processor, whole after every kill, alike from one process or two."""

import datetime
import json
import os
import random
import shutil
import signal
import time
from pathlib import Path

import numpy as np
import pytest
import torch
from typer.testing import CliRunner

import avad_hf
from avad_hf import AvacaForAnomalyDetection, AvacaProcessor, FeatureDataset, HubError, extract_features
from avad_hf.cli import app
from avad_hf.corpora.manifest import COLUMNS, write_manifest
from avad_hf.features import extraction
from avad_hf.features.extraction import verify_features
from avad_hf.features.store import feature_file
from avad_hf.media.sources import open_media
from avad_hf.runs import only_run
from avad_hf.untrained import init_avaca

from . import warm
from .hub_server import HubServer
from .layouts import Media
from .media_files import frame_times, sound, write_media
from .short_clips import beginning
from .small_disks import needs_mounts


@pytest.fixture(scope="module")
def processor(tiny):
    return AvacaProcessor.from_pretrained(tiny)


@pytest.fixture(scope="module")
def media(tmp_path_factory):
    return Media(tmp_path_factory.mktemp("media"))


@pytest.fixture(scope="module")
def clips(tmp_path_factory) -> str:
    """A manifest of 16 small videos, with names that are hard on file systems, one in five without sound."""
    root = tmp_path_factory.mktemp("clips")
    rows = []
    for index in range(16):
        path = root / ("a b", "ü#=%20")[index % 2] / f"same name {index // 2}.mp4"
        path.parent.mkdir(exist_ok=True)
        samples = None if index % 5 == 4 else sound(index, 1.5, 16000)
        write_media(path, frame_times(25, 1.5), samples, 16000, audio_codec="aac")
        label = ("normal", "fire")[index % 4 == 0]
        rows.append(dict.fromkeys(COLUMNS) | {"video": str(path), "label": label, "scene": "s", "weather": "rain"})
    write_manifest(rows, root / "manifest.csv")
    return str(root / "manifest.csv")


def contents(store: Path) -> dict[str, bytes]:
    return {str(path.relative_to(store)): path.read_bytes() for path in sorted(store.rglob("*")) if path.is_file()}


def command(manifest, model, store) -> list[str]:
    return ["-m", "avad_hf.cli", "extract", manifest, "--model", model, "-o", str(store)]


@pytest.fixture(scope="module")
def whole(clips, processor, tmp_path_factory) -> Path:
    """The store of these clips, made by one run, with another number of threads than the processes of these tests."""
    store, threads = tmp_path_factory.mktemp("whole") / "store", torch.get_num_threads()
    torch.set_num_threads(2)
    done = extract_features(avad_hf.load_dataset("manifest", data_dir=clips), processor, store)
    torch.set_num_threads(threads)
    assert (done.num_stored, done.num_new, done.failed) == (16, 16, [])
    return store


def test_features_are_the_processors(bunny, bikes, processor, tmp_path):
    bunny, bikes = (beginning(video, tmp_path / Path(video).name, 66) for video in (bunny, bikes))
    rows = [{"id": "bunny", "video": bunny}, {"id": "bikes", "video": bikes}]
    done = extract_features(rows, processor, tmp_path / "store", clips_per_batch=2)
    assert (done.num_stored, done.num_new, done.failed) == (2, 2, [])
    store = FeatureDataset(tmp_path / "store")
    assert [(r["id"], r["num_clips"], r["has_audio"], r["fps"]) for r in store.rows] == [
        ("bikes", 3, False, 25.0), ("bunny", 3, True, 25.0),
    ]  # fmt: skip
    for item, video in ((store[0], bikes), (store[1], bunny)):
        expected = processor(video)
        for name in ("audio_features", "clip_times", "has_audio", "clip_mask"):
            torch.testing.assert_close(
                item[name], expected[name].squeeze(0) if name != "has_audio" else expected[name]
            )
        # float16 keeps eleven bits.
        torch.testing.assert_close(item["visual_features"], expected["visual_features"][0], rtol=2**-11, atol=1e-6)
        assert item["visual_features"].dtype == item["audio_features"].dtype == torch.float32
        assert "labels" not in item
    exact = tmp_path / "exact"
    extract_features(rows, processor, exact, visual_dtype="float32")
    torch.testing.assert_close(FeatureDataset(exact)[1]["visual_features"], processor(bunny)["visual_features"][0])


def test_items_train_a_model(whole, tiny):
    train = FeatureDataset(whole, split="train", seed=1)
    assert {row["label"] for row in train.rows} == {"normal", "fire"} and train.rows[0]["weather"] == "rain"
    items = [train[index] for index in range(len(train))]
    batch = AvacaProcessor.pad(items)
    labels = torch.stack([item["labels"] for item in items])
    assert labels.tolist() == [float(row["label"] == "fire") for row in train.rows]
    loss = AvacaForAnomalyDetection.from_pretrained(tiny)(**batch, labels=labels).loss
    assert loss.isfinite()


def test_splits_of_a_store_are_those_of_its_corpus(clips, whole):
    for split, part in avad_hf.load_dataset("manifest", data_dir=clips, seed=2).items():
        assert {r["id"] for r in FeatureDataset(whole, split, seed=2).rows} == set(part["id"])
    assert len(FeatureDataset(whole, scene="s")) == 16
    for arguments, words in (
        ({"split": "tests"}, "split must be one of train, validation, test, got 'tests'"),
        ({"scene": "t"}, "has no scene 't'. Scenes: s"),
    ):
        with pytest.raises(ValueError, match=words):
            FeatureDataset(whole, **arguments)


def test_killed_five_times(clips, tiny, whole, tmp_path):
    """kill -9 at random moments of the work, then one run to the end: byte for byte what one run makes."""
    killed = tmp_path / "killed"
    rng = random.Random(0)
    interrupted = 0
    for _ in range(5):
        child = warm.start(*command(clips, tiny, killed))
        # Not before anything is written, which nothing could spoil.
        deadline = time.monotonic() + 60
        before = len(contents(killed))
        while child.poll() is None and len(contents(killed)) <= before and time.monotonic() < deadline:
            time.sleep(0.002)
        time.sleep(rng.uniform(0, 0.05))
        child.send_signal(signal.SIGKILL)
        interrupted += child.wait() == -signal.SIGKILL
    assert interrupted >= 3
    warm.run(*command(clips, tiny, killed))
    assert contents(killed) == contents(whole)
    assert len(contents(whole)) == 16 + 2


def test_half_written_files_are_cleaned_up(clips, processor, whole, tmp_path):
    """What a kill in the middle of a write leaves: nothing reads it, and the next run removes it."""
    rows, store = avad_hf.load_dataset("manifest", data_dir=clips), tmp_path / "store"
    store.mkdir()
    (store / "recipe.json.partial").write_text("{")
    extract_features(rows, processor, store)
    first = store / FeatureDataset(store).rows[0]["file"]
    first.with_name(first.name + ".partial").write_bytes(first.read_bytes()[:100])
    first.with_name("of another video.safetensors.partial").write_bytes(b"half")
    first.unlink()
    (store / "index.jsonl").unlink()
    with pytest.raises(FileNotFoundError, match=r"no finished feature store: index.jsonl missing. .*run the same"):
        FeatureDataset(store)
    assert extract_features(rows, processor, store).num_new == 1
    assert contents(store) == contents(whole)


def test_a_file_appears_when_all_of_it_is_on_the_disk(media, processor, tmp_path, monkeypatch):
    rows = [{"id": "v", "video": str(media.video)}]
    path = tmp_path / "s" / feature_file("v")
    synced = []

    def look(descriptor):
        synced.append((path.exists(), os.fstat(descriptor).st_size))

    monkeypatch.setattr(os, "fsync", look)
    extract_features(rows, processor, tmp_path / "s")
    assert (False, path.stat().st_size) in synced

    def full(descriptor):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "fsync", full)
    path.unlink()
    with pytest.raises(OSError, match=r"v-.*safetensors\) cannot be written: No space left on device; .*: make room"):
        extract_features(rows, processor, tmp_path / "s")
    assert not list((tmp_path / "s").rglob("*.partial")) and not path.exists()


def test_one_run_at_a_time(media, processor, tmp_path):
    rows = [{"id": "v", "video": str(media.video)}]
    with only_run(tmp_path / "s", is_main_process=True):
        with pytest.raises(ValueError, match=r"Another run is writing .*s \(process \d+ on .*, since 20.*\)\. Wait"):
            extract_features(rows, processor, tmp_path / "s")
        with only_run(tmp_path / "s", is_main_process=False):
            pass
    assert extract_features(rows, processor, tmp_path / "s").num_new == 1
    assert not (tmp_path / "s" / ".lock").exists()


def test_features_that_are_not_finite_are_refused(media, processor, tmp_path, monkeypatch):
    encode = AvacaProcessor.encode

    def overflowing(self, clips):
        features = encode(self, clips)
        features["visual_features"] *= 1e9
        return features

    monkeypatch.setattr(AvacaProcessor, "encode", overflowing)
    rows = [{"id": "v", "video": str(media.video)}]
    (failure,) = extract_features(rows, processor, tmp_path / "s").failed
    assert "its features are not finite in float16. Try float32" in failure["error"]
    assert not extract_features(rows, processor, tmp_path / "s32", visual_dtype="float32").failed


def test_a_video_that_fails_on_the_way_leaves_nothing_behind(media, processor, tmp_path, monkeypatch):
    """Clips that were decoded before the failure must not end up in the next video's features."""
    clips = AvacaProcessor.clips

    def failing(self, opened):
        yield next(clips(self, opened))
        if "bad" in opened.info.name:
            raise RuntimeError("unexpected")

    monkeypatch.setattr(AvacaProcessor, "clips", failing)
    bad, good = media.put(tmp_path / "bad.mp4"), media.put(tmp_path / "good.mp4")
    rows = [{"id": "a", "video": str(bad)}, {"id": "b", "video": str(good)}]
    done = extract_features(rows, processor, tmp_path / "s", clips_per_batch=4)
    assert done.failed == [{"id": "a", "error": "unexpected"}]
    assert FeatureDataset(tmp_path / "s").rows[0]["num_clips"] == 1


def test_failures_of_other_parts_stay_listed(media, processor, tmp_path):
    good = str(media.put(tmp_path / "good.mp4"))
    extract_features([{"id": "a", "video": "none.mp4"}, {"id": "b", "video": good}], processor, tmp_path / "s")
    extract_features([{"id": "c", "video": good}], processor, tmp_path / "s")
    assert "none.mp4" in (tmp_path / "s" / "failed.jsonl").read_text()
    assert extract_features([{"id": "a", "video": good}], processor, tmp_path / "s").num_stored == 3
    assert not (tmp_path / "s" / "failed.jsonl").exists()


def test_damaged_lists_are_named(media, processor, tmp_path):
    rows = [{"id": "v", "video": str(media.video)}]
    for name, words in (("recipe.json", "Copy the store again"), ("index.jsonl", "Delete it, and run the extraction")):
        store = tmp_path / name
        extract_features(rows, processor, store)
        (store / name).write_text("{")
        with pytest.raises(ValueError, match=f"{name} is damaged .* {words}"):
            FeatureDataset(store)


def test_two_processes_make_what_one_makes(clips, tiny, whole, tmp_path):
    both = warm.run_two(*command(clips, tiny, tmp_path / "two"))
    assert contents(whole) == contents(tmp_path / "two")
    assert "".join(process.stdout for process in both).count("16 videos, 16 of them new") == 1
    # Started so that they cannot know of each other, they refuse to do everything twice.
    refused = warm.run(*command(clips, tiny, tmp_path / "three"), env={"WORLD_SIZE": "2"}, check=False)
    assert refused.returncode == 2 and "2 processes were started, but they are not connected" in refused.stderr


@needs_mounts
def test_a_full_disk(clips, tiny, whole, tmp_path):
    """On a file system of its own of 200 kB: a clear error, what is finished stays, and with room it goes on."""
    code = f"""
import os, runpy, subprocess, sys
from pathlib import Path
from small_disks import SmallDisk

def extract(output):
    child = os.fork()
    if child:
        return os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])
    file = os.open(output, os.O_WRONLY | os.O_CREAT)
    os.dup2(file, 1)
    os.dup2(file, 2)
    sys.argv = {command(clips, tiny, tmp_path / "disk" / "store")[1:]!r}
    runpy.run_module(sys.argv[0], run_name="__main__", alter_sys=True)

place = Path({str(tmp_path)!r})
disk = SmallDisk(place / "disk")
disk.empty(200 * 1024)
status = extract(place / "errors")
with open(place / "listing", "w") as file:
    subprocess.run(["ls", "-aR", disk.folder], stdout=file, check=True)
disk.grow(10 << 20)
assert extract(place / "again") == 0
disk.copy(place / "copy")
print(status)
"""
    status = warm.run(code=code).stdout
    assert status == "1\n"
    errors = (tmp_path / "errors").read_text()
    assert "cannot be written: No space left on device; 0.0 MB are free there. What is finished stays: make" in errors
    assert "Traceback" not in errors
    listing = (tmp_path / "listing").read_text()
    assert 2 <= listing.count(".safetensors") < 16
    assert ".partial" not in listing and ".lock" not in listing
    stored = listing.count(".safetensors")
    assert f"16 videos, {16 - stored} of them new" in (tmp_path / "again").read_text()
    assert contents(tmp_path / "copy" / "store") == contents(whole)


def test_a_full_disk_of_temporary_files_ends_the_run_and_not_each_video(media, processor, tmp_path, monkeypatch):
    """Copies of what is no file on this machine are made there."""
    rows = [{"id": name, "video": str(media.put(tmp_path / f"{name}.mp4"))} for name in "abc"]

    def full(row):
        if row["id"] == "b":
            raise RuntimeError("cannot be copied") from OSError(28, "No space left on device")
        return open_media(row)

    with monkeypatch.context() as patch:
        patch.setattr(extraction, "open_media", full)
        said = r"^A temporary copy of b \(.*\) cannot be written: No space left on device; .*: make room, and run"
        with pytest.raises(OSError, match=said):
            extract_features(rows, processor, tmp_path / "s")
    done = extract_features(rows, processor, tmp_path / "s")
    assert (done.num_stored, done.failed) == (3, [])


def test_broken_videos_are_listed_and_tried_again(media, processor, tiny, tmp_path):
    good, bad = media.put(tmp_path / "good.mp4"), tmp_path / "bad.mp4"
    bad.write_text("<html>")
    rows = [{"id": "good", "video": str(good)}, {"id": "bad", "video": str(bad)}]
    done = extract_features(rows, processor, tmp_path / "store")
    assert (done.num_stored, done.num_new) == (1, 1)
    (failure,) = done.failed
    assert failure["id"] == "bad" and "bad.mp4 cannot be opened as video" in failure["error"]
    assert [json.loads(line) for line in (tmp_path / "store" / "failed.jsonl").open()] == done.failed
    assert [row["id"] for row in FeatureDataset(tmp_path / "store").rows] == ["good"]
    media.put(bad)
    assert extract_features(rows, processor, tmp_path / "store").num_new == 1
    assert not (tmp_path / "store" / "failed.jsonl").exists()
    assert len(FeatureDataset(tmp_path / "store")) == 2


def test_command(media, tiny, tmp_path):
    media.put(tmp_path / "v" / "normal" / "good.mp4")
    broken = tmp_path / "v" / "normal" / "broken.mp4"
    run = CliRunner().invoke
    scanned = run(app, ["scan", str(tmp_path / "v"), "-o", str(tmp_path / "m.csv")])
    assert scanned.exit_code == 0 and "own, layout L2 (class/clip): 1 videos" in scanned.output
    broken.write_text("<html>")
    scanned = run(app, ["scan", str(tmp_path / "v"), "-o", str(tmp_path / "m2.csv")])
    assert scanned.exit_code == 1 and "1 videos cannot be opened and are not in the manifest" in scanned.output
    extract = ["extract", str(tmp_path / "m.csv"), "--model", tiny, "-o", str(tmp_path / "store")]
    done = run(app, extract)
    assert done.exit_code == 0 and "1 videos, 1 of them new" in done.output
    verified = run(app, [*extract, "--verify"])
    assert verified.exit_code == 0 and "normal/good.mp4: largest difference 0.00e+00" in verified.output
    # The video goes bad between scan and extract.
    broken.rename(tmp_path / "v" / "normal" / "good.mp4")
    shutil.rmtree(tmp_path / "store")
    done = run(app, extract)
    assert done.exit_code == 1 and "normal/good.mp4: " in done.output and "cannot be opened" in done.output
    for arguments, words in (
        (["scan", str(tmp_path / "none"), "-o", "m.csv"], "no such folder"),
        (["scan", str(tmp_path / "v"), "-o", str(tmp_path / "m.csv")], "m.csv is there already"),
        (["scan", str(tmp_path / "v"), "-o", "m.xls"], "m.xls: a manifest ends with .csv"),
        (["scan", str(tmp_path / "v"), "-o", "new.csv"], "None of the videos in"),
        (["extract", "none.csv", "--model", tiny, "-o", "s"], "none.csv: no such folder or manifest. `avad-hf scan"),
        (["extract", str(tmp_path / "m.csv"), "--model", str(tmp_path / "none"), "-o", "s"], "none"),
        (["extract", str(tmp_path / "m.csv"), "--model", tiny, "-o", "s", "--device", "tpu9"], "--device tpu9"),
        (["extract", str(tmp_path / "m.csv"), "--model", tiny, "-o", "s", "--scene", "x"], "no videos of scene 'x'"),
    ):
        refused = run(app, arguments)
        assert refused.exit_code == 2 and words in refused.output, refused.output
        assert "Traceback" not in refused.output


def test_another_recipe_is_refused(media, processor, tmp_path):
    rows = [{"id": "v", "video": str(media.video)}]
    store = tmp_path / "store"
    extract_features(rows, processor, store)
    init_avaca(tmp_path / "other", size="tiny", seed=1)
    other = AvacaProcessor.from_pretrained(tmp_path / "other")
    with pytest.raises(
        ValueError, match=r"another recipe(.|\n)*video_encoder.weights_sha256: [0-9a-f]{64} in the store"
    ):
        extract_features(rows, other, store)
    with pytest.raises(ValueError, match=r"another recipe(.|\n)*weights_sha256"):
        verify_features(rows, other, store)
    with pytest.raises(ValueError, match=r"another recipe(.|\n)*visual_dtype: float16 in the store, float32 now"):
        extract_features(rows, processor, store, visual_dtype="float32")
    half = AvacaProcessor.from_pretrained(processor_folder(processor, tmp_path)).to(dtype=torch.bfloat16)
    with pytest.raises(ValueError, match=r"audio_encoder.dtype: float32 in the store, bfloat16 now"):
        extract_features(rows, half, store)
    smaller = AvacaProcessor.from_pretrained(processor_folder(processor, tmp_path), size=48)
    with pytest.raises(ValueError, match=r"processor.size: 64 in the store, 48 now"):
        extract_features(rows, smaller, store)
    recipe = json.loads((store / "recipe.json").read_text())
    recipe["versions"]["torch"] = "1.0"
    (store / "recipe.json").write_text(json.dumps(recipe))
    with pytest.raises(ValueError, match=r"versions.torch: 1.0 in the store, .* now"):
        extract_features(rows, processor, store)
    assert len(FeatureDataset(store)) == 1


def processor_folder(processor, tmp_path) -> Path:
    processor.save_pretrained(tmp_path / "processor")
    return tmp_path / "processor"


def test_recipe_is_that_of_the_saved_processor(processor, tmp_path):
    assert AvacaProcessor.from_pretrained(processor_folder(processor, tmp_path)).recipe() == processor.recipe()


def test_refusals(media, processor, tmp_path):
    video = str(media.put(tmp_path / "v.mp4"))
    odd = {"id": "v", "video": video}
    for row, words in (
        ({"id": 3, "video": video}, "Each id must be text, but 3 is a int"),
        ({"id": None, "video": video}, "Each id must be text, but None"),
        (odd | {"day": datetime.date(2026, 1, 1)}, "The row 'v' cannot be stored: .*date is not JSON serializable"),
        (odd | {"x": float("nan")}, "The row 'v' cannot be stored: "),
    ):
        with pytest.raises(ValueError, match=words):
            extract_features([row], processor, tmp_path / "s")
    with pytest.raises(ValueError, match=r"visual_dtype must be float16 or float32, .* got 'bfloat16', None"):
        extract_features([odd], processor, tmp_path / "s", visual_dtype="bfloat16")
    with pytest.raises(ValueError, match="clips_per_batch and decoders 1 or more, got 'float16', 0 and None"):
        extract_features([odd], processor, tmp_path / "s", clips_per_batch=0)
    with pytest.raises(FileExistsError, match=r"v.mp4 is a file, and not an empty folder. Give a new or empty"):
        extract_features([odd], processor, video)
    assert not (tmp_path / "s").exists()
    with pytest.raises(FileNotFoundError, match=r"no finished feature store: recipe.json and index.jsonl missing"):
        verify_features([odd], processor, tmp_path / "s")
    with pytest.raises(HubError, match=r"There is no such folder here, .* runs/typo is not in the cache"):
        FeatureDataset("runs/typo")
    with pytest.raises(ValueError, match="Rows need id and video each"):
        extract_features([{"path": video}], processor, tmp_path / "s")
    with pytest.raises(ValueError, match="1 ids are there twice, first 'v'"):
        extract_features([{"id": "v", "video": video}] * 2, processor, tmp_path / "s")
    with pytest.raises(ValueError, match="nothing to extract"):
        extract_features([], processor, tmp_path / "s")
    (tmp_path / "full").mkdir()
    (tmp_path / "full" / "notes.txt").touch()
    with pytest.raises(ValueError, match="is there already and is no feature store"):
        extract_features([{"id": "v", "video": video}], processor, tmp_path / "full")
    with pytest.raises(FileNotFoundError, match=r"no such folder. Give the folder that `avad-hf extract` wrote"):
        FeatureDataset(tmp_path / "none")
    with pytest.raises(FileNotFoundError, match=r"recipe.json and index.jsonl missing"):
        FeatureDataset(tmp_path / "full")


def test_a_changed_video_is_refused(media, processor, tmp_path):
    video = media.put(tmp_path / "v.mp4")
    rows = [{"id": "v", "video": str(video)}]
    extract_features(rows, processor, tmp_path / "s")
    media.put(video, "silent")
    with pytest.raises(ValueError, match=r"v.mp4 is not what the features stored as 'v' were computed from"):
        extract_features(rows, processor, tmp_path / "s")


@pytest.mark.parametrize("change", ["start", "end", "fps", "sound", "pictures"])
def test_every_change_of_what_is_read_is_seen(media, processor, tmp_path, change):
    for index in range(8):
        media.put(tmp_path / "f" / f"{index}.jpg", "picture")
    wav = write_media(tmp_path / "s.wav", samples=sound(0, 2, 16000), rate=16000)
    video = write_media(tmp_path / "v.mkv", frame_times(25, 2), sound(0, 2, 16000), 16000)
    row = {
        "id": "v",
        "video": str(tmp_path / "f" if change in ("fps", "pictures") else video),
        "audio": wav,
        "fps": 8.0,
    }
    row |= {"start": 0.0 if change in ("start", "end") else None, "end": 1.0 if change in ("start", "end") else None}
    extract_features([row], processor, tmp_path / "s")
    assert extract_features([row | {"label": "normal", "hour": 3}], processor, tmp_path / "s").num_new == 0
    if change == "sound":  # of the same length
        write_media(tmp_path / "s.wav", samples=sound(5, 2, 16000), rate=16000)
    elif change == "pictures":
        media.put(tmp_path / "f" / "8.jpg", "picture")
    else:
        row = row | {change: row[change] + 0.5}
    with pytest.raises(ValueError, match="is not what the features stored as 'v' were computed from"):
        extract_features([row], processor, tmp_path / "s")


def test_damaged_files_are_named(media, processor, tmp_path):
    rows = [{"id": "v", "video": str(media.video)}]
    extract_features(rows, processor, tmp_path / "s")
    path = tmp_path / "s" / feature_file("v")
    path.write_bytes(path.read_bytes()[:-10])
    for act in (
        lambda: FeatureDataset(tmp_path / "s")[0],
        lambda: verify_features(rows, processor, tmp_path / "s"),
        lambda: extract_features(rows, processor, tmp_path / "s"),
    ):
        with pytest.raises(ValueError, match=r"v-[0-9a-f]{16}.safetensors is missing or damaged .* Delete it"):
            act()


def test_verify_sees_a_difference(clips, processor, whole, tmp_path):
    rows = avad_hf.load_dataset("manifest", data_dir=clips)
    store = shutil.copytree(whole, tmp_path / "s")
    assert verify_features(rows, processor, store, 3) == dict.fromkeys(
        [FeatureDataset(store).rows[index]["id"] for index in (0, 5, 10)], 0.0
    )
    path = store / FeatureDataset(store).rows[0]["file"]
    data = bytearray(path.read_bytes())
    data[-1] ^= 0x40  # in the last number of the last tensor
    path.write_bytes(data)
    assert max(verify_features(rows, processor, store).values()) > 1e-3
    data[-4:] = np.float32("nan").tobytes()  # the last number of the header's last tensor, whatever its type
    data[-8:-4] = data[-4:]
    path.write_bytes(data)
    assert max(verify_features(rows, processor, store).values()) == float("inf")
    with pytest.raises(ValueError, match="holds none of the 1 videos"):
        verify_features([{"id": "x", "video": "x"}], processor, store)


def test_several_calls_fill_one_store(clips, processor, whole, tmp_path):
    corpus = avad_hf.load_dataset("manifest", data_dir=clips)
    for part in corpus.values():
        extract_features(part, processor, tmp_path / "parts")
    assert contents(tmp_path / "parts") == contents(whole)


def test_folders_of_pictures_stretches_and_side_sound(media, processor, tmp_path):
    for index in range(40):
        media.put(tmp_path / "frames" / f"{index}.jpg", "picture")
    wav = write_media(tmp_path / "s.wav", samples=sound(0, 2, 16000), rate=16000)
    long = write_media(tmp_path / "long.mkv", frame_times(25, 4), sound(0, 4, 16000), 16000)
    rows = [
        {
            "id": "1",
            "video": str(tmp_path / "frames"),
            "audio": wav,
            "fps": 20.0,
            "anomaly": 1,
            "frame_mask": [0] * 40,
        },
        {"id": "2", "video": long, "start": 1.0, "end": 2.28},
        {"id": "3", "video": long},
    ]
    assert not extract_features(rows, processor, tmp_path / "s").failed
    store = FeatureDataset(tmp_path / "s")
    assert store.rows[0]["duration"] == 2.0 and store.rows[0]["num_clips"] == 2 and store.rows[0]["has_audio"]
    assert store.rows[1]["duration"] == pytest.approx(1.28) and store.rows[2]["duration"] == pytest.approx(4.0)
    assert store.rows[0]["frame_mask"] == [0] * 40 and "video" not in store.rows[0]
    np.testing.assert_allclose(store[1]["clip_times"], [[1.0, 2.28]])
    # A stretch hears what the whole video hears at that time.
    whole = processor(long)["audio_features"][0].flatten(0, 1)
    torch.testing.assert_close(store[1]["audio_features"][0], whole[25:57])


def test_through_the_hub(whole, tmp_path):
    with HubServer(tokens={"tok": "alice"}) as hub:
        hub.run(
            f"""
            from avad_hf import FeatureDataset
            url = FeatureDataset({str(whole)!r}, split="test").push_to_hub("alice/features", private=True)
            assert url.endswith("/datasets/alice/features"), url
            FeatureDataset({str(whole)!r}).push_to_hub("alice/features", revision="v2")
            """,
            tmp_path / "pusher",
        )
        hub.run(
            f"""
            import datasets, torch
            from avad_hf import FeatureDataset
            here = FeatureDataset({str(whole)!r}, "train")
            there = FeatureDataset("alice/features", "train")
            assert there.rows == here.rows and there.recipe == here.recipe
            for index in range(len(here)):
                for name, tensor in here[index].items():
                    assert torch.equal(tensor, there[index][name])
            assert FeatureDataset("alice/features", "train", revision="v2").rows == here.rows
            index = datasets.load_dataset("alice/features", split="train")
            assert len(index) == 16 and index[0]["id"], index
            """,
            tmp_path / "reader",
        )
        assert hub.unknown == []
        files = hub.files("dataset", "alice/features")
    assert {name for name in files if name.startswith("features/")} == {
        row["file"] for row in FeatureDataset(whole).rows
    }
