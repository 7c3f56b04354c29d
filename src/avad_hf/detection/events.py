"""From clip scores to events, and the result that users see. All times are in seconds."""

import csv
import io
import os
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, field, replace
from itertools import groupby
from typing import Any, BinaryIO

from avad_hf.files import as_json, shown, write_text
from avad_hf.media.clips import deciding_clips

# With these a cell begins that spreadsheets compute, and may send away what it names (OWASP, CSV injection).
FORMULA = ("=", "+", "-", "@", "\t", "\r", "\n")


@dataclass(frozen=True)
class ScoredClip:
    """The score of one clip.

    Args:
        start: When the clip begins, in seconds.
        end: When the clip ends, in seconds.
        score: Between 0 (normal) and 1 (anomalous).
        label: Name of the event, where the detector knows classes: the most probable anomalous class of a clip that
            reaches the threshold, and the most probable normal one of other clips. [`detect_events`] fills it in.
        probabilities: Probability of every class, by name, where the detector knows classes.
        partial: True for a clip at the end of which less than a quarter is video, and the rest its last frame
            repeated: it does not decide the score of a video of several clips, nor begin an event.
        why: Numbers by which the detector explains the score, of detectors that do.
        seen: The most probable names of what is seen, as of [`~avad_hf.detection.describe.Description`], where they
            were asked for.
        heard: The same of what is heard.
    """

    start: float
    end: float
    score: float
    label: str | None = None
    probabilities: dict[str, float] | None = None
    partial: bool | None = None
    why: dict[str, float] | None = None
    seen: list[dict[str, Any]] | None = None
    heard: list[dict[str, Any]] | None = None


@dataclass(frozen=True)
class Event:
    """Neighbouring clips whose scores reach the threshold, of one class where classes are known.

    Args:
        start: When the first clip begins, in seconds.
        end: When the last clip ends, in seconds.
        peak: Middle of the clip with the highest score, in seconds.
        score: The highest score.
        label: ``"anomaly"``, or the most probable of the anomalous classes.
        why: Numbers by which the detector explains the highest score, of detectors that do; with ``explain`` of the
            pipeline also the reasons that [`~avad_hf.detection.explaining.Explainer`] finds.
        seen: What is seen in the clip with the highest score; ``None`` where nobody asked.
        heard: What is heard in it, likewise.
    """

    start: float
    end: float
    peak: float
    score: float
    label: str
    why: dict[str, Any] | None = None
    seen: list[dict[str, Any]] | None = None
    heard: list[dict[str, Any]] | None = None


@dataclass(frozen=True)
class Detection:
    """What was found in one video.

    Args:
        score: The highest clip score.
        label: ``"anomaly"`` if it reaches the threshold, else ``"normal"``; of detectors that know classes of events
            that of the clip with the highest score. So score, label and events never contradict each other: a video
            is called by an anomalous class if its score reaches the threshold, and has an event then. ``None`` where
            scores of this detector say nothing of this video: there are no events then.
        events: Stretches over the threshold.
        clips: Score of every clip.
        threshold: Score from which on a clip is anomalous.
        duration: Length of the picture, in seconds, as the file says; if it does not, up to where it was read.
        fps: Frames a second, on average.
        has_audio: Whether sound was heard.
        read_until: Up to which second the picture could be read; less than `duration` for damaged files.
        warnings: What one must know to read the scores: damage, untrained weights.
        read: What was read of ``picture`` and ``sound`` (``None`` without): ``start``, ``end`` and ``seconds``, and
            the stretches that are ``missing`` or ``damaged``, in seconds; ``remarks`` on a file in order.
        seen: The most probable names of what is seen, by the mean over the clips, where they were asked for.
        heard: The same of what is heard.
        reused: How many clips took earlier features of their ``pictures`` and ``sound``, as still ones do with the
            pipeline's ``gate``; ``None`` where nobody asked.
    """

    score: float
    label: str | None
    events: list[Event]
    clips: list[ScoredClip]
    threshold: float
    duration: float
    fps: float
    has_audio: bool
    read_until: float
    warnings: list[str] = field(default_factory=list)
    read: dict[str, Any] | None = None
    seen: list[dict[str, Any]] | None = None
    heard: list[dict[str, Any]] | None = None
    reused: dict[str, int] | None = None

    def to_dict(self) -> dict[str, Any]:
        """The result as a dict that `json.dumps` takes."""
        result = asdict(self)
        for name in ("seen", "heard", "reused"):  # where nobody asked
            if result[name] is None:
                del result[name]
        for name in ("clips", "events"):  # without what the detector does not know
            result[name] = [{key: value for key, value in row.items() if value is not None} for row in result[name]]
        return result


