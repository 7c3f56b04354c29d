"""Names of classes and scenes: one canonical spelling each, and the others that are accepted for it."""

import re
from collections.abc import Iterable
from dataclasses import dataclass
from difflib import get_close_matches

# Names that a message lists.
MANY = 20


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

    @classmethod
    def as_written(cls, names: Iterable[str]) -> "NameTable":
        """A table that finds names in any spelling, and calls them as they are written here.

        Raises:
            ValueError: If two names differ only in spelling.
        """
        patterns: dict[str, str] = {}
        spellings: dict[str, str] = {}
        for name in sorted({name.strip() for name in names}):
            if (other := spellings.setdefault(normalised(name), name)) != name:
                raise ValueError(f"{other!r} and {name!r} differ only in spelling. Write them alike.")
            patterns[name] = re.escape(normalised(name))
        return cls(patterns)

    @property
    def names(self) -> list[str]:
        """Canonical names in the corpus's order."""
        return list(self.patterns)

    def find(self, name: str) -> str | None:
        """The canonical name of what somebody wrote, or ``None`` if the table has no such name."""
        spelling = normalised(name)
        return next(
            (canonical for canonical, pattern in self.patterns.items() if re.fullmatch(pattern, spelling)), None
        )


def is_normal(label: str) -> bool:
    """Whether a label stands for normal videos: normal, or SHADE's normal1 and normal2."""
    return re.fullmatch(r"normal(_?(type_?)?[0-9]+)?", normalised(label)) is not None


def is_nearly_normal(label: str) -> bool:
    """Whether a label is nearly spelt ``normal``, and probably meant."""
    plain = normalised(label)
    if is_normal(label) or plain in ("abnormal", "anormal"):  # the latter in Spanish, Portuguese and French
        return False
    return plain.startswith("normal") or bool(get_close_matches(plain, ["normal"], cutoff=0.75))


def refuse_doubtful(labels: Iterable[str]) -> None:
    """Refuse labels that would silently become anomalies: nearly spelt ``normal``, or numbers and truth values.

    Raises:
        ValueError: Naming the labels.
    """
    labels = set(labels)
    near = sorted(filter(is_nearly_normal, labels))
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
# The junction of the synthetic world: what is seen and what is heard do not belong together. These have no other
# spelling, and no folder of videos is told by them.
JUNCTION_CLASSES = NameTable.of(("normal", "sound_without_sight", "sight_without_sound", "other_sound"))
CORPORA = {"mavad": MAVAD_CLASSES, "shade": SHADE_CLASSES}


def class_table(
    names: Iterable[str], corpus: str | None = None, classes: Iterable[str] | None = None, as_written: bool = False
) -> tuple[str, NameTable]:
    """Say which corpus class names are of, and which names that corpus knows.

    Args:
        names: As they are written.
        corpus: A name of `CORPORA`; by default the one that they fit, or ``"own"`` where all are normal and tell none.
        classes: Names of a corpus of one's own.
        as_written: Whether names are one's own and stay as they are written.

    Raises:
        ValueError: If no corpus has all names, or one's own differ only in spelling.
    """
    names = set(names)
    tables = CORPORA
    if classes is not None:
        tables = {"own": NameTable.of(classes)}
    elif corpus is not None:
        tables = {corpus: CORPORA[corpus]}
    elif as_written or all(map(is_normal, names)):
        tables = {"own": NameTable.of(names)}
    fits = next((name for name, table in tables.items() if all(map(table.find, names))), None)
    if fits is None:
        raise ValueError(_unknown_classes(tables, names))
    return fits, NameTable.as_written(names) if as_written else tables[fits]


def _unknown_classes(tables: dict[str, NameTable], names: set[str]) -> str:
    # Unknown names are those of the corpus that most names fit.
    best = max(tables, key=lambda corpus: sum(tables[corpus].find(name) is not None for name in names))
    unknown = sorted({name for name in names if tables[best].find(name) is None})
    known_classes = "; ".join(f"{corpus}: {', '.join(table.names)}" for corpus, table in tables.items())
    return (
        f"Unknown classes: {_listed(unknown)}. Names seen: {_listed(names)}. Known classes: {known_classes}. If the "
        "classes are your own, say which of them are normal; all others are anomalies then (--normal ok). Or name "
        "all of them (--classes normal,fire,...), rename the folders, or write a manifest."
    )


def own_anomalies(table: NameTable, normal: Iterable[str]) -> dict[str, int]:
    """Say of each class 1 or 0: whether it is an anomaly, where all but the named classes are.

    Args:
        table: The classes that there are.
        normal: Names of those that are normal, in any spelling.

    Raises:
        ValueError: If none is named, there is no such class, or a class that is called normal would be an anomaly.
    """
    normal = [normal] if isinstance(normal, str) else list(normal)
    seen = _listed(table.names)
    if not normal:
        raise ValueError(f"No class is named as normal. Name one or more (--normal). Names seen: {seen}.")
    for name in normal:
        if table.find(name) is None:
            spellings = {normalised(class_name): class_name for class_name in table.names}
            near = get_close_matches(normalised(name), spellings, n=1, cutoff=0.5)
            meant = f" Is {spellings[near[0]]!r} meant?" if near else ""
            raise ValueError(f"--normal {name}: there is no such class.{meant} Names seen: {seen}.")
    anomalies = dict.fromkeys(table.names, 1) | {table.find(name): 0 for name in normal}
    called = [name for name in table.names if anomalies[name] and (is_normal(name) or is_nearly_normal(name))]
    if called:
        raise ValueError(
            f"{', '.join(map(repr, called))} would count as an anomaly, since only {', '.join(normal)} is named as "
            f"normal. Name it as well (--normal {called[0]!r}), or rename the folder."
        )
    return anomalies


def _listed(names: Iterable[str]) -> str:
    """Names in their order, and how many more there are if there are many."""
    names = sorted(set(names))
    return ", ".join(names[:MANY]) + (f" and {len(names) - MANY} more" if len(names) > MANY else "")
