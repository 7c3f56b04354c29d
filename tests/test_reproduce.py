"""The paper's tables, run on small generated corpora: what is in them, and that no stage is done twice."""

import importlib
import json
import re
import shutil
import statistics

import pytest
from typer.testing import CliRunner

from avad_hf import AvacaProcessor
from avad_hf.cli import app
from avad_hf.corpora.splits import with_split_columns
from avad_hf.features.dataset import FeatureDataset
from avad_hf.reproduce import avaca, protocol
from avad_hf.reproduce.avaca import AUDIO_PATHS, paired, reproduce
from avad_hf.reproduce.protocol import Figure, tables_of
from avad_hf.runs import only_run

from .layouts import Media, shanghaitech_tree

SETTINGS = {"epochs": 1, "model_options": {"hidden_size": 8, "intermediate_size": 8}}
SCENES = ("mgarr", "zejtun_field")


@pytest.fixture(scope="module")
def media(tmp_path_factory) -> Media:
    return Media(tmp_path_factory.mktemp("media"))


@pytest.fixture(scope="module")
def processor(tiny) -> AvacaProcessor:
    return AvacaProcessor.from_pretrained(tiny)


@pytest.fixture(scope="module")
def mavad(media, tmp_path_factory):
    root = tmp_path_factory.mktemp("mavad")
    for scene in SCENES:
        for label in ("normal", "bicycle"):
            for index in range(5):
                media.put(root / scene / label / f"{index}.mp4")
    return root


def figures(place, store, scene, audio_path, seeds) -> list[dict]:
    runs = place / "runs" / store / scene
    return [json.loads((runs / f"{audio_path}-seed{seed}" / "test" / "metrics.json").read_text()) for seed in seeds]


@pytest.fixture(scope="module")
def tables(mavad, processor, tmp_path_factory):
    """Tables III and V with two splits, on the same videos as both copies, and what was done on the way."""
    place, stages = tmp_path_factory.mktemp("tables"), []
    options = {"data_dir": mavad, "raw_dir": mavad, "seeds": (0, 1), "settings": SETTINGS}
    text = reproduce("mavad", processor, place, **options, on_stage=stages.append)
    return place, text, stages, options


def test_table_iii_has_every_cell_with_the_papers_beside(tables):
    place, text, stages, _ = tables
    assert len(stages) == 1 + 2 * 2 * 3 + 1 + 2 * 2  # features, Table III, features of the raw copy, its runs
    assert text == (place / "tables.md").read_text(encoding="utf-8")
    by_video = text.split("Videos, each judged by its highest clip")[1].split("\n\n")[1]
    rows = {line.split("|")[1].strip(): line.split("|")[2:-1] for line in by_video.splitlines()[2:]}
    assert list(rows) == list(SCENES)  # the third scene is not there
    for scene in SCENES:
        for cell, audio_path in zip(rows[scene], AUDIO_PATHS, strict=True):
            areas = [100 * run["video"]["roc_auc"] for run in figures(place, "mavad", scene, audio_path, (0, 1))]
            expected = f"{statistics.mean(areas):.2f} ± {statistics.stdev(areas):.2f} (paper "
            assert cell.strip().startswith(expected)
    assert "(paper 89.76 ± 1.33)" in rows["mgarr"][1]
    assert "(paper 78.6 ± 6.82)" in rows["zejtun_field"][2]
    # The same for programs.
    first = tables_of(text)[0]
    assert first["title"].startswith("Table III") and "highest clip" in first["caption"]
    assert [list(row.values()) for row in first["rows"]] == [[scene, *map(str.strip, rows[scene])] for scene in SCENES]
    # No frame has a label here, so there is no table of frames.
    assert "Clips, each with its video's label" in text
    assert "Frames, each" not in text


