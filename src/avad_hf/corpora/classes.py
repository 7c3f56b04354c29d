"""Names of classes and scenes: one canonical spelling each, and the others that are accepted for it."""

import re
from collections.abc import Iterable
from dataclasses import dataclass
from difflib import get_close_matches


def normalised(name: str) -> str:
    """A name in lower case with single underscores: spaces, hyphens and case do not tell classes apart."""
    return re.sub(r"[\s_-]+", "_", name.strip().lower()).strip("_")


@dataclass(frozen=True)
class NameTable:
    """The names that a corpus knows.

    Args:
        patterns: For each canonical name a regular expression that its normalised spellings match as a whole.
    """

    patterns: dict[str, str]

    @classmethod
    def of(cls, names: Iterable[str]) -> "NameTable":
        """A table of names without other spellings."""
        return cls({normalised(name): re.escape(normalised(name)) for name in names})

    @property
    def names(self) -> list[str]:
        """Canonical names in the corpus's order."""
        return list(self.patterns)

    def find(self, name: str) -> str | None:
        """The canonical name of what somebody wrote, or ``None`` if the table has no such name."""
        given = normalised(name)
        return next((known for known, pattern in self.patterns.items() if re.fullmatch(pattern, given)), None)


def is_normal(label: str) -> bool:
    """Whether a label stands for normal videos: normal, or SHADE's normal1 and normal2."""
    return re.fullmatch(r"normal(_?(type_?)?[0-9]+)?", normalised(label)) is not None


def refuse_doubtful(labels: Iterable[str]) -> None:
    """Refuse labels that would silently become anomalies: nearly spelt ``normal``, or numbers and truth values.

    Raises:
        ValueError: Naming the labels.
    """
    labels = set(labels)
    near = [
        label
        for label in sorted(labels)
        if not is_normal(label)
        and normalised(label) != "abnormal"
        and (normalised(label).startswith("normal") or get_close_matches(normalised(label), ["normal"], cutoff=0.75))
    ]
    if truths := sorted({label for label in labels if normalised(label) in ("0", "1", "true", "false", "yes", "no")}):
        raise ValueError(
            f"{', '.join(map(repr, truths))} is no name of a class. Call the column anomaly, if it says whether there "
            "is one (1 or 0), or write class names, normal among them."
        )
    if near:
        raise ValueError(
            f"{', '.join(map(repr, near))} would count as an anomaly, and is nearly spelt 'normal'. Correct the "
            "spelling (normal, normal1, normal2), or say in a column anomaly (0 or 1) what is meant."
        )


# MAVAD: Table I of AVACA's paper, and the text's other names for the same.
MAVAD_CLASSES = NameTable(
    {
        "normal": "normal",
        "pedestrians": "pedestrians?",
        "pedestrians_crossing": "pedestrians?_crossing(_the)?(_road|_street)?",
        "bicycle": "bicycles?|bikes?",
        "bus": "bus(es)?",
        "exit_side_street": "(vehicles?_)?exit(ing)?(_the)?_side_street",
        "heavy_goods_vehicle": "heavy_(goods|weight)_vehicles?|hgvs?|trucks?",
        "obstruction": "obstructions?",
        "u_turn": "u_?turns?",
        "scooter": "scooters?",
        "horse": "horses?",
    }
)
MAVAD_SCENES = NameTable(
    {
        "mgarr": "mgarr",
        "zejtun_scrapyard": "(zejtun_)?scrapyard|zs",
        "zejtun_field": "(zejtun_)?field|zf",
    }
)
# SHADE: the tables of AVRL's paper spell knockdown without c, its text with w.
SHADE_CLASSES = NameTable(
    {
        "arrest": "arrests?",
        "chase": "chases?",
        "fight": "fights?",
        "knockdown": "kno(c|w)?k_?down",
        "run": "run",
        "shoot": "shoot",
        "scatter": "scatter",
        "normal1": "normal(_type)?_?1",
        "normal2": "normal(_type)?_?2",
    }
)
