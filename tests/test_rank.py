"""What is unlike the rest: against a naive loop, on drawn videos, and as a page, a table and a document."""

import csv
import io
import json
import os
import re
import shutil
from base64 import b64decode
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from typer.testing import CliRunner

from avad_hf import FeatureDataset
from avad_hf.cli import app
from avad_hf.corpora.scan import list_videos
from avad_hf.detection.looking_again import look_again
from avad_hf.detection.pipeline import DEMO_MODEL
from avad_hf.evaluation import ranked as ranked_module
from avad_hf.evaluation import unlike
from avad_hf.evaluation.unlike import (
    NEIGHBOURS,
    SHRINKAGE,
    Clips,
    distances_to_others,
    read_clips,
    standardised,
    stretches,
    unlikeness,
)
from avad_hf.folders.ranking import rank
from avad_hf.folders.settings import keep_settings, refuse_other_settings
from avad_hf.media.sources import open_media
from avad_hf.report.ranking import clock, shown_share, words, write_ranking_csv, write_ranking_page

from .feature_stores import plant
from .media_files import frame_times, gray, sound, write_media
from .named_encoders import SIGHTS, SOUNDS, ears, eyes
from .test_report_page import Page

pytestmark = pytest.mark.usefixtures("one_thread")
runner = CliRunner()


def clips_of(sight, sound=None, videos=None, has_audio=None, recordings=None):
    """Clips of a second each; a video each if not said."""
    count = len(sight)
    videos = np.arange(count) if videos is None else np.array(videos)
    numbers = np.array([int((videos[:i] == video).sum()) for i, video in enumerate(videos)])
    sight = np.asarray(sight, np.float32).reshape(count, -1)
    return Clips(
        video=videos,
        number=numbers,
        recording=videos if recordings is None else np.array(recordings),
        times=np.stack([numbers, numbers + 1], axis=1).astype(float),
        has_audio=np.full(count, sound is not None) if has_audio is None else np.array(has_audio),
        features={
            "sight": sight,
            "sound": np.zeros_like(sight) if sound is None else np.asarray(sound, np.float32).reshape(count, -1),
        },
    )


def naive(features, compared, neighbours=NEIGHBOURS):
    found = []
    for i, row in enumerate(features):
        distances = sorted(
            float(np.sqrt(((row - other) ** 2).sum())) for j, other in enumerate(features) if compared(i, j)
        )
        found.append(np.mean(distances[:neighbours]))
    return found


# Distances


@pytest.mark.parametrize("rows_at_once", [1, 7, 1000])
def test_distances_are_those_of_a_naive_loop(rows_at_once, monkeypatch):
    rng = np.random.default_rng(0)
    features, recording = rng.normal(3, 2, (40, 6)), np.repeat([0, 1, 2, 3, 4], [1, 3, 20, 10, 6])
    features[5] = features[30]  # at a distance of 0
    monkeypatch.setattr(unlike, "BLOCK_BYTES", rows_at_once * 40 * 8)
    found = distances_to_others(features, lambda block: recording[block, None] == recording)
    assert found == pytest.approx(naive(features, lambda i, j: recording[i] != recording[j]), abs=1e-6)
    few = distances_to_others(features[:5], lambda block: recording[:5][block, None] == recording[:5])
    assert few == pytest.approx(naive(features[:5], lambda i, j: recording[i] != recording[j]), abs=1e-6)


def test_channels_count_alike_and_those_that_hardly_change_do_no_harm():
    rng = np.random.default_rng(1)
    features = rng.normal(5, [1, 100, 0], (50, 3)).astype(np.float32)
    features[:, 2] += rng.normal(0, 1e-5, 50)
    variance = features.astype(np.float64).var(axis=0)
    expected = (features - features.mean(axis=0)) / np.sqrt((1 - SHRINKAGE) * variance + SHRINKAGE * variance.mean())
    found = standardised(features)
    assert found == pytest.approx(expected, rel=1e-4, abs=1e-4)
    assert abs(found[:, 2]).max() < 1e-5 and not standardised(np.full((4, 3), 0.1, np.float32)).any()


