"""The junction: what is seen and what is heard belong together or not, and neither by itself says anything of it."""

from collections import Counter
from dataclasses import replace
from itertools import combinations

import numpy as np
import pytest
from sklearn.linear_model import LogisticRegression
from sklearn.metrics import roc_auc_score

from avad_hf.synthetic import episodes, world
from avad_hf.synthetic.episodes import KINDS, MOST_EPISODES, PAIRS, label_of


def one_hot(kind: str) -> list[float]:
    return [float(kind == name) for name in KINDS]


def drawn(plan, *senses: str) -> list[float]:
    """All that a plan decides of these senses, with each pair of what it decides of an episode."""
    facts = [plan.duration_s, plan.fps, plan.hour, plan.weather == "fog", plan.weather == "rain", plan.dark]
    facts += [len(plan.episodes), int(plan.stem[-4:])]
    for number in range(MOST_EPISODES):
        episode = plan.episodes[number] if number < len(plan.episodes) else None
        kinds = [] if episode is None else [one_hot(getattr(episode, sense)) for sense in senses]
        own = [0.0] * (2 + 4 * len(senses)) if episode is None else [episode.start_s, episode.whole_s]
        own += [share for kind in kinds for share in kind]
        facts += own + [a * b for a, b in combinations(own, 2)]
    return facts


def auc_of(fit_to, tested, *senses: str) -> float:
    """Logistic regression on what was drawn, fitted to one world's plans and tested on another's."""
    data = [(np.array([drawn(p, *senses) for p in plans], float), [p.label != "normal" for p in plans])
            for plans in (fit_to, tested)]  # fmt: skip
    (x, y), (test_x, test_y) = data
    mean, deviation = x.mean(axis=0), np.maximum(x.std(axis=0), 1e-9)
    model = LogisticRegression(C=0.1, max_iter=2000).fit((x - mean) / deviation, y)
    return roc_auc_score(test_y, model.decision_function((test_x - mean) / deviation))


@pytest.fixture(scope="module")
def worlds():
    return world.plan_world("junction", 3000, 0), world.plan_world("junction", 3000, 1)


@pytest.mark.parametrize("sense", ["seen", "heard"])
def test_one_sense_alone_is_at_chance(worlds, sense):
    """By chance the AUC of 2 x 1500 has a deviation of 0.011: four of them and a half."""
    assert 0.45 < auc_of(*worlds, sense) < 0.55


def test_both_senses_tell(worlds):
    assert auc_of(*worlds, "seen", "heard") > 0.99


def test_kinds_are_as_frequent_in_normal_videos_as_in_others(worlds):
    for sense in ("seen", "heard"):
        for is_normal in (True, False):
            plans = [plan for plan in worlds[0] if (plan.label == "normal") == is_normal]
            count = Counter(getattr(episode, sense) for plan in plans for episode in plan.episodes)
            shares = np.array([count[kind] for kind in KINDS]) / sum(count.values())
            np.testing.assert_allclose(shares, 1 / len(KINDS), atol=0.03)


def test_one_episode_of_an_anomalous_video_does_not_match_and_it_is_the_event(worlds):
    pairs, places = Counter(), Counter()
    for plan in worlds[0]:
        odd = [episode for episode in plan.episodes if episode.seen != episode.heard]
        assert len(odd) == (plan.label != "normal")
        assert 1 <= len(plan.episodes) <= MOST_EPISODES
        ends = [0.0, *(episode.start_s + episode.whole_s for episode in plan.episodes)]
        assert all(episode.start_s >= end for episode, end in zip(plan.episodes, ends[:-1], strict=True))
        assert ends[-1] <= plan.duration_s
        for episode in odd:
            assert (plan.event_start_s, plan.event_end_s) == (episode.start_s, episode.start_s + episode.whole_s)
            assert plan.label == label_of(episode.seen, episode.heard)
            pairs[episode.seen, episode.heard] += 1
            places[len(plan.episodes), plan.episodes.index(episode)] += 1
    assert pairs.keys() == set(PAIRS) and max(pairs.values()) - min(pairs.values()) <= 1
    assert min(places.values()) > 120 and len(places) == 1 + 2 + 3
    assert label_of("lorry", "lorry") == "normal"
    assert label_of("car", "lorry") == "sound_without_sight"
    assert label_of("lorry", "car") == "sight_without_sound"
    assert label_of("lorry", "braking") == "other_sound"


def variants(plan, sense: str):
    """The plan with every kind of its first episode in one sense, all else being equal."""
    first, *others = plan.episodes
    return {kind: replace(plan, episodes=(replace(first, **{sense: kind}), *others)) for kind in KINDS}


@pytest.fixture
def brief():
    """Two episodes in five seconds of a bright day, with cars on the far lane."""
    plan = next(p for p in world.plan_world("junction", 40, 2) if len(p.episodes) > 1)
    first, second = (replace(e, start_s=start) for e, start in zip(plan.episodes[:2], (0.1, 2.6), strict=True))
    return replace(plan, hour=12, weather="clear", dark=False, fps=25, duration_s=5.0, episodes=(first, second))


def test_pictures_show_only_what_is_seen_and_sound_only_what_is_heard(brief):
    def pictures(plan):
        return np.stack([picture for _, picture in world.clip_pictures(plan)][::8])

    def sound(plan):
        return sum(world.clip_sound(plan))

    for make, other, own in ((pictures, "heard", "seen"), (sound, "seen", "heard")):
        base, *same = (make(plan) for plan in variants(brief, other).values())
        for made in same:
            np.testing.assert_allclose(made, base, rtol=0, atol=1e-12)
        made = {kind: make(plan).astype(float) for kind, plan in variants(brief, own).items()}
        for one, two in combinations(KINDS, 2):
            assert np.abs(made[one] - made[two]).mean() > 0.005 * np.abs(base).mean()


def test_traffic_does_not_react_and_a_sound_comes_from_the_path_that_its_own_vehicle_takes(brief):
    def far_lane(plan):
        return [(actor.kind, actor.x.tobytes(), actor.colours) for actor in episodes.cast(plan)[0]]

    for sense in ("seen", "heard"):
        assert len({str(far_lane(plan)) for plan in variants(brief, sense).values()}) == 1
    for kind, plan in variants(brief, "seen").items():
        vehicle = episodes.cast(plan)[1][0]
        for heard in variants(plan, "heard").values():
            source = episodes.episode_sources(heard)[0]
            alike = np.array_equal(source.x, vehicle.x, equal_nan=True)
            assert alike or heard.episodes[0].heard != kind
            assert np.isfinite(source.signal).all() and (np.isnan(source.x) == np.isnan(vehicle.x)).all()


def test_only_who_brakes_stops(brief):
    for kind, plan in variants(brief, "seen").items():
        vehicle = episodes.cast(plan)[1][0]
        speed = np.abs(np.gradient(vehicle.x[~np.isnan(vehicle.x)]) * plan.fps)
        assert (speed.min() < 0.1) == (kind == "braking")


def test_without_its_anomaly_the_episode_that_does_not_match_is_not_there(brief):
    odd = variants(replace(brief, episodes=(brief.episodes[0],)), "heard")
    match = odd.pop(brief.episodes[0].seen)
    times = slice(10, 60, 10)

    def pictures(plan, with_event):
        return [picture for _, picture in world.clip_pictures(plan, with_event)][times]

    for plan in odd.values():
        assert not np.array_equal(pictures(plan, False), pictures(plan, True))
    assert np.array_equal(pictures(match, False), pictures(match, True))
