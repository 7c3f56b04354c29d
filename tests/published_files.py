"""Writes small trees of published features, each file with numbers of its own."""

import pickle
import zlib
from pathlib import Path

import numpy as np
import torch

# Names as in the corpus: signs, spaces, other scripts, several codes.
XD_TRAIN = {
    "v=8cTqh9tMz_I__#1_label_A": 5,
    "Bad.Boys II__#00-10-00_00-10-30_label_B2-0-0": 7,
    "Été 少林__#1_label_G-B2-B6": 4,
}
XD_TEST = {"v=x__#1_label_A": 3, "Fast Five 2__#0_label_B6-0-0": 6}


def save(path: Path, *shape: int, dtype=np.float32) -> np.ndarray:
    """Write random features that are those of this path alone."""
    values = np.random.default_rng(zlib.crc32("/".join(path.parts[-3:]).encode())).normal(size=shape).astype(dtype)
    path.parent.mkdir(parents=True, exist_ok=True)
    np.save(path, values)
    return values


def make_xd(root: Path, visual_root: str = "i3d-features", audio_root: str = "vggish-features") -> Path:
    for videos, visual, audio in ((XD_TRAIN, "RGB", "train"), (XD_TEST, "RGBTest", "test")):
        for name, length in videos.items():
            for crop in range(5):
                save(root / visual_root / visual / f"{name}__{crop}.npy", length, 1024)
            save(root / audio_root / audio / f"{name}__vggish.npy", length, 128)
    return root


def make_rtfm(root: Path, names: dict[str, int], width: int = 8) -> Path:
    for name, length in names.items():
        save(root / f"{name}_i3d.npy", length, 10, width)
    return root


def make_ar_net(root: Path, protocol: int = 2) -> Path:
    corpus = root / "shanghaitech"
    for name in ("01_001", "01_0014", "02_0128"):
        for stream, width in (("rgb", 4), ("flow", 4), ("combine", 8)):
            save(corpus / "features_video" / "i3d" / stream / name / "feature.npy", 3, width)
    (corpus / "train_split.txt").write_text("01_001\n01_0014\n")
    (corpus / "test_split.txt").write_text("02_0128")
    (corpus / "GT").mkdir()
    labels = {"01_001": np.array([0.0]), "01_0014": np.array([1.0]), "02_0128": [1.0]}
    frames = {"01_001": np.zeros(50), "02_0128": np.array([1] * 3 + [0] * 40 + [1] * 7, dtype=np.uint8)}
    (corpus / "GT" / "video_label.pickle").write_bytes(pickle.dumps(labels, protocol))
    (corpus / "GT" / "frame_label.pickle").write_bytes(pickle.dumps(frames, protocol))
    return root


def assert_item(item: dict, visual: np.ndarray, audio: np.ndarray | None, clip_s: float):
    """Check all of an item against the arrays that it was read from."""
    length = len(visual)
    assert item["visual_features"].dtype == item["audio_features"].dtype == torch.float32
    np.testing.assert_array_equal(item["visual_features"], visual.astype(np.float32)[:, :, None, None])
    if audio is None:
        assert item["audio_features"].shape == (length, 1, 128)
        assert not item["audio_features"].any()
    else:
        np.testing.assert_array_equal(item["audio_features"], audio.astype(np.float32)[:, None])
    assert item["has_audio"].tolist() == [audio is not None]
    assert item["clip_mask"].tolist() == [True] * length
    assert item["clip_times"].dtype == torch.float64
    expected_s = [(clip * clip_s, (clip + 1) * clip_s) for clip in range(length)]
    np.testing.assert_allclose(item["clip_times"], expected_s, atol=1e-12)
