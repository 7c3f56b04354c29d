"""Composed videos: what is known of them is what was painted, and their flashes and clicks come together."""

import re
from dataclasses import replace
from itertools import islice, repeat

import numpy as np
import pytest
from PIL import Image

from avad_hf.media.decode import MediaFile
from avad_hf.synthetic import composed, faces, plates, recognisable
from avad_hf.synthetic.composed import compose, write_composed
from avad_hf.synthetic.faces import Cutout, draw_face
from avad_hf.synthetic.plates import draw_plate
from avad_hf.synthetic.sounds import RATE_HZ
from avad_hf.synthetic.sprites import Truth, paste, sprite
from avad_hf.synthetic.stage import Actor
from avad_hf.synthetic.world import clip_pictures, clip_sound, plan_world

GREY = np.full((90, 160, 3), 128, np.uint8)


def rng(seed: int = 0) -> np.random.Generator:
    return np.random.default_rng(seed)


def oval(width: int = 90, height: int = 120) -> Cutout:
    """A black ellipse that fills its box."""
    y, x = np.mgrid[:height, :width]
    inside = ((x + 0.5) / width * 2 - 1) ** 2 + ((y + 0.5) / height * 2 - 1) ** 2 < 1
    pixels = np.zeros((height, width, 4), np.uint8)
    pixels[..., 3] = 255 * inside
    return Cutout(pixels, (0, 0, width, height))


def extent(mask: np.ndarray) -> tuple[float, float, float, float]:
    rows, columns = np.flatnonzero(mask.any(axis=1)), np.flatnonzero(mask.any(axis=0))
    return columns[0], rows[0], columns[-1] + 1, rows[-1] + 1


@pytest.mark.parametrize("counts", [{"num_faces": 1, "num_plates": 0}, {"num_faces": 0, "num_plates": 1}])
@pytest.mark.parametrize("seed", range(4))
def test_a_box_is_what_is_painted(seed, counts, monkeypatch):
    monkeypatch.setattr(composed, "NOISE", 0.0)
    options = {"backdrop": repeat(GREY), "size": (640, 360), "fps": 5, "duration_s": 2, **counts}
    checked = 0
    for _, picture, truths in compose(seed, [oval()], **options):
        for truth in truths:
            if truth.visible < 0.999:
                continue
            # The middle of the fall from ground to ink or paper, so that blur does not widen it.
            change = np.abs(picture.astype(float) - picture[-1, -1]).max(axis=2)
            found = extent(change > change.max() / 3)
            tolerance = 1.5 + truth.motion_px + truth.focus_px
            np.testing.assert_allclose(found, truth.box, atol=tolerance)
            checked += 1
    assert checked >= 4


def test_a_face_is_as_high_and_a_plate_as_wide_as_its_size_says():
    for kind, cutout in (("face", oval()), ("plate", draw_plate("maltese", rng())[0])):
        width, height = cutout.box[2:]
        scale = 60 / (height if kind == "face" else width)
        truth = Truth(0, kind, cutout.box, 60.0, 0.0, 1.0)
        placed = sprite(cutout, truth, np.eye(2) * scale, (100, 80), (200, 160))
        canvas = np.full((160, 200, 3), 128, np.float32)
        (known,) = paste(canvas, [placed])
        x1, y1, x2, y2 = extent(np.abs(canvas - 128).max(axis=2) > 40)
        assert (y2 - y1 if kind == "face" else x2 - x1) == pytest.approx(60, abs=1)
        np.testing.assert_allclose(known.box, (x1, y1, x2, y2), atol=1)


def test_a_turn_is_counter_clockwise_and_shear_lifts_no_middle():
    cutout = draw_plate("european", rng())[0]
    angle = np.radians(12)
    turn = np.array([[np.cos(angle), np.sin(angle)], [-np.sin(angle), np.cos(angle)]])
    placed = sprite(cutout, Truth(0, "plate", cutout.box, 260.0, 12.0, 1.0), turn / 2, (200, 150), (400, 300))
    canvas = np.full((300, 400, 3), 128, np.float32)
    paste(canvas, [placed])
    painted = np.abs(canvas - 128).max(axis=2) > 40
    left, right = (np.flatnonzero(painted[:, column]).mean() for column in (90, 310))
    assert left - right == pytest.approx(220 * np.tan(angle), abs=3)
    blue = (canvas[..., 2] > 100) & (canvas[..., 0] < 60)
    assert np.flatnonzero(blue.any(axis=0)).max() < 110  # its left end stays at the left


