"""New checkpoints and cards."""

import json
from pathlib import Path

import pytest
import torch

from avad_hf import AvacaForAnomalyDetection, AvacaProcessor
from avad_hf.hub.cards import card
from avad_hf.untrained import init_avaca


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
    with pytest.raises(ValueError, match="place without a value"):
        card("avaca", title="x")


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
