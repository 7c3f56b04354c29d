"""Why events are events: against detectors whose score, heat and neighbours are known."""

import json
import math
import random
import weakref
from functools import partial

import numpy as np
import pytest
import torch
from torch import nn
from transformers import AutoProcessor, BatchFeature, pipeline
from transformers.modeling_outputs import ImageClassifierOutput

from avad_hf import DetectorConfig, DetectorModel, DetectorSpec
from avad_hf.detection.describe import Describer
from avad_hf.detection.events import ScoredClip, detect_events
from avad_hf.detection.explaining import LEAST_USUAL, Explainer, likelier_classes, reason
from avad_hf.detection.heat import peak, smooth
from avad_hf.detection.occlusion import PIXEL_GRID, HeldClip, hidden_heat, sense_shares
from avad_hf.detection.pipeline import DEMO_MODEL
from avad_hf.media.arrays import MediaArrays
from avad_hf.media.clips import deciding_clips
from avad_hf.models.avaca.end_to_end_avaca import as_map
from avad_hf.models.detector import WHOLE_VIDEO
from avad_hf.untrained import init_avrl

from .named_encoders import SIGHTS, SOUNDS, naming_processor
from .short_clips import beginning

pytestmark = pytest.mark.usefixtures("one_thread")
TASK = "audio-visual-anomaly"
# Rows and columns of the planted maps, and the cell by which they are judged.
GRID, CELL = (2, 5), (1, 3)
WIDTH, CLIP_FRAMES = 32, 16
NEAREST = [{"id": "gate-1", "start": 3.0, "end": 4.0, "distance": 0.25}]


class ProbeConfig(DetectorConfig):
    """What it knows besides its score, and how many neighbours it looks at; -1 for the whole video."""

    model_type = "tests_probe"
    knows: str = "nothing"
    neighbours: int = 0
    hears: bool = True

    @property
    def detector_spec(self) -> DetectorSpec:
        context = WHOLE_VIDEO if self.neighbours < 0 else self.neighbours
        inputs = {"visual_features": WIDTH} | ({"audio_features": 16} if self.hears else {})
        return DetectorSpec("Probe", context=context, inputs=inputs)


class Probe(DetectorModel):
    """Its logit is 3 of one cell of the map, and 2 of the sound, less 4."""

    config_class = ProbeConfig
    base_model_prefix = "probe"
    main_input_name = "visual_features"

    def __init__(self, config: ProbeConfig):
        super().__init__(config)
        self.unused = nn.Linear(1, 1)
        self.post_init()

    def forward(self, visual_features, audio_features=None, clip_mask=None, **unread):
        logits = 3 * visual_features[:, :, 0, CELL[0], CELL[1]] - 4
        if self.config.hears:
            logits = logits + 2 * audio_features[..., 0].mean(dim=-1)
        if self.config.neighbours == 1:  # clips see each other, and nothing comes of it
            logits = logits + 0 * (logits.roll(1, dims=1) + logits.roll(-1, dims=1))
        return ImageClassifierOutput(logits=logits)

    def explain(self, outputs):
        if self.config.knows == "nothing":
            return None
        sight = torch.full_like(outputs.logits, 0.25)
        return {"sight": sight, "sound": 1 - sight, "distance": outputs.logits}

    def heat(self, features, clip):
        return None if self.config.knows == "nothing" else features["visual_features"][0, clip, 0]

    def nearest_normal(self, features, clip, count=3):
        return [] if self.config.knows == "nothing" else NEAREST

    def usual_classes(self):
        if self.config.knows != "classes":
            return {}
        return {"seen": torch.full((len(SIGHTS),), 0.1), "heard": torch.full((len(SOUNDS),), 0.2)}


class SceneProbe(Probe):
    """One that is told the scene, and has a map of it."""

    def forward(self, visual_features, audio_features=None, clip_mask=None, scene=None, **unread):
        assert scene in (None, "gate")
        outputs = super().forward(visual_features, audio_features, clip_mask)
        return ImageClassifierOutput(logits=outputs.logits + 100 * (scene == "gate"))

    def heat(self, features, clip, scene=None):
        return torch.eye(2) if scene == "gate" else None


