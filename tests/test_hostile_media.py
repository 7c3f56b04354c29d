"""Files that were made to make a reader fail are refused in words, or read in bounded time and memory."""

import functools
import os
import socketserver
import threading
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from avad_hf.media.decode import MediaError
from avad_hf.media.sources import open_media

from .laboratory import hostile
from .laboratory.originals import BY_NAME
from .laboratory.runner import warm_runner

# Seconds within which every one of them must be done with; all take less than one on an idle machine.
SOON_S = 15.0
# Resident bytes of the whole process, torch among them.
LITTLE = 1 << 30


@pytest.fixture(scope="module")
def originals(tmp_path_factory):
    """Files in order, by name: a video, and the sound beside it if it has one; each is written once."""
    folder = tmp_path_factory.mktemp("originals")
    return functools.cache(lambda name: BY_NAME[name].write(folder))


@pytest.fixture(scope="module")
def files(originals):
    """Paths of the videos."""
    return lambda name: originals(name)["video"]


def observe(source, **request):
    seen = warm_runner().read(source, limit_s=SOON_S, **request)
    assert seen["outcome"] in ("read", "refused"), f"{seen['words']}\n{seen.get('trace', '')}"
    assert seen["peak"] < LITTLE, f"took {seen['peak'] >> 20} MiB"
    return seen


def refused(source, *words: str, **request) -> str:
    seen = observe(source, **request)
    assert seen["outcome"] == "refused", f"read: {len(seen['frames'])} frames, {seen['problems']}"
    for word in words:  # numbers with or without commas
        assert word in seen["words"].replace(",", "")
    return seen["words"]


def numbers(seen) -> list[int]:
    assert seen["outcome"] == "read", seen["words"]
    return [number for _, _, number in seen["frames"]]


# Titles


@pytest.mark.parametrize("encoding", hostile.TITLES)
@pytest.mark.parametrize("ending", ["mp4", "mov", "mkv", "avi", "flv", "ts"])
def test_titles_in_any_encoding(files, tmp_path, ending, encoding):
    source = files("avi-mpeg4-mp3" if ending == "avi" else "mp4-h264-aac")
    title = hostile.TITLES[encoding]
    seen = observe(hostile.titled(source, tmp_path / f"titled.{ending}", title))
    assert numbers(seen) == list(range(100)) and not seen["problems"]


@pytest.mark.parametrize("encoding", hostile.TITLES)
@pytest.mark.parametrize("ending", ["mp3", "ogg", "m4a"])
def test_titles_of_sound_beside_a_video(originals, tmp_path, ending, encoding):
    side = {"mp3": "mp4-h264-mp3-mp3", "ogg": "mp4-h264-opus-ogg", "m4a": "mp4-h264-aac-m4a"}[ending]
    source = originals(side)
    sound = hostile.titled(source["audio"], tmp_path / f"titled.{ending}", hostile.TITLES[encoding])
    seen = observe(source | {"audio": sound})
    assert numbers(seen) == list(range(40)) and not seen["problems"] and len(set(seen["sound"])) > 38


def test_a_title_that_is_not_utf8_does_not_end_a_scan(files, tmp_path):
    from avad_hf.corpora.scan import probe, scan

    (tmp_path / "normal").mkdir()
    hostile.titled(files("mp4-h264-aac"), tmp_path / "normal" / "a.mp4", hostile.TITLES["latin1"])
    found = probe(scan(tmp_path, classes=["normal"]))
    assert not found.unreadable and len(found.rows) == 1 and not found.silent


# Files that name other files


@pytest.fixture
def trap(tmp_path):
    """A pipe that hangs whoever opens it, and an address that counts who asks."""
    os.mkfifo(tmp_path / "secret.mp4")
    asked = []

    class Counts(socketserver.BaseRequestHandler):
        def handle(self):
            asked.append(self.request.recv(1000))

    with socketserver.ThreadingTCPServer(("127.0.0.1", 0), Counts) as server:
        threading.Thread(target=server.serve_forever, args=(0.01,), daemon=True).start()
        yield f"http://127.0.0.1:{server.server_address[1]}/secret.mp4"
        server.shutdown()
    assert not asked


