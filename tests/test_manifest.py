"""Manifests: three formats give the same rows, and each mistake is named."""

import datetime
import decimal
import json
import os
import re

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from avad_hf.corpora.manifest import COLUMNS, ManifestError, read_manifest, write_manifest

ENDINGS = ("csv", "jsonl", "parquet")


@pytest.fixture
def place(tmp_path):
    """A folder with empty files: a manifest only looks whether they are there."""
    for name in ("a b.mp4", "ü#=1.mp4", "sub/a b.mp4", "s.wav"):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).touch()
    return tmp_path


def row(**values):
    return dict.fromkeys(COLUMNS) | values


def write_csv(place, text):
    path = place / "m.csv"
    path.write_text(text, encoding="utf-8")
    return path


@pytest.mark.parametrize("ending", ENDINGS)
def test_formats_hold_the_same(place, ending):
    rows = [
        row(id="1", video=str(place / "a b.mp4"), label="normal", anomaly=0, scene="x", group="007", split="train",
            fps=25.0, hour=0, dark=True, start=0.0, end=2.5, weather="rain, fog")
        | {"code": "007", "count": 3, "wet": False},
        row(id="2", video=str(place / "ü#=1.mp4"), audio=str(place / "s.wav"), label="Fire", anomaly=1, scene="x",
            group="day 2", split="test", fps=29.97, hour=23, dark=False) | {"code": "x", "count": None, "wet": True},
    ]  # fmt: skip
    path = place / "elsewhere" / f"manifest.{ending}"
    write_manifest(rows, path)
    assert read_manifest(path) == rows
    # Paths are kept relative, so that folder and manifest can move together.
    assert b"../" in path.read_bytes() and str(place).encode() not in path.read_bytes()
    assert [entry.name for entry in path.parent.iterdir()] == [path.name]


def test_what_is_left_out_follows(place):
    rows = read_manifest(
        write_csv(place, "video,label,start,end\na b.mp4,normal,,\n./sub/a b.mp4,Normal 2,,\na b.mp4,fire,1,2.5\n")
    )
    assert [r["id"] for r in rows] == ["a b.mp4", "sub/a b.mp4", "a b.mp4#t=1,2.5"]
    assert [r["anomaly"] for r in rows] == [0, 0, 1]
    assert [r["video"] for r in rows] == [str(place / name) for name in ("a b.mp4", "sub/a b.mp4", "a b.mp4")]
    assert set(rows[0]) == set(COLUMNS)


def test_no_labels_are_fine_and_said_anomalies_count(place):
    assert read_manifest(write_csv(place, "video\na b.mp4\n"))[0]["anomaly"] is None
    said = read_manifest(write_csv(place, "video,label,anomaly\na b.mp4,rush hour,0\nü#=1.mp4,nornal,1\n"))
    assert [r["anomaly"] for r in said] == [0, 1]


def test_own_names_of_normal_classes_stay(place):
    rows = [
        row(id="a b.mp4", video=str(place / "a b.mp4"), label="ok", anomaly=0),
        row(id="ü#=1.mp4", video=str(place / "ü#=1.mp4"), label="0", anomaly=1),
    ]
    for ending in ENDINGS:
        write_manifest(rows, place / f"own.{ending}")
        assert read_manifest(place / f"own.{ending}") == rows


def test_groups_are_text_and_days_may_be_dates(place):
    rows = read_manifest(write_csv(place, "video,group\na b.mp4, day 1 \nü#=1.mp4,\nsub/a b.mp4,7\n"))
    assert [r["group"] for r in rows] == ["day 1", None, "7"]
    table = {"video": ["a b.mp4", "ü#=1.mp4"], "group": [datetime.date(2026, 3, 1), None]}
    pq.write_table(pa.table(table), place / "m.parquet")
    assert [r["group"] for r in read_manifest(place / "m.parquet")] == ["2026-03-01", None]
    pq.write_table(pa.table({"video": ["a b.mp4"], "group": [1.5]}), place / "m.parquet")
    with pytest.raises(ManifestError, match=r"row 1: group is 1.5, but must be text"):
        read_manifest(place / "m.parquet")
    with pytest.raises(ManifestError, match="column 'Groups' is unknown; 'group' is not there"):
        read_manifest(write_csv(place, "video,Groups\na b.mp4,1\n"))


