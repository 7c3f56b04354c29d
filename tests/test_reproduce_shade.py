"""The studies of the AVRL paper, run on a small generated corpus: what is in them, and that no stage is done twice."""

import json
import re
import shutil

import numpy as np
import pytest
import torch
from PIL import Image
from safetensors.torch import load_file
from typer.testing import CliRunner

from avad_hf import AvrlConfig, FeatureDataset, ShaderefConfig, load_dataset
from avad_hf.cli import app
from avad_hf.corpora.classes import SHADE_CLASSES
from avad_hf.reproduce.avrl import (
    CLASSES,
    FUSIONS,
    MODALITIES,
    PAPER,
    reproduce_shade,
    spatial_patch,
    temporal_patch,
)
from avad_hf.reproduce.pictures_avrl import draw_samples, stored_frames
from avad_hf.synthetic.world import plan_world
from avad_hf.untrained import init_avrl

from .feature_stores import plant_videos
from .layouts import Media
from .warm import short_videos


@pytest.fixture(scope="module")
def shade(tmp_path_factory):
    """Nine classes, three training videos and two test videos each; every second one is dark."""
    root, lines = tmp_path_factory.mktemp("shade"), ["video,hour"]
    media = Media(tmp_path_factory.mktemp("media"))
    for label in SHADE_CLASSES.names:
        for split, count in (("train", 4), ("test", 2)):
            for index in range(count):
                path = media.put(root / split / label / f"{label}{split}{index}.mp4")
                lines.append(f"{path.relative_to(root)},{22 if index % 2 else 12}")
    (root / "meta.csv").write_text("\n".join(lines))
    return root


@pytest.fixture(scope="module")
def checkpoint(tmp_path_factory):
    place = tmp_path_factory.mktemp("checkpoint") / "new"
    init_avrl(place, size="tiny")
    path = place / "processor_config.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | {"num_frames": 4, "size": [16, 16]}))
    return place


@pytest.fixture(scope="module")
def tables(shade, checkpoint, tmp_path_factory):
    """All studies with one split, and what was done on the way."""
    place, stages = tmp_path_factory.mktemp("tables"), []
    options = {"model": checkpoint, "data_dir": shade, "seeds": (0,), "settings": {"epochs": 1}, "ratios": (0.5,)}
    text = reproduce_shade(place, **options, on_stage=stages.append)
    return place, text, stages, options


def rows_of(text: str, title: str) -> dict[str, list[str]]:
    part = text.split(f"## {title}:")[1].split("\n## ")[0]
    lines = [line for line in part.splitlines() if line.startswith("| ")]
    return {line.split("|")[1].strip(): [cell.strip() for cell in line.split("|")[2:-1]] for line in lines}


def figures(place, name, part="test") -> dict:
    return json.loads((place / "runs" / "shade" / "all" / f"{name}-seed0" / part / "metrics.json").read_text())


@pytest.mark.parametrize(("title", "names"), [("Table V", MODALITIES), ("Table III", FUSIONS)])
def test_each_detector_stands_beside_the_papers(tables, title, names):
    place, text, _, _ = tables
    rows = rows_of(text, title)
    assert [name.replace(" ", "_") for name in rows["class"]] == list(names)
    for column, name in enumerate(names):
        events = figures(place, "audio_visual" if name == "concat" else name)["events"]
        for label in SHADE_CLASSES.names:
            mine, paper = re.fullmatch(r"(.*) \(paper (.*)\)", rows[label][column]).groups()
            assert float(mine) == pytest.approx(100 * events["top1_recall"][label], abs=5e-3)
            assert float(paper) == pytest.approx(100 * PAPER[name][label])
        assert float(rows["**all videos**"][column]) == pytest.approx(100 * events["top1_accuracy"], abs=5e-3)
        assert float(rows["**mean over classes**"][column]) == pytest.approx(100 * events["top1_macro"], abs=5e-3)