PLAYLISTS = list(hostile.playlists("", ""))


@pytest.mark.parametrize("disguise", ["", ".mp4", ".mkv", ".ts"])
@pytest.mark.parametrize("kind", PLAYLISTS)
def test_playlists_open_nothing(tmp_path, trap, kind, disguise):
    path = tmp_path / f"list.{kind}{disguise}"
    path.write_bytes(hostile.playlists("secret.mp4", trap)[kind])
    words = refused(str(path))
    assert "names other files" in words and "secret" not in words


@pytest.mark.parametrize("before", [b"\xef\xbb\xbf", b"\n\n  ", b"\x00" * 64, b"#comment\n", b"\xff\xfb\x90\x00" * 50])
def test_playlists_behind_other_bytes_open_nothing(tmp_path, trap, before):
    for kind in ("m3u8", "remote.m3u8", "ffconcat", "remote.ffconcat", "mpd"):
        path = tmp_path / "list.mp4"
        path.write_bytes(before + hostile.playlists("secret.mp4", trap)[kind])
        refused(str(path))


@pytest.mark.parametrize("pattern", ["img%03d.png", "img*.png", "img%3d.png", "img00[0-9].png"])
def test_patterns_of_names_are_no_files(tmp_path, pattern):
    for number in range(3):
        Image.fromarray(np.zeros((48, 64, 3), np.uint8)).save(tmp_path / f"img{number:03d}.png")
    refused(str(tmp_path / pattern), "no such file")


@pytest.mark.parametrize(
    "address",
    [
        "concat:{0}|{0}",
        "file:{0}",
        "subfile,,start,0,end,0,,:{0}",
        "async:cache:file:{0}",
        "pipe:0",
        "fd:0",
        "data:video/mp4;base64,AAAA",
        "tcp://{1}",
        "rtmp://{1}",
        "concat:{2}",
        "hls+{2}",
        "crypto+{2}",
    ],
)
def test_protocols_of_ffmpeg_are_not_spoken(tmp_path, trap, address):
    host = trap.split("/")[2]
    refused(address.format(tmp_path / "secret.mp4", host, trap))


@pytest.mark.parametrize("address", ["reference://?fo={0}", "zip://a.mp4::{1}", "simplecache::{1}", "dir::file://{0}"])
def test_chained_addresses_are_refused(tmp_path, trap, address):
    refused(address.format(tmp_path / "secret.mp4", trap))


def test_devices_and_links_to_other_contents(tmp_path):
    for path in ("/dev/zero", "/dev/urandom", "/dev/tty"):
        refused(path, "device")
    (tmp_path / "link.mp4").symlink_to("/etc/passwd")
    assert "root:" not in refused(str(tmp_path / "link.mp4"), "link.mp4")
    (tmp_path / "circle.mp4").symlink_to(tmp_path / "circle.mp4")
    refused(str(tmp_path / "circle.mp4"))


# Bombs


def test_pictures_of_2_x_2000(tmp_path):
    path = hostile.sized(tmp_path / "thin.avi", 2, 2000)
    assert len(observe(path)["frames"]) == 3
    refused(path, "256 x 256000", size=256)


def test_pictures_of_16_x_8000(tmp_path):
    path = hostile.sized(tmp_path / "thin.mkv", 16, 8000)
    assert len(observe(path)["frames"]) == 3
    refused(path, "256 x 128000", size=256)


@pytest.mark.parametrize(
    ("codec", "ending"), [("png", "avi"), ("png", "mov"), ("mjpeg", "avi"), ("mjpeg", "mkv"), ("mjpeg", "mov")]
)
def test_pictures_that_claim_30000_x_30000(tmp_path, codec, ending):
    path = hostile.sized(tmp_path / f"small.{ending}", 64, 48, codec=codec)
    refused(hostile.claiming(path, tmp_path / f"bomb.{ending}", (hostile.BIG, hostile.BIG)), "bomb")