def planted(cells, sounds, seen=None, heard=None, maps=None, named=True):
    """A processor that gives these numbers of the clips of any video.

    Args:
        cells: Of each clip what the judged cell holds.
        sounds: Of each clip its sound.
        seen: Of each clip the probabilities of `SIGHTS`.
        heard: Of each clip those of `SOUNDS`.
        maps: Of each clip all cells, in place of the judged one.
        named: Whether the encoders have classes.
    """
    processor = naming_processor(feature_grid=GRID)
    visual = torch.zeros(len(cells), WIDTH, *GRID)
    visual[:, 0, CELL[0], CELL[1]] = torch.tensor(cells)
    if maps is not None:
        visual[:, 0] = maps
    audio = torch.tensor(sounds)[:, None, None].expand(-1, CLIP_FRAMES, 16)
    if not named:
        for encoder in processor.encoders.values():
            encoder.class_output = None

    def encode_and_name(batch):
        numbers = [round(clip.start * 25 / CLIP_FRAMES) for clip in batch.clips]
        has_sound = batch.clips[0].frames[0].sound is not None
        features = {
            "visual_features": visual[numbers][None],
            "audio_features": audio[numbers][None] * has_sound,
            "clip_mask": torch.ones(1, len(numbers), dtype=torch.bool),
            "clip_times": torch.tensor([[(clip.start, clip.end) for clip in batch.clips]], dtype=torch.float64),
            "has_audio": torch.tensor([has_sound]),
        }
        names = {"seen": seen, "heard": heard if has_sound else None}
        rows = {sense: torch.tensor(rows)[numbers] for sense, rows in names.items() if rows is not None}
        return BatchFeature(features), rows

    processor.encode_and_name = encode_and_name
    processor.encode = lambda batch: encode_and_name(batch)[0]
    return processor


def video(clips, size=(24, 40), has_sound=True, frames=0):
    """A gray video of so many clips, and some frames more."""
    number = clips * CLIP_FRAMES + frames
    sound = {"waveform": np.zeros(number * 640, np.float32), "sampling_rate": 16000} if has_sound else {}
    return {"frames": np.zeros((number, *size, 3), np.uint8), "fps": 25, **sound}


def explained(processor, source, model=Probe, **options):
    """The result, and the reasons of its events."""
    config = {name: options.pop(name) for name in ("knows", "neighbours", "hears", "thresholds") if name in options}
    pipe = pipeline(TASK, model=model(ProbeConfig(**config)), processor=processor, device="cpu")
    found = pipe(source, explain=True, **options)
    json.dumps(found, allow_nan=False)
    return found, [event["why"] for event in found["events"]]


CELLS, HEARD = [0.2, 0.4, 0.0, 2.0, 3.0, 0.2, 0.2, 0.1], [0.1, 0.0, 0.1, 0.5, 1.0, 0.0, 0.1, 2.5]


@pytest.mark.parametrize("neighbours", [0, 1, -1])
@pytest.mark.parametrize("batch_size", [1, 3, 8])
def test_shares_and_heat_by_hiding_are_known_of_a_sum(neighbours, batch_size):
    """Also where clips see each other, and however they come."""
    processor = planted(CELLS, HEARD)
    found, (seen, heard) = explained(processor, video(8), neighbours=neighbours, batch_size=batch_size)
    assert [(event["start"], event["end"]) for event in found["events"]] == [(1.92, 3.2), (4.48, 5.12)]
    # Hidden sight is what was usual up to then, 0.2 in the mean, and hidden sound is zero.
    assert seen["sight"] == pytest.approx(3 * 2.8 / (3 * 2.8 + 2 * 1.0), abs=1e-4)
    assert seen["sight"] + seen["sound"] == pytest.approx(1)
    assert (heard["sight"], heard["sound"]) == (0.0, 1.0)
    assert (seen["heat"]["start"], seen["heat"]["end"]) == (2.56, 3.2)  # of the clip with the highest score
    expected = np.zeros(GRID)
    expected[CELL] = 1
    assert (seen["heat"]["rows"], seen["heat"]["columns"]) == GRID
    assert np.array_equal(seen["heat"]["values"], expected)
    assert "heat" not in heard  # no place of it raises the score
    assert "nearest" not in seen


