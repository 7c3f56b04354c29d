"""Events from scores, by hand-made examples; results as JSON and CSV."""

import csv
import json
from dataclasses import replace

import pytest

from avad_hf.detection.events import Event, ScoredClip, detect_events, merge_events, write_csv, write_json


def clips(*scores, length=1.28):
    return [ScoredClip(i * length, (i + 1) * length, score) for i, score in enumerate(scores)]


def test_neighbours_over_the_threshold_are_one_event():
    events = merge_events(clips(0.1, 0.6, 0.9, 0.5, 0.2, 0.7), 0.5)
    assert events == [
        Event(1.28, 5.12, pytest.approx(3.2), 0.9, "anomaly"),
        Event(6.4, 7.68, pytest.approx(7.04), 0.7, "anomaly"),
    ]


@pytest.mark.parametrize(
    ("scores", "count"), [((), 0), ((0.4,), 0), ((0.5,), 1), ((0.9, 0.9), 1), ((0.9, 0.1, 0.9), 2)]
)
def test_number_of_events(scores, count):
    assert len(merge_events(clips(*scores), 0.5)) == count


def test_overlapping_clips_make_one_event():
    overlapping = [ScoredClip(0.64 * i, 0.64 * i + 1.28, s) for i, s in enumerate((0.1, 0.8, 0.9, 0.1))]
    assert merge_events(overlapping, 0.5) == [Event(0.64, 2.56, 1.92, 0.9, "anomaly")]


def result(scores=(0.2, 0.8), duration=2.56, **kwargs):
    return detect_events(clips(*scores), 0.5, duration, 25.0, True, **kwargs)


def test_result():
    found = result()
    assert (found.score, found.label, found.read_until, found.warnings) == (0.8, "anomaly", 2.56, [])
    assert result((0.2, 0.3)).label == "normal"
    assert result(warnings=["untrained"]).warnings == ["untrained"]
    assert json.loads(json.dumps(found.to_dict()))["events"][0]["start"] == 1.28
    assert result(duration=None).duration == 2.56


def test_missing_picture_is_said_with_the_second():
    assert result(duration=10.0).warnings == ["Only the first 2.56 s of 10.00 s could be read: the file is cut off."]
    assert result(duration=2.9, problems=["3 video packets could not be decoded"]).warnings == [
        "Only the first 2.56 s of 2.90 s could be read: 3 video packets could not be decoded."
    ]
    assert result(problems=["1 sound packets could not be decoded"]).warnings == [
        "The file may be damaged: 1 sound packets could not be decoded."
    ]
    assert result(duration=2.6).warnings == []


def test_refuses_no_clips_and_scores_that_are_no_numbers():
    with pytest.raises(ValueError, match="No clip was scored"):
        result(())
    with pytest.raises(ValueError, match=r"clip from 1.28 s is nan: the weights or features are broken"):
        result((0.1, float("nan")))


def test_files(tmp_path):
    results = {"straße #1=a.mp4": result(warnings=["untrained"]).to_dict(), "b.mp4": result((0.1,)).to_dict()}
    write_json(results, tmp_path / "r.json")
    write_csv(results, tmp_path / "r.csv")
    assert json.loads((tmp_path / "r.json").read_text(encoding="utf-8")) == results
    with open(tmp_path / "r.csv", newline="", encoding="utf-8") as file:
        rows = list(csv.DictReader(file))
    assert [(r["video"], float(r["score"]), r["anomalous"]) for r in rows] == [
        ("straße #1=a.mp4", 0.2, "0"),
        ("straße #1=a.mp4", 0.8, "1"),
        ("b.mp4", 0.1, "0"),
    ]
    assert rows[0]["warnings"] == "untrained"
    assert sorted(p.name for p in tmp_path.iterdir()) == ["r.csv", "r.json"]


