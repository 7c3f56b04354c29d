"""New checkpoints and cards."""

import importlib
import json
import re
from pathlib import Path

import pytest
import torch
import yaml
from transformers import (
    ASTConfig,
    ASTFeatureExtractor,
    ASTModel,
    AutoModelForVideoClassification,
    AutoProcessor,
    VideoMAEConfig,
    VideoMAEModel,
)

from avad_hf import AvacaForAnomalyDetection, AvacaProcessor, FeatureDataset, evaluate
from avad_hf.hub.cards import card, card_values, refreshed, template_folder
from avad_hf.hub.folders import weights_hash
from avad_hf.hub.push import plain_card
from avad_hf.hub.results import Report
from avad_hf.models.untrained_parts import SIZES
from avad_hf.registration import ARCHITECTURES, architectures
from avad_hf.untrained import init, init_avaca

from .feature_stores import plant, recipe
from .hub_server import HubServer
from .own_detector import OwnConfig


def test_same_seed_same_weights(tmp_path):
    for name, seed in (("a", 0), ("b", 0), ("c", 1)):
        torch.rand(7)  # whatever was drawn before
        init_avaca(tmp_path / name, size="tiny", seed=seed)
    a, b, c = (AvacaForAnomalyDetection.from_pretrained(tmp_path / name).state_dict() for name in "abc")
    assert all(torch.equal(a[key], b[key]) for key in a)
    assert not torch.equal(a["classifier.weight"], c["classifier.weight"])
    encoders = [AvacaProcessor.from_pretrained(tmp_path / name).video_encoder.state_dict() for name in "ab"]
    assert all(torch.equal(encoders[0][key], encoders[1][key]) for key in encoders[0])


def test_leaves_the_random_state_alone(tmp_path):
    torch.manual_seed(5)
    expected = torch.rand(3)
    torch.manual_seed(5)
    init_avaca(tmp_path / "a", size="tiny")
    assert torch.equal(torch.rand(3), expected)


def test_base_has_the_published_widths(base):
    config = AvacaForAnomalyDetection.from_pretrained(base).config
    assert (config.visual_size, config.audio_size, config.hidden_size) == (2304, 128, 128)
    processor = AvacaProcessor.from_pretrained(base)
    assert (processor.size, processor.feature_grid, processor.clip_length) == (256, (2, 9), 32)
    assert len(processor.notices) == 2


def test_trained_encoders_can_be_brought(tmp_path, tiny):
    source = AvacaProcessor.from_pretrained(tiny)
    source.video_encoder.config.notice = source.audio_encoder.config.notice = None
    source.video_encoder.save_pretrained(tmp_path / "v")
    source.audio_encoder.save_pretrained(tmp_path / "a")
    made = init_avaca(
        tmp_path / "new", size="tiny", seed=9, video_encoder=tmp_path / "v", audio_encoder=tmp_path / "a"
    )
    assert made.notices == [] and made.size == 256
    weights = made.video_encoder.state_dict()
    for name, value in source.video_encoder.state_dict().items():
        assert torch.equal(weights[name], value)
    text = (tmp_path / "new" / "README.md").read_text()
    assert "Untrained detector" in text and "Untrained video encoder" not in text


def test_card_is_complete_and_has_valid_metadata(tiny):
    from huggingface_hub import ModelCard

    loaded = ModelCard.load(f"{tiny}/README.md")
    assert loaded.data.library_name == "avad-hf" and loaded.data.pipeline_tag == "video-classification"
    assert "audio-visual-anomaly" in loaded.data.tags
    assert "{{" not in loaded.text and "Untrained" in loaded.text
    assert json.loads(Path(tiny, "config.json").read_text())["notice"] in loaded.text