def test_cells_are_trained_as_they_say(tables):
    place, *_ = tables
    for scene in SCENES:
        for audio_path in AUDIO_PATHS:
            for seed, found in zip((0, 1), figures(place, "mavad", scene, audio_path, (0, 1)), strict=True):
                run = place / "runs" / "mavad" / scene / f"{audio_path}-seed{seed}"
                config = json.loads((run / "config.json").read_text())
                training = json.loads((run / "training.json").read_text())["config"]
                assert config["audio_path"] == found["audio_path"] == audio_path
                assert (config["dmil_weight"], config["center_weight"]) == (10.0, 1.0)
                assert (training["scene"], training["split_seed"], training["learning_rate"]) == (scene, seed, 1e-5)
                assert list(found["scenes"]) == [scene]
                assert found["num_videos"] == 2  # a fifth of each class


def test_table_v_and_the_notes(tables):
    _, text, *_ = tables
    table = text.split("## Table V")[1]
    assert re.search(r"\| mgarr \| \d+.\d\d ± \d+.\d\d \(paper 91.49 ± 1.29\) \| .* \(paper 89.76 ± 1.33\) \|", table)
    assert "over 2 splits (seeds 0, 1)" in text and "profile `paper`" in text
    assert "Untrained video encoder" in text  # which these tables are made with


def test_nothing_is_done_twice(tables, processor):
    place, text, _, options = tables
    metrics = sorted((place / "runs").rglob("metrics.json"))
    before = {path: path.stat().st_mtime_ns for path in metrics}
    again = []
    assert reproduce("mavad", processor, place, **options, on_stage=again.append).split("All stages")[0] in text
    assert [stage for stage in again if not stage.startswith("features")] == []
    metrics[3].unlink()
    reproduce("mavad", processor, place, **options, on_stage=again.append)
    assert len([stage for stage in again if not stage.startswith("features")]) == 1
    assert {path for path in metrics if path.stat().st_mtime_ns != before[path]} == {metrics[3]}


def test_a_full_disk_and_a_second_run_harm_nothing(tables, processor, monkeypatch):
    place, text, _, options = tables
    folder = sorted((place / "runs").rglob("metrics.json"))[2].parent
    before = {path.name: path.read_bytes() for path in folder.iterdir()}
    shutil.rmtree(folder)

    def full(*arguments):
        raise OSError(28, "No space left on device")

    for name, words in (("write_text", "The time that was taken"), ("folder_written_whole", "The evaluation")):
        with monkeypatch.context() as patch:
            patch.setattr(protocol, name, full)
            with pytest.raises(
                OSError, match=rf"^{words} \(.*\) cannot be written: No space left .* make room, and run"
            ):
                reproduce("mavad", processor, place, **options)
    with (
        only_run(place),
        pytest.raises(ValueError, match=r"Another run is writing .* \(process \d+ on .* Wait for it"),
    ):
        reproduce("mavad", processor, place, **options)
    assert reproduce("mavad", processor, place, **options).split("All stages")[0] in text
    assert {path.name: path.read_bytes() for path in folder.iterdir()} == before
    assert not list(place.rglob("*.partial*")) and not list(place.rglob(".*"))


def test_cells_of_other_settings_are_not_taken_for_these(tables, processor):
    place, _, _, options = tables
    before = (place / "tables.md").read_text(encoding="utf-8")
    with pytest.raises(ValueError, match=r"holds another run.*\n  epochs: 1 there, 2 now"):
        reproduce("mavad", processor, place, **options | {"settings": SETTINGS | {"epochs": 2}})
    assert (place / "tables.md").read_text(encoding="utf-8") == before