def test_tables_say_which_sense_events_rest_on(tmp_path):
    """The shares of a clip, and of the highest clip of an event what is said of the event."""
    shares = {"sight": 0.2, "sound": 0.8}
    found = detect_events(clips(0.2, 0.8, 0.9), 0.5, 3.84, 25.0, True, reasons={2: shares | {"heat": {"rows": 1}}})
    assert found.events[0].why == shares | {"heat": {"rows": 1}}
    known = detect_events(
        [replace(clip, why={"sight": 1.0, "sound": 0.0}) for clip in clips(0.2)], 0.5, 1.28, 25.0, True
    )
    write_csv({"a.mp4": found.to_dict(), "b.mp4": known.to_dict()}, tmp_path / "r.csv")
    with open(tmp_path / "r.csv", newline="") as file:
        rows = [(row["sight"], row["sound"]) for row in csv.DictReader(file)]
    assert rows == [("", ""), ("", ""), ("0.2", "0.8"), ("1.0", "0.0")]


NORMAL = ("normal1", "normal2")


@pytest.mark.parametrize(
    ("probabilities", "label", "events"),
    [
        ({"normal1": 0.4, "fight": 0.3, "run": 0.3}, "fight", ["fight"]),
        ({"fight": 0.45, "normal1": 0.3, "normal2": 0.25}, "normal1", []),
        ({"normal2": 0.5, "run": 0.5}, "run", ["run"]),
        ({"normal1": 1.0, "run": 0.0}, "normal1", []),
    ],
)
def test_score_label_and_events_never_contradict_each_other(probabilities, label, events):
    """A clip is called by an anomalous class if, and only if, its score reaches the threshold."""
    score = sum(value for name, value in probabilities.items() if name not in NORMAL)
    clip = ScoredClip(0.0, 1.0, score, probabilities=probabilities)
    found = detect_events([clip], 0.5, 1.0, 25.0, True, normal_labels=NORMAL)
    assert (found.label, found.clips[0].label, [event.label for event in found.events]) == (label, label, events)
    assert (found.score >= found.threshold) == bool(events)


def test_a_clip_that_is_nearly_all_padding_does_not_decide():
    """Its last frame stands for the rest of it (DESIGN 5, A15)."""
    full = clips(0.2, 0.3)
    rest = ScoredClip(2.56, 2.60, 0.9)
    found = detect_events([*full, rest], 0.5, 2.6, 25.0, True)
    assert (found.score, found.label, found.events) == (0.3, "normal", [])
    assert [clip.get("partial") for clip in found.to_dict()["clips"]] == [None, None, True]
    # It prolongs an event, but its score is not the event's.
    (event,) = detect_events([full[0], ScoredClip(1.28, 2.56, 0.6), rest], 0.5, 2.6, 25.0, True).events
    assert (event.end, event.score) == (2.60, 0.6)
    # Alone it is all that there is, and a quarter counts.
    assert detect_events([rest], 0.5, 0.04, 25.0, True).label == "anomaly"
    assert detect_events([*full, ScoredClip(2.56, 2.88, 0.9)], 0.5, 2.88, 25.0, True).score == 0.9


def test_cells_that_begin_like_formulas_are_text(tmp_path):
    # A name that needs nothing, and what spreadsheets would compute.
    names = {"a=b-c@d.mp4": "a=b-c@d.mp4", "=1+1": "'=1+1", "+1": "'+1", "-2": "'-2", "@SUM(A1)": "'@SUM(A1)"}
    names |= {"\t=1": "'\\t=1", "\r=1": "'\\r=1", "\n=1": "'\\n=1", "a\x1b[31m": "a\\x1b[31m"}
    results = {name: result(warnings=[name]).to_dict() for name in names}
    for found in results.values():
        found["clips"][0]["label"] = found["warnings"][0]
        found["clips"][0]["start"] = -0.5
    write_csv(results, tmp_path / "r.csv")
    with open(tmp_path / "r.csv", newline="") as file:
        rows = list(csv.DictReader(file))[::2]
    for row, shown in zip(rows, names.values(), strict=True):
        assert row["video"] == row["label"] == row["warnings"] == shown
        assert (float(row["start"]), float(row["score"])) == (-0.5, 0.2)  # numbers stay numbers


def test_json_has_no_numbers_that_are_none(tmp_path):
    found = result().to_dict() | {"fps": float("inf")}
    found["clips"][0]["why"] = {"distance": float("nan")}
    write_json({"a.mp4": found}, tmp_path / "r.json")
    read = json.loads((tmp_path / "r.json").read_text(), parse_constant=pytest.fail)["a.mp4"]
    assert read["fps"] is None and read["clips"][0]["why"] == {"distance": None}
