"""The contract of detectors: a class of a user's own does all that the library's own do."""

import json
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from transformers import AutoModelForVideoClassification, AutoProcessor, pipeline

from avad_hf import (
    AvacaConfig,
    AvacaForAnomalyDetection,
    AvrlConfig,
    EngineModel,
    FeatureDataset,
    TrainingConfig,
    evaluate,
    extract_features,
    train,
)
from avad_hf.detection.context import ClipContext
from avad_hf.detection.pipeline import DEMO_MODEL
from avad_hf.media.arrays import MediaArrays
from avad_hf.models.detector import WHOLE_VIDEO, refuse_other_widths, spec_of

from .feature_stores import plant
from .media_files import frame_times, sound, write_media
from .own_detector import OwnConfig, OwnDetector
from .short_clips import beginning

pytestmark = pytest.mark.usefixtures("one_thread")
TASK = "audio-visual-anomaly"


@pytest.fixture(scope="module")
def processor():
    """Of the demonstration model, whose encoders other tests export too."""
    return AutoProcessor.from_pretrained(DEMO_MODEL, clip_stride=16)


@pytest.fixture(scope="module")
def videos(tmp_path_factory):
    """Rows of videos of three clips, in turn normal, dark and silent, and none of these."""
    folder, rows = tmp_path_factory.mktemp("videos"), []
    for number in range(12):
        anomaly = number % 2

        def picture(index, width, height, level=60 + 150 * anomaly, number=number):
            return np.full((height, width, 3), level + (index * 7 + number * 3) % 20, dtype=np.uint8)

        tone = anomaly * sound(number, 1.5, 16000)
        path = folder / f"{number}.mp4"
        write_media(path, frame_times(25, 1.5), tone, 16000, audio_codec="aac", pictures=picture)
        label = "crash" if anomaly else "normal"
        rows.append({"id": str(number), "video": str(path), "label": label, "anomaly": anomaly})
    return rows


@pytest.fixture(scope="module")
def store(tmp_path_factory, videos, processor):
    """Features of the videos."""
    folder = tmp_path_factory.mktemp("stores") / "own"
    extract_features(videos, processor, folder)
    return folder


@pytest.fixture(scope="module")
def trained(store, tmp_path_factory, processor):
    """A user's own detector, trained and saved with its processor."""
    folder = tmp_path_factory.mktemp("own") / "detector"
    model = OwnDetector(OwnConfig(visual_size=processor.widths["visual_features"], neighbours=1))
    config = TrainingConfig(str(store), str(folder), epochs=2, batch_size=4)
    rows = FeatureDataset(store)
    ids = [row["id"] for row in sorted(rows.rows, key=lambda row: row["anomaly"])]
    halves = [rows.where(lambda row, part=part: row["id"] in ids[part::2]) for part in (0, 1)]
    train(config, model=model, processor=processor, train_data=halves[0], validation_data=halves[1], progress=False)
    return folder


def test_a_class_of_ones_own_is_trained_and_saved_with_a_plain_card(trained):
    model = AutoModelForVideoClassification.from_pretrained(trained)
    assert type(model) is OwnDetector and model.config.recipe_sha256 and model.config.threshold_origin
    text = (trained / "README.md").read_text(encoding="utf-8")
    assert "An Own detector, trained by avad_hf" in text and "Validation videos: ROC AUC" in text


def test_it_detects_what_it_computes_and_says_why(trained, processor, bikes):
    result = pipeline(TASK, model=str(trained), dtype="float32", threshold=0.0)(bikes)
    model = AutoModelForVideoClassification.from_pretrained(trained).eval()
    features = processor(bikes)
    with torch.no_grad():
        logits = model(**features).logits[0].double()
    assert [clip["score"] for clip in result["clips"]] == pytest.approx(logits.sigmoid().tolist(), abs=1e-6)
    assert [clip["why"]["logit"] for clip in result["clips"]] == pytest.approx(logits.tolist(), abs=1e-6)
    (event,) = result["events"]
    assert event["why"]["logit"] == pytest.approx(logits.max().item(), abs=1e-6)


def test_it_is_evaluated_and_exported(trained, store, tmp_path, bikes, exported):
    bikes = beginning(bikes, tmp_path / "bikes.mp4", 66)
    figures = evaluate(AutoModelForVideoClassification.from_pretrained(trained), FeatureDataset(store)).figures
    assert figures["num_videos"] == 12 and figures["video"]["roc_auc"] is not None
    engines = exported(trained, "openvino", "float32", calibrate=[bikes])
    engine = AutoModelForVideoClassification.from_pretrained(engines)
    parity = json.loads((engines / "parity.json").read_text())
    assert isinstance(engine, EngineModel) and parity["score_difference"] < 1e-4
    options = {"dtype": "float32", "threshold": 0.0, "explain": True}
    before, after = (pipeline(TASK, model=str(place), **options)(bikes) for place in (trained, engines))
    assert after["score"] == pytest.approx(before["score"], abs=1e-4) and "why" in after["clips"][0]
    assert after["events"][0]["why"].keys() == before["events"][0]["why"].keys() > {"sight", "sound"}
    clip = torch.zeros(1, 1, *FeatureDataset(store)[0]["visual_features"].shape[1:])
    # Only thresholds depend on the scene where there is one network for all.
    assert torch.equal(engine(visual_features=clip, scene="gate").logits, engine(visual_features=clip).logits)


