"""Incidents: one alert for what belongs together, by rules that equal those of events in a file at their limits."""

import json
from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st

from avad_hf.detection.events import ScoredClip, merge_events
from avad_hf.detection.incidents import PLAIN_NAME, Incidents, plain_name

BEGIN = 1796043600.0  # 2026-11-30 13:00:00 UTC


def clip(start: float, score: float, **more) -> ScoredClip:
    """A clip of one second, from so many seconds after `BEGIN`."""
    return ScoredClip(BEGIN + start, BEGIN + start + 1, score, **more)


def run(incidents: Incidents, *scores: float, first: float = 0.0) -> list[tuple[str, float, float]]:
    """State, and start and end after `BEGIN`, of what happens in clips of one second, one after the other."""
    events = [event for i, score in enumerate(scores) for event in incidents.add(clip(first + i, score), BEGIN)]
    return short(events)


def short(events: list[dict]) -> list[tuple[str, float, float]]:
    return [(event["state"], event["start"] - BEGIN, event["end"] - BEGIN) for event in events]


levels = st.sampled_from([0.0, 0.3, 0.49, 0.5, 0.5, 0.7, 0.7, 1.0])
shapes = st.lists(st.tuples(levels, st.booleans()), max_size=30)


@given(shapes, st.sampled_from([0.5, 0.7]), st.sampled_from([0.64, 1.28]), st.booleans())
def test_at_their_limits_incidents_are_the_events_of_a_file(drawn, threshold, stride, has_classes):
    clips = [
        ScoredClip(
            BEGIN + index * stride,
            BEGIN + index * stride + 1.28,
            score,
            probabilities={"normal": 1 - score, "fight": score} if has_classes else None,
            partial=partial or None,
            why={"sight": index},
        )
        for index, (score, partial) in enumerate(drawn)
    ]
    incidents = Incidents(
        "gate", threshold=threshold, release=threshold, merge_s=0, cool_down_s=0, normal_labels=["normal"]
    )
    events = [event for one in clips for event in incidents.add(one, BEGIN)] + incidents.end()
    assert [event["id"] for event in events if event["state"] == "opened"] == [
        event["id"] for event in events if event["state"] == "closed"
    ]
    names = ("start", "end", "peak", "score", "label", "why")
    assert [{name: event[name] for name in names} for event in events if event["state"] == "closed"] == [
        {name: getattr(event, name) for name in names} | {"start": round(event.start, 6), "end": round(event.end, 6)}
        for event in merge_events(clips, threshold, ["normal"])
    ]


@given(shapes, st.sampled_from([0, 1, 2.5]), st.sampled_from([0, 3, 100]))
def test_each_alert_is_one_and_is_closed(drawn, merge_s, cool_down_s):
    incidents = Incidents("gate", threshold=0.5, merge_s=merge_s, cool_down_s=cool_down_s)
    events = [e for i, (score, partial) in enumerate(drawn) for e in incidents.add(clip(i, score, partial=partial), 0)]
    events += incidents.end()
    states: dict[str, list[dict]] = {}
    for event in events:
        states.setdefault(event["id"], []).append(event)
    for of_one in states.values():
        assert [event["state"] for event in of_one].count("opened") == 1
        assert of_one[0]["state"] == "opened" and of_one[-1]["state"] == "closed"
        assert all(a["score"] <= b["score"] and a["end"] <= b["end"] for a, b in pairwise(of_one))
    closed = [of_one[-1] for of_one in states.values()]
    quiet_s = max(cool_down_s, merge_s)  # of one label
    assert all(b["start"] - a["end"] >= quiet_s for a, b in pairwise(closed))