def test_a_store_gives_the_same_as_a_naive_loop(tmp_path):
    """Maps are averaged over cells, sound over steps; clips that are nearly all padding are left out."""
    plant(tmp_path, num_videos=9, clips=(2, 5), scenes=("a", "b"))
    features = FeatureDataset(tmp_path)
    for number, row in enumerate(features.rows):
        row["group"] = "night" if number < 4 else None
    clips = read_clips(features)
    items = [features[number] for number in range(9)]
    assert len(clips.video) == sum(len(item["clip_times"]) for item in items)
    assert list(clips.recording) == [0 if video < 4 else video - 3 for video in clips.video]
    for sense, name, axes in (("sight", "visual_features", (2, 3)), ("sound", "audio_features", (1,))):
        pooled = np.concatenate([item[name].numpy().mean(axis=axes) for item in items])
        assert clips.features[sense] == pytest.approx(pooled, abs=1e-5)
    found, tails = unlikeness(clips), {}
    for sense in ("sight", "sound"):
        standard = standardised(clips.features[sense])
        distances = naive(standard, lambda i, j: clips.recording[i] != clips.recording[j])
        tails[sense] = [np.mean([other >= one - 1e-9 for other in distances]) for one in distances]
        assert found.senses[sense] == pytest.approx(tails[sense])
    smaller = np.minimum(*tails.values())
    assert found.tail == pytest.approx(1 - (1 - smaller) ** 2) and found.notes == []
    tens = -np.log10(found.tail)
    assert found.scores == pytest.approx(tens / (1 + tens))
    features.rows[0]["id"] = "long"
    item = items[0] | {"clip_times": torch.tensor([[0.0, 1.28], [1.28, 1.4]], dtype=torch.float64)}
    features = features.where(lambda row: row["id"] == "long")
    features._load = lambda row: (
        {name: item[name][:2] for name in ("visual_features", "audio_features", "clip_times")}
        | {"has_audio": item["has_audio"]}
    )
    assert read_clips(features).number.tolist() == [0]


def test_what_is_only_seen_and_only_heard_comes_first_and_its_sense_is_named():
    rng = np.random.default_rng(2)
    sight, heard = rng.normal(size=(60, 4)), rng.normal(size=(60, 4))
    sight[10] += 9
    heard[20] += 5
    clips = clips_of(sight, heard)
    found = unlikeness(clips)
    (first, peak), (_, second) = stretches(clips, found, 2)
    # Equally rare; the one that is farther away comes first.
    assert (first.tolist(), peak, second) == ([10], 10, 20) and found.tail[10] == found.tail[20]
    assert found.shares(10)["sight"] > 0.55 and found.shares(20)["sound"] > 0.6
    assert sum(found.shares(20).values()) == pytest.approx(1)
    assert found.times_usual[10] > found.times_usual[20] > 2


def test_videos_without_sound_are_judged_by_sight_alone():
    rng = np.random.default_rng(3)
    sight, heard = rng.normal(size=(40, 4)), rng.normal(size=(40, 4))
    sight[3] += 9
    heard[3:6] += 99  # nobody hears it
    has_audio = np.arange(40) >= 6
    found = unlikeness(clips_of(sight, heard, has_audio=has_audio))
    assert found.tail[3] == pytest.approx(1 / 40) and found.shares(3) == {"sight": 1.0, "sound": 0.0}
    assert (found.senses["sound"][:6] == 1).all() and found.senses["sound"][6:].min() == pytest.approx(1 / 34)
    silent = unlikeness(clips_of(sight))
    assert silent.notes == ["No clips have sound, and 6 are needed: they are compared by sight alone."]
    assert all(silent.shares(clip) == {"sight": 1.0, "sound": 0.0} for clip in range(40))
    assert silent.tail[3] == pytest.approx(1 / 40)


def test_neighbouring_clips_are_one_stretch():
    rng = np.random.default_rng(4)
    videos = np.repeat(np.arange(12), 10)
    sight = rng.normal(size=(120, 3))
    sight[[44, 45, 46]] += [[6], [9], [7]]
    sight[[49, 50]] += [[4], [4.2]]  # of two videos
    clips = clips_of(sight, videos=videos)
    ranked = stretches(clips, unlikeness(clips), 3)
    assert [(members.tolist(), peak) for members, peak in ranked] == [([44, 45, 46], 45), ([49], 49), ([50], 50)]