def test_references_stand_beside_avrl_and_the_papers(tables):
    place, text, _, _ = tables
    rows = rows_of(text, "Table II")
    assert rows["class"] == ["MLP", "LSTM", "LRCN", "3D ResNet", "N3D ResNet", "AVRL"]
    names = ("reference-mlp", "reference-lstm", "reference-lrcn", "reference-resnet3d", None, "audio_visual")
    for column, name in enumerate(names):
        paper = PAPER[rows["class"][column]]
        for label in SHADE_CLASSES.names:
            mine, published = re.fullmatch(r"(.*)\(paper (.*)\)", rows[label][column]).groups()
            assert float(published) == pytest.approx(100 * paper[label])
            if name is None:
                assert mine == ""
            else:
                recall = figures(place, name)["events"]["top1_recall"][label]
                assert float(mine) == pytest.approx(100 * recall, abs=5e-3)
    assert rows["**all videos**"][4] == "" and "N3D ResNet is not trained here, since it is not published" in text
    assert rows["shoot"][2].endswith("(paper 90.5)") and rows["normal2"][4] == "(paper 80.4)"


def test_references_are_trained_as_avrl_is_on_what_it_sees(tables, checkpoint):
    place, _, _, _ = tables
    avrl = json.loads((place / "runs/shade/all/audio_visual-seed0/training.json").read_text())["config"]
    begun = load_file(checkpoint / "model.safetensors")
    for kind in ("mlp", "lstm", "lrcn", "resnet3d"):
        run = place / "runs" / "shade" / "all" / f"reference-{kind}-seed0"
        config = ShaderefConfig.from_pretrained(run)
        assert config.kind == kind and config.num_frames == 4 and list(config.id2label.values()) == list(CLASSES)
        training = json.loads((run / "training.json").read_text())["config"]
        assert training["fine_tune"] == (kind == "resnet3d")
        differing = {name for name, value in training.items() if value != avrl[name]}
        assert differing <= {"model", "output_dir", "fine_tune", "model_options"}
    # The 3D ResNet begins where AVRL's does.
    untrained = load_file(place / "untrained-references" / "reference-resnet3d" / "model.safetensors")
    for name, tensor in untrained.items():
        if name.startswith("shaderef.network."):
            assert torch.equal(tensor, begun[name.replace("shaderef.network.", "avrl.visual.")]), name


def test_published_figures_are_in_the_order_of_the_classes():
    assert tuple(AvrlConfig().id2label.values()) == CLASSES == tuple(SHADE_CLASSES.names)
    # Table III's row of shoot, Table V's of VGGish, Table IV's of chase.
    assert [PAPER[name]["shoot"] for name in FUSIONS] == [0.959, 0.898, 0.918, 0.918, 0.918]
    assert (PAPER["audio"]["fight"], PAPER["visual"]["arrest"], PAPER["dark"]["chase"]) == (0.133, 0.823, 0.914)


def test_each_detector_is_trained_as_its_name_says(tables):
    place, _, stages, _ = tables
    for name in (*MODALITIES, *FUSIONS[1:]):
        config = json.loads((place / "runs" / "shade" / "all" / f"{name}-seed0" / "config.json").read_text())
        known = {"fusion": "concat", "modality": "audio_visual"} | {
            k: config[k] for k in ("fusion", "modality") if k in config
        }
        assert known["modality"] == (name if name in MODALITIES else "audio_visual")
        assert known["fusion"] == (name if name in FUSIONS else "concat")
        training = json.loads((place / "runs" / "shade" / "all" / f"{name}-seed0" / "training.json").read_text())
        assert training["config"]["fine_tune"] and training["config"]["optimizer"] == "sgd"
    assert len(stages) == 1 + 7 + 4  # the store, seven detectors (concat is the audio-visual one), four references


def test_dark_videos_are_those_of_the_test_set(tables, shade):
    place, text, _, options = tables
    dark = load_dataset("shade", "dark", data_dir=shade)
    assert "Table IV: dark videos of the test set (9 a split)" in text
    (scores,) = (place / "runs/shade/all/audio_visual-seed0").glob("dark-test-*/scores.jsonl")
    scored = scores.read_text().splitlines()
    assert {json.loads(line)["id"] for line in scored} == set(dark["test"]["id"])
    assert rows_of(text, "Table IV")["arrest"][1].endswith("(paper 100.0)")
    # The paper's 377 are more than its test set can hold.
    whole = reproduce_shade(place, **options | {"studies": ["dark"], "dark_from": "all"})
    assert "dark videos of all sets, those of training among them (27 a split)" in whole