def test_an_event_says_all_that_is_known():
    incidents = Incidents("gate", threshold=0.5)
    seen, heard, why = [{"label": "smoke", "score": 0.4}], [{"label": "crack", "score": 0.2}], {"sight": 0.7}
    (event,) = incidents.add(clip(0.123, 0.75, seen=seen, heard=heard, why=why), now=BEGIN + 1.923)
    assert event == {
        "id": "gate-20261130T130000.123Z",
        "camera": "gate",
        "state": "opened",
        "start": BEGIN + 0.123,
        "end": BEGIN + 1.123,
        "peak": BEGIN + 0.623,
        "score": 0.75,
        "threshold": 0.5,
        "label": "anomaly",
        "latency": 0.8,
        "seen": seen,
        "heard": heard,
        "why": why,
    }
    assert json.loads(json.dumps(event)) == event
    (event,) = incidents.add(clip(1.123, 0.8), now=BEGIN + 9)
    assert event["latency"] == 0.8 and "seen" not in event, "reasons are those of the highest clip"


def test_an_incident_goes_on_down_to_release_and_over_short_pauses():
    def incidents():
        return Incidents("gate", threshold=0.5, release=0.4, merge_s=3, cool_down_s=0)

    assert run(incidents(), 0.45, 0.4) == []
    assert run(incidents(), 0.5, 0.4, 0.4, 0.1, 0.1) == [("opened", 0, 1)]
    assert run(incidents(), 0.5, 0.4, 0.4, 0.1, 0.1, 0.1) == [("opened", 0, 1), ("closed", 0, 3)]
    assert run(incidents(), 0.5, 0.1, 0.1, 0.4, 0.1, 0.1, 0.1) == [("opened", 0, 1), ("closed", 0, 4)]
    assert run(incidents(), 0.5, 0.1, 0.1, 0.1, 0.5)[-1] == ("opened", 4, 5)


def test_release_is_a_little_lower_unless_given():
    assert Incidents("gate", threshold=0.5).release == pytest.approx(0.45)
    assert Incidents("gate", threshold=0.5, release=0.5).release == 0.5


def test_only_a_higher_score_of_a_whole_clip_updates():
    incidents = Incidents("gate", threshold=0.5)
    assert run(incidents, 0.6, 0.6, 0.5, 0.7) == [("opened", 0, 1), ("updated", 0, 4)]
    assert incidents.add(clip(4, 0.9, partial=True), BEGIN) == []
    (event,) = incidents.end()
    assert (event["score"], event["peak"], event["end"]) == (0.7, BEGIN + 3.5, BEGIN + 5)
    assert incidents.end() == []


def test_partial_clips_begin_nothing_and_belong_to_what_follows():
    incidents = Incidents("gate", threshold=0.5, merge_s=0, cool_down_s=0)
    assert incidents.add(clip(0, 0.9, partial=True), BEGIN) == []
    assert short(incidents.add(clip(1, 0.6), BEGIN)) == [("opened", 0, 2)]
    incidents = Incidents("gate", threshold=0.5)
    incidents.add(clip(0, 0.9, partial=True), BEGIN)
    incidents.gap(BEGIN + 20)
    assert short(incidents.add(clip(20, 0.6), BEGIN)) == [("opened", 20, 21)]


def test_the_same_within_the_cool_down_is_no_new_alert():
    incidents = Incidents("gate", threshold=0.5, merge_s=1, cool_down_s=10)
    assert run(incidents, 0.6, 0.1) == [("opened", 0, 1), ("closed", 0, 1)]
    assert run(incidents, 0.5, 0.1, first=10.5) == [("updated", 0, 11.5), ("closed", 0, 11.5)]
    assert run(incidents, 0.6, 0.1, first=21.5) == [("opened", 21.5, 22.5), ("closed", 21.5, 22.5)]


