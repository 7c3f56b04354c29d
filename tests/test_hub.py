"""New checkpoints and cards."""

import json
import re
from pathlib import Path

import pytest
import torch
import yaml

from avad_hf import AvacaForAnomalyDetection, AvacaProcessor, FeatureDataset, evaluate
from avad_hf.hub.cards import DATASETS, MODELS, SPACES, TEMPLATES, card, refreshed, template_folder
from avad_hf.hub.push import plain_card
from avad_hf.hub.results import Report
from avad_hf.untrained import init_avaca

from .feature_stores import plant, recipe
from .hub_server import HubServer


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
    for name, value in source.video_encoder.state_dict().items():
        assert torch.equal(made.video_encoder.state_dict()[name], value)
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
    "encoder": MODEL | {"kind": "slowfast"},
    "part": {"title": "T", "part": "AvacaProcessor", "whole": "an AVACA detector", "location": "alice/m", "facts": []},
    **dict.fromkeys(("mavad", "shade", "shanghaitech", "synthetic"), CORPUS),
    "manifest": CORPUS | {"title": "T"},
    "feature_store": CORPUS | {"title": "T", "recipe": ["size: 64"]},
    "space": {"title": "T", "model": "alice/m", "facts": []},
}
SHOWN = {
    "title": "On `store` (test videos)",
    "rows": [{"name": "ROC AUC of videos", "shown": "0.900", "interval": "0.800 to 1.000"}],
    "notes": ["Threshold 0.5000: not chosen."],
}
MORE = {
    "avaca": {"results": [SHOWN, SHOWN]},
    "avrl": {"results": [SHOWN], "architecture": "It sees only.", "classes": "fight, normal1"},
    "encoder": {"kind": "vggish"},
    "part": {"facts": ["Untrained."]},
    "space": {"facts": ["Synthetic alone.", "Second."]},
}
METADATA = {"license": "mit", "language": ["en"]}
FULL = [(name, METADATA, REQUIRED[name] | MORE.get(name, {})) for name in REQUIRED]
MINIMAL = [(name, None, values) for name, values in REQUIRED.items()]


def test_every_template_is_a_card():
    known = {*MODELS, *DATASETS, *SPACES}
    assert {path.stem for path in template_folder().glob("*.md")} - {"results"} == known == REQUIRED.keys()


@pytest.mark.parametrize(("name", "metadata", "values"), [*FULL, *MINIMAL])
def test_a_card_is_filled_in_everywhere(name, metadata, values):
    _, front, text = card(name, metadata, **values).split("---\n", 2)
    assert not re.search(r"\{[{%#]|[%}]\}|\bNone\b|undefined", text)
    assert not re.search(r"^- *$|\n\n\n\n", text, re.MULTILINE)
    assert all(str(value) in text for key, value in values.items() if isinstance(value, str) and key != "kind")
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
        kind = "ModelCard" if name in MODELS else "SpaceCard" if name in SPACES else "DatasetCard"
        (tmp_path / f"{kind}-{number}.md").write_text(card(name, metadata, **values))
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
        )
    assert len(printed.splitlines()) == len(FULL) + len(MINIMAL)
    assert set(printed.splitlines()) == {
        "model audio-visual-anomaly",
        "model feature-extraction",
        "dataset avad-hf",
        "space audio-visual-anomaly",
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
    assert len(wanted) == {"avaca": 3, "avrl": 3, "feature_store": 3, "part": 1, "space": 0}.get(name, 2)


def test_parts_that_the_owner_has_removed_stay_away():
    text = re.sub("<!-- use -->.*<!-- /use -->", "", card("avaca", **MODEL), flags=re.DOTALL)
    again = refreshed(text, "avaca", **MODEL, results=[SHOWN])
    assert "pipeline(" not in again and "| ROC AUC of videos | 0.900 | 0.800 to 1.000 |" in again


def test_one_part_alone_is_written_anew():
    again = refreshed(card("avaca", **MODEL), "avaca", ["results"], location="bob/n", results=[SHOWN])
    assert 'model="alice/m"' in again and "0.900" in again and "bob/n" not in again


@pytest.mark.parametrize("model_type", TEMPLATES)
def test_a_model_of_which_nothing_is_known_gets_a_card(model_type):
    from transformers import AutoConfig

    text = plain_card(AutoConfig.for_model(model_type), "alice/m", has_processor=True)
    assert "# m\n" in text and "Nobody has written down how these weights came about." in text


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
