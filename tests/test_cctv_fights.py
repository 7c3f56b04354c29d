"""The study on real recordings: its corpus, its folds and figures, and a whole run of it on small files."""

import json
from functools import partial

import numpy as np
import pytest
from sklearn.metrics import average_precision_score, roc_auc_score
from typer.testing import CliRunner

import avad_hf
from avad_hf.cli import app
from avad_hf.corpora.cctv_fights import groups_of
from avad_hf.corpora.manifest import ManifestError
from avad_hf.corpora.splits import grouped_folds
from avad_hf.reproduce import cctv_fights
from avad_hf.reproduce.recordings import Repeat, draws, estimate
from avad_hf.reproduce.references import MeanRegression

from .layouts import Media

# As the data set's own list has them: addresses, clips with times, and the two lines on what is from elsewhere.
LIST = """https://www.youtube.com/watch?v=AA_b-1
fi001: 0.13.50 - 0.15.60
nofi001: 2.34.70 - 2.37.80
https://www.youtube.com/watch?v=BB\x20
fi002: 0.14.50 - 0.17.50
nofi002: 0.00.00 - 0.02.00
https://www.youtube.com/watch?v=CC
fi003: 0.1.2 - 0.3.4
nofi002: 1.00.00 - 1.02.00
nofi003: 1.00.00 - 1.02.00

nofi062 - nofi076 : CamNet Dataset
nofi076 - nofi091 : Synopsis dataset
"""
NUM_RECORDINGS = 8


@pytest.fixture(scope="module")
def checkout(tmp_path_factory):
    """Eight recordings with a fight and none each, one of them silent, and one clip of another data set."""
    media = Media(tmp_path_factory.mktemp("media"))
    root = tmp_path_factory.mktemp("fight-detection-surv-dataset")
    lines = []
    for number in range(1, NUM_RECORDINGS + 1):
        lines.append(f"https://www.youtube.com/watch?v=recording{number}")
        for folder, name in (("fight", "fi"), ("noFight", "nofi")):
            media.put(root / folder / f"{name}{number:03}.mp4", "silent" if number == 3 else "video")
            lines.append(f"{name}{number:03}: 0.00.00 - 0.02.00")
    media.put(root / "noFight" / "nofi062.mp4")
    (root / "videos.txt").write_text("\n".join([*lines, "", "nofi062 - nofi076 : CamNet Dataset"]))
    return root


def test_clips_of_a_recording_are_one_group(tmp_path):
    (tmp_path / "videos.txt").write_text(LIST)
    found = groups_of(tmp_path / "videos.txt")
    # nofi002 is in two lists, which makes both one recording: a clip must not be on both sides of a split.
    assert found == {"fi001": "AA_b-1", "nofi001": "AA_b-1"} | dict.fromkeys(
        ("fi002", "nofi002", "fi003", "nofi003"), "BB"
    )


def test_a_checkout_is_read_without_clips_of_other_data_sets(checkout):
    rows = [row for part in avad_hf.load_dataset("cctv-fights", data_dir=checkout).values() for row in part]
    assert len(rows) == 2 * NUM_RECORDINGS
    assert "noFight/nofi062.mp4" not in {row["id"] for row in rows}
    assert {(row["id"], row["group"], row["anomaly"]) for row in rows if row["group"] == "recording2"} == {
        ("fight/fi002.mp4", "recording2", 1),
        ("noFight/nofi002.mp4", "recording2", 0),
    }


@pytest.mark.parametrize(
    ("change", "words"),
    [
        (lambda root: (root / "videos.txt").unlink(), r"videos.txt is missing: it says which recording"),
        (lambda root: (root / "videos.txt").write_text("fi001: 1 - 2\n"), r"line 1: 'fi001: 1 - 2' is neither"),
        (
            lambda root: (root / "videos.txt").write_text("https://youtu.example/watch?v=a\nfi001: 1 - 2\n"),
            r"does not say which recording nofi001.mp4 is from",
        ),
        (lambda root: (root / "noFight" / "nofi001.mp4").unlink(), r"has no clips in noFight/"),
        (lambda root: (root / "fight" / "mine.mp4").write_bytes(b""), r"mine.mp4: the name is none of this data set"),
    ],
)
def test_another_folder_is_refused(tmp_path, change, words):
    for path in ("fight/fi001.mp4", "noFight/nofi001.mp4"):
        (tmp_path / path).parent.mkdir()
        (tmp_path / path).write_bytes(b"")
    (tmp_path / "videos.txt").write_text("https://youtu.example/watch?v=a\nfi001: 1 - 2\nnofi001: 3 - 4\n")
    change(tmp_path)
    with pytest.raises(ManifestError, match=words):
        avad_hf.load_dataset("cctv-fights", data_dir=tmp_path)