def test_scores_are_double_and_one_scale(trained):
    """In float32 the sigmoids of 17 and of 30 are the same number."""
    model = AutoModelForVideoClassification.from_pretrained(trained)
    scores = model.scores(SimpleNamespace(logits=torch.tensor([[17.0, 30.0]])))
    assert scores.dtype == torch.float64 and scores[0, 0] < scores[0, 1] < 1


@pytest.mark.parametrize("neighbours", [0, 1, 3, -1])
@pytest.mark.parametrize("sizes", [[11], [1] * 11, [4, 4, 3], [2, 9]])
def test_in_pieces_as_at_once(neighbours, sizes):
    """Whatever pieces a video comes in, clips are scored with their neighbours, each once."""
    model = OwnDetector(OwnConfig(neighbours=neighbours)).eval()
    features = torch.randn(1, 11, 6, 2, 3)
    with torch.no_grad():
        expected = model(features).logits[0]
        context, found, times = ClipContext(model.detector_spec.context, ["visual_features"]), [], []
        begin, pieces = 0, []
        for size in sizes:
            span = torch.arange(begin, begin + size)
            batch = {
                "visual_features": features[:, span],
                "clip_times": torch.stack([span, span + 1], dim=1)[None].double(),
                "has_audio": torch.tensor([True]),
            }
            pieces += list(context.add(batch))
            begin += size
        for piece in [*pieces, *context.end()]:
            logits = model(**piece.features).logits[0]
            found.append(logits[piece.first : piece.first + len(piece.times)])
            times += [start for start, _ in piece.times]
            if neighbours >= 0:  # memory stays bounded
                assert piece.features["visual_features"].shape[1] <= max(sizes) + 2 * neighbours + max(sizes)
    torch.testing.assert_close(torch.cat(found), expected)
    assert times == list(range(11))


def test_whole_videos_are_held_to_their_end_in_streams_too(processor, bikes, bunny, tmp_path):
    model = OwnDetector(OwnConfig(visual_size=processor.widths["visual_features"], neighbours=-1))
    pipe = pipeline(TASK, model=model, processor=processor, dtype="float32", device="cpu")
    bikes, bunny = (beginning(video, tmp_path / Path(video).name, 66) for video in (bikes, bunny))
    alone = [pipe(video, batch_size=2) for video in (bikes, bunny)]
    together = pipe([bikes, bunny], streams=2)
    for one, other in zip(alone, together, strict=True):
        assert [clip["score"] for clip in one["clips"]] == [clip["score"] for clip in other["clips"]]
    with torch.no_grad():
        expected = model.eval()(**processor(bikes)).logits[0].double().sigmoid()
    assert [clip["score"] for clip in alone[0]["clips"]] == pytest.approx(expected.tolist(), abs=1e-6)


def test_a_source_without_end_is_refused_for_whole_videos(processor):
    media = MediaArrays(frames=torch.zeros(40, 64, 96, 3, dtype=torch.uint8).numpy(), fps=25)
    media.is_endless = True
    width = processor.widths["visual_features"]
    whole, by_clip = (OwnDetector(OwnConfig(visual_size=width, neighbours=count)) for count in (-1, 0))
    pipes = [pipeline(TASK, model=model, processor=processor, device="cpu") for model in (whole, by_clip)]
    with pytest.raises(ValueError, match="has no end, and Own must see a whole video"):
        pipes[0](media)
    ((_, error),) = pipes[0].interleave([media])
    assert "must see a whole video" in str(error)
    assert pipes[1](media)["clips"]


def test_widths_that_do_not_fit_are_refused_by_name(processor):
    with pytest.raises(ValueError, match=r"video encoder gives visual_features of width \d+, but this Own .* reads 7"):
        pipeline(TASK, model=OwnDetector(OwnConfig(visual_size=7)), processor=processor)
    refuse_other_widths(AvacaConfig(visual_size=5).detector_spec, SimpleNamespace(widths={}))


def test_specs():
    assert spec_of(AvacaForAnomalyDetection(AvacaConfig(visual_size=3, hidden_size=8))).context == 0
    avrl = AvrlConfig().detector_spec
    assert (avrl.reads, avrl.objective, avrl.normal_labels) == ("videos", "classes", ("normal1", "normal2"))
    assert OwnConfig(neighbours=-1).detector_spec.context == WHOLE_VIDEO
    with pytest.raises(TypeError, match="Linear is no anomaly detector"):
        spec_of(torch.nn.Linear(1, 1))


def test_a_given_model_and_a_config_that_names_one_contradict(tmp_path):
    store = plant(tmp_path / "store", num_videos=20)
    config = TrainingConfig(str(store), str(tmp_path / "out"), architecture="avaca")
    with pytest.raises(ValueError, match="train was given a model"):
        train(config, model=OwnDetector(OwnConfig()), progress=False)
    with pytest.raises(ValueError, match=r"'avacca' is no detector.*Did you mean avaca\?"):
        TrainingConfig(str(store), str(tmp_path / "out"), architecture="avacca")
    with pytest.raises(ValueError, match="Give model or architecture, not both"):
        TrainingConfig(str(store), str(tmp_path / "out"), architecture="avaca", model="x")
    with pytest.raises(ValueError, match="AVRL is a detector that reads frames and sound, but store holds features"):
        train(TrainingConfig(str(store), str(tmp_path / "out"), architecture="avrl"), progress=False)
    with pytest.raises(TypeError, match="Linear is no anomaly detector"):
        train(TrainingConfig(str(store), str(tmp_path / "out")), model=torch.nn.Linear(1, 1), progress=False)