def test_hidden_parts_are_counted_and_drawn(tables):
    place, text, _, _ = tables
    rows = rows_of(text, "Figure 6")
    assert list(rows) == ["hidden", "0%", "50%", "sound alone"]
    assert rows["0%"][0] == rows["0%"][1] == f"{100 * figures(place, 'audio_visual')['events']['top1_accuracy']:.2f}"
    for name in ("patches.png", "hidden.png"):
        with Image.open(place / name) as picture:
            assert picture.width > 1000 and len(picture.convert("RGB").getcolors(1 << 20)) > 20


def test_samples_and_confusions_are_drawn(tables):
    place, text, _, _ = tables
    assert "(Figure 1) is drawn in samples.png" in text and "(Figure 4) is drawn in fusions.png" in text
    for name in ("samples.png", "fusions.png"):
        with Image.open(place / name) as picture:
            assert picture.width > 1000 and len(picture.convert("RGB").getcolors(1 << 20)) > 20


def test_samples_are_what_the_store_holds_and_may_be_silent(tmp_path):
    videos = FeatureDataset(plant_videos(tmp_path / "store", num_videos=8))
    frames, log_mel = stored_frames(videos, 3)
    stored = load_file(tmp_path / "store" / videos.rows[3]["file"])
    assert torch.equal(frames, stored["frames"]) and torch.equal(log_mel, stored["log_mel"])
    drawn = {}
    for name, only_silent in (("heard", False), ("silent", True)):
        part = videos.where(lambda row: not row["has_audio"]) if only_silent else videos
        draw_samples(part, 0.01, tmp_path / f"{name}.png")
        with Image.open(tmp_path / f"{name}.png") as picture:
            drawn[name] = picture.size
    # A row a class: video 4 alone is silent.
    assert drawn["heard"][1] > 2 * drawn["silent"][1]


def test_nothing_is_done_twice(tables, monkeypatch):
    place, text, _, options = tables
    models = {path: path.stat().st_mtime_ns for path in place.rglob("model.safetensors")}
    stages = []
    scores = {path: path.stat().st_mtime_ns for path in place.rglob("metrics.json")}
    monkeypatch.chdir(options["model"].parent)  # another spelling of the same folder
    again = reproduce_shade(place, **options | {"model": options["model"].name}, on_stage=stages.append)
    assert stages == ["features of shade"]
    assert {path: path.stat().st_mtime_ns for path in place.rglob("metrics.json")} == scores
    assert rows_of(again, "Table V") == rows_of(text, "Table V")
    assert {path: path.stat().st_mtime_ns for path in place.rglob("model.safetensors")} == models


@pytest.mark.parametrize("options", [{"fusion": "add"}, {"modality": "visual"}])
def test_columns_are_what_they_say_whatever_the_checkpoint_is(tables, shade, checkpoint, tmp_path, options):
    init_avrl(tmp_path / "new", size="tiny", **options)
    (tmp_path / "new" / "processor_config.json").write_text((checkpoint / "processor_config.json").read_text())
    shutil.copytree(tables[0] / "features", tmp_path / "out" / "features")  # the processor is the same
    settings = {"seeds": (0,), "settings": {"epochs": 1}, "studies": ["modality", "fusion"]}
    reproduce_shade(tmp_path / "out", model=tmp_path / "new", data_dir=shade, **settings)
    for name in (*MODALITIES, *FUSIONS[1:]):
        place = tmp_path / "out" / "runs" / "shade" / "all" / f"{name}-seed0"
        config = AvrlConfig.from_pretrained(place)
        expected = (name, "concat") if name in MODALITIES else ("audio_visual", name)
        assert (config.modality, config.fusion) == expected


def test_detectors_that_have_seen_videos_are_refused(tables, shade, tiny, tmp_path):
    place, _, _, options = tables
    trained = place / "runs" / "shade" / "all" / "audio_visual-seed0"
    for model, words in ((trained, "is a trained detector"), (tiny, "is no checkpoint of AVRL")):
        with pytest.raises(ValueError, match=words):
            reproduce_shade(tmp_path, **options | {"model": model})


def test_a_run_of_other_settings_is_refused(tables):
    place, _, _, options = tables
    with pytest.raises(ValueError, match=r"holds another run.*\n  epochs: 1 there, 2 now"):
        reproduce_shade(place, **options | {"settings": {"epochs": 2}})