def test_figures_are_those_of_videos_drawn_by_recording():
    rng = np.random.default_rng(5)
    recordings = [f"r{number % 7}" for number in range(40)]
    labels = rng.integers(2, size=40)
    repeats = []
    for _ in range(3):
        scores = rng.normal(size=40).round(1) + labels
        repeats.append(Repeat(labels, scores, scores >= 0.4, np.arange(40) % 7 % 3))  # folds of whole recordings
    weights = draws(recordings, num_resamples=50, seed=3)
    # A recording is there as a whole, as often as it was drawn, and as many are drawn as there are.
    for row in weights:
        by_recording = {name: {row[i] for i in range(40) if recordings[i] == name} for name in set(recordings)}
        assert all(len(counts) == 1 for counts in by_recording.values())
        assert sum(counts.pop() for counts in by_recording.values()) == 7

    def naive(row, figure):
        index = np.repeat(np.arange(40), row)
        return np.mean([figure(repeat, index) for repeat in repeats])

    def within(repeat, index):
        """Pairs of one fold alone, one by one; of equal scores half."""
        one, other = (index[labels[index] == label] for label in (1, 0))
        same = repeat.folds[one][:, None] == repeat.folds[other][None]
        differences = repeat.scores[one][:, None] - repeat.scores[other][None]
        return ((np.sign(differences) + 1) / 2)[same].mean()

    figures = {
        Repeat.roc_auc: within,
        Repeat.pooled_roc_auc: lambda repeat, index: roc_auc_score(labels[index], repeat.scores[index]),
        Repeat.average_precision: lambda repeat, index: average_precision_score(labels[index], repeat.scores[index]),
        Repeat.false_alarms: lambda repeat, index: repeat.alarms[index][labels[index] == 0].mean(),
        Repeat.found: lambda repeat, index: repeat.alarms[index][labels[index] == 1].mean(),
    }
    estimates = {}
    for statistic, figure in figures.items():
        estimates[statistic] = found = estimate(repeats, weights, statistic)
        assert found.value == pytest.approx(naive(np.ones(40, int), figure))
        values = [naive(row, figure) for row in weights]
        assert found.values == pytest.approx(values)
        assert found.interval == pytest.approx(np.quantile(values, (0.025, 0.975)))
    # A difference is taken draw by draw.
    one, other = estimates[Repeat.roc_auc], estimates[Repeat.average_precision]
    assert one.minus(other).interval == pytest.approx(np.quantile(one.values - other.values, (0.025, 0.975)))
    assert one.minus(one).interval == (0, 0)


def test_some_videos_alone_are_counted_by_weights_of_zero():
    labels, scores = np.array([0, 1, 0, 1]), np.array([0.1, 0.2, 0.9, 0.8])
    repeats, weights = [Repeat(labels, scores, scores > 0.5, np.zeros(4))], draws(list("abcd"), num_resamples=20)
    assert estimate(repeats, weights, Repeat.roc_auc).value == 0.5
    assert estimate(repeats, weights * [1, 1, 0, 0], Repeat.roc_auc).value == 1
    only_normal = estimate(repeats, weights * [1, 0, 1, 0], Repeat.roc_auc)
    assert np.isnan(only_normal.value) and np.isnan(only_normal.interval).all()


def test_regression_learns_from_means_and_not_from_units():
    rng = np.random.default_rng(0)
    rows = [
        {"id": str(i), "video": str(i), "anomaly": i % 2, "label": "fight" if i % 2 else "normal"}
        | {"scene": None, "group": f"g{i // 4}"}
        for i in range(80)
    ]
    labels = np.array([row["anomaly"] for row in rows])
    means = {"seen": rng.normal(size=(80, 5)), "heard": rng.normal(size=(80, 3))}
    means["seen"][:, 2] += 3 * labels
    model = MeanRegression(("seen", "heard")).fit(means, rows)
    assert roc_auc_score(labels, model.scores(means)) > 0.95
    assert np.mean((model.scores(means) >= model.threshold) == labels) > 0.85
    # Sound in other units changes nothing: each sense is divided by its own size.
    louder = means | {"heard": 16 * means["heard"]}
    again = MeanRegression(("seen", "heard")).fit(louder, rows)
    assert again.scores(louder) == pytest.approx(model.scores(means))