def test_one_recording_is_compared_with_itself_but_for_what_is_near():
    rng = np.random.default_rng(5)
    sight = np.repeat(rng.normal(size=(20, 3)), 6, axis=0) + rng.normal(0, 0.01, (120, 3))
    clips = clips_of(sight, videos=[0] * 120)
    found = unlikeness(clips)
    assert found.notes[0] == (
        "There are fewer than 5 clips of other recordings, so clips are compared with those of their own recording "
        "too, except those within 12.0 s."
    )
    expected = naive(standardised(clips.features["sight"]), lambda i, j: abs(i - j) > 12)
    assert found.tail.argmin() == np.argmax(expected)
    ratio = found.times_usual[found.tail.argmin()]
    assert ratio == pytest.approx(max(expected) / np.median(expected))


def at_once(count):
    """Clips of one recording that are all near each other."""
    clips = clips_of(np.eye(count), videos=[0] * count)
    return replace(clips, times=np.tile([0.0, 1.0], (count, 1)))


@pytest.mark.parametrize(
    ("clips", "error"),
    [
        (
            clips_of([[1.0]]),
            "Too little to compare: 1 clip, and 6 are needed. Give a folder of more, or longer, videos",
        ),
        (clips_of(np.eye(5)), "Too little to compare: 5 clips, and 6 are needed"),
        (
            clips_of(np.ones((6, 2)), np.ones((6, 2))),
            "None of the 6 clips stands out: all are equally far from the others. Check that the videos are not "
            "copies of one, or black and silent. All clips look the same to the encoder, so sight is left out. All "
            "clips sound the same to the encoder, so sound is left out.",
        ),
        (clips_of(np.eye(6)), "None of the 6 clips stands out"),
        (at_once(6), "A clip has no other to be compared with: there is too little footage. Give more, or longer"),
    ],
)
def test_what_cannot_be_compared_is_refused(clips, error):
    with pytest.raises(ValueError, match=error):
        unlikeness(clips)


# Folders


@pytest.fixture(scope="module")
def street(drawn, tmp_path_factory) -> Path:
    """Five normal videos of the synthetic world and one with an anomaly, in folders that mean nothing."""
    folder = tmp_path_factory.mktemp("street")
    chosen = [row for row in drawn(24, 13, first=10) if row["label"] in ("normal", "bicycle")]
    for number, row in enumerate(chosen):
        place = folder / ("normal" if number % 2 else "2026/11") / Path(row["video"]).name
        place.parent.mkdir(parents=True, exist_ok=True)
        shutil.copy(row["video"], place)
    (folder / "sub").mkdir()
    (folder / "sub" / "broken.mp4").write_text("no video")
    return folder


@pytest.fixture(scope="module")
def ranked(street, tmp_path_factory):
    output = tmp_path_factory.mktemp("out") / "ranked"
    arguments = ["rank", str(street), "-o", str(output), "--model", str(DEMO_MODEL), "--dtype", "float32"]
    done = runner.invoke(app, [*arguments, "--top", "4", "--json", "-"])
    assert done.exit_code == 1, done.output
    return done, json.loads(done.stdout), output, arguments


def test_the_anomaly_of_a_drawn_video_comes_first(ranked):
    done, document, output, _ = ranked
    assert document["num_videos"] == document["num_recordings"] == 6
    first = document["stretches"][0]
    assert first["video"] == "normal/crossing_0006.mp4" and first["rank"] == 1
    assert first["start"] <= first["peak"] <= first["end"] <= 3.0 and first["times_usual"] > 1.5
    assert first["sight"] + first["sound"] == pytest.approx(1, abs=1e-5)
    assert [one["one_in"] for one in document["stretches"]] == sorted(
        (one["one_in"] for one in document["stretches"]), reverse=True
    )
    for step in ("... looking for videos", "... computing the features of 7 videos", "... comparing clips", "again"):
        assert step in done.stderr
    assert "What is seen is not described" in done.stderr and first["seen"] == first["heard"] == []
    assert json.loads((output / "ranking.json").read_text()) == document


def test_videos_that_cannot_be_read_are_named(ranked):
    done, document, output, _ = ranked
    (failure,) = document["failed"]
    assert failure["id"] == "sub/broken.mp4" and "sub/broken.mp4: " in done.stderr
    assert "1 videos cannot be read and are not ranked." in done.stderr
    assert "sub/broken.mp4 cannot be read: " in (output / "ranking.html").read_text()


