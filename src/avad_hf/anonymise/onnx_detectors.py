"""Detectors in ONNX files, each with a small file that says how to feed it and how to read it."""

import json
import os
from collections.abc import Callable
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Any, Literal, get_args

import numpy as np

from avad_hf.convert.files import sha256_of

from .boxes import Boxes, Margin, without_doubles
from .extra import needs_extra

# The file beside an ONNX file.
FORM = "detector.json"
Output = Literal["boxes", "centers", "blobs"]
# A cell of a map of centres, in pixels of the input (CenterNet, CenterFace).
CENTER_STRIDE = 4
# Boxes that overlap more than this are of the same thing.
DOUBLE_IOU = 0.3
# Text and plates: a pixel belongs to a blob from this probability on, and a blob found so is this much smaller than
# the text is (Liao et al., AAAI 2020: 0.3, and shrunk by a ratio of 0.4, which 1.6 undoes for most boxes).
BLOB_PIXEL, BLOB_GROWTH = 0.3, 1.6


@dataclass(frozen=True)
class OnnxForm:
    """How an ONNX detector is fed, and what its outputs mean.

    Args:
        kind: What it finds, in one word: ``"face"``.
        output: ``"boxes"``: one output of shape `(N, 5)` or `(1, N, 5)`, or with a class as the sixth column: left,
            top, right, bottom in pixels of the input, score. ``"centers"``: maps of scores `(1, 1, h, w)`, of the
            logarithms of height and width `(1, 2, h, w)` and of offsets `(1, 2, h, w)`, a cell for 4 pixels, in this
            order (CenterNet). ``"blobs"``: one map of probabilities of the input's size (differentiable binarisation).
        threshold: Score from which on a box counts, if it is seen twice.
        sure: Score from which on a box counts by itself.
        channels: ``"rgb"`` or ``"bgr"``.
        mean: Taken from each channel, from 0 to 255.
        std: By which each channel is divided then.
        multiple_of: Height and width of the input are multiples of this.
        scale: Size of the input as a share of the picture's; of pictures of another size, see `long_side`.
        long_side: The picture's long side at which `scale` counts: larger pictures are made smaller to it first.
        margin: How much further than its box the thing reaches to the left, up, to the right and down, as shares of
            the box's width and height.
        classes: Numbers of the classes that are hidden, where boxes have classes; by default all.
        aspects: Least and greatest width of a box as a multiple of its height.

    Raises:
        ValueError: For settings that cannot be.
    """

    kind: str
    output: Output
    threshold: float
    sure: float
    channels: Literal["rgb", "bgr"] = "rgb"
    mean: tuple[float, float, float] = (0.0, 0.0, 0.0)
    std: tuple[float, float, float] = (1.0, 1.0, 1.0)
    multiple_of: int = 32
    scale: float = 1.0
    long_side: int = 1280
    margin: Margin = (0.25, 0.25, 0.25, 0.25)
    classes: tuple[int, ...] | None = None
    aspects: tuple[float, float] = (0.0, float("inf"))

    def __post_init__(self):
        if self.output not in get_args(Output):
            raise ValueError(f"output must be one of {', '.join(get_args(Output))}, got {self.output!r}.")
        if self.channels not in ("rgb", "bgr"):
            raise ValueError(f"channels must be rgb or bgr, got {self.channels!r}.")
        if not 0 < self.threshold <= self.sure <= 1:
            raise ValueError(f"Needed is 0 < threshold <= sure <= 1, got {self.threshold} and {self.sure}.")
        if not self.kind or self.multiple_of < 1 or not 0 < self.scale <= 4 or not 32 <= self.long_side <= 8192:
            raise ValueError("Needed are a kind, multiple_of from 1, scale up to 4, and long_side from 32 to 8192.")
        if len(self.mean) != 3 or len(self.std) != 3 or not all(self.std) or len(self.margin) != 4:
            raise ValueError("Needed are three numbers of mean, three of std that are not 0, and four of margin.")

    @classmethod
    def read(cls, path: str | os.PathLike) -> "OnnxForm":
        """The form in a JSON file; raises ``ValueError`` for a file that is none."""
        try:
            settings = json.loads(Path(path).read_text(encoding="utf-8"))
            known = {one.name for one in fields(cls)}
            if not isinstance(settings, dict) or (unknown := settings.keys() - known):
                raise ValueError(f"unknown settings {sorted(unknown)}" if isinstance(settings, dict) else "no object")
            return cls(
                **{name: tuple(value) if isinstance(value, list) else value for name, value in settings.items()}
            )
        except (OSError, TypeError, ValueError) as error:
            known = ", ".join(one.name for one in fields(cls))
            raise ValueError(f"{path} does not say how the detector is used ({error}). It needs: {known}.") from error