@pytest.mark.parametrize("ratio", [0.0, 0.25, 0.5, 0.8, 1.0])
def test_patches_hide_the_share_that_is_asked_for(ratio):
    frames = torch.full((20, 3, 48, 36), 200, dtype=torch.uint8)
    hidden = temporal_patch(frames, ratio, np.random.default_rng(0))
    by_frame = (hidden == 0).flatten(1)
    assert by_frame.all(1).sum() == round(20 * ratio) and by_frame.all(1).eq(by_frame.any(1)).all()
    hidden = spatial_patch(frames, ratio, np.random.default_rng(0))
    black = hidden == 0
    assert (black.all(dim=1) == black.any(dim=1)).all()  # all colours of a pixel
    shares = black.float().mean(dim=(1, 2, 3))
    assert torch.allclose(shares, torch.full((20,), round(ratio * 144) / 144), atol=1e-6)
    assert (frames == 200).all()  # what was given stays
    if 0 < ratio < 1:
        assert any(not torch.equal(black[0], other) for other in black[1:])  # other places on every frame
        other = spatial_patch(frames, ratio, np.random.default_rng(1))
        assert not torch.equal(other, hidden)
        assert torch.equal(spatial_patch(frames, ratio, np.random.default_rng(0)), hidden)


def test_the_command_and_its_refusals(tmp_path, shade, checkpoint, monkeypatch):
    def command(*arguments, code=2):
        done = CliRunner().invoke(app, ["reproduce", *map(str, arguments), "-o", str(tmp_path / "out")])
        assert done.exit_code == code, done.output
        return done.output.replace("\n", " ")

    assert "--model is needed: the checkpoint that training begins with" in command("shade", "--data-dir", shade)
    assert "--data-dir is needed" in command("shade", "--model", checkpoint)
    assert "--study cannot be used with synthetic." in command("synthetic", "--study", "dark")
    said = command("crowd", "--raw-dir", shade, "--device", "cpu", "--dtype", "bfloat16")
    assert "--raw-dir and --device and --dtype cannot be used with crowd." in said
    assert "--num-videos cannot be used with shade" in command(
        "shade", "--num-videos", 9, "--data-dir", shade, "--model", "a"
    )
    assert "--profile paper is of the other detector" in command("crowd", "--profile", "paper")
    said = command("shade", "--data-dir", shade, "--model", checkpoint, "--study", "patches", "--ratio", 1.5)
    assert "ratios must be between 0 and 1, got 1.5" in said
    assert not (tmp_path / "out").exists()
    options = ("--study", "modality", "--seeds", 1, "--epochs", 1)
    said = command("shade", "--data-dir", shade, "--model", checkpoint, *options, code=0)
    assert "Table V" in said and "Table III" not in said and "(paper 95.9)" in said


def test_the_synthetic_crowd_needs_nothing(tmp_path, monkeypatch):
    monkeypatch.setattr("avad_hf.synthetic.world.plan_world", plan_world)  # and is put back
    monkeypatch.setattr("avad_hf.corpora.synthetic.gallery", lambda plans, path: None)
    short_videos(1.0)
    options = {"studies": ["modality"], "seeds": (0,), "settings": {"epochs": 1}, "data_dir": tmp_path / "world"}
    text = reproduce_shade(tmp_path / "out", num_videos=36, **options)
    assert "36 drawn videos of the synthetic crowd" in text and "paper" not in text
    assert len(FeatureDataset(tmp_path / "out" / "features" / "crowd").rows) == 36
    training = json.loads((tmp_path / "out/runs/crowd/all/audio-seed0/training.json").read_text())
    assert not training["config"]["fine_tune"]


def test_what_cannot_be_meant_is_refused(tmp_path, checkpoint, shade):
    with pytest.raises(
        ValueError, match="studies must be among references, modality, fusion, dark, patches, got colour"
    ):
        reproduce_shade(tmp_path, model=checkpoint, data_dir=shade, studies=["colour"])
    with pytest.raises(ValueError, match="dark_from must be test or all, got 'train'"):
        reproduce_shade(tmp_path, model=checkpoint, data_dir=shade, dark_from="train")
    with pytest.raises(ValueError, match="SHADE's studies need a model"):
        reproduce_shade(tmp_path, data_dir=shade)