def test_the_page_holds_its_pictures_and_the_table_all_stretches(ranked, street):
    _, document, output, _ = ranked
    page = Page(output / "ranking.html")
    pictures = re.findall(r'src="data:image/jpeg;base64,([^"]+)"', page.source)
    assert len(pictures) == 4 and "http" not in page.source.replace("http-equiv", "") and "<script" not in page.source
    picture = Image.open(io.BytesIO(b64decode(pictures[0])))
    assert picture.height == 180
    with open_media(str(street / document["stretches"][0]["video"])) as media:
        frames = [frame for frame in media.frames(180) if frame.start <= document["stretches"][0]["peak"] + 0.05]
    shown = np.asarray(picture).astype(int)
    assert abs(shown - frames[-1].pixels.permute(1, 2, 0).numpy()).mean() < 8
    assert "1. normal/crossing_0006.mp4" in page.text and "as rare as 1 in" in page.text
    with open(output / "ranking.csv", newline="") as file:
        rows = list(csv.DictReader(file))
    assert [row["video"] for row in rows] == [one["video"] for one in document["stretches"]]
    assert float(rows[0]["one_in"]) == document["stretches"][0]["one_in"] and rows[0]["seen"] == ""


def test_the_same_command_goes_on(ranked, street, monkeypatch):
    """With another number of stretches, without a video that is gone, and without computing features again."""
    _, _, output, arguments = ranked
    from avad_hf.models.avaca.features_avaca import ClipFeatures

    def computed(*_):
        raise AssertionError("features were computed again")

    monkeypatch.setattr(ClipFeatures, "stored", computed)
    (street / "sub" / "broken.mp4").rename(street / "sub" / "broken.txt")
    normal = next((street / "2026" / "11").iterdir())
    normal.rename(normal.with_suffix(".away"))
    try:
        done = runner.invoke(app, [*arguments, "--top", "2"])
    finally:
        normal.with_suffix(".away").rename(normal)
        (street / "sub" / "broken.txt").rename(street / "sub" / "broken.mp4")
    assert done.exit_code == 0, done.output
    again = json.loads((output / "ranking.json").read_text())
    assert again["num_videos"] == 5 and len(again["stretches"]) == 2 and again["failed"] == []
    assert "  1 normal/crossing_0006.mp4, 0:0" in done.stdout and f"Page: {output / 'ranking.html'}" in done.stdout


def test_another_folder_goes_elsewhere(ranked, street, tmp_path):
    _, _, output, arguments = ranked
    (tmp_path / "a.mp4").write_text("")
    done = runner.invoke(app, ["rank", str(tmp_path), *arguments[2:]])
    said = done.output.replace("\n", " ")
    assert done.exit_code == 2 and f"{output} holds results of other settings:" in said
    assert f"folder: {street} before, {tmp_path} now" in said
    (tmp_path / "full").mkdir()
    (tmp_path / "full" / "thesis.txt").write_text("")
    done = runner.invoke(app, ["rank", str(street), "-o", str(tmp_path / "full"), "--model", str(DEMO_MODEL)])
    assert done.exit_code == 2 and "full holds thesis.txt, and no settings.toml of a job" in done.output
    assert os.listdir(tmp_path / "full") == ["thesis.txt"]


def test_without_a_folder_for_results_the_last_ranking_of_the_videos_goes_on(ranked, street, tmp_path, monkeypatch):
    _, _, output, arguments = ranked
    monkeypatch.chdir(tmp_path)
    (tmp_path / "results").mkdir()
    shutil.copytree(output, tmp_path / "results" / "rank-1")
    for expected in ("rank-1", "rank-2"):
        done = runner.invoke(app, ["rank", str(street), *arguments[4:], "--top", "1"])
        assert done.exit_code == 1 and f"Page: results/{expected}/ranking.html" in done.stdout, done.output
        keep = tmp_path / "results" / "rank-1" / "settings.toml"
        keep.write_text(keep.read_text().replace("/street", "/elsewhere"))