# What a template cannot do without, and what it can.
MODEL = {"title": "T", "summary": "S.", "location": "alice/m", "facts": ["Drawn by lot."]}
CORPUS = {"location": "alice/d", "content": "3 videos, none of them anomalous."}
REQUIRED = {
    "avaca": MODEL,
    "avrl": MODEL,
    "detector": MODEL,
    "encoder": MODEL | {"reads": "pixels"},
    "part": {"title": "T", "part": "AvacaProcessor", "whole": "an AVACA detector", "location": "alice/m", "facts": []},
    **dict.fromkeys(("mavad", "shade", "shanghaitech", "synthetic"), CORPUS),
    "manifest": CORPUS | {"title": "T"},
    "feature_store": CORPUS | {"title": "T", "recipe": ["size: 64"]},
    "space": {"title": "T", "model": "alice/m", "facts": []},
    "metric_anomaly_scores": {"title": "T", "location": "alice/scores"},
    "metric_event_classes": {"title": "T", "location": "alice/classes"},
}
SHOWN = {
    "title": "On `store` (test videos)",
    "rows": [{"name": "ROC AUC of videos", "shown": "0.900", "interval": "0.800 to 1.000"}],
    "notes": ["Threshold 0.5000: not chosen."],
}
MORE = {
    "avaca": {"results": [SHOWN, SHOWN]},
    "avrl": {"results": [SHOWN], "architecture": "It sees only.", "classes": "fight, normal1"},
    "detector": {"results": [SHOWN], "reads": "features", "inputs": {"visual_features": 6}, "module": "own.detector"}
    | {"architecture": "It looks at magnitudes.", "classes": "fight, normal", "objective": "classes"},
    "encoder": {"reads": "waveform"},
    "part": {"facts": ["Untrained."]},
    "space": {"facts": ["Synthetic alone.", "Second."]},
}
METADATA = {"license": "mit", "language": ["en"]}
FULL = [(name, METADATA, REQUIRED[name] | MORE.get(name, {})) for name in REQUIRED]
MINIMAL = [(name, None, values) for name, values in REQUIRED.items()]


DATASETS = ("mavad", "shade", "shanghaitech", "synthetic", "manifest", "feature_store")
SPACES = ("space", "metric_anomaly_scores", "metric_event_classes")
KINDS = dict.fromkeys(REQUIRED, "ModelCard") | dict.fromkeys(DATASETS, "DatasetCard")
KINDS |= dict.fromkeys(SPACES, "SpaceCard")


def test_every_template_is_a_card():
    assert {path.stem for path in template_folder().glob("*.md")} - {"results"} == REQUIRED.keys()


@pytest.mark.parametrize(("name", "metadata", "values"), [*FULL, *MINIMAL])
def test_a_card_is_filled_in_everywhere(name, metadata, values):
    _, front, text = card(name, metadata, **values).split("---\n", 2)
    assert not re.search(r"\{[{%#]|[%}]\}|\bNone\b|undefined", text)
    assert not re.search(r"^- *$|\n\n\n\n", text, re.MULTILINE)
    codes = ("reads", "objective")
    assert all(str(value) in text for key, value in values.items() if isinstance(value, str) and key not in codes)
    assert "null" not in front and (yaml.safe_load(front).get("license") == "mit") is bool(metadata)


@pytest.mark.parametrize(("name", "values"), REQUIRED.items())
def test_a_missing_value_is_named(name, values):
    for missing in values:
        given = {key: value for key, value in values.items() if key != missing}
        with pytest.raises(ValueError, match=f"The card {name} has a place without a value: '{missing}' is undefined"):
            card(name, **given)


def test_metadata_that_are_not_valid_are_refused():
    with pytest.raises(ValueError, match="Invalid `model_index` in metadata"):
        card("avaca", {"model-index": [{"results": []}]}, **MODEL)