def test_sound_of_others_is_of_another_recording_and_never_silent():
    rows = [{"id": str(i), "group": f"g{i // 3}"} for i in range(12)]
    is_loud = [i % 4 != 0 for i in range(12)]
    order = cctv_fights.others_sound(rows, is_loud, seed=1)
    for number, other in enumerate(order):
        if is_loud[number]:
            assert is_loud[other] and rows[other]["group"] != rows[number]["group"]
        else:
            assert other == number
    assert cctv_fights.others_sound(rows[:3], is_loud[:3], seed=1) == [0, 1, 2]  # nobody else is there


def test_the_whole_study(checkout, tiny, tmp_path, monkeypatch):
    monkeypatch.setattr(cctv_fights, "NUM_FOLDS", 2)
    monkeypatch.setattr(cctv_fights, "draws", partial(draws, num_resamples=100))
    arguments = ["reproduce", "cctv-fights", "--data-dir", str(checkout), "--model", tiny, "-o", str(tmp_path / "out")]
    arguments += ["--seeds", "0", "--epochs", "1"]
    done = CliRunner().invoke(app, arguments)
    assert done.exit_code == 0, done.output
    text = (tmp_path / "out" / "tables.md").read_text()
    assert text in done.stdout
    assert f"{2 * NUM_RECORDINGS} clips of {NUM_RECORDINGS} recordings: 8 with a fight, 8 without; 14 have" in text
    for name in (*cctv_fights.DETECTORS, *cctv_fights.REGRESSIONS, cctv_fights.HAS_SOUND, cctv_fights.OTHERS_SOUND):
        assert f"| {name} |" in text
    assert "Untrained" in text  # what the encoders' weights are

    # The figures are those of the scores of both folds, each of which tests whole recordings.
    folder = tmp_path / "out" / "runs" / "avaca-focused"
    parts = [json.loads((folder / f"seed0-fold{fold}.json").read_text()) for fold in range(2)]
    recordings = [{name[-7:-4] for name in part["scores"]} for part in parts]
    assert not recordings[0] & recordings[1] and len(recordings[0] | recordings[1]) == NUM_RECORDINGS
    scores = parts[0]["scores"] | parts[1]["scores"]
    labels = [int(name.startswith("fight")) for name in scores]
    auc = roc_auc_score(labels, [score for score, _ in scores.values()])
    line = next(line for line in text.splitlines() if line.startswith("| AVACA, focused |"))
    assert line.split("|")[3].strip().startswith(f"{auc:.3f} [")
    alarms = np.mean([score >= threshold for name, (score, threshold) in scores.items() if name.startswith("noF")])
    assert line.split("|")[5].strip().startswith(f"{alarms:.3f} [")
    assert not list(folder.glob("**/*.safetensors"))

    # What is done is not done again.
    monkeypatch.setattr(cctv_fights, "train", None)
    assert CliRunner().invoke(app, arguments).exit_code == 0
    # Nor taken for that of other settings.
    other = CliRunner().invoke(app, [*arguments[:-1], "2"])
    assert other.exit_code == 2 and "is of another run" in other.output and "epochs: 1 there, 2 now" in other.output


def test_the_folds_of_a_checkout_are_those_of_its_manifest(checkout, tmp_path):
    rows = [row for part in avad_hf.load_dataset("cctv-fights", data_dir=checkout).values() for row in part]
    lines = ["video,label,anomaly,group"] + [
        f"{row['id']},{'fight' if row['anomaly'] else 'normal'},{row['anomaly']},{row['group']}" for row in rows
    ]
    for folder in ("fight", "noFight"):
        (tmp_path / folder).symlink_to(checkout / folder)
    (tmp_path / "manifest.csv").write_text("\n".join(lines))
    again = avad_hf.load_dataset("manifest", data_dir=tmp_path / "manifest.csv")
    again = [row for part in again.values() for row in part]
    # Numbers of classes are each corpus's own.
    rows, again = ([row | {"label": ("normal", "fight")[row["anomaly"]]} for row in one] for one in (rows, again))
    assert grouped_folds(rows, 4, 1) == grouped_folds(again, 4, 1)