def merge_events(
    clips: Sequence[ScoredClip],
    threshold: float,
    normal_labels: Sequence[str] = (),
    reasons: Mapping[int, dict[str, Any]] | None = None,
) -> list[Event]:
    """Merge neighbouring clips whose scores reach the threshold into events, one for each stretch of one class.

    Args:
        clips: In order; they may overlap. Those that are `partial` prolong an event, and begin none.
        threshold: Lowest score of an anomalous clip.
        normal_labels: Classes that no event is called by.
        reasons: What is said of events besides their clips' own `why`, by the number of the highest clip.
    """
    events = []
    named = [(number, clip, event_label(clip, threshold, normal_labels)) for number, clip in enumerate(clips)]
    for label, group in groupby(named, key=lambda item: item[2]):
        run = [(number, clip) for number, clip, _ in group]
        full = [(number, clip) for number, clip in run if not clip.partial]
        if label is not None and full:
            number, best = max(full, key=lambda item: item[1].score)
            peak = round((best.start + best.end) / 2, 6)
            why = {**(best.why or {}), **(reasons or {}).get(number, {})} or None
            events.append(Event(run[0][1].start, run[-1][1].end, peak, best.score, label, why, best.seen, best.heard))
    return events


def event_label(clip: ScoredClip, threshold: float, normal_labels: Sequence[str]) -> str | None:
    """What an event is called that a clip is part of; ``None`` where its score does not reach the threshold."""
    return _anomalous_label(clip, normal_labels) if clip.score >= threshold else None


def _anomalous_label(clip: ScoredClip, normal_labels: Sequence[str]) -> str:
    """The most probable of the anomalous classes."""
    if clip.probabilities is None:
        return "anomaly"
    anomalous = {name: value for name, value in clip.probabilities.items() if name not in normal_labels}
    return max(anomalous, key=anomalous.get)


def with_label(clip: ScoredClip, threshold: float, normal_labels: Sequence[str]) -> ScoredClip:
    """A clip and the name of its class: an anomalous one if its score reaches the threshold, else a normal one."""
    if clip.probabilities is None:
        return clip
    if clip.score >= threshold:
        return replace(clip, label=_anomalous_label(clip, normal_labels))
    normal = {name: value for name, value in clip.probabilities.items() if name in normal_labels}
    return replace(clip, label=max(normal, key=normal.get))


def reading_warnings(read_until: float, duration: float | None, problems: Sequence[str]) -> list[str]:
    """What must be said of a video that could be read up to a second, of its duration if that is known."""
    # Half a second covers what containers round; less is missing only where the reader says so.
    if duration is not None and read_until < duration - (0.04 if problems else 0.5):
        return [
            f"Only the first {read_until:.2f} s of {duration:.2f} s could be read"
            f"{': ' + '; '.join(problems) if problems else ': the file is cut off'}."
        ]
    return [f"The file may be damaged: {'; '.join(problems)}."] if problems else []


def reused_in_words(num_clips: int, reused: Mapping[str, int]) -> list[str]:
    """What a result must say of clips that took earlier features of their ``pictures`` and ``sound``."""
    if not reused["pictures"]:
        return []
    sound = f"; {reused['sound']} of these took that of its sound too" if reused["sound"] else ""
    return [f"{reused['pictures']} of {num_clips} clips were still and took what an earlier clip shows{sound}."]