def test_the_hub_takes_every_card(tmp_path):
    """As its client asks it to check them; the client alone is quick to start."""
    for number, (name, metadata, values) in enumerate([*FULL, *MINIMAL]):
        (tmp_path / f"{KINDS[name]}-{number}.md").write_text(card(name, metadata, **values))
    with HubServer(tokens={"tok-a": "alice"}) as hub:
        printed = hub.run(
            """
            from pathlib import Path
            import huggingface_hub
            for path in sorted(Path("..").glob("*Card-*.md")):
                kind = getattr(huggingface_hub, path.name.partition("-")[0])
                card = kind.load(path)
                card.validate()
                huggingface_hub.HfApi()._validate_yaml(str(card), repo_type=card.repo_type)
                assert str(card) == path.read_text()
                print(card.repo_type, card.data.tags[0])
            """,
            tmp_path / "home",
            bare=True,
        )
    assert len(printed.splitlines()) == len(FULL) + len(MINIMAL)
    assert set(printed.splitlines()) == {
        "model audio-visual-anomaly",
        "model feature-extraction",
        "dataset avad-hf",
        "space audio-visual-anomaly",
        "space evaluate",
    }


MARKED = re.compile(r"<!-- (\w+) -->\n.*?<!-- /\1 -->", re.DOTALL)


@pytest.mark.parametrize(("name", "metadata", "values"), FULL)
def test_only_the_marked_parts_are_written_anew(name, metadata, values):
    own = card(name, metadata, **REQUIRED[name]).replace("# ", "# My own: ", 1) + "My own words.\n"
    text = refreshed(own, name, **values)
    assert MARKED.sub("", text) == MARKED.sub("", own)
    wanted = [match[0] for match in MARKED.finditer(card(name, **values))]
    assert [match[0] for match in MARKED.finditer(text)] == wanted
    assert refreshed(text, name, **values) == text
    threes = dict.fromkeys(("avaca", "avrl", "detector", "feature_store"), 3)
    assert len(wanted) == (threes | {"part": 1} | dict.fromkeys(SPACES, 0)).get(name, 2)


def test_parts_that_the_owner_has_removed_stay_away():
    text = re.sub("<!-- use -->.*<!-- /use -->", "", card("avaca", **MODEL), flags=re.DOTALL)
    again = refreshed(text, "avaca", **MODEL, results=[SHOWN])
    assert "pipeline(" not in again and "| ROC AUC of videos | 0.900 | 0.800 to 1.000 |" in again


def test_one_part_alone_is_written_anew():
    again = refreshed(card("avaca", **MODEL), "avaca", ["results"], location="bob/n", results=[SHOWN])
    assert 'model="alice/m"' in again and "0.900" in again and "bob/n" not in again


@pytest.mark.parametrize("model_type", ARCHITECTURES)
def test_a_model_of_which_nothing_is_known_gets_a_card(model_type):
    from transformers import AutoConfig

    config = AutoConfig.for_model(model_type)
    text = plain_card(config, "alice/m", has_processor=True)
    assert "# m\n" in text and "Nobody has written down how these weights came about." in text
    assert f"pipeline_tag: {config.pipeline_tag}\n" in text and f"\n{config.summary}\n" in text
    # What other texts are made of: "the processor of an AVACA detector", "An AVACA checkpoint".
    assert re.fullmatch("An? .*[.]", config.summary)


@pytest.mark.parametrize(
    ("model_type", "words", "others"),
    [
        ("slowfast", 'encoder(read("video.mp4")["pixel_values_videos"])', "read.examples"),
        ("resnet3d", "--video-encoder alice/m", "--audio-encoder"),
        ("vggish", "embeddings = encoder(read.examples(log_mel[0]))", "pixel_values_videos"),
        ("vggish", "As the audio encoder of a new detector", "--video-encoder"),
    ],
)
def test_the_card_of_an_encoder_shows_how_it_is_called(model_type, words, others):
    from transformers import AutoConfig

    text = plain_card(AutoConfig.for_model(model_type), "alice/m", has_processor=False)
    assert words in text and others not in text