@pytest.mark.parametrize("codec", ["png", "mjpeg"])
def test_pictures_that_become_30000_x_30000(tmp_path, codec):
    path = hostile.sized(tmp_path / "small.avi", 64, 48, count=6, codec=codec)
    seen = observe(hostile.claiming(path, tmp_path / "bomb.avi", (hostile.BIG, hostile.BIG), first=3))
    if seen["outcome"] == "read":
        assert numbers(seen)[:3] == [0, 1, 2] and seen["problems"]


def test_vp8_that_claims_16383_x_16383(files, tmp_path):
    seen = observe(hostile.vp8_claiming(files("webm-vp8-opus-late"), tmp_path / "bomb.webm"))
    assert seen["outcome"] == "refused" or seen["problems"]


def test_a_gif_of_65535_x_65535(files, tmp_path):
    refused(hostile.gif_claiming(files("gif-gif-silent"), tmp_path / "bomb.gif"), "bomb.gif")


@pytest.mark.parametrize("rate", [10_000_019, 2**31 - 1, 4_294_967_291, 1, 0])
def test_sound_of_absurd_rates(files, tmp_path, rate):
    video = files("mp4-h264-silent-strong")
    seen = observe({"video": video, "audio": hostile.wav(tmp_path / "side.wav", rate)})
    words = seen["words"] if seen["outcome"] == "refused" else " ".join(seen["problems"])
    assert "sound" in words or "side.wav" in words
    if rate == 10_000_019:
        assert "10000019" in words.replace(",", "") and "768000" in words.replace(",", "")


def test_sound_of_65535_channels(files, tmp_path):
    video = files("mp4-h264-silent-strong")
    seen = observe({"video": video, "audio": hostile.wav(tmp_path / "side.wav", 16000, 65535)})
    assert seen["outcome"] == "refused" or seen["problems"]


def test_a_thousand_streams(tmp_path):
    refused(hostile.many_streams(tmp_path / "many.mp4", 1000), "1000 streams", "256")


# Times


@pytest.mark.parametrize("seconds", [1e5, 1e9])
@pytest.mark.parametrize("name", ["mkv-h264-aac", "mkv-vp9-opus"])
def test_a_jump_is_a_gap_and_costs_nothing(tmp_path, name, seconds):
    seen = observe(hostile.jumping(tmp_path, name, seconds))
    assert sorted(numbers(seen)) == list(range(100))
    assert seen["frames"][-1][0] == pytest.approx(seconds + 3.96, abs=1.0)
    assert any("picture" in problem for problem in seen["problems"])
    assert any("sound" in problem for problem in seen["problems"])


def test_a_jump_of_a_flv(tmp_path):
    seen = observe(hostile.jumping(tmp_path, "flv-h264-aac", 1e5))
    assert sorted(numbers(seen)) == list(range(100)) and seen["problems"]


# Headers that claim what is not there, or never end


@pytest.mark.parametrize("table", hostile.TABLES)
@pytest.mark.parametrize("count", [2**28, 2**32 - 1])
def test_tables_of_a_billion_entries(files, tmp_path, table, count):
    name = "mov-mjpeg-pcm" if table == "elst" else "mp4-h264-aac"
    observe(hostile.table_claiming(files(name), tmp_path / "bomb.mp4", table, count))


@pytest.mark.parametrize("make", [hostile.nested_boxes, hostile.nested_moov, hostile.empty_boxes])
def test_boxes_without_end(files, tmp_path, make):
    observe(make(files("mp4-h264-aac-late"), tmp_path / "boxes.mp4"))


def test_boxes_of_no_length(tmp_path):
    refused(hostile.zero_boxes(tmp_path / "boxes.mp4"))