@pytest.mark.parametrize("column", ["split", "split_0", "split_12"])
def test_a_split_that_divides_a_group_is_refused(place, column):
    text = f"video,group,{column}\na b.mp4,monday,train\nü#=1.mp4,monday,{{}}\nsub/a b.mp4,sunday,test\n"
    words = re.escape(
        f"m.csv: The column {column} divides 1 groups, first 'monday': it is in train (a b.mp4) and test (ü#=1.mp4). "
        f"Rows of one group belong in one set. Correct {column} or group; or remove {column}, and every other split "
        "column that was made without groups, to have whole groups divided."
    )
    with pytest.raises(ManifestError, match=words):
        read_manifest(write_csv(place, text.format("test")))
    assert len(read_manifest(write_csv(place, text.format("train")))) == 3
    # Rows without group may lie as they like.
    assert len(read_manifest(write_csv(place, text.replace("monday", "").format("test")))) == 3


def test_urls_stay_as_they_are(place):
    rows = read_manifest(write_csv(place, "video\nhttps://example.org/a/../b.mp4\n"))
    assert rows[0]["video"] == rows[0]["id"] == "https://example.org/a/../b.mp4"
    write_manifest(rows, place / "again.csv")
    assert read_manifest(place / "again.csv") == rows


def test_excels_byte_order_mark_and_split_names(place):
    rows = read_manifest(write_csv(place, "\ufeffvideo,split,split_0\na b.mp4,Val,training\nü#=1.mp4,dev,testing\n"))
    assert [r["split"] for r in rows] == ["validation", "validation"]
    assert [r["split_0"] for r in rows] == ["train", "test"]


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("", "has no rows"),
        ("video,label\n", "has no rows"),
        ("path,label\na b.mp4,x\n", "column 'path' is unknown; 'video' is not there"),
        ("video,lable\na b.mp4,x\n", "column 'lable' is unknown; 'label' is not there"),
        ("video,Class\na b.mp4,x\n", "column 'Class' is unknown; 'label' is not there"),
        ("video|label\na b.mp4|x\n", "needs a column video with the path of each. Columns: video.label"),
        ("video,label\na b.mp4,0\nü#=1.mp4,1\n", "'0', '1' is no name of a class. Call the column anomaly"),
        ("video,label\na b.mp4,False\n", "'False' is no name of a class"),
        ("video,label\na b.mp4,Normal_Videos\n", "'Normal_Videos' would count as an anomaly"),
        ("video,split\na b.mp4,train\nü#=1.mp4,\n", "1 of 2 rows have no split, first ü#=1.mp4"),
        ("video,split_1\na b.mp4,\nü#=1.mp4,test\n", "1 of 2 rows have no split_1, first a b.mp4"),
        ("label\nx\n", "needs a column video"),
        ("video,\na b.mp4,x\n", "two columns have the same name, or one has none"),
        ("video,video\na b.mp4,x\n", "two columns have the same name"),
        ("video,num_clips\na b.mp4,3\n", "column 'num_clips' is filled in when features are computed"),
        ("video,label\na b.mp4,x,y\n", "row 2: 3 cells under 2 columns"),
        ("video,label\n,x\n", "row 2: video is empty"),
        ("video,start\na b.mp4,soon\n", "row 2: start is 'soon', but must be a number"),
        ("video,end\na b.mp4,inf\n", "end is 'inf', but must be a number"),
        ("video,start,end\na b.mp4,3,2\n", "it ends at 2 s, before it starts at 3 s"),
        ("video,start\na b.mp4,-1\n", "start is -1.0, but must be within 0 and inf"),
        ("video,hour\na b.mp4,24\n", "hour is 24, but must be within 0 and 23"),
        ("video,hour\na b.mp4,1.5\n", "hour is '1.5', but must be a whole number"),
        ("video,fps\na b.mp4,0\n", "fps is 0.0, but must be above 0"),
        ("video,dark\na b.mp4,maybe\n", "dark is 'maybe', but must be true or false"),
        ("video,anomaly\na b.mp4,2\n", "anomaly is 2, but must be within 0 and 1"),
        ("video,split\na b.mp4,holdout\n", "split is 'holdout', but must be train, validation or test"),
        ("video,label\na b.mp4,nornal\n", "'nornal' would count as an anomaly"),
        ("video,label\na b.mp4,x\nü#=1.mp4,\n", "1 of 2 rows have no label"),
        ("video,label\na b.mp4,x\n./a b.mp4,y\n", "1 videos stand there more than once, first a b.mp4"),
        ("video\nnone.mp4\nalso none.mp4\na b.mp4\n", "2 files are not there, first .*none.mp4, .*also none.mp4"),
        ("video,audio\na b.mp4,none.wav\n", "1 files are not there, first .*none.wav"),
        ('video\n"a b.mp4\n', "is no csv file"),
    ],
)
def test_mistakes_are_named(place, text, words):
    with pytest.raises(ManifestError, match=words) as error:
        read_manifest(write_csv(place, text))
    assert str(place / "m.csv") in str(error.value)


