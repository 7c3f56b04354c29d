"""What `reproduce` makes of AVACA besides the paper's own tables: other fusions, classes, and what a corpus holds."""

import json

import numpy as np
import pytest
from matplotlib.image import imread
from typer.testing import CliRunner

from avad_hf import AvacaConfig, AvacaProcessor
from avad_hf.cli import app
from avad_hf.cli.reproduce import Fusion
from avad_hf.corpora.classes import MAVAD_CLASSES
from avad_hf.reproduce import pictures_avaca
from avad_hf.reproduce.avaca import FUSION_NAMES, reproduce
from avad_hf.reproduce.classes_avaca import class_settings, classes_as_markdown
from avad_hf.reproduce.pictures_avaca import PUBLISHED, corpus_tables, draw_examples
from avad_hf.reproduce.protocol import tables_of

from .layouts import Media
from .media_files import frame_times, sound, write_media

SETTINGS = {"epochs": 1, "model_options": {"hidden_size": 8, "intermediate_size": 8}}
CLASSES = ("normal", "bicycle", "bus")


@pytest.fixture(scope="module")
def made(tiny, tmp_path_factory):
    """Table III and classes of one scene with late fusion, and what was done on the way."""
    media, root = Media(tmp_path_factory.mktemp("media")), tmp_path_factory.mktemp("mavad")
    for label in CLASSES:
        for index in range(5):
            media.put(root / "mgarr" / label / f"{index}.mp4")
    place, stages = tmp_path_factory.mktemp("out"), []
    processor = AvacaProcessor.from_pretrained(tiny)
    options = {"data_dir": root, "seeds": (0,), "settings": SETTINGS, "fusions": ("late",), "classes": True}
    return place, reproduce("mavad", processor, place, **options, on_stage=stages.append), stages, (processor, options)


def test_table_iii_of_another_fusion(made):
    place, text, stages, _ = made
    assert [stage for stage in stages if "late fusion" in stage] == stages[1:] and len(stages) == 1 + 3 + 1
    table = tables_of(text)[0]
    assert table["title"] == "Table III: MAVAD, late transformer fusion"
    assert "(paper" not in "".join(map(str, table["rows"]))  # which is of the paper's own fusion
    for path in ("zeroed", "focused", "plain"):
        config = json.loads((place / f"runs/mavad/mgarr/late-{path}-seed0/config.json").read_text())
        assert (config["fusion"], config["audio_path"]) == ("late", path) and "id2label" not in config


def test_classes_have_top1_and_confusion(made):
    place, text, *_ = made
    run = place / "runs/mavad/mgarr/classes-late-focused-seed0"
    events = json.loads((run / "test/metrics.json").read_text())["events"]
    assert list(events["top1_recall"]) == MAVAD_CLASSES.names
    by_class, confusion = (table for table in tables_of(text) if table["title"].startswith("Classes: MAVAD, late"))
    shown = {row["class"]: row["mgarr"] for row in by_class["rows"]}
    assert list(shown) == [*CLASSES, "all videos", "mean over classes", "AUC of videos, by the score"]
    for name in CLASSES:
        assert shown[name] == f"{100 * events['top1_recall'][name]:.2f}"
    counts = np.array(events["confusion_matrix"])
    rows = [row for row in confusion["rows"] if row["what it is"] in CLASSES]
    called = [sum(int(value) for name, value in row.items() if name != "what it is") for row in rows]
    assert called == [1, 1, 1] and counts.sum() == 3  # a fifth of each class


def test_what_a_corpus_holds(made):
    place, text, *_ = made
    counts, conditions, recorded = (table for table in tables_of(text) if table["title"] == "The corpus")
    assert [list(row.values()) for row in counts["rows"]] == [
        *(["normal", "5 (paper 161)"], ["bicycle", "5 (paper 10)"], ["bus", "5 (paper 20)"]),
        ["total", "15 (paper 346)"],
    ]
    assert {row["condition"]: row["mgarr"] for row in conditions["rows"]} == {
        "hour: not known": "15",
        "light: not known": "15",
        "weather: not known": "15",
    }
    assert recorded["rows"][0]["mgarr"] and recorded["rows"][2]["what"] == "videos with sound"
    assert "![Frames and spectrogram of one video of each class, mgarr](examples-mgarr.png)" in text
    assert imread(place / "examples-mgarr.png").shape[1] == pictures_avaca.ROW_WIDTH * pictures_avaca.DOTS_PER_INCH


def test_nothing_is_done_twice(made):
    place, _, _, (processor, options) = made
    before = {path: path.stat().st_mtime_ns for path in place.rglob("*") if path.name != "tables.md"}
    again = []
    reproduce("mavad", processor, place, **options, on_stage=again.append)
    assert again == ["features of mavad"]
    changed = [path.name for path, time in before.items() if path.is_file() and path.stat().st_mtime_ns != time]
    assert not [name for name in changed if name.endswith((".png", "metrics.json", ".safetensors"))]