def test_without_explain_nothing_changes():
    processor = planted(CELLS, HEARD)
    pipe = pipeline(TASK, model=Probe(ProbeConfig(knows="distances")), processor=processor, device="cpu")
    plain, found = pipe(video(8)), pipe(video(8), explain=True)
    assert [set(event["why"]) for event in plain["events"]] == [{"sight", "sound", "distance"}] * 2
    for event in found["events"]:
        assert event["why"].keys() == {"sight", "sound", "distance", "heat", "nearest"}
        del event["why"]["heat"], event["why"]["nearest"]
    assert found == plain
    again = pipeline(TASK, model=Probe(ProbeConfig()), processor=processor, device="cpu", explain=True)(video(8))
    assert again["events"][0]["why"]["heat"]  # as a property of the pipeline
    silent = pipeline(TASK, model=Probe(ProbeConfig()), processor=processor, device="cpu")(video(8))
    assert "why" not in silent["events"][0]


def test_a_detector_that_knows_says_so_itself():
    maps = torch.rand(3, *GRID) / 10
    maps[1] = torch.tensor([[0.0, 1.0, 2.0, 3.0, 4.0], [-1.0, 6.0, 7.0, 8.0, 2.5]])
    _, (why,) = explained(planted([0.0] * 3, [0.0] * 3, maps=maps), video(3), knows="distances")
    assert (why["sight"], why["sound"], why["distance"]) == (0.25, 0.75, pytest.approx(20.0))
    assert why["heat"] == {
        **{"rows": 2, "columns": 5, "start": 0.64, "end": 1.28},
        "values": [[0.0, 0.125, 0.25, 0.375, 0.5], [0.0, 0.75, 0.875, 1.0, 0.312]],
        "peak": [pytest.approx(0.62, abs=0.05), 0.75],  # between the two hottest cells, in the middle of their row
    }
    assert why["nearest"] == NEAREST


def test_peaks_lie_in_the_middle_of_what_is_hot():
    """Of one cell in its middle, also at the border; of two that are alike between them; maps reach no farther."""
    values = np.zeros((3, 4))
    for row, column in np.ndindex(3, 4):
        values[:] = 0
        values[row, column] = 2.0
        assert peak(values) == pytest.approx(((column + 0.5) / 4, (row + 0.5) / 3), abs=0.02)
        assert smooth(values, (80, 60)).max() <= 2.0
    values[:] = 0
    values[1, 1:3] = 1.0
    assert peak(values) == pytest.approx((0.5, 0.5), abs=0.02)
    whole = smooth(np.full((2, 4), 0.7), (40, 30))
    assert whole.shape == (30, 40) and np.allclose(whole, 0.7)


def test_maps_of_portraits_are_turned_back():
    maps = torch.zeros(2, *GRID)
    maps[1] = torch.arange(10.0).reshape(GRID)
    processor = planted([0.0] * 2, [0.0] * 2, maps=maps)
    _, (why,) = explained(processor, video(2, size=(40, 24)), knows="distances")
    assert (why["heat"]["rows"], why["heat"]["columns"]) == (5, 2)
    assert np.allclose(why["heat"]["values"], (maps[1].T / 9), atol=1e-3)


@pytest.mark.parametrize("height", [40, 63, 64, 65, 66, 120])
def test_processors_know_which_maps_they_turn(height):
    """As the encoder's own maps say."""
    processor = AutoProcessor.from_pretrained(DEMO_MODEL)
    media = MediaArrays(np.zeros((1, height, 64, 3), np.uint8), fps=25)
    (batch,) = processor.decode(media)
    with torch.no_grad():
        encoded = as_map(processor.encoders["video_encoder"].encode(batch.pixels.unflatten(0, (1, -1))))
    rows, columns = encoded.shape[-2:]
    assert processor.turns_maps(media.info) == (rows > columns) == (height > 64)


def test_a_video_without_sound_rests_on_sight():
    _, (why,) = explained(planted(CELLS, HEARD), video(8, has_sound=False))
    assert (why["sight"], why["sound"]) == (1.0, 0.0)
    _, reasons = explained(planted(CELLS, HEARD), video(8), hears=False)
    assert [(why["sight"], why["sound"]) for why in reasons] == [(1.0, 0.0)]


def test_a_score_that_does_not_fall_says_nothing_of_the_senses():
    """The threshold is so low that every clip is one event: nothing is usual, and zeros hide what is zero."""
    _, (why,) = explained(planted([0.0] * 2, [0.0] * 2), video(2), threshold=0.0)
    assert why == {"sight": 0.5, "sound": 0.5}


def test_streams_say_the_same():
    processor = planted(CELLS, HEARD, seen=[[0.1] * 7] * 8, heard=[[0.1] * 6] * 8)
    pipe = pipeline(TASK, model=Probe(ProbeConfig()), processor=processor, device="cpu", explain=True)
    sources = [video(8), video(6, has_sound=False), video(3)]
    alone = [pipe(source) for source in sources]
    assert alone[0]["events"][0]["why"]["heat"] and pipe(sources, streams=2) == alone