def test_a_seed_decides_everything():
    def take(seed):
        return list(compose(seed, size=(320, 180), duration_s=0.2, num_posts=1))

    one, again, other = take(5), take(5), take(6)
    assert len(one) == 5
    for (time, picture, truths), (same_time, same_picture, same_truths) in zip(one, again, strict=True):
        assert (time, truths) == (same_time, same_truths)
        np.testing.assert_array_equal(picture, same_picture)
    assert (one[0][1] != other[0][1]).any() and one[0][2] != other[0][2]


def test_sizes_and_turns_are_within_their_bounds_and_boxes_within_the_picture():
    sizes, counts, entering = {"face": [], "plate": []}, [], 0
    for seed in range(20):
        for _, _, truths in compose(seed, [oval()], repeat(GREY), (480, 270), fps=2, duration_s=2, num_faces=2):
            counts.append(len(truths))
            for truth in truths:
                x1, y1, x2, y2 = truth.box
                assert 0 <= x1 < x2 <= 480 and 0 <= y1 < y2 <= 270
                assert 0 <= truth.visible <= 1 and truth.motion_px >= 0
                assert composed.SHADE[0] <= truth.light <= 1
                limit = composed.FACE_TURN if truth.kind == "face" else composed.PLATE_TURN
                assert abs(truth.angle) <= limit
                assert truth.track < 2 if truth.kind == "face" else 2 <= truth.track < 5
                sizes[truth.kind].append(truth.size)
                entering += 0 < truth.visible < 0.9 and (x1 == 0 or x2 == 480)
    assert 16 <= min(sizes["face"]) < 24 < 80 < max(sizes["face"]) <= 120
    assert 40 <= min(sizes["plate"]) < 60 < 160 < max(sizes["plate"]) <= 240
    assert entering and max(counts) == 5 > min(counts)  # some come in from beside the picture


def test_what_is_behind_something_is_seen_less():
    cutout = oval()
    front, back = (
        sprite(cutout, Truth(track, "face", cutout.box, 120.0, 0.0, 1.0), np.eye(2), at, (200, 200))
        for track, at in ((0, (100, 100)), (1, (100, 160)))
    )
    canvas = np.zeros((200, 200, 3), np.float32)
    behind, before = paste(canvas, [back, front], [(slice(None), slice(0, 100), 77.0)])
    assert before.visible == pytest.approx(0.5, abs=0.01)
    assert 0.05 < behind.visible < 0.4
    assert (canvas[:, :100] == 77).all()
    assert sprite(cutout, Truth(0, "face", cutout.box, 120.0, 0.0, 1.0), np.eye(2), (-60, 100), (200, 200)) is None
    posts = list(compose(1, [oval()], repeat(GREY), (320, 180), fps=10, duration_s=2, num_posts=4))
    assert min(truth.visible for _, _, truths in posts for truth in truths) < 0.6


def test_light_and_blur_do_what_they_say():
    cutout = draw_plate("maltese", rng())[0]

    def painted(light=1.0, focus_px=0.0, motion_px=(0.0, 0.0)):
        truth = Truth(0, "plate", cutout.box, 520.0, 0.0, light, focus_px)
        canvas = np.zeros((200, 600, 3), np.float32)
        paste(canvas, [sprite(cutout, truth, np.eye(2), (300, 100), (600, 200), motion_px)])
        return canvas

    sharp = painted()
    np.testing.assert_allclose(painted(light=0.5), sharp / 2, atol=0.01)
    assert np.abs(np.diff(painted(focus_px=3.0), axis=1)).max() < 0.3 * np.abs(np.diff(sharp, axis=1)).max()
    smeared = painted(motion_px=(16.0, 0.0))
    assert np.abs(np.diff(smeared, axis=1)).max() < 0.3 * np.abs(np.diff(sharp, axis=1)).max()
    np.testing.assert_allclose(smeared.mean(), sharp.mean(), rtol=1e-3)
    assert np.abs(np.diff(smeared, axis=0)).max() > 0.7 * np.abs(np.diff(sharp, axis=0)).max()


def test_a_video_of_any_length_takes_its_backdrop_picture_by_picture():
    taken = []

    def backdrop():
        for number in range(3):
            taken.append(number)
            yield np.full((50, 80, 3), 60 * number, np.uint8)

    video = compose(0, [oval()], backdrop(), (320, 180), duration_s=1e6, num_faces=0, num_plates=0)
    assert taken == []
    levels = [next(video)[1].mean()]
    assert taken == [0]
    levels += [picture.mean() for _, picture, _ in video]
    assert len(levels) == 3 and levels[0] < levels[1] < levels[2]
    assert [round(time, 3) for time, _, _ in islice(compose(0, size=(160, 90), duration_s=1e6), 3)] == [0, 0.04, 0.08]