def test_another_class_within_the_cool_down_is_a_new_alert_and_one_incident_has_the_class_of_its_peak():
    def named(start, score, label):
        others = {"fight": 0.0, "fire": 0.0} | {label: score}
        return clip(start, score, probabilities={"normal": 1 - score} | others)

    incidents = Incidents("gate", threshold=0.5, merge_s=1, cool_down_s=100, normal_labels=["normal"])
    clips = [named(0, 0.6, "fight"), named(1, 0.55, "fire"), named(2, 0.8, "fire"), named(3, 0.1, "fire")]
    clips += [named(4, 0.6, "fight")]
    events = [event for one in clips for event in incidents.add(one, BEGIN)]
    assert [(event["state"], event["label"]) for event in events] == [
        ("opened", "fight"),
        ("updated", "fire"),
        ("closed", "fire"),
        ("opened", "fight"),
    ]
    assert len({event["id"] for event in events}) == 2


def test_a_short_gap_is_part_of_an_incident_and_a_long_one_closes_it():
    def opened():
        incidents = Incidents("gate", threshold=0.5, merge_s=5, cool_down_s=0)
        incidents.add(clip(0, 0.6), BEGIN)
        return incidents

    incidents = opened()
    assert incidents.gap(BEGIN + 4) == [] and incidents.gap(BEGIN + 5.5) == []
    assert run(incidents, 0.5, first=5.5) == [] and short(incidents.end()) == [("closed", 0, 6.5)]
    incidents = opened()
    assert short(incidents.gap(BEGIN + 6)) == [("closed", 0, 1)]
    assert incidents.gap(BEGIN + 7) == []
    incidents = opened()
    assert run(incidents, 0.1, 0.1, first=1) == []
    assert short(incidents.gap(BEGIN + 6)) == [("closed", 0, 1)], "clips below and gaps count together"
    assert Incidents("gate", threshold=0.5).gap(BEGIN) == []


def test_a_clock_that_is_set_back_closes_what_is_open_and_ends_the_cool_down():
    incidents = Incidents("gate", threshold=0.5, merge_s=5, cool_down_s=60)
    run(incidents, 0.6, 0.6, first=3600)
    assert run(incidents, 0.6, 0.1, first=0) == [("closed", 3600, 3602), ("opened", 0, 1)]
    incidents.end()
    assert run(incidents, 0.6, first=-5) == [("opened", -5, -4)]


@pytest.mark.parametrize("score", [float("nan"), -0.1, 1.5])
def test_scores_that_are_none_are_refused(score):
    with pytest.raises(ValueError, match=r"The score of a clip of camera 'gate' is .*: the weights are broken"):
        Incidents("gate", threshold=0.5).add(clip(0, score), BEGIN)


@pytest.mark.parametrize(
    ("settings", "words"),
    [
        ({"threshold": 1.5}, "threshold=1.5 and release=1.35: both lie between 0 and 1"),
        ({"threshold": float("nan")}, "threshold=nan and release=nan: both lie"),
        ({"threshold": 0.5, "release": 0.6}, "release=0.6: .* release is not above the threshold"),
        ({"threshold": 0.5, "merge_s": -1}, "merge_s=-1 and cool_down_s=60: both are seconds, 0 or more"),
        ({"threshold": 0.5, "cool_down_s": float("inf")}, "cool_down_s=inf: both are seconds"),
    ],
)
def test_impossible_settings_are_refused(settings, words):
    with pytest.raises(ValueError, match=words):
        Incidents("gate", **settings)


HOSTILE = [
    "",
    "a\nb",
    "../../etc",
    "a/b",
    "a#b",
    "a+b",
    "<script>alert(1)</script>",
    "x" * 10_000,
    "\ud800",
    "-rf",
    "ü",
]


def test_plain_names_hold_nothing_else_and_stay_different():
    assert plain_name("gate_2-b") == "gate_2-b"
    names = [plain_name(name) for name in HOSTILE]
    assert len(set(names)) == len(HOSTILE)
    assert all(PLAIN_NAME.fullmatch(name) for name in names), names
    assert plain_name("a/b") == "a-b-c14cddc0" and plain_name("a b") != plain_name("a-b")
    (event,) = Incidents("../\n", threshold=0.5).add(clip(0, 0.5), BEGIN)
    assert event["id"] == f"{plain_name('../' + chr(10))}-20261130T130000.000Z" and event["camera"] == "../\n"
