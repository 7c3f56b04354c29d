"""The report page: one valid file that needs nothing else, with every figure, or the reason why it is missing."""

import base64
import re
from html.parser import HTMLParser
from io import BytesIO

import numpy as np
import pytest
import torch
from PIL import Image

from avad_hf import AvacaConfig, AvacaForAnomalyDetection, FeatureDataset
from avad_hf.evaluation.evaluate import evaluate
from avad_hf.evaluation.figures import (
    class_figures,
    clip_figures,
    scene_figures,
    video_figures,
    why_undefined,
    without_nan,
)
from avad_hf.metrics.ranking import Ranking
from avad_hf.report.page import write_report
from avad_hf.report.pictures import confusion_image, curve_image, shown_score, timeline_image

from .feature_stores import plant

VOID = {"meta", "img", "br"}


def video(name, anomaly, scores, label=None, scene="street", stretches=None):
    clips = [{"start": 1.28 * i, "end": 1.28 * (i + 1), "score": float(score)} for i, score in enumerate(scores)]
    return {
        "id": name,
        "label": label,
        "anomaly": anomaly,
        "scene": scene,
        "has_audio": True,
        "duration": clips[-1]["end"],
        "score": max(clip["score"] for clip in clips),
        "clips": clips,
        "anomalous_frames": stretches,
    }


def figures_of(videos, threshold=0.5, notes=(), num_resamples=20):
    labels, scores = (np.array([video[key] for video in videos]) for key in ("anomaly", "score"))
    figures = {
        "num_videos": len(videos),
        "num_normal": int((labels == 0).sum()),
        "num_anomalous": int((labels == 1).sum()),
        "num_clips": sum(len(video["clips"]) for video in videos),
        "num_crops": 1,
        "audio_path": "focused",
        "threshold": threshold,
        "threshold_origin": "chosen on validation",
        "video": video_figures(labels, scores, videos, threshold, "max", num_resamples),
        "clip": clip_figures(labels, videos, num_resamples),
        "frame": None,
        "classes": class_figures(labels, scores, videos, threshold),
        "scenes": scene_figures(labels, scores, videos, threshold),
        "undefined": {},
        "notes": list(notes),
    }
    figures = without_nan(figures)
    return figures | {"undefined": why_undefined(figures, videos)}