def test_bad_input_is_refused(tmp_path, street):
    def refused(*arguments):
        done = runner.invoke(app, ["rank", *map(str, arguments), "-o", str(tmp_path / "out")])
        assert done.exit_code == 2, done.output
        return done.output.replace("\n", " ")

    assert "absent: no such folder" in refused(tmp_path / "absent", "--model", DEMO_MODEL)
    (tmp_path / "empty").mkdir()
    assert "empty holds no video (.mp4," in refused(tmp_path / "empty", "--model", DEMO_MODEL)
    assert "Give --model, whose encoders are taken, or encoders, not both" in refused(
        street, "--model", DEMO_MODEL, "--audio-encoder", "yamnet"
    )
    # What failed before anything was stored binds the folder to nothing.
    assert "video_encoder nonsense: no folder" in refused(street, "--video-encoder", "nonsense")
    assert not (tmp_path / "out").exists()
    (tmp_path / "empty" / "a.mp4").write_text("no video")
    assert "None of the 1 videos in " in refused(tmp_path / "empty", "--model", DEMO_MODEL)
    with pytest.raises(ValueError, match="top must be 1 or more, got 0"):
        rank(street, tmp_path / "new", top=0)
    with pytest.raises(ValueError, match="Give a model, whose encoders are taken, or encoders, not both"):
        rank(street, tmp_path / "new", model=DEMO_MODEL, video_encoder="i3d")
    assert not (tmp_path / "new").exists()


def test_a_detector_that_reads_videos_has_nothing_to_compare(tmp_path, street):
    from avad_hf.untrained import init

    init("avrl", tmp_path / "avrl", "tiny")
    with pytest.raises(ValueError, match="has a processor without encoders: its detector reads videos"):
        rank(street, tmp_path / "out", model=tmp_path / "avrl")


# Words


@pytest.fixture(scope="module")
def loud(tmp_path_factory) -> Path:
    """Six videos of two clips; the last is bright and loud, and one has no sound."""
    folder = tmp_path_factory.mktemp("loud")
    for number in range(6):
        odd = number == 5

        def picture(index, width, height, odd=odd):
            return np.roll(gray(50 if odd else index % 7, width, height), 20 * odd, axis=0)

        samples = None if number == 0 else sound(3 * odd, 1.28, 16000) * (1 if odd else 0.02)
        write_media(
            folder / f"{number}.mp4", frame_times(25, 1.28), samples, 16000, audio_codec="aac", pictures=picture
        )
    return folder


def test_stretches_have_words_and_what_became_likelier(loud, tmp_path):
    found = rank(loud, tmp_path / "out", top=1, video_encoder=eyes(), audio_encoder=ears(), dtype="float32")
    first = found.stretches[0]
    assert first["video"] == "5.mp4" and len(first["seen"]) == len(first["heard"]) == 5
    assert {one["label"] for one in first["seen"]} <= {*SIGHTS} and {one["label"] for one in first["heard"]} <= {
        *SOUNDS
    }
    for verb in ("seen", "heard"):
        for one in first["likelier"][verb]:
            assert one["score"] > one["usual"] and one["times"] > 1
    assert first["likelier"]["seen"][0]["label"] == "=1+1"
    assert found.encoders == "PyTorch, float32, on cpu" and found.notes == []
    text = (tmp_path / "out" / "ranking.html").read_text()
    assert "seen more than usual: =1+1" in text and "\x1b" not in text