def test_what_is_said_belongs_to_the_events_that_are_found():
    """Of any scores and classes, ties and last clips that are nearly all padding among them."""
    rng = random.Random(0)
    model = Probe(ProbeConfig(knows="distances"))
    for number in range(150):
        clips, count = [], rng.randint(1, 12)
        for index in range(count):
            length = rng.choice([1.0, 0.1]) if index == count - 1 else 1.0
            score = rng.choice([0.2, 0.5, 0.7, 0.7, 0.9])
            classes = {"normal": 1 - score, "a": score * rng.random()} if number % 2 else None
            classes = classes and classes | {"b": score - classes["a"]}
            clips.append(ScoredClip(float(index), index + length, score, probabilities=classes))
        explainer = Explainer(model, {}, False)
        explainer.spec = DetectorSpec("Probe", inputs=explainer.spec.inputs, normal_labels=("normal",))
        features = {"visual_features": torch.rand(1, count, WIDTH, *GRID), "has_audio": torch.tensor([True])}
        split = rng.randint(0, count)
        for part in (slice(0, split), slice(split, None)):
            cut = {name: value if name == "has_audio" else value[:, part] for name, value in features.items()}
            explainer.add(clips[part], 0, cut, 0.6, None)
        reasons = explainer.end(deciding_clips([(clip.start, clip.end) for clip in clips])[-1])
        found = detect_events(clips, 0.6, None, 25.0, True, normal_labels=("normal",), reasons=reasons)
        assert len(found.events) == len(reasons)
        for event in found.events:
            assert (event.why["heat"]["start"] + event.why["heat"]["end"]) / 2 == pytest.approx(event.peak)


def test_memory_does_not_grow_with_an_event(monkeypatch):
    made = []

    class Counted(HeldClip):
        def __init__(self, *arguments):
            super().__init__(*arguments)
            made.append(weakref.ref(self))

    monkeypatch.setattr("avad_hf.detection.explaining.HeldClip", Counted)
    explainer = Explainer(Probe(ProbeConfig(knows="distances")), {}, False)
    for number in range(40):
        features = {"visual_features": torch.rand(1, 1, WIDTH, *GRID), "has_audio": torch.tensor([True])}
        explainer.add([ScoredClip(number, number + 1, 0.5 + number / 100)], 0, features, 0.5, None)
        assert sum(reference() is not None for reference in made) <= 2
    assert len(explainer.end(True)) == 1 and len(made) == 40


# What became likelier


def naive_likelier(names, now, usual):
    told = []
    for name, p, q in zip(names, now, usual, strict=True):
        times = p / max(q, LEAST_USUAL)
        if p >= 0.05 and times >= 1.5:
            told.append((-(p - q) * math.log(times), name, p, q, times))
    return [
        {"label": name, "score": round(p, 4), "usual": round(q, 6), "times": round(times, 1)}
        for _, name, p, q, times in sorted(told)[:3]
    ]


def test_classes_are_ranked_by_what_they_tell():
    names = [f"n{number}" for number in range(40)]
    for seed in range(20):
        torch.manual_seed(seed)
        now, usual = (torch.randn(40, dtype=torch.float64).mul(2).softmax(0) for _ in range(2))
        assert likelier_classes(names, now, usual) == naive_likelier(names, now.tolist(), usual.tolist())
    # Neither a likely one that hardly changed, nor a rare one that became less rare.
    found = likelier_classes(["a", "b", "c"], torch.tensor([0.6, 0.3, 0.04]), torch.tensor([0.5, 0.02, 0.0001]))
    assert found == [{"label": "b", "score": 0.3, "usual": 0.02, "times": 15.0}]
    (new,) = likelier_classes(["a"], torch.tensor([0.9]), torch.tensor([0.0]))
    assert new == {"label": "a", "score": 0.9, "usual": 0.0, "times": 900.0}


def names_of_clips(number, peak):
    """Probabilities of what is seen and heard; another thing in the peak."""
    seen, heard = torch.full((number, len(SIGHTS)), 0.1), torch.full((number, len(SOUNDS)), 0.1)
    seen[peak, 4], heard[peak, 3] = 0.8, 0.7
    return seen.tolist(), heard.tolist()