def test_other_broken_files(place):
    (place / "m.jsonl").write_text('{"video": "a b.mp4"}\n[1]\n')
    with pytest.raises(ManifestError, match="each line must be a JSON object"):
        read_manifest(place / "m.jsonl")
    (place / "m.jsonl").write_text('{"video": "a b.mp4", "label": ["x"]}\n')
    with pytest.raises(ManifestError, match=re.escape("row 1: label is ['x'], but must be text")):
        read_manifest(place / "m.jsonl")
    for name, content in (("b.jsonl", b'{"video": '), ("b.parquet", b"<html>"), ("b.csv", b"video\n\xff\xfe\n")):
        (place / name).write_bytes(content)
        with pytest.raises(ManifestError, match=f"{name} is no {name[2:]} file"):
            read_manifest(place / name)
    with pytest.raises(ManifestError, match=r"no such file. `avad-hf scan"):
        read_manifest(place / "none.csv")
    for act in (lambda: read_manifest(place / "m.xlsx"), lambda: write_manifest([], place / "m.xlsx")):
        with pytest.raises(ManifestError, match=r"a manifest ends with .csv, .jsonl, .parquet"):
            act()


def test_parquet_of_other_programs(place):
    columns = {
        "video": ["a b.mp4"],
        "hour": pa.array([3.0]),
        "start": pa.array([float("nan")]),
        "day": pa.array([datetime.date(2026, 3, 1)]),
        "price": pa.array([decimal.Decimal("1.50")]),
        "speed": pa.array([float("inf")]),
    }
    pq.write_table(pa.table(columns), place / "m.parquet")
    read = read_manifest(place / "m.parquet")[0]
    assert read["hour"] == 3 and read["start"] is None
    assert (read["day"], read["price"], read["speed"]) == ("2026-03-01", "1.50", None)
    pq.write_table(pa.table({"video": ["a b.mp4"], "boxes": [[1, 2]]}), place / "m.parquet")
    with pytest.raises(ManifestError, match="row 1: boxes holds a list"):
        read_manifest(place / "m.parquet")


def test_odd_but_honest_tables(place):
    text = "video;label;anomaly\r\na b.mp4; Fire ;True\r\nü#=1.mp4;normal;no\r\n"
    rows = read_manifest(write_csv(place, text))
    assert [(r["label"], r["anomaly"]) for r in rows] == [("Fire", 1), ("normal", 0)]
    rows = read_manifest(write_csv(place, f"video,code,big,split_by\na b.mp4,007,{10**24},me\nü#=1.mp4,008,1,you\n"))
    assert [(r["code"], r["big"], r["split_by"]) for r in rows] == [("007", str(10**24), "me"), ("008", "1", "you")]


def test_names_with_rare_line_ends(place):
    name = "a\u2028b\x85c.mp4"
    (place / name).touch()
    write_manifest([row(id="x", video=str(place / name))], place / "m.jsonl")
    assert read_manifest(place / "m.jsonl")[0]["video"] == str(place / name)


def test_ids_do_not_depend_on_where_the_corpus_is_mounted(place):
    (place / "lists").mkdir()
    (place / "lists" / "m.csv").write_text("video\n../a b.mp4\n")
    moved = place.with_name("moved")
    before = read_manifest(place / "lists" / "m.csv")[0]["id"]
    place.rename(moved)
    assert read_manifest(moved / "lists" / "m.csv")[0]["id"] == before == "../a b.mp4"
    moved.rename(place)


def test_no_manifest_is_overwritten(place):
    path = write_csv(place, "video\na b.mp4\n")
    with pytest.raises(ManifestError, match=r"m.csv is there already. .* nothing was overwritten"):
        write_manifest([row(video=str(place / "a b.mp4"))], path)
    assert path.read_text() == "video\na b.mp4\n"


def test_a_link_to_itself(place):
    os.symlink(place / "loop.mp4", place / "loop.mp4")
    with pytest.raises(ManifestError, match=r"loop.mp4 is a link that leads back to itself"):
        read_manifest(write_csv(place, "video\nloop.mp4\n"))


def test_ten_thousand_rows(tmp_path):
    """How long it takes stands in tests/benchmarks/bench_data.py."""
    rows = []
    for index in range(10_000):
        path = tmp_path / f"d{index % 100}" / "same name.mp4"
        path.parent.mkdir(exist_ok=True)
        path = path.with_name(f"{index // 100}.mp4")
        path.touch()
        rows.append(row(id=f"{index}", video=str(path), label=("normal", "fire")[index % 2], anomaly=index % 2))
    for ending in ENDINGS:
        write_manifest(rows, tmp_path / f"m.{ending}")
        assert read_manifest(tmp_path / f"m.{ending}") == rows
    assert len((tmp_path / "m.jsonl").read_text().splitlines()) == 10_000
    assert json.loads((tmp_path / "m.jsonl").read_text().splitlines()[0])["video"] == "d0/0.mp4"