def many(number, clips=3, classes=("horse", "bus"), seed=0):
    rng = np.random.default_rng(seed)
    return [
        video(
            f"v{i}",
            i % 2,
            rng.random(clips) * (0.8 + 0.2 * (i % 2)),
            classes[i // 2 % len(classes)] if i % 2 else None,
        )
        for i in range(number)
    ]


class Page(HTMLParser):
    """Refuses tags that do not fit each other; holds the text, the tags and what lies under each heading."""

    def __init__(self, path):
        super().__init__()
        self.path, self.source, self.open, self.tags, self.text, self.sections = path, path.read_text(), [], [], "", {}
        self.feed(self.source)
        self.close()
        assert not self.open, f"not closed: {self.open}"
        assert self.source.startswith("<!DOCTYPE html>")

    def handle_starttag(self, tag, attrs):
        self.tags.append((tag, dict(attrs)))
        if tag == "h2":
            self.heading = ""
        if tag not in VOID:
            self.open.append(tag)

    def handle_endtag(self, tag):
        assert self.open and self.open.pop() == tag, f"</{tag}> at {self.getpos()}"
        if tag == "h2":
            self.sections[self.heading] = ""
        if tag in ("td", "th", "p", "li", "caption", "strong"):
            self.handle_data("\n")

    def handle_data(self, data):
        if "style" in self.open:
            return
        self.text += data
        if "h2" in self.open:
            self.heading += data
        elif self.sections:
            self.sections[list(self.sections)[-1]] += data

    def row(self, name, heading="Ranking"):
        """Cells of the first row of that name below a heading."""
        source = self.source[self.source.index(f">{heading}</") :]
        row = re.search(rf'<th scope="row">(?:&emsp;)?{re.escape(name)}</th>(.*?)</tr>', source, re.DOTALL).group(1)
        return [re.sub("<.*?>", "", cell) for cell in re.findall("<td>(.*?)</td>", row, re.DOTALL)]

    def pictures(self):
        found = []
        for tag, attributes in self.tags:
            if tag == "img":
                kind, data = attributes["src"].split(",")
                assert kind == "data:image/png;base64"
                found.append(
                    (np.asarray(Image.open(BytesIO(base64.b64decode(data))).convert("RGB")), attributes["alt"])
                )
        return found


def written(videos, directory, title="Report", num_worst=6, **options):
    return Page(write_report(figures_of(videos, **options), videos, directory, title, num_worst))


def test_page_of_an_evaluation(tmp_path):
    """From a model's scores to the page: the dicts are those that `evaluate` gives."""
    torch.manual_seed(0)
    store = plant(tmp_path / "store", num_videos=12, scenes=("street", "square"))
    config = AvacaConfig(
        visual_size=6,
        feature_grid=[2, 3],
        audio_size=5,
        hidden_size=8,
        intermediate_size=8,
        notice="Untrained <weights>.",
    )
    found = evaluate(AvacaForAnomalyDetection(config), FeatureDataset(store), num_resamples=50)
    page = Page(write_report(found.figures, found.videos, tmp_path / "new" / "folder", "A title"))
    assert page.path == tmp_path / "new" / "folder" / "report.html"
    assert list(page.sections) == [
        *("Ranking", "At the threshold", "Curves", "Scores of videos", "Classes", "Scenes"),
        *("Worst false alarms", "Worst misses"),
    ]
    video, frame = found.figures["video"], found.figures["frame"]
    assert page.row("ROC AUC") == [f"{found.figures[part]['roc_auc']:.3f}" for part in ("video", "clip", "frame")]
    assert page.row("95% interval")[0] == "{:.3f} to {:.3f}".format(*video["roc_auc_interval_95"])
    for name in ("step", "trapezoid"):
        assert page.row(f"Average precision, {name}")[0] == f"{video[f'average_precision_{name}']:.3f}"
    assert page.row("mean over videos") == ["", "", f"{frame['roc_auc_mean_of_videos']:.3f}"]
    for name in ("Recall", "Accuracy", "Equal error rate", "False alarm rate", "False alarm rate at 0.5"):
        assert page.row(name)[0] == f"{video[name.lower().replace(' ', '_')]:.3f}"
    (kept, alarms), (missed, hits) = video["confusion"]
    cells = [cell.split()[0] for name in ("normal", "anomalous") for cell in page.row(name, "called anomalous")]
    assert cells == [str(number) for number in (kept, alarms, missed, hits)]
    assert {"horse", "bus", "street", "square"} <= set(page.text.split())
    assert "12 videos (6 normal, 6 anomalous)" in page.text and "not tuned" in page.text
    assert "Untrained <weights>." in page.text.split("Ranking")[0]


def test_page_needs_nothing_else(tmp_path, undrawn):
    page = written(many(20), tmp_path)
    assert page.tags[0] == ("html", {"lang": "en"}) and ("meta", {"charset": "utf-8"}) in page.tags
    assert not {"script", "link", "iframe", "object", "base"} & {tag for tag, _ in page.tags}
    for _, attributes in page.tags:
        for name, value in attributes.items():
            assert not name.startswith("on") and (name not in ("src", "href") or value.startswith("data:"))
    assert not re.search(r"https?://|url\(|@import", page.source)
    assert [path.name for path in tmp_path.iterdir()] == ["report.html"]


def test_pictures_show_something_and_say_what(tmp_path):
    page = written(many(20), tmp_path, num_worst=2)
    pictures = page.pictures()
    assert len(pictures) == 3 + 2 + 2
    for pixels, alt in pictures:
        assert pixels.std() > 5 and len(alt) > 20
    area = f"videos, area {figures_of(many(20))['video']['roc_auc']:.3f}"
    assert pictures[0][1].startswith("ROC curves: ") and area in pictures[0][1]


def pixels_of(image):
    return np.asarray(Image.open(BytesIO(base64.b64decode(re.search('base64,(.*?)"', image).group(1)))).convert("RGB"))


def test_operating_point_is_where_the_threshold_is():
    ranking = {"videos": Ranking([0] * 50 + [1] * 50, np.r_[np.arange(50) / 100, np.arange(50) / 100 + 0.25])}

    def differing(kind, first, second):
        """Columns of the picture, from 0 to 1, in which two thresholds differ."""
        pictures = [pixels_of(curve_image(kind, ranking, threshold)).astype(int) for threshold in (first, second)]
        columns = np.flatnonzero(np.abs(pictures[0] - pictures[1]).sum(axis=(0, 2)))
        return columns / pictures[0].shape[1]

    # False alarm rates 1 and 0, recalls 1 and 0.
    for kind in ("roc", "precision_recall"):
        columns = differing(kind, 0.0, 1.0)
        assert columns.min() < 0.2 and columns.max() > 0.9 and not ((columns > 0.3) & (columns < 0.8)).any()
        assert not len(differing(kind, 0.5, 0.5))


@pytest.mark.parametrize("kind", ["roc", "precision_recall"])
def test_a_curve_looks_as_if_all_its_points_were_drawn(kind, monkeypatch):
    rng = np.random.default_rng(0)
    labels = rng.integers(0, 2, 20_000)
    rankings = {"videos": Ranking(labels, rng.normal(labels))}
    thinned = pixels_of(curve_image(kind, rankings, 0.5)).astype(int)
    monkeypatch.setattr("avad_hf.report.pictures._thinned", lambda x, y: (x, y))
    whole = pixels_of(curve_image(kind, rankings, 0.5)).astype(int)
    monkeypatch.setattr("avad_hf.report.pictures._thinned", lambda x, y: (x[:0], y[:0]))
    without = pixels_of(curve_image(kind, rankings, 0.5)).astype(int)
    assert np.abs(whole - thinned).sum() < 0.1 * np.abs(whole - without).sum()


def test_timeline_shades_labelled_stretches_and_follows_the_score():
    reddish = []
    for stretches in (None, [], [[0.0, 1.28]]):
        pixels = pixels_of(timeline_image(video("a", 1, [0.2, 0.9], stretches=stretches), 0.5)).astype(int)
        columns = (pixels[..., 0] > pixels[..., 1] + 15).mean(axis=0)
        reddish.append((columns[: len(columns) // 2].mean(), columns[len(columns) // 2 + 40 :].mean()))
    assert max(*reddish[0], *reddish[1]) < 0.01
    assert reddish[2][0] > 0.3 and reddish[2][1] < 0.01
    blue = (pixels[..., 2] > pixels[..., 0] + 40) & (pixels[..., 0] < 80)
    heights = [np.median(np.nonzero(part)[0]) for part in np.array_split(blue, 2, axis=1)]
    assert heights[0] > heights[1] + 40  # a higher score stands higher


def test_worst_videos_in_order(tmp_path, undrawn):
    scores = {"n1": 0.55, "n2": 0.95, "n3": 0.5, "n4": 0.4, "n5": 0.7, "a1": 0.3, "a2": 0.1, "a3": 0.9, "a4": 0.49}
    videos = [video(name, int(name[0] == "a"), [0.05, score]) for name, score in scores.items()]
    page = written(videos, tmp_path, num_worst=3)
    alarms, misses = page.sections["Worst false alarms"], page.sections["Worst misses"]
    assert re.findall(r"\b[na]\d\b", alarms) == ["n2", "n5", "n1"]
    assert re.findall(r"\b[na]\d\b", misses) == ["a2", "a1", "a4"]
    assert "4 of 5 normal videos scored at or above the threshold 0.5000. Shown are the highest scores." in alarms
    assert "3 of 4 anomalous videos scored below the threshold 0.5000. Which frames" in misses
    assert "0.9500" in alarms and "anomaly, street" in misses
    alts = [alt for _, alt in page.pictures()[3:]]
    assert [alt.split()[2] for alt in alts] == ["n2", "n5", "n1", "a2", "a1", "a4"]
    assert "highest 0.9500 at 1.3 s" in alts[0]


def test_no_false_alarms_and_no_misses_are_said(tmp_path, undrawn):
    videos = [video("n1", 0, [0.1]), video("n2", 0, [0.2]), video("a1", 1, [0.8]), video("a2", 1, [0.7], stretches=[])]
    page = written(videos, tmp_path)
    alarms, misses = page.sections["Worst false alarms"], page.sections["Worst misses"]
    assert "No false alarm: of 2 normal videos, none scored at or above the threshold 0.5000. Shown are" in alarms
    assert "the highest scores below it." in alarms and alarms.index("n2") < alarms.index("n1")
    assert "No miss: of 2 anomalous videos, none scored below the threshold 0.5000. Shown are" in misses
    assert misses.index("a2") < misses.index("a1") and "Shaded: labelled anomalous." in misses
    page = written(videos, tmp_path, num_worst=0)
    assert "No miss" in page.text and "Shown" not in page.text and len(page.pictures()) == 3
    page = written(videos, tmp_path, num_worst=0, threshold=0.75)
    assert "1 of 2 anomalous videos scored below" in page.text and "Shown" not in page.text


def test_hostile_names_are_text(tmp_path):
    evil = "<script>alert('1')</script>\"&lt;$title"
    videos = [
        video(f"{evil} id {anomaly}", anomaly, [0.3 + 0.4 * (1 - anomaly)], f"{evil} class{anomaly}", f"{evil} scene")
        for anomaly in (0, 1)
    ]
    page = written(videos, tmp_path, title=f"{evil} page", notes=[f"{evil} note"])
    assert "script" not in {tag for tag, _ in page.tags}
    for what in ("id 0", "id 1", "class0", "class1", "scene", "page", "note"):
        assert f"{evil} {what}" in page.text, what
    assert any(f"{evil} id 1" in alt for _, alt in page.pictures())


def test_what_turns_text_around_is_shown(tmp_path):
    names = [f"{place} \u202egpj.exe\x1b\udcff" for place in ("id", "label", "scene", "page", "note")]
    videos = [video(names[0], 1, [0.3], *names[1:3]), video("normal", 0, [0.2])]
    page = written(videos, tmp_path, title=names[3], notes=[names[4]])
    for name in names:
        assert rf"{name.split()[0]} \u202egpj.exe\x1b\xff" in page.text
    assert not set("\u202e\x1b\udcff") & set(page.source)
    confusion_image(np.array([[1, 0], [0, 1]]), names[:2])


@pytest.mark.parametrize(("anomaly", "only", "missing"), [(0, "normal", "anomalous"), (1, "anomalous", "normal")])
@pytest.mark.parametrize("number", [1, 4])
def test_one_class_only(tmp_path, anomaly, only, missing, number):
    videos = [video(f"v{i}", anomaly, [0.2, 0.41 + i / 10]) for i in range(number)]
    page = written(videos, tmp_path)
    reason = f"all {number} videos are {only}: areas under curves need both classes"
    assert page.row("ROC AUC") == ["&ndash;"] * 3
    assert f"Videos: {reason}." in page.sections["Ranking"]
    assert "Frames: frames of" in page.sections["Ranking"] and "have no labels (first v0)" in page.sections["Ranking"]
    assert page.row("Equal error rate") == ["&ndash;", reason]
    assert page.row("Recall" if anomaly == 0 else "False alarm rate") == ["&ndash;", f"there are no {missing} videos"]
    assert f" No curves: {reason}." in page.sections["Curves"]
    assert f"There are no {missing} videos." in page.sections["Worst misses" if anomaly == 0 else "Worst false alarms"]
    assert f"\N{EN DASH} all are {only}" in page.sections["Scenes"]
    num_wrong = sum((video["score"] >= 0.5) != anomaly for video in videos)
    assert len(page.pictures()) == 1 + (num_wrong or number)
    assert not re.search(r"\b(nan|None|inf)\b", page.text)


def test_scene_of_one_class_and_too_few_videos_for_an_interval(tmp_path, undrawn):
    videos = [video("a", 0, [0.2], scene=None), video("b", 1, [0.6], scene="x"), video("c", 0, [0.1], scene="x")]
    figures = figures_of(videos)
    figures["video"]["roc_auc_interval_95"] = [None, None]
    figures["undefined"]["video.roc_auc_interval_95"] = "too few videos"
    page = Page(write_report(figures, videos, tmp_path, "Report"))
    assert page.row("95% interval")[0] == "&ndash;" and "Videos: too few videos." in page.sections["Ranking"]
    assert page.row("not named") == ["1", "0", "&ndash; all are normal", "&ndash; all are normal", "0.000", "1.000"]
    assert "scene not named" in page.sections["Worst false alarms"]
    # Nobody asked for an interval: it is not there, rather than not defined.
    assert "95% interval" not in written(videos, tmp_path, num_resamples=0).text


def test_classes_come_worst_first_with_their_bars(tmp_path, undrawn):
    names = [f"class {index:02d} {'x' * 40}" for index in range(13)]
    videos = [video(f"n{i}", 0, [i / 20]) for i in range(13)]
    videos += [video(f"a{i}", 1, [i / 20 + 0.01], name) for i, name in enumerate(names)]
    page = written(videos, tmp_path)
    rows = re.findall(r"class \d\d", page.sections["Classes"])
    assert rows == [name[:8] for name in names]
    widths = [float(width) for width in re.findall(r'style="width: ([\d.]+)%"', page.source)]
    assert widths == pytest.approx([100 * (index + 1) / 13 for index in range(13)], abs=0.06)
    assert "what others are compared with" in page.sections["Classes"]


def test_long_videos_and_many_videos_stay_small(tmp_path):
    rng = np.random.default_rng(0)
    videos = [*many(5000, clips=20), video("long", 0, rng.random(1000)), video("x" * 1000, 1, [0.01], scene="y" * 500)]
    page = written(videos, tmp_path, num_resamples=1)
    assert page.path.stat().st_size < 3e6
    assert "5,002 videos" in page.text and "x" * 1000 in page.sections["Worst misses"]


def test_scores_next_to_the_threshold_do_not_look_equal_to_it():
    assert [shown_score(score) for score in (0.0, 1.0, 0.59493, 0.5951, 0.00012345)] == [
        *("0.0000", "1.0000", "0.5949", "0.5951", "0.00012")
    ]


def test_what_does_not_belong_together_is_refused(tmp_path):
    videos = many(4)
    with pytest.raises(ValueError, match="got 3 videos and figures of 4"):
        write_report(figures_of(videos), videos[:3], tmp_path, "Report")
    with pytest.raises(ValueError, match="one or more videos"):
        write_report(figures_of(videos) | {"num_videos": 0}, [], tmp_path, "Report")
    with pytest.raises(ValueError, match="num_worst must be 0 or more, got -1"):
        write_report(figures_of(videos), videos, tmp_path, "Report", num_worst=-1)
    assert not list(tmp_path.iterdir())


def test_a_failed_page_leaves_the_old_one(tmp_path, undrawn, monkeypatch):
    before = written(many(4), tmp_path).source
    with monkeypatch.context() as patch, pytest.raises(ZeroDivisionError):
        patch.setattr("os.replace", lambda *paths: 1 / 0)
        write_report(figures_of(many(4)), many(4), tmp_path, "Report")
    broken = many(4)
    del broken[0]["clips"][0]["score"]
    with pytest.raises(KeyError):
        write_report(figures_of(many(4)), broken, tmp_path, "Report")
    assert [path.name for path in tmp_path.iterdir()] == ["report.html"]
    assert (tmp_path / "report.html").read_text() == before