def test_the_card_of_a_detector_of_ones_own(monkeypatch):
    config = OwnConfig(visual_size=7, notice="Trained on a yard.")
    assert card_values(config)["reads"] == "features"
    text = plain_card(config, "alice/own", has_processor=True)
    assert "An Own detector.\n" in text and "- Trained on a yard.\n" in text
    assert "scores each clip of a video" in text and "`visual_features` of width 7.\n" in text
    # Nothing of the library knows its class.
    assert "import tests.own_detector\n" in text and 'pipeline("audio-visual-anomaly", model="alice/own")' in text
    without = plain_card(config, "alice/own", has_processor=False)
    assert "import tests.own_detector\n" in without and "pipeline(" not in without
    assert 'AutoModelForVideoClassification.from_pretrained("alice/own")' in without
    monkeypatch.delattr(OwnConfig, "summary")
    assert "A detector of anomalies in video.\n" in plain_card(config, "alice/own", has_processor=True)


def test_figures_that_are_not_defined_are_not_claimed(tmp_path, tiny):
    processor = AvacaProcessor.from_pretrained(tiny)
    shape = (processor.video_encoder.config.hidden_size, 1, 3)
    sizes = {"steps": 32, "audio_size": processor.audio_encoder.config.embedding_size}
    plant(tmp_path / "store", 4, shape, share=0, recipe_of=recipe(), **sizes)
    model = AvacaForAnomalyDetection.from_pretrained(tiny)
    report = Report(evaluate(model, FeatureDataset(tmp_path / "store"), num_resamples=5).figures)
    claimed = {result.metric_type for result in report.model_index()}
    assert "roc_auc" not in claimed and "false_alarm_rate" in claimed
    shown = report.shown()
    text = card("avaca", **MODEL, results=[shown])
    assert "ROC AUC of videos |" not in text and "- Not defined: " in text
    assert len(shown["rows"]) == len(claimed)


def test_a_killed_run_leaves_no_half_checkpoint(tmp_path, monkeypatch):
    def fail(*args, **kwargs):
        raise KeyboardInterrupt

    monkeypatch.setattr(AvacaProcessor, "save_pretrained", fail)
    with pytest.raises(KeyboardInterrupt):
        init_avaca(tmp_path / "new", size="tiny")
    assert list(tmp_path.iterdir()) == []


def test_refusals(tmp_path):
    (tmp_path / "full").mkdir()
    (tmp_path / "full" / "file").touch()
    with pytest.raises(FileExistsError, match="nothing was overwritten"):
        init_avaca(tmp_path / "full")
    with pytest.raises(FileExistsError, match="not an empty directory"):
        init_avaca(tmp_path / "full" / "file")
    with pytest.raises(ValueError, match="size must be one of base, tiny, got 'huge'"):
        init_avaca(tmp_path / "new", size="huge")
    with pytest.raises(ValueError, match=r"'avacca' is no detector. Known: avaca, .* Did you mean avaca\?"):
        init("avacca", tmp_path / "new")
    with pytest.raises(ValueError, match="'slowfast' is no detector"):
        init("slowfast", tmp_path / "new")
    words = r"AVACA has no option hidden_siz, fusions. Did you mean hidden_size, fusion\?"
    with pytest.raises(ValueError, match=words):
        init("avaca", tmp_path / "new", "tiny", hidden_siz=3, fusions="add")
    with pytest.raises(ValueError, match=r"'audio_path' expected one of \('focused', 'plain', 'zeroed'\), got loud"):
        init("avaca", tmp_path / "new", "tiny", audio_path="loud")
    assert not (tmp_path / "new").exists()


