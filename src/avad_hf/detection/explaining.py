"""Why events are events: by which sense, where in the picture, beside which normal clips, and what became likelier."""

from collections import deque
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from avad_hf.models.detector import WHOLE_VIDEO, DetectorModel, spec_of

from .context import PER_VIDEO
from .events import ScoredClip, event_label
from .heat import peak as peak_of
from .occlusion import HeldClip, hidden_heat, sense_shares
from .options import scene_for

# Classes that became likelier, of each sense: a person reads so many at a glance.
MOST_CLASSES = 3
# A class is named that is at least so probable, and so many times as probable as usual: below that it is noise.
LEAST_PROBABILITY, LEAST_TIMES = 0.05, 1.5
# No class counts as rarer than this: a few hundred clips tell no more, and "a million times" says no more.
LEAST_USUAL = 1e-3
# Letters of a name in a reason, which is one line: those of Kinetics and nearly all of AudioSet are shorter.
NAME_LETTERS = 45
# Clips outside events from which on their mean says what is usual in a video.
LEAST_USUAL_CLIPS = 5


@dataclass(frozen=True)
class _Peak:
    """The highest clip of the event that is open."""

    number: int
    clip: ScoredClip
    held: HeldClip
    probabilities: Mapping[str, Tensor]


class Explainer:
    """Says why the events of one video are events, as its clips are scored one after the other.

    Of a video it holds the highest clip of the event that is open, the newest clip (whether it may decide is known
    when the next one is there), the mean of the clips outside events, and its answers. So memory does not grow with
    the length of a video, unless the detector must see the whole of it, which is held then anyway.

    Args:
        model: The detector.
        classes: Names of what is ``"seen"`` and ``"heard"``, of encoders that have some.
        is_turned: Whether feature maps of this video are turned over the diagonal, as of portrait videos.
    """

    def __init__(self, model: DetectorModel, classes: Mapping[str, Sequence[str]], is_turned: bool):
        self.model, self.classes, self.is_turned = model, classes, is_turned
        self.spec = spec_of(model)
        self.scene: str | None = None
        self._reasons: dict[int, dict[str, Any]] = {}  # by the number of the clip
        self._starts: dict[int, float] = {}  # of these clips, in seconds
        self._label: str | None = None  # of the event that is open
        self._peak: _Peak | None = None
        self._latest: tuple[str | None, _Peak | None] | None = None
        self._number = 0
        # What is usual in this video: the mean of its clips outside events.
        self._num_usual = 0
        self._usual_sight: Tensor | None = None
        self._usual_classes: dict[str, Tensor] = {}
        # Probabilities of clips that are not scored yet, and those of peaks.
        self._unscored: deque[dict[str, Tensor]] = deque()
        self._peak_classes: dict[int, Mapping[str, Tensor]] = {}

    def name(self, probabilities: Mapping[str, Tensor]) -> None:
        """Take the probabilities of the classes of the next clips, of shape `(clips, classes)` each."""
        rows = {sense: values.float().cpu() for sense, values in probabilities.items()}
        for number in range(max(map(len, rows.values()), default=0)):
            self._unscored.append({sense: values[number] for sense, values in rows.items()})

    @torch.no_grad()
    def add(
        self,
        clips: Iterable[ScoredClip],
        first: int,
        features: Mapping[str, Tensor],
        threshold: float,
        scores: Callable[[dict[str, Tensor]], Tensor],
        scene: str | None = None,
    ) -> None:
        """Take the next clips.

        Args:
            clips: With their scores.
            first: Number of the first of them among the clips of the features.
            features: What the detector was given.
            threshold: Score from which on a clip is anomalous.
            scores: Computes scores of features, as of [`~avad_hf.detection.occlusion.HeldClip`].
            scene: Name of the scene, for detectors that take it.
        """
        self.scene = scene
        if self.spec.inputs:  # as features are held for detectors that see neighbours
            names = {*self.spec.inputs, "clip_mask", *PER_VIDEO}
            features = {name: value for name, value in features.items() if name in names}
        for index, clip in enumerate(clips, first):
            probabilities = self._unscored.popleft() if self._unscored else {}
            label = event_label(clip, threshold, self.spec.normal_labels)
            peak = None
            if label is None:
                self._count_usual(self._hold(features, index, 0, scores), probabilities)
            else:
                peak = _Peak(self._number, clip, self._hold(features, index, self.spec.context, scores), probabilities)
            self._settle(may_decide=True)
            self._latest = label, peak
            self._number += 1

    @torch.no_grad()
    def end(self, may_decide: bool) -> dict[int, dict[str, Any]]:
        """The video is over.

        Args:
            may_decide: Whether the last clip may decide, as of `deciding_clips`.

        Returns:
            What is said of each event, by the number of its highest clip.
        """
        self._settle(may_decide)
        self._close()
        self._compare_classes()
        return self._reasons

    def take(self) -> dict[float, dict[str, Any]]:
        """What is known of events that are over, by the start of their highest clip in seconds; it is forgotten then.

        For sources that have no end; what is usual is what was usual so far.
        """
        if not self._reasons:
            return {}
        self._compare_classes()
        found = {self._starts[number]: why for number, why in self._reasons.items()}
        for known in (self._reasons, self._starts, self._peak_classes):
            known.clear()
        return found

    def _compare_classes(self) -> None:
        """Say what became likelier in the highest clips."""
        for number, probabilities in self._peak_classes.items():
            if likelier := self._likelier(probabilities):
                self._reasons[number]["likelier"] = likelier

    def _hold(self, features: Mapping[str, Tensor], index: int, context: float, scores: Any) -> HeldClip:
        """A clip and its neighbours, copied out of the features: engines write over what they gave."""
        axis = 1 if self.spec.reads == "features" else 0
        if context == WHOLE_VIDEO:  # which is held already, and copied
            return HeldClip(features, index, axis, scores)
        first, until = max(0, index - int(context)), index + int(context) + 1
        rows = (slice(None),) * axis + (slice(first, until),)
        cut = {name: value.clone() if name in PER_VIDEO else value[rows].clone() for name, value in features.items()}
        return HeldClip(cut, index - first, axis, scores)

    def _count_usual(self, held: HeldClip, probabilities: Mapping[str, Tensor]) -> None:
        """Take a clip outside events into the means."""
        self._num_usual += 1
        if held.sight is not None:
            seen = held.of(held.sight).float()
            mean = torch.zeros_like(seen) if self._usual_sight is None else self._usual_sight
            self._usual_sight = mean + (seen - mean) / self._num_usual
        for sense, row in probabilities.items():
            self._usual_classes[sense] = self._usual_classes.get(sense, 0) + row.double()

    def _settle(self, may_decide: bool) -> None:
        """The newest clip but for the one that comes now, if any does: it prolongs an event, or ends one."""
        if self._latest is None:
            return
        (label, peak), self._latest = self._latest, None
        if label != self._label:
            self._close()
            self._label = label
        if peak is not None and may_decide and (self._peak is None or peak.clip.score > self._peak.clip.score):
            self._peak = peak

    def _close(self) -> None:
        """An event is over: explain its highest clip."""
        if self._peak is not None:
            peak, self._peak = self._peak, None
            self._reasons[peak.number] = self._explain(peak)
            self._starts[peak.number] = peak.clip.start
            if peak.probabilities:
                self._peak_classes[peak.number] = peak.probabilities

    def _explain(self, peak: _Peak) -> dict[str, Any]:
        held, why = peak.held, {}
        if not {"sight", "sound"} <= (peak.clip.why or {}).keys():
            has_audio = bool(held.features["has_audio"].item()) if "has_audio" in held.features else bool(held.sound)
            why |= sense_shares(held, self._usual_sight, has_audio)
        heat = self.model.heat(held.features, held.clip, **scene_for(self.model.heat, self.scene))
        heat = hidden_heat(held, self._usual_sight) if heat is None else heat
        if heat is not None and heat.numel() > 1 and (highest := float(heat.max())) > 0:
            heat = (heat.T if self.is_turned else heat).float().cpu().clamp(min=0) / highest
            why["heat"] = {
                "rows": heat.shape[0],
                "columns": heat.shape[1],
                "peak": list(peak_of(heat.numpy())),
                "values": [[round(value, 3) for value in row] for row in heat.tolist()],
                "start": peak.clip.start,
                "end": peak.clip.end,
            }
        ask = self.model.nearest_normal
        if nearest := ask(held.features, held.clip, **scene_for(ask, self.scene)):
            why["nearest"] = nearest
        return why

    def _likelier(self, probabilities: Mapping[str, Tensor]) -> dict[str, Any] | None:
        """What became likelier in a clip; ``None`` where it is not known what is usual."""
        if usual := self.model.usual_classes():
            origin = "normal footage"
        elif self._num_usual >= LEAST_USUAL_CLIPS:
            usual = {sense: total / self._num_usual for sense, total in self._usual_classes.items()}
            origin = "the rest of this video"
        else:
            return None
        found = {
            sense: likelier_classes(self.classes[sense], row, usual[sense])
            for sense, row in probabilities.items()
            if sense in usual
        }
        return {**found, "usual_from": origin} if found else None