def test_conditions_come_in_their_order():
    rows = [
        {"label": "bus", "scene": "square", "fps": fps, "duration": 10.0, "has_audio": fps > 24}
        | {"hour": hour, "dark": dark, "weather": weather}
        for hour, dark, weather, fps in [
            (19, True, "rain", 25.0),
            (7, False, "sun|rain", 24.0),
            (None, None, None, 25.0),
        ]
    ]
    counts, conditions, recorded = tables_of(corpus_tables(rows, ["square"], ["normal", "bus"]))
    assert [row["square"] for row in counts["rows"]] == ["3", "3"]  # nothing is published of this scene
    assert [row["condition"] for row in conditions["rows"]] == [
        *("hour: 6 to 11 h", "hour: 18 to 23 h", "hour: not known"),
        *("light: bright", "light: dark", "light: not known"),
        *("weather: rain", "weather: sun/rain", "weather: not known"),
    ]
    assert {row["square"] for row in conditions["rows"]} == {"1"}
    assert [row["square"] for row in recorded["rows"]] == ["24 to 25", "10", "2"]


def test_published_counts_are_table_is():
    assert list(PUBLISHED) == MAVAD_CLASSES.names
    assert [sum(counts[scene] for counts in PUBLISHED.values()) for scene in range(3)] == [346, 212, 214]


def test_examples_show_frames_and_sound(tmp_path):
    """The picture is drawn of what the videos hold: dark beside bright frames, a tone, and no sound."""
    rows = []
    for label, level, tone in (("normal", 20, None), ("bus", 230, sound(1, 1.0, 16000))):
        path = tmp_path / f"{label}.mp4"

        def picture(index, width, height, level=level):
            return np.full((height, width, 3), level, dtype=np.uint8)

        write_media(path, frame_times(25, 1.0), tone, 16000, audio_codec="aac", pictures=picture)
        rows.append({"id": label, "video": str(path), "label": label, "scene": "square"})
    draw_examples(rows, MAVAD_CLASSES.names, tmp_path / "shown.png", "square")
    image = imread(tmp_path / "shown.png")[..., :3]
    middle = image.shape[0] // 2
    # Patches within the first frame of each line; normal comes first.
    dark, bright = (image[row : row + 10, 150:160].mean() for row in (middle // 2 + 15, middle + middle // 2))
    assert dark < 0.2 and 0.8 < bright < 0.99
    # Colours are in the spectrogram alone: the video without sound has none.
    colourful = (image.max(axis=2) - image.min(axis=2)) > 0.3
    right = colourful[:, image.shape[1] * 3 // 4 :]
    assert right[middle:].mean() > 0.3 and not right[40 : middle - 20].any()
    before = (tmp_path / "shown.png").read_bytes()
    draw_examples([], [], tmp_path / "shown.png", "square")
    assert (tmp_path / "shown.png").read_bytes() == before


def test_classes_of_a_scene():
    def rows(*names):
        return [{"label": name, "anomaly": int(name != "normal")} for name in names]

    assert class_settings(rows("normal", "bus", "bus")) is None
    mavad = class_settings(rows("normal", "bus", "horse"))
    assert list(mavad["id2label"].values()) == MAVAD_CLASSES.names and list(mavad["id2label"])[-1] == "10"
    assert class_settings(rows("horn", "normal", "siren")) == {
        "id2label": {"0": "normal", "1": "horn", "2": "siren"},
        "normal_labels": ["normal"],
    }
    with pytest.raises(ValueError, match="No scene has three classes or more, and of two the score says all"):
        classes_as_markdown({}, {})


def test_fusions_have_names_everywhere():
    assert tuple(FUSION_NAMES) == AvacaConfig.fusions == tuple(item.value for item in Fusion)


@pytest.mark.parametrize(
    ("corpus", "options", "words"),
    [
        ("shanghaitech", {"classes": True}, "fusions and classes are for Table III, of MAVAD and the synthetic world"),
        ("shanghaitech", {"fusions": ("late",)}, "fusions and classes are for Table III"),
        ("mavad", {"fusions": ("early",)}, "fusions must be some of transformer, attention, late, got early"),
        ("mavad", {"fusions": ()}, "got none"),
    ],
)
def test_refuses(corpus, options, words, tmp_path):
    with pytest.raises(ValueError, match=words):
        reproduce(corpus, None, tmp_path / "out", data_dir=tmp_path, **options)


def test_the_command_takes_them_for_table_iii_alone(tiny, tmp_path, monkeypatch):
    given = {}
    monkeypatch.setattr(
        "avad_hf.reproduce.avaca.reproduce", lambda *args, **options: given.update(options) or "## T\n"
    )
    arguments = [
        "--fusion",
        "late",
        "--fusion",
        "attention",
        "--classes",
        "--model",
        tiny,
        "--data-dir",
        str(tmp_path),
    ]
    done = CliRunner().invoke(app, ["reproduce", "mavad", "-o", str(tmp_path / "out"), *arguments])
    assert done.exit_code == 0, done.output
    assert given["fusions"] == ("late", "attention") and given["classes"] is True
    refused = CliRunner().invoke(app, ["reproduce", "shanghaitech", "-o", str(tmp_path / "o"), *arguments])
    assert refused.exit_code == 2 and "--fusion and --classes cannot be used with" in refused.output.replace("\n", " ")