class OnnxDetector:
    """A detector in an ONNX file.

    Args:
        path: The ONNX file.
        form: How it is used.
        origin: Where it comes from, for the report.
        num_threads: Cores that it may use; by default all.

    Raises:
        ImportError: Without onnxruntime.
        ValueError: For a file that is no ONNX network of one input.
    """

    def __init__(self, path: str | os.PathLike, form: OnnxForm, origin: str = "", num_threads: int | None = None):
        self.form, self.kind, self.origin = form, form.kind, origin or str(path)
        self.margin, self.sure = form.margin, form.sure
        self.identity = f"{sha256_of(path)[:16]} {form}"
        self._session = _session(path, num_threads)
        self._input = self._session.get_inputs()[0].name

    def __call__(self, picture: np.ndarray) -> Boxes:
        """What it finds in a picture of shape `(H, W, 3)`, uint8 RGB."""
        with needs_extra():
            import cv2
        form, (height, width) = self.form, picture.shape[:2]
        scale = form.scale * min(1.0, form.long_side / max(height, width))
        size = [max(1, round(side * scale / form.multiple_of)) * form.multiple_of for side in (width, height)]
        small = cv2.resize(picture, size, interpolation=cv2.INTER_AREA if scale <= 1 else cv2.INTER_LINEAR)
        if form.channels == "bgr":
            small = small[:, :, ::-1]
        fed = np.ascontiguousarray(small.transpose(2, 0, 1)[None], dtype=np.float32)
        if any(form.mean) or set(form.std) != {1.0}:
            fed -= np.float32(form.mean)[:, None, None]
            fed /= np.float32(form.std)[:, None, None]
        edges, scores = READERS[form.output](form, self._session.run(None, {self._input: fed}))
        edges = edges * np.tile([width / size[0], height / size[1]], 2).astype(np.float32)
        edges = edges.clip(0, np.tile([width, height], 2)).astype(np.float32)
        sides = edges[:, 2:] - edges[:, :2]
        aspects = sides[:, 0] / sides[:, 1].clip(min=1e-6)
        keep = (scores >= form.threshold) & (sides.min(axis=1, initial=np.inf) > 0)
        keep &= (form.aspects[0] <= aspects) & (aspects <= form.aspects[1])
        return without_doubles(Boxes(edges[keep], scores[keep]), DOUBLE_IOU)


def _session(path: str | os.PathLike, num_threads: int | None) -> Any:
    """The network, which takes pictures of any size, also where its file says one."""
    with needs_extra():
        import onnx
        import onnxruntime
    try:
        model = onnx.load(str(path), load_external_data=False)
        weights = {one.name for one in model.graph.initializer}
        inputs = [one for one in model.graph.input if one.name not in weights]
        if len(inputs) != 1:
            raise ValueError(f"it has {len(inputs)} inputs, and one is needed")
        del model.graph.value_info[:]
        for value in (*inputs, *model.graph.output):
            for number, side in enumerate(value.type.tensor_type.shape.dim):
                if number != 1:
                    side.dim_param = f"{value.name}_{number}"
        options = onnxruntime.SessionOptions()
        options.log_severity_level = 3  # old networks list weights among their inputs, of which it warns each time
        if num_threads:
            options.intra_op_num_threads = num_threads
        # Without spinning, threads that wait leave the cores to those that decode and encode.
        options.add_session_config_entry("session.intra_op.allow_spinning", "0")
        return onnxruntime.InferenceSession(
            model.SerializeToString(), options, providers=onnxruntime.get_available_providers()
        )
    # ONNX and its runtime raise classes of their own for nearly anything.
    except Exception as error:
        raise ValueError(f"{path} cannot be used as a detector ({type(error).__name__}: {error}).") from error


def _read_boxes(form: OnnxForm, outputs: list[np.ndarray]) -> tuple[np.ndarray, np.ndarray]:
    rows = np.asarray(outputs[0], dtype=np.float32)
    rows = rows.reshape(-1, rows.shape[-1])
    if form.classes is not None and rows.shape[1] > 5:
        rows = rows[np.isin(rows[:, 5].round(), form.classes)]
    return rows[:, :4], rows[:, 4]


def _read_centers(form: OnnxForm, outputs: list[np.ndarray]) -> tuple[np.ndarray, np.ndarray]:
    heat, sides, offsets = (output[0] for output in outputs[:3])
    rows, columns = np.nonzero(heat[0] >= form.threshold)
    centers = np.stack([columns + 0.5, rows + 0.5], axis=1) + offsets[::-1, rows, columns].T
    halves = np.exp(sides[::-1, rows, columns].T) / 2
    return CENTER_STRIDE * np.concatenate([centers - halves, centers + halves], axis=1), heat[0, rows, columns]


def _read_blobs(form: OnnxForm, outputs: list[np.ndarray]) -> tuple[np.ndarray, np.ndarray]:
    from scipy import ndimage

    heat = outputs[0].reshape(outputs[0].shape[-2:])
    labels, count = ndimage.label(heat > BLOB_PIXEL)
    if not count:
        return np.zeros((0, 4), np.float32), np.zeros(0, np.float32)
    found = ndimage.find_objects(labels)
    edges = np.array([[x.start, y.start, x.stop, y.stop] for y, x in found], dtype=np.float32)
    sides = edges[:, 2:] - edges[:, :2]
    grow = (sides.prod(axis=1) * BLOB_GROWTH / (2 * sides.sum(axis=1)))[:, None]
    scores = ndimage.mean(heat, labels, np.arange(1, count + 1))
    return np.concatenate([edges[:, :2] - grow, edges[:, 2:] + grow], axis=1), np.asarray(scores, np.float32)


READERS: dict[str, Callable[[OnnxForm, list[np.ndarray]], tuple[np.ndarray, np.ndarray]]] = {
    "boxes": _read_boxes,
    "centers": _read_centers,
    "blobs": _read_blobs,
}

__all__ = ["FORM", "OnnxDetector", "OnnxForm"]