def likelier_classes(names: Sequence[str], probabilities: Tensor, usual: Tensor) -> list[dict[str, Any]]:
    """The classes that tell a clip best from what is usual, among those that became likelier.

    They are ranked by ``(p - q) log(p / q)``, p in the clip and q as usual: their parts of the symmetric
    Kullback-Leibler divergence. So neither a likely class that hardly changed comes first, nor a rare one that became
    a little less rare.

    Args:
        names: The names of the classes.
        probabilities: Their probabilities in the clip, of shape `(classes,)`.
        usual: Their mean probabilities in usual clips, likewise.

    Returns:
        At most `MOST_CLASSES` with ``label``, ``score``, ``usual`` and ``times``, the quotient of the two.
    """
    score, usual = probabilities.double().cpu(), usual.double().cpu()
    times = score / usual.clamp(min=LEAST_USUAL)
    tells = ((score - usual) * times.log()).where((score >= LEAST_PROBABILITY) & (times >= LEAST_TIMES), 0.0)
    return [
        {
            "label": names[number],
            "score": round(score[number].item(), 4),
            "usual": round(usual[number].item(), 6),
            "times": round(times[number].item(), 1),
        }
        for number in tells.topk(min(MOST_CLASSES, len(tells))).indices.tolist()
        if tells[number] > 0
    ]


def reason(why: Mapping[str, Any] | None) -> str:
    """Why an event is one, in a few words, such as "sound 92%: heard Car alarm, 14x more than usual".

    Args:
        why: What a result says of the event. Without shares of the senses there are no words.
    """
    if not why or not {"sight", "sound"} <= why.keys():
        return ""
    sense, verb = ("sound", "heard") if why["sound"] > why["sight"] else ("sight", "seen")
    words = f"{sense} {why[sense]:.0%}"
    if classes := why.get("likelier", {}).get(verb):
        first = classes[0]
        name = first["label"] if len(first["label"]) <= NAME_LETTERS else f"{first['label'][: NAME_LETTERS - 3]}..."
        words += f": {verb} {name}, {first['times']:.{0 if first['times'] >= 10 else 1}f}x more than usual"
    return words


__all__ = ["Explainer", "likelier_classes", "reason"]