@pytest.fixture(scope="module")
def live(tmp_path_factory):
    """A Matroska file of unknown length, so that elements can be put into it."""
    from dataclasses import replace

    original = replace(BY_NAME["mkv-h264-pcm-odd"], options={"live": "1"})
    return original.write(tmp_path_factory.mktemp("live"))["video"]


@pytest.mark.parametrize("make", [hostile.nested_tags, hostile.many_tags, hostile.element_claiming])
def test_elements_of_matroska_without_end(live, tmp_path, make):
    observe(make(live, tmp_path / "tags.mkv"))


def test_tags_without_end_take_nothing_from_the_picture(live, tmp_path):
    assert len(numbers(observe(hostile.many_tags(live, tmp_path / "tags.mkv")))) == 60


def test_a_block_that_claims_a_gigabyte(live, tmp_path):
    seen = observe(hostile.block_claiming(live, tmp_path / "block.mkv"))
    assert seen["outcome"] == "refused" or seen["problems"]


def test_indexes_of_an_avi_and_an_flv_that_claim_gigabytes(files, tmp_path):
    seen = observe(hostile.avi_claiming(files("avi-mpeg4-mp3"), tmp_path / "bomb.avi"))
    assert seen["outcome"] == "refused" or len(seen["frames"]) > 90
    seen = observe(hostile.flv_claiming(files("flv-h264-aac"), tmp_path / "bomb.flv"))
    assert seen["outcome"] == "refused" or len(seen["frames"]) > 90


def test_a_wav_that_claims_gigabytes(files, tmp_path):
    sound = hostile.wav(tmp_path / "side.wav", 16000, claimed=2**32 - 1)
    assert len(numbers(observe({"video": files("mp4-h264-silent-strong"), "audio": sound}))) == 20


def test_an_id3_tag_that_claims_megabytes(files, tmp_path):
    source = BY_NAME["mp4-h264-mp3-mp3"].write(tmp_path)
    observe(source | {"audio": hostile.id3_claiming(source["audio"], tmp_path / "tag.mp3")})


def test_an_ogg_chained_a_thousand_times(files, tmp_path):
    observe({"video": files("mp4-h264-silent-strong"), "audio": hostile.chained(tmp_path)})


# Contents that are not what the name says


@pytest.mark.parametrize("name", ["x.mp4", "x.mkv", "x.avi", "x.ts", "x.gif", "x"])
@pytest.mark.parametrize("kind", hostile.NO_VIDEOS)
def test_contents_that_are_no_video(tmp_path, kind, name):
    (tmp_path / name).write_bytes(hostile.NO_VIDEOS[kind]())
    assert "root:" not in refused(str(tmp_path / name), str(tmp_path / name))


@pytest.mark.parametrize(
    ("name", "ending"), [("mkv-h264-aac", "mp4"), ("mp4-h264-aac", "avi"), ("avi-mpeg4-mp3", "m3u8")]
)
@pytest.mark.parametrize("word", ["sdp", "ffconcat", None])
def test_videos_under_other_names_are_videos(files, tmp_path, name, ending, word):
    path = tmp_path / f"x.{word or ending}"
    path.write_bytes(Path(files(name)).read_bytes())
    assert numbers(observe(str(path))) == list(range(100))


def test_sound_alone_under_a_videos_name(tmp_path):
    refused(hostile.wav(tmp_path / "x.mp4", 16000), "no picture")


def test_a_picture_under_a_videos_name(tmp_path):
    for form in ("png", "jpeg", "bmp"):
        Image.fromarray(np.zeros((48, 64, 3), np.uint8)).save(tmp_path / "x.mp4", format=form)
        refused(str(tmp_path / "x.mp4"), "x.mp4")


def test_refusals_hold_in_this_process_too(tmp_path, trap):
    (tmp_path / "x.mp4").write_bytes(hostile.playlists("secret.mp4", trap)["ffconcat"])
    with pytest.raises(MediaError, match="ffconcat"), open_media(tmp_path / "x.mp4"):
        pass