@pytest.mark.parametrize("neighbours", [0, 1, -1])
def test_what_is_usual_is_that_of_normal_footage_or_of_the_rest_of_the_video(neighbours):
    seen, heard = names_of_clips(8, 4)
    processor = planted(CELLS, HEARD, seen, heard)
    _, (why, other) = explained(processor, video(8), neighbours=neighbours)
    assert why["likelier"] == {
        "seen": [{"label": SIGHTS[4], "score": 0.8, "usual": 0.1, "times": 8.0}],
        "heard": [{"label": SOUNDS[3], "score": 0.7, "usual": 0.1, "times": 7.0}],
        "usual_from": "the rest of this video",
    }
    assert other["likelier"] == {"seen": [], "heard": [], "usual_from": "the rest of this video"}
    _, (why, _) = explained(processor, video(8), knows="classes", neighbours=neighbours)
    assert why["likelier"]["usual_from"] == "normal footage"
    assert [name["usual"] for name in why["likelier"]["heard"]] == [0.2]
    # Too few clips are no usual ones, and encoders may have no classes.
    assert "likelier" not in explained(processor, video(5))[1][0]
    assert explained(processor, video(5), knows="classes")[1][0]["likelier"]["seen"]
    assert "likelier" not in explained(planted(CELLS, HEARD, named=False), video(8))[1][0]
    (why,) = explained(processor, video(8, has_sound=False))[1]
    assert why["likelier"]["seen"] and "heard" not in why["likelier"]


def test_names_are_asked_for_once():
    """Describing and explaining share the pass of the encoders."""
    seen, heard = names_of_clips(8, 4)
    processor = planted(CELLS, HEARD, seen, heard)
    found, (why, _) = explained(processor, video(8), describe=True)
    assert why["likelier"]["seen"] and found["events"][0]["seen"][0]["label"] == SIGHTS[4]
    assert found["seen"] == Describer(processor)(video(8))["seen"]


def test_reasons_in_words():
    assert reason(None) == reason({"logit": 2.0}) == reason({"sight": 0.5}) == ""
    assert reason({"sight": 0.75, "sound": 0.25}) == "sight 75%"
    likelier = {"seen": [], "heard": [{"label": "Car alarm", "score": 0.7, "usual": 0.05, "times": 14.2}]}
    words = reason({"sight": 0.08, "sound": 0.92, "likelier": likelier})
    assert words == "sound 92%: heard Car alarm, 14x more than usual"
    likelier["heard"][0] |= {"label": "x" * 60, "times": 2.44}
    assert reason({"sight": 0.0, "sound": 1.0, "likelier": likelier}) == (
        f"sound 100%: heard {'x' * 42}..., 2.4x more than usual"
    )
    assert reason({"sight": 0.9, "sound": 0.1, "likelier": likelier}) == "sight 90%"


# Detectors that read pixels


def pixel_scores(features, row, column):
    """Scores by the brightness of a place, and by the sound."""
    pictures = features["pixel_values_videos"]
    height, width = pictures.shape[-2] // PIXEL_GRID[0], pictures.shape[-1] // PIXEL_GRID[1]
    place = pictures[..., row * height : (row + 1) * height, column * width : (column + 1) * width]
    sound = (features["input_features"] * features["audio_frame_mask"].unsqueeze(-1)).mean(dim=(1, 2))
    return torch.sigmoid(place.mean(dim=(1, 2, 3, 4)) + sound)


@pytest.mark.parametrize("mask", [True, False])
def test_places_of_pixels(mask):
    features = {
        "pixel_values_videos": torch.ones(1, 5, 3, 24, 48),
        "input_features": torch.full((1, 30, 64), 3.0),
        "audio_frame_mask": torch.full((1, 30), mask),
    }
    held = HeldClip(features, 0, 0, partial(pixel_scores, row=2, column=5))
    heat = hidden_heat(held, None)
    assert heat.shape == PIXEL_GRID and heat.nonzero().tolist() == [[2, 5]]
    assert sense_shares(held, None, True) == ({"sight": 0.25, "sound": 0.75} if mask else {"sight": 1.0, "sound": 0.0})