def test_plates_of_both_forms_have_their_band_and_their_text():
    seen = {}
    for form in plates.FORMS:
        cutouts, texts = zip(*(draw_plate(form, rng(seed)) for seed in range(30)), strict=True)
        seen[form] = set(texts)
        for cutout in cutouts:
            assert cutout.pixels.shape == (113, 520, 4) and cutout.box == (0, 0, 520, 113)
            np.testing.assert_array_equal(cutout.pixels[60, 12, :3], plates.BLUE)
            band = cutout.pixels[8:55, 8:48, :3].astype(int)
            assert (np.abs(band - plates.STAR).sum(axis=2) == 0).sum() > 100
    assert all(re.fullmatch(r"[A-Z]{3} \d{3}", text) for text in seen["maltese"])
    assert not any(re.fullmatch(r"[A-Z]{3} \d{3}", text) for text in seen["european"])
    assert len(seen["maltese"]) == len(seen["european"]) == 30

    # Two Maltese plates differ in their text alone: right of the band, as high as letters are.
    one, two = (draw_plate("maltese", rng(seed))[0].pixels.astype(int) for seed in (1, 2))
    x1, y1, x2, y2 = extent(np.abs(one - two).max(axis=2) > 0)
    assert plates.BAND_MM < x1 < 150 and 420 < x2 < 516
    assert y1 > 10 and y2 < 103 and 60 < y2 - y1 < 92
    grounds = {tuple(draw_plate("european", rng(seed))[0].pixels[8, 60, :3]) for seed in range(30)}
    assert grounds == {plates.WHITE, plates.YELLOW}
    assert tuple(draw_plate("maltese", rng())[0].pixels[8, 60, :3]) == plates.WHITE

    with pytest.raises(ValueError, match=r"Unknown form of plate 'lunar'. Choose one of european, maltese."):
        draw_plate("lunar", rng())


def test_a_drawn_face_has_eyes_and_a_mouth_where_they_belong():
    heads = [draw_face(rng(seed)) for seed in range(6)]
    for head in heads:
        x1, y1, x2, y2 = head.box
        assert 0 <= x1 < x2 <= head.pixels.shape[1] and 0 <= y1 < y2 <= head.pixels.shape[0]
        assert y2 - y1 == faces.FACE_PX
        face = head.pixels[int(y1) : int(y2), int(x1) : int(x2)].astype(float)
        assert face[int(0.4 * len(face)), :, 3].mean() > 220 and head.pixels[0, 0, 3] == 0

        def brightness(x, y, face=face):
            height, width = face.shape[:2]
            return face[int((y - 0.02) * height) : int((y + 0.02) * height),
                        int((x - 0.03) * width) : int((x + 0.03) * width), :3].mean()  # fmt: skip

        eyes = [min(brightness(x, 0.4) for x in np.linspace(*span, 9)) for span in ((0.2, 0.4), (0.6, 0.8))]
        assert max(eyes) < 0.75 * brightness(0.5, 0.5)
        assert brightness(0.5, 0.78) < 0.85 * brightness(0.5, 0.5)
    assert len({head.pixels.tobytes() for head in heads}) == 6
    np.testing.assert_array_equal(draw_face(rng(3)).pixels, heads[3].pixels)


def test_flashes_and_clicks_come_together(tmp_path):
    flashes = [0.2, 0.64, 1.1]
    known = write_composed(tmp_path / "a.mp4", 3, size=(320, 180), duration_s=1.4, flashes_s=flashes, faces=[oval()])
    media = MediaFile(str(tmp_path / "a.mp4"))
    frames = list(media.frames(None))
    assert [time for time, _ in known] == pytest.approx([frame.start for frame in frames], abs=1e-4)
    assert media.info.is_synthetic and len(frames) == 35
    lit = [frame.start for frame in frames if frame.pixels[:, 2:12, 2:12].float().mean() > 60]
    assert lit == pytest.approx([round(moment * 25) / 25 for moment in flashes], abs=1e-4)

    loud = np.flatnonzero(np.abs(media.sound(48000).read().numpy()) > 0.3) / 48000
    clicks = loud[np.diff(loud, prepend=-1) > 0.1]
    np.testing.assert_allclose(clicks, lit, atol=1e-3)
    assert media.info.duration == pytest.approx(1.4, abs=1e-3)


