"""Spellings of classes and scenes that the papers and people use."""

import pytest

from avad_hf.corpora.classes import (
    MAVAD_CLASSES,
    MAVAD_SCENES,
    SHADE_CLASSES,
    NameTable,
    class_table,
    is_normal,
    own_anomalies,
    refuse_doubtful,
)

SPELLINGS = [
    (MAVAD_CLASSES, "heavy_goods_vehicle",
     "hgv, HGV, heavy goods vehicle, Heavy Goods Vehicles, heavy_weight_vehicle, heavy-weight-vehicles, truck"),
    (MAVAD_CLASSES, "u_turn", "u-turn, U turn, uturn, u_turn, U-Turns"),
    (MAVAD_CLASSES, "exit_side_street",
     "exit side street, vehicles exiting the side street, vehicles_exiting_side_street"),
    (MAVAD_CLASSES, "pedestrians_crossing", "pedestrian crossing, pedestrians crossing the road, "
     "Pedestrians-Crossing-The-Street, pedestrian_crossing_road"),
    (MAVAD_CLASSES, "pedestrians", "pedestrian, Pedestrians"),
    (MAVAD_CLASSES, "bicycle", "bicycle, bicycles, bike"),
    (MAVAD_CLASSES, "bus", "bus, Buses"),
    (MAVAD_CLASSES, "obstruction", "obstruction, obstructions"),
    (MAVAD_CLASSES, "scooter", "scooter, scooters"),
    (MAVAD_CLASSES, "horse", "horse, Horses"),
    (MAVAD_CLASSES, "normal", "normal, NORMAL, normal "),
    (MAVAD_SCENES, "mgarr", "Mgarr"),
    (MAVAD_SCENES, "zejtun_scrapyard", "Zejtun Scrapyard, zejtun_scrapyard, scrapyard, ZS"),
    (MAVAD_SCENES, "zejtun_field", "Zejtun-Field, field, zf"),
    (SHADE_CLASSES, "knockdown", "knockdown, knowkdown, knokdown, knock down"),
    (SHADE_CLASSES, "normal1", "normal1, normal 1, normal type 1, Normal_Type_1"),
    (SHADE_CLASSES, "normal2", "normal2, normal type 2"),
    (SHADE_CLASSES, "arrest", "arrest"), (SHADE_CLASSES, "chase", "Chase"), (SHADE_CLASSES, "fight", "fight"),
    (SHADE_CLASSES, "run", "run"), (SHADE_CLASSES, "shoot", "shoot"), (SHADE_CLASSES, "scatter", "scatter"),
]  # fmt: skip


@pytest.mark.parametrize(
    ("table", "name", "spellings"), SPELLINGS, ids=lambda value: value if isinstance(value, str) else ""
)
def test_spellings(table, name, spellings):
    assert [table.find(spelling) for spelling in spellings.split(", ")] == [name] * len(spellings.split(", "))


def test_tables_are_complete_and_ordered():
    assert len(MAVAD_CLASSES.names) == 11 and MAVAD_CLASSES.names[0] == "normal"
    assert len(SHADE_CLASSES.names) == 9 and len(MAVAD_SCENES.names) == 3
    for table in (MAVAD_CLASSES, SHADE_CLASSES, MAVAD_SCENES):
        assert all(table.find(name) == name for name in table.names)
    tested = {(id(table), name) for table, name, _ in SPELLINGS}
    assert len(tested) == 11 + 9 + 3


@pytest.mark.parametrize(
    "name", ["van", "normals", "normal3", "pedestrians_running", "busy", "crossing", "", "anormal"]
)
def test_what_is_no_class(name):
    assert MAVAD_CLASSES.find(name) is None
    assert SHADE_CLASSES.find("normal") is None


def test_own_names_are_no_patterns():
    table = NameTable.of(["Normal", "a.c"])
    assert table.names == ["normal", "a.c"] and table.find("A.C") == "a.c" and table.find("abc") is None


def test_normal():
    assert all(map(is_normal, ["normal", "Normal ", "normal1", "normal type 2", "NORMAL_3"]))
    assert not any(map(is_normal, ["abnormal", "normality", "not normal", "fire"]))


@pytest.mark.parametrize("label", ["nornal", "norml", "Normall", "noraml"])
def test_near_normal_is_refused(label):
    with pytest.raises(ValueError, match=f"'{label}' would count as an anomaly"):
        refuse_doubtful(["fire", label, "normal"])


def test_ordinary_anomalies_are_not_near_normal():
    refuse_doubtful(["abnormal", "anormal", "fire", "normal", "horse", "normal 2", "informal gathering"])


def test_names_as_they_are_written():
    table = NameTable.as_written(["OK ", "Night-Shift", "a.c"])
    assert table.names == ["Night-Shift", "OK", "a.c"]
    assert [table.find(name) for name in ("ok", "night shift", "A.C", "abc")] == ["OK", "Night-Shift", "a.c", None]
    with pytest.raises(ValueError, match=r"'Night shift' and 'night_shift' differ only in spelling. Write them alike"):
        NameTable.as_written(["night_shift", "ok", "Night shift"])


def test_which_corpus_names_are_of():
    assert class_table(["Normal", "HGV"]) == ("mavad", MAVAD_CLASSES)
    assert class_table(["normal 1", "run"]) == ("shade", SHADE_CLASSES)
    # What is normal everywhere tells no corpus, unless somebody says it.
    assert class_table(["Normal"]) == ("own", NameTable.of(["normal"]))
    assert class_table(["normal"], "mavad") == ("mavad", MAVAD_CLASSES)
    assert class_table(["Fire"], classes=["normal", "fire"])[1].names == ["normal", "fire"]
    assert class_table(["HGV", "ok"], as_written=True)[1].names == ["HGV", "ok"]
    with pytest.raises(
        ValueError, match=r"Unknown classes: ok. Names seen: bus, ok. Known classes: mavad: normal, ped"
    ):
        class_table(["bus", "ok"])


def test_own_anomalies():
    table = NameTable.as_written(["OK", "Night Shift", "leak"])
    assert own_anomalies(table, ["ok", "night-shift"]) == {"OK": 0, "Night Shift": 0, "leak": 1}
    assert own_anomalies(table, "OK") == {"OK": 0, "Night Shift": 1, "leak": 1}
    with pytest.raises(
        ValueError, match=r"--normal leaks: there is no such class. Is 'leak' meant\? Names seen: Night"
    ):
        own_anomalies(table, ["ok", "leaks"])