def test_shanghaitech_counts_frames_without_sound(media, processor, tmp_path, monkeypatch, undrawn):
    assert set(avaca.OTHERS) == {"arnet", "mist", "rtfm", "s3r", "urdmu", "bnwvad"}
    monkeypatch.setattr(avaca, "OTHERS", ("arnet", "mist"))  # the quickest
    # In this process: others take seconds to begin. `test_compare.py` has several.
    monkeypatch.setattr(importlib.import_module("avad_hf.comparison.compare"), "share_cores", lambda: 1)
    train = [f"01_{i:03d}" for i in range(8)] + [f"01_{i:04d}" for i in range(8)]
    test = [f"02_{i:03d}" for i in range(3)] + [f"02_{i:04d}" for i in range(3)]
    shanghaitech_tree(media, tmp_path / "corpus", train, test)
    options = {"data_dir": tmp_path / "corpus", "settings": SETTINGS, "seeds": (0,)}
    text = reproduce("shanghaitech", processor, tmp_path / "out", **options)
    (found,) = figures(tmp_path / "out", "shanghaitech", "all", "zeroed", (0,))
    assert found["num_videos"] == 6 and found["audio_path"] == "zeroed"
    assert found["frame"]["num_frames"] == 3 * 10 + 3 * 5
    assert "| AVACA (paper) | 93.79 |" in text
    assert f"| AVACA (this run) | {100 * found['frame']['roc_auc']:.2f} |" in text
    config = json.loads((tmp_path / "out/runs/shanghaitech/all/zeroed-seed0/config.json").read_text())
    assert config["dmil_weight"] == 20.0
    # The other detectors of the table, each by its own recipe on the same videos.
    for name in ("arnet", "mist"):
        record = json.loads((tmp_path / f"out/compared/runs/all/{name}/seed0.json").read_text())
        assert len(record["videos"]) == 6 and record["asked"]["profile"] == "published"
    for title in ("AR-Net", "MIST (stage 1)"):
        assert f"| {title} | " in text.partition("trained here by their own recipes")[2]


def test_videos_that_cannot_be_read_stop_it(mavad, processor, tmp_path):
    shutil.copytree(mavad, tmp_path / "corpus")
    (tmp_path / "corpus" / "mgarr" / "normal" / "2.mp4").write_bytes(b"no video")
    with pytest.raises(ValueError, match="1 videos of mavad cannot be read, and a table without them would not be"):
        reproduce("mavad", processor, tmp_path / "out", data_dir=tmp_path / "corpus", settings=SETTINGS)


# Raw videos and their anonymised copies


def clip_rows(names, **columns) -> list[dict]:
    common = {"label": "normal", "anomaly": 0, "scene": "mgarr", "split": None}
    return [
        {"id": name, "video": f"/{name}.mp4"} | common | columns | {"clip": index} for index, name in enumerate(names)
    ]


def test_raw_videos_get_the_ids_and_splits_of_their_copies():
    copies = with_split_columns(clip_rows([f"anonymised/{name}" for name in "abcdefgh"], group=None))
    originals = with_split_columns(clip_rows([f"raw/{name}" for name in "abcdefgh"], split_7="train"))[::-1]
    found = paired(originals, copies, "clip")
    assert [row["video"] for row in found] == [f"/raw/{name}.mp4" for name in "abcdefgh"]  # by id, as they are stored
    for row, partner in zip(found, copies, strict=True):
        assert row == partner | {"video": row["video"]}
    # Ids that agree need no column.
    for column in (None, "id"):
        assert paired([row | {"video": "/raw.mp4"} for row in copies], copies, column)[2]["id"] == "anonymised/c"


@pytest.mark.parametrize(
    ("raw", "anonymised", "column", "words"),
    [
        (
            clip_rows("abcdx"),
            clip_rows("abcdefgh"),
            None,
            r"by id 4 anonymised videos have no raw one \(first e, f, g\), and 1 raw videos have no anonymised one "
            r"\(first x\). Give both the same ids",
        ),
        (
            clip_rows("abc"),
            clip_rows("xyzw"),
            "clip",
            r"by clip 1 anonymised videos have no raw one \(first 3\), and 0",
        ),
        (clip_rows("ab"), clip_rows("xy"), "take", "match_by names the column 'take', which the anonymised videos do"),
        (
            [row | {"take": 1} for row in clip_rows("ab")],
            [row | {"take": row["clip"]} for row in clip_rows("xy")],
            "take",
            r"1 values of take belong to several raw videos \(first 1\)",
        ),
        (
            [row | {"take": row["clip"] or None} for row in clip_rows("ab")],
            [row | {"take": row["clip"]} for row in clip_rows("xy")],
            "take",
            "The raw video 'a' has no take. Fill it in",
        ),
        (
            clip_rows("ab", label="horse"),
            clip_rows("xy"),
            "clip",
            "the label of clip 0 is 'horse' raw and 'normal' anon",
        ),
        (clip_rows("ab", scene="crossing"), clip_rows("ab"), None, "the scene of id a is 'crossing' raw and 'mgarr'"),
    ],
)
def test_raw_videos_that_cannot_be_matched(raw, anonymised, column, words):
    with pytest.raises(ValueError, match=words):
        paired(raw, anonymised, column)