def test_no_flash_no_patch():
    picture = next(compose(0, [oval()], repeat(GREY), (320, 180), num_faces=0, num_plates=0))[1]
    assert picture[:14, :14].min() > 50


def on_the_avenue(label: str):
    return next(plan for plan in plan_world("avenue", 22, 1) if plan.label == label)


def test_people_and_vehicles_of_the_avenue_become_recognisable():
    plan = on_the_avenue("pedestrians_crossing")
    middle = int((plan.event_start_s + plan.event_whole_s / 2) * plan.fps)
    pictures = islice(recognisable.recognisable_pictures(plan, zoom=4), middle, middle + 1)
    ((time, picture, truths),) = pictures
    assert picture.shape == (360, 640, 3) and time == middle / plan.fps
    heads = [truth for truth in truths if truth.kind == "face"]
    assert heads and all(15 < truth.size < 45 for truth in heads)
    plain = next(islice(clip_pictures(plan), middle, None))[1]
    enlarged = np.asarray(Image.fromarray(plain).resize((640, 360), Image.Resampling.BICUBIC))
    changed = np.abs(picture.astype(int) - enlarged).max(axis=2) > 12
    elsewhere = changed.copy()
    for truth in truths:
        x1, y1, x2, y2 = map(int, truth.box)
        # Hair is above and beside a face.
        above, beside = (40, 25) if truth.kind == "face" else (3, 3)
        elsewhere[max(0, y1 - above) : y2 + 15, max(0, x1 - beside) : x2 + beside] = False
        if truth.kind == "face":
            assert changed[y1:y2, x1:x2].mean() > 0.4
            # What was there before is the head of a figure, whose skin is no grey as the street is.
            assert np.ptp(enlarged[y1:y2, x1:x2].mean(axis=(0, 1))) > 10
    assert not elsewhere.any()


def test_a_vehicle_bears_its_plate_where_it_is_seen_best():
    plan = on_the_avenue("bus")
    picture, plate = next(
        (picture, truth)
        for _, picture, truths in recognisable.recognisable_pictures(plan)
        for truth in truths
        if truth.kind == "plate" and truth.visible > 0.999
    )
    x1, y1, x2, y2 = map(round, plate.box)
    assert 60 < plate.size < 80 and x2 - x1 == pytest.approx(plate.size, abs=2)
    paper, ink = np.percentile(picture[y1:y2, x1:x2].mean(axis=2), (90, 5))
    assert paper > 150 and ink < 90


def test_a_face_behind_a_vehicle_is_not_painted(monkeypatch):
    # A person close behind a bus, and one before it.
    still = np.ones(3)
    bus = Actor("bus", 0 * still, 19.75 * still, 0 * still, 0 * still, ((200, 40, 40), (60, 60, 60)))
    people = [Actor("person", x * still, y * still, 0 * still, 0 * still, ((52, 88, 160), (60, 60, 66)))
              for x, y in ((0.0, 21.5), (1.0, 17.0))]  # fmt: skip
    plan = on_the_avenue("bus")
    monkeypatch.setattr(recognisable, "cast", lambda plan: (people, [bus]))
    monkeypatch.setattr(recognisable, "clip_pictures", lambda plan: iter([(0.0, np.zeros((90, 160, 3), np.uint8))]))
    ((_, _, truths),) = recognisable.recognisable_pictures(plan)
    assert [(truth.track, truth.kind) for truth in truths] == [(2, "plate"), (1, "face")]


def test_recognisable_clips_have_the_sound_of_their_plan_and_other_scenes_are_refused(tmp_path, monkeypatch):
    plan = replace(on_the_avenue("scooter"), duration_s=1.2, event_start_s=0.4, event_end_s=1.2)
    known = recognisable.render_recognisable(plan, tmp_path / "a.mp4", zoom=2)
    media = MediaFile(str(tmp_path / "a.mp4"))
    assert (media.info.width, media.info.height, media.info.is_synthetic) == (320, 180, True)
    assert len(known) == plan.num_frames == len(list(media.frames(None)))
    made, heard = np.tanh(sum(clip_sound(plan))).mean(axis=0), media.sound(RATE_HZ).read().numpy()
    both = min(len(made), len(heard))
    assert np.corrcoef(made[:both], heard[:both])[0, 1] > 0.9
    (junction,) = plan_world("junction", 1)
    with pytest.raises(
        ValueError, match=r"junction_0000 is of the scene junction. Give a plan of one of crossing, ov"
    ):
        next(recognisable.recognisable_pictures(junction))