@pytest.mark.parametrize("model_type", architectures("init"))
def test_every_detector_can_be_begun(model_type, tmp_path):
    made = init(model_type, tmp_path / "new", size="tiny", seed=2)
    title = ARCHITECTURES[model_type].title
    text = (tmp_path / "new" / "README.md").read_text()
    assert f"# Untrained {title}\n" in text and f"{title} checkpoint of size tiny to begin training from" in text
    assert "(random weights, seed 2)" in made.model.config.notice and made.model.config.notice in text
    assert "license: apache-2.0\n" in text
    loaded = AutoModelForVideoClassification.from_pretrained(tmp_path / "new").state_dict()
    assert all(torch.equal(value, loaded[name]) for name, value in made.model.state_dict().items())
    assert type(AutoProcessor.from_pretrained(tmp_path / "new")) is type(made.processor)


def test_functions_of_each_detector_are_made_from_what_is_registered():
    from avad_hf import untrained

    assert all(callable(getattr(untrained, f"init_{name}")) for name in architectures("init"))
    for name in ("init_slowfast", "init_nothing", "avaca", "SIZE"):
        with pytest.raises(AttributeError, match=f"has no attribute '{name}'"):
            getattr(untrained, name)
    for one in architectures("init").values():
        module, _, _ = one.path("init").rpartition(".")
        assert tuple(importlib.import_module(module).SIZES) == SIZES


def test_a_field_of_the_config_can_be_set(tmp_path):
    made = init("avaca", tmp_path / "new", "tiny", audio_path="plain", threshold=0.7)
    config = AvacaForAnomalyDetection.from_pretrained(tmp_path / "new").config
    assert (config.audio_path, config.threshold, config.hidden_size) == ("plain", 0.7, 32)
    assert made.processor.notices


def plant_foreign_encoders(folder: Path, num_frames: int = 4) -> None:
    """A VideoMAE and an AST of transformers with random weights, as `save_pretrained` writes them."""
    sizes = {"num_hidden_layers": 1, "num_attention_heads": 2, "intermediate_size": 16}
    see = VideoMAEConfig(image_size=32, patch_size=16, num_frames=num_frames, tubelet_size=1, hidden_size=24, **sizes)
    VideoMAEModel(see).save_pretrained(folder / "see")
    pixels = {"image_mean": [0.5] * 3, "image_std": [0.5] * 3, "do_rescale": True, "do_normalize": True}
    cropped = {"do_resize": True, "do_center_crop": True, "size": {"shortest_edge": 32}}
    settings = {"image_processor_type": "VideoMAEImageProcessor", "crop_size": {"height": 32, "width": 32}}
    (folder / "see" / "preprocessor_config.json").write_text(json.dumps(settings | pixels | cropped))
    ASTModel(ASTConfig(max_length=64, num_mel_bins=32, hidden_size=16, **sizes)).save_pretrained(folder / "hear")
    ASTFeatureExtractor(max_length=64, num_mel_bins=32).save_pretrained(folder / "hear")


@pytest.mark.parametrize(("num_frames", "audio_path"), [(4, "focused"), (1, "plain")])
def test_any_encoder_can_be_brought(tmp_path, num_frames, audio_path):
    """Those of transformers: the detector gets their widths, and as many sound steps as they see pictures."""
    plant_foreign_encoders(tmp_path, num_frames)
    made = init("avaca", tmp_path / "new", "tiny", video_encoder=tmp_path / "see", audio_encoder=tmp_path / "hear")
    config = made.model.config
    assert (config.visual_size, config.audio_size, config.num_audio_steps) == (24, 16, num_frames)
    assert config.audio_path == audio_path  # of one sound step there are no differences
    assert made.processor.notices == [] and len(made.facts) == 2
    text = (tmp_path / "new" / "README.md").read_text()
    assert "Its video encoder is that of `see`" in text and weights_hash(made.processor.audio_encoder) in text
    assert "license" not in text
    read = AutoProcessor.from_pretrained(tmp_path / "new")
    assert read.recipe() == made.processor.recipe()
    with pytest.raises(TypeError, match=r"(?s)video_encoder .*reads sound.* Give it as audio_encoder"):
        init("avaca", tmp_path / "other", "tiny", video_encoder=tmp_path / "hear")
    assert not (tmp_path / "other").exists()