def renamed(mavad, folder, column=True):
    """Raw copies of one scene under other names, in another order, with a column that says which is which."""
    places = {"raw": folder / "raw", "anonymised": folder / "anonymised"}
    for what, place in places.items():
        lines = ["video,label,scene" + (",take" if column else "")]
        for label in ("normal", "bicycle"):
            (place / label).mkdir(parents=True)
            for index in range(5):
                name = f"{label}/{index if what == 'anonymised' else 9 - index}.mp4"
                shutil.copy(mavad / "mgarr" / label / f"{index}.mp4", place / name)
                lines.append(f"{name},{label},mgarr" + (f",{label}{index}" if column else ""))
        (place / "manifest.csv").write_text("\n".join(lines) + "\n")
    return {"data_dir": places["anonymised"], "raw_dir": places["raw"], "seeds": (0, 1), "settings": SETTINGS}


def test_table_v_compares_the_same_videos_in_the_same_splits(mavad, processor, tmp_path, monkeypatch):
    monkeypatch.setattr("avad_hf.reproduce.avaca.table_iii", lambda *_: "## Table III")
    options, stages = renamed(mavad, tmp_path), []
    with pytest.raises(ValueError, match=r"by id 10 anonymised videos have no raw one \(first .*and 10 raw"):
        reproduce("mavad", processor, tmp_path / "out", **options, on_stage=stages.append)
    assert stages == []  # before anything was done
    text = reproduce("mavad", processor, tmp_path / "out", **options, match_by="take")
    assert "## Table V" in text
    for seed in (0, 1):
        anonymised, raw = (
            {
                row["take"]: (row["id"], row["split"])
                for row in FeatureDataset(tmp_path / "out/features" / name, seed=seed).rows
            }
            for name in ("mavad", "mavad-raw")
        )
        assert raw == anonymised and len(raw) == 10
    # Stores of an earlier run may hold more.
    index = tmp_path / "out/features/mavad-raw/index.jsonl"
    lines = index.read_text().splitlines()
    other = json.loads(lines[0]) | {"id": "other"}
    index.write_text("\n".join([*lines, json.dumps(other)]) + "\n")
    with pytest.raises(
        ValueError, match=r"compares the exact same splits, but \d+ videos \(first .*Remove .*mavad-raw"
    ):
        reproduce("mavad", processor, tmp_path / "out", **options, match_by="take")


def test_match_by_is_for_table_v(processor, tmp_path):
    for corpus in ("mavad", "synthetic"):
        with pytest.raises(ValueError, match="match_by='clip' is for Table V: give raw_dir"):
            reproduce(corpus, processor, tmp_path, data_dir=tmp_path, match_by="clip")


def test_cells():
    assert str(Figure([0.9])) == "90.00"
    assert str(Figure([0.9, 0.8, 1.0], "88 ± 1")) == "90.00 ± 10.00 (paper 88 ± 1)"
    assert str(Figure([0.9, float("nan")])) == "not defined"


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["mavad", "-o", "out", "--data-dir", "x"], "--model is needed"),
        (["mavad", "-o", "out", "--model", "x"], "--data-dir is needed"),
        (["ucf", "-o", "out"], "'ucf' is not one of"),
        (["mavad", "-o", "out", "--data-dir", "/nowhere", "--model", "TINY"], "/nowhere: no such folder or manifest"),
        (["shanghaitech", "-o", "o", "--data-dir", ".", "--raw-dir", ".", "--model", "TINY"], "raw_dir is for MAVAD"),
    ],
)
def test_the_command_refuses(arguments, words, tiny, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    arguments = [tiny if argument == "TINY" else argument for argument in arguments]
    result = CliRunner().invoke(app, ["reproduce", *arguments])
    assert result.exit_code == 2
    assert words in result.output.replace("\n", " ")
    assert list(tmp_path.iterdir()) == []