def test_a_clip_is_read_again_as_it_was_stored(loud):
    from avad_hf import AvacaProcessor

    processor = AvacaProcessor(video_encoder=eyes(), audio_encoder=ears(), size=32).to(dtype="float32")
    row = list_videos(loud).rows[3]
    with open_media(row) as media:
        clips = list(processor.clips(media))
        pictures = [frame.pixels for frame in media.frames(180)]
    again = look_again(processor, row, {1: True, 0: False})
    assert again.keys() == {0, 1} and again[0].picture is None
    assert torch.equal(again[1].picture, pictures[16 + clips[1].num_real // 2])
    for number, clip in enumerate(clips):
        expected = processor.encode_and_name([clip])[1]
        for sense, one in again[number].probabilities.items():
            assert torch.allclose(one, expected[sense][0].double(), atol=1e-6)


def test_videos_are_listed_however_they_lie(loud, tmp_path):
    for place in ("1.mp4", "a/2.mp4", "a/b/c/d/3.mp4", "fire/train/4.mp4"):
        (tmp_path / place).parent.mkdir(parents=True, exist_ok=True)
        shutil.copy(loud / "1.mp4", tmp_path / place)
    (tmp_path / "meta.csv").write_text("video,group\n3.mp4,monday\na/2.mp4,monday\n")
    rows = list_videos(tmp_path).rows
    assert [(row["id"], row["group"]) for row in rows] == [
        ("1.mp4", None), ("a/2.mp4", "monday"), ("a/b/c/d/3.mp4", "monday"), ("fire/train/4.mp4", None),
    ]  # fmt: skip
    assert {(row["label"], row["anomaly"], row["scene"], row["split"]) for row in rows} == {(None,) * 4}


STRETCH = {
    "rank": 1, "video": "=<b>x</b>.mp4", "start": 59.96, "end": 3661.0, "peak": 61.25, "score": 0.7, "one_in": 1234.5,
    "times_usual": None, "sight": 1.0, "sound": 0.0, "heard": [],
    "seen": [{"label": "=1+1\x1b", "score": 0.504}, {"label": "no", "score": 0.004}],
    "likelier": {"seen": [{"label": "<i>", "score": 0.5, "usual": 0.0004, "times": 1250.0}]},
}  # fmt: skip


def test_nothing_of_a_name_reaches_a_page_or_a_table_as_code(tmp_path):
    document = {
        "num_videos": 1, "num_recordings": 1, "num_clips": 2, "seconds": 7200.0, "encoders": "<u>", "notes": ["<s>"],
        "failed": [{"id": "<p>", "error": "<q>"}], "stretches": [STRETCH],
    }  # fmt: skip
    page = Page(write_ranking_page(document, {}, tmp_path / "p.html", "<title>"))
    assert "1. =<b>x</b>.mp4, 1:00.0 to 1:01:01, peak at 1:01.2" in page.text.replace("\n", "")
    assert "as rare as 1 in 1,234 clips; sight 100%" in page.text and "seen more than usual: <i> 50%" in page.text
    assert not {tag for tag, _ in page.tags} & {"u", "s", "q"} and "2 clips, 2:00:00 in all" in page.text
    write_ranking_csv([STRETCH], tmp_path / "r.csv")
    with open(tmp_path / "r.csv", newline="") as file:
        (row,) = csv.DictReader(file)
    assert row["video"] == "'=<b>x</b>.mp4" and row["seen"] == r"'=1+1\x1b; no" and row["seen_likelier"] == "<i>"
    assert row["times_usual"] == "" and words(STRETCH)[0] == "seen: =1+1\x1b 50%"
    assert words(STRETCH)[1] == "seen more than usual: <i> 50% (usually under 0.1%)"
    assert [shown_share(share) for share in (0.5, 0.012, 0.004)] == ["50%", "1%", "0.4%"]
    assert [clock(seconds) for seconds in (0, 59.94, 3599.96)] == ["0:00.0", "0:59.9", "1:00:00"]


def test_settings_are_kept_and_compared(tmp_path):
    settings = {"folder": '/a \x7f"', "top": 3, "share": 0.5, "is": True, "names": ("x", "y"), "none": None}
    keep_settings(tmp_path, settings)
    keep_settings(tmp_path, settings | {"names": ["x", "y"]})
    with pytest.raises(
        ValueError, match=r"other settings:\n  top: 3 before, not set now\n  new: not set before, 1 now"
    ):
        refuse_other_settings(tmp_path, settings | {"top": None, "new": 1})
    with pytest.raises(ValueError, match=r"are in settings.toml. Delete it."):
        refuse_other_settings(tmp_path, settings | {"top": 4}, advice="Delete it.")
    (tmp_path / "settings.toml").write_text("= no")
    with pytest.raises(ValueError, match=r"settings.toml is damaged: "):
        refuse_other_settings(tmp_path, settings)


def test_footage_counts_once_where_clips_overlap_and_may_have_nothing_that_stands_out():
    clips = clips_of(np.zeros(6), videos=[0, 0, 0, 1, 1, 1])
    assert ranked_module._seconds(clips) == 6
    assert ranked_module._seconds(replace(clips, times=clips.times * [0.5, 0.5] + [0, 0.5])) == 4
    assert ranked_module._usual(6, []) == [0, 1, 2, 3, 4, 5]