def test_wide_maps_are_hidden_by_places():
    features = {"visual_features": torch.zeros(1, 1, 3, 8, 14)}
    features["visual_features"][0, 0, 0, 5, 9] = 4
    held = HeldClip(features, 0, 1, lambda some: some["visual_features"][:, :, 0, 5, 9].sigmoid())
    heat = hidden_heat(held, None)
    assert heat.shape == (4, 7) and heat.nonzero().tolist() == [[2, 4]]
    assert heat.max().item() == pytest.approx(4, abs=1e-5)
    one = HeldClip({"visual_features": torch.ones(1, 1, 3, 1, 1)}, 0, 1, lambda some: torch.ones(1, 1))
    assert hidden_heat(one, None) is None


def test_a_detector_that_reads_pixels_is_explained(tmp_path):
    folder = tmp_path / "avrl"
    init_avrl(folder, size="tiny")
    found = pipeline(TASK, model=str(folder))(video(2), threshold=0.0, explain=True)
    (why,) = (event["why"] for event in found["events"])
    assert why["sight"] + why["sound"] == pytest.approx(1)
    if "heat" in why:
        assert (why["heat"]["rows"], why["heat"]["columns"]) == PIXEL_GRID


# The demonstration model


@pytest.fixture(scope="module")
def demo():
    return pipeline(TASK, model=str(DEMO_MODEL), dtype="float32", device="cpu")


def test_what_is_not_judged_is_not_explained(demo, bikes, tmp_path, monkeypatch):
    real = beginning(bikes, tmp_path / "bikes.mp4", 34)
    monkeypatch.setattr("avad_hf.detection.pipeline.Explainer", None)  # which would be called
    found = demo(real, explain=True)
    assert (found["label"], found["events"]) == (None, [])
    assert found == demo(real)


def test_drawn_events_are_explained(demo, drawn):
    anomalous = next(row for row in drawn(8, 11) if row["anomaly"])
    found = demo(anomalous["video"], explain=True)
    assert found["events"]
    for event in found["events"]:
        assert event["why"]["sight"] + event["why"]["sound"] == pytest.approx(1)
        assert reason(event["why"]).startswith(("sight ", "sound "))


# Scenes


def test_a_scene_has_its_own_threshold():
    thresholds, processor = {"gate": 0.999, "yard": 0.01}, planted(CELLS, HEARD)
    model = Probe(ProbeConfig(thresholds=thresholds, threshold=0.5))
    pipe = pipeline(TASK, model=model, processor=processor, device="cpu")
    by_scene = {scene: pipe(video(8), scene=scene) for scene in (None, "gate", "yard")}
    assert {scene: found["threshold"] for scene, found in by_scene.items()} == {None: 0.5} | thresholds
    assert [len(found["events"]) for found in by_scene.values()] == [2, 1, 1]
    assert pipe([video(8)] * 2, scene="gate", streams=2)[0] == by_scene["gate"]
    assert pipe(video(8), scene="gate", threshold=0.5)["threshold"] == 0.5
    assert len(pipe(video(8), scene="gate", explain=True)["events"][0]["why"]["heat"]["values"]) == GRID[0]
    made = pipeline(TASK, model=model, processor=processor, device="cpu", scene="yard")
    assert made(video(8))["threshold"] == 0.01 and made(video(8), scene="gate")["threshold"] == 0.999


def test_scenes_that_cannot_be():
    pipe = pipeline(TASK, model=Probe(ProbeConfig(thresholds={"gate": 0.9})), processor=planted(CELLS, HEARD))
    with pytest.raises(
        ValueError, match=r"no threshold for scene 'gat', and no mean; it knows gate\. .* Did you mean gate\?"
    ):
        pipe(video(8), scene="gat")
    with pytest.raises(ValueError, match=r"common threshold 0\.5 is used\.$"):
        pipe(video(8), scene="park")
    for scene in ("", 3):
        with pytest.raises(ValueError, match=f"scene must be the name of a scene, got {scene!r}"):
            pipe(video(8), scene=scene)
    # Where no scene has a threshold of its own, all have the common one.
    plain = pipeline(TASK, model=Probe(ProbeConfig()), processor=planted(CELLS, HEARD))
    assert plain(video(8), scene="park") == plain(video(8))


def test_a_detector_that_takes_the_scene_is_told_it():
    found, reasons = explained(planted(CELLS, HEARD), video(8), model=SceneProbe, scene="gate")
    assert reasons[0]["heat"]["values"] == [[1.0, 0.0], [0.0, 1.0]]
    assert min(clip["score"] for clip in found["clips"]) > 0.99
    assert explained(planted(CELLS, HEARD), video(8), model=SceneProbe)[0]["clips"][0]["score"] < 0.1