def detect_events(
    clips: Sequence[ScoredClip],
    threshold: float,
    duration: float | None,
    fps: float,
    has_audio: bool,
    warnings: Sequence[str] = (),
    problems: Sequence[str] = (),
    normal_labels: Sequence[str] = (),
    read: dict[str, Any] | None = None,
    names: Mapping[str, list[dict[str, Any]]] | None = None,
    is_judged: bool = True,
    reasons: Mapping[int, dict[str, Any]] | None = None,
    reused: dict[str, int] | None = None,
) -> Detection:
    """Make the result of one video from its clip scores.

    Args:
        clips: In order, one or more.
        threshold: Score from which on a clip is anomalous.
        duration: Length of the picture, in seconds; ``None`` if the file does not say.
        fps: Frames a second.
        has_audio: Whether sound was heard.
        warnings: What the model warns of; passed on.
        problems: Damage that was met while reading.
        normal_labels: Classes that no event is called by, where clips have classes.
        read: What of picture and sound was read, as `Media` says.
        names: What is ``seen`` and ``heard`` in the whole video, where that was asked for.
        is_judged: Whether the scores say something of this video; else it gets neither label nor events.
        reasons: As for `merge_events`.
        reused: How many clips took earlier features, where that was asked for.

    Raises:
        ValueError: Without clips, or if a score is not a number.
    """
    if not clips:
        raise ValueError("No clip was scored. A video needs at least one frame.")
    if broken := [clip for clip in clips if not 0.0 <= clip.score <= 1.0]:
        raise ValueError(
            f"The score of the clip from {broken[0].start:.2f} s is {broken[0].score}: the weights or features are "
            "broken, or the precision is too low for this model. Try float32 or another checkpoint."
        )
    read_until = max(clip.end for clip in clips)
    warnings = [*warnings, *reading_warnings(read_until, duration, problems)]
    clips = [with_label(clip, threshold, normal_labels) for clip in clips]
    decides = deciding_clips([(clip.start, clip.end) for clip in clips])
    clips = [clip if may else replace(clip, partial=True) for clip, may in zip(clips, decides, strict=True)]
    highest = max((clip for clip in clips if not clip.partial), key=lambda clip: clip.score)
    return Detection(
        score=highest.score,
        label=(highest.label or ("anomaly" if highest.score >= threshold else "normal")) if is_judged else None,
        events=merge_events(clips, threshold, normal_labels, reasons) if is_judged else [],
        clips=list(clips),
        threshold=threshold,
        duration=round(max(read_until, duration or 0.0), 6),
        fps=round(fps, 6),
        has_audio=has_audio,
        read_until=round(read_until, 6),
        warnings=warnings,
        read=read,
        reused=reused,
        **(names or {}),
    )


def write_json(results: dict[str, dict[str, Any]], path: str | os.PathLike | BinaryIO) -> None:
    """Write results by video as one JSON object, to a file or one that is open for bytes."""
    write_text(path, as_json(results, indent=2) + "\n")


def write_csv(results: dict[str, dict[str, Any]], path: str | os.PathLike | BinaryIO) -> None:
    """Write one row a clip: video, start and end in seconds, what was found, warnings.

    What detectors find: the score, whether it reaches the threshold (empty where the video is not judged), and the
    label, which is empty where the detector knows no classes of events. What is described: ``seen_1``,
    ``seen_1_score`` and so on, the most probable names of the clip; ``heard_1`` and so on. What is explained:
    ``sight`` and ``sound``, the shares of the senses, empty where they are not known. Text that a spreadsheet would
    compute gets an apostrophe before it, and stays on one line.
    """
    rows = [(video, result, clip) for video, result in results.items() for clip in result["clips"]]
    is_scored = all("score" in clip for _, _, clip in rows)
    lengths = {sense: max((len(clip.get(sense, ())) for _, _, clip in rows), default=0) for sense in ("seen", "heard")}
    text = io.StringIO(newline="")
    writer = csv.writer(text)
    names = [f"{sense}_{rank + 1}" for sense, length in lengths.items() for rank in range(length)]
    scored = ["score", "anomalous", "label"] if is_scored else []
    described = [column for name in names for column in (name, f"{name}_score")]
    explained = ["sight", "sound"] if is_scored else []
    peaks = {
        video: {event["peak"]: event.get("why", {}) for event in result.get("events", ())}
        for video, result in results.items()
    }
    writer.writerow(["video", "start", "end", *scored, "warnings", *described, *explained])
    for video, result, clip in rows:
        cells = [_cell(video), clip["start"], clip["end"]]
        if is_scored:
            anomalous = "" if result["label"] is None else int(clip["score"] >= result["threshold"])
            cells += [clip["score"], anomalous, _cell(clip.get("label", ""))]
        cells.append(_cell(" ".join(result["warnings"])))
        # What is said of the highest clip of an event, the event has.
        middle = round((clip["start"] + clip["end"]) / 2, 6)
        why = clip.get("why", {}) | peaks[video].get(middle, {})
        writer.writerow([*cells, *_name_cells(clip, lengths), *(why.get(sense, "") for sense in explained)])
    write_text(path, text.getvalue())


def _name_cells(clip: dict[str, Any], lengths: Mapping[str, int]) -> Iterator[str | float]:
    """Names of what is seen and heard, each with its score; empty where there are fewer than in other clips."""
    for sense, length in lengths.items():
        names = clip.get(sense, [])
        for name in [*names, *[{"label": "", "score": ""}] * (length - len(names))]:
            yield from (_cell(name["label"]), name["score"])


def _cell(text: str) -> str:
    return f"'{shown(text)}" if text.startswith(FORMULA) else shown(text)
