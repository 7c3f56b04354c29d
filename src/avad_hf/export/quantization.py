"""int8 by NNCF that measures what it does, and leaves in floating point what would cost too much."""

import contextlib
import io
import logging
import math
from collections.abc import Collection, Mapping, Sequence
from typing import Any

import nncf
import numpy as np
import openvino
from nncf.quantization.range_estimator import RangeEstimatorParametersSet
from openvino import opset13
from transformers.exporters import ExportQuantizer
from transformers.exporters.configs import ExportFormat

from avad_hf.models.signal_stack import signal_stack_kept

# Groups of neighbouring convolutions that are left in floating point together, and how much of all convolutions' work
# at most: more would give away what int8 is for.
GROUPS, MOST_FLOATING = 40, 0.35
# Samples that the error of a single group is measured on.
FEW_SAMPLES = 2
# Multiplications of a sample beyond which a try takes seconds, and what large networks have of groups and samples.
LARGE, GROUPS_OF_LARGE, SAMPLES_OF_LARGE = 50e9, 10, 12
# Operations with weights, and the axis of these that is the input's channels.
CONVOLUTIONS = {"Convolution": 1, "GroupConvolution": 2}
# How far int8 reaches beyond the largest activations of the calibration. Other clips have larger ones, but wider
# ranges are coarser: I3D with its published weights is best with 1 (error 0.11; 0.12 with 1.3), SlowFast with random
# ones with 1.3 (0.03; 0.11 with 1).
MARGINS = (1.0, 1.3)
# Whether the sums of residual blocks are of rounded numbers, which takes a tenth less of SlowFast's time, or are left
# in floating point.
SUMS = (None, nncf.ModelType.TRANSFORMER)


class CarefulQuantizer(ExportQuantizer):
    """Quantises the convolutions of a network; linear layers, which are little work, stay in floating point.

    Two samples in three are calibrated on, and errors are those of the third. Where all of `SUMS` and `MARGINS` are
    above the bound, the groups of convolutions that bring most of the error stay in floating point too. Measured on
    the demonstration model's encoders, NNCF's own settings gave errors of 0.15 of what is seen and 0.48 of what is
    heard; the whole range of activations in place of a mean over clips 0.10 and 0.10; linear layers in floating point
    0.01 for sound; no bias correction 0.03 for what is seen.

    Args:
        samples: Inputs to calibrate on.
        output: Name of the output that is compared.
        bound: Relative error of that output up to which all convolutions are quantised.
    """

    supported_formats = (ExportFormat.OPENVINO,)
    required_packages = ("nncf", "openvino")

    def __init__(self, samples: Sequence[Mapping[str, Any]], output: str, bound: float):
        super().__init__([{name: value.numpy() for name, value in sample.items()} for sample in samples])
        self.output, self.bound = output, bound

    def quantize(self, model: openvino.Model, sample_inputs: Any, export_format: ExportFormat) -> openvino.Model:
        """Quantise a converted network; `sample_inputs` are not looked at."""
        every = self.calibration_dataset
        counts = _multiplications(model, every[0])
        total = sum(counts.values())
        if total > LARGE:
            every = _evenly(every, SAMPLES_OF_LARGE)
        # Ranges are those of two samples in three, and errors of the third.
        samples = every[2::3] or every
        calibrating = [sample for number, sample in enumerate(every) if number % 3 < 2]
        expected = self._outputs(model, samples)

        def error(quantized: openvino.Model, count: int = len(samples)) -> float:
            numbers = _evenly(range(len(samples)), count)
            found = self._outputs(quantized, [samples[number] for number in numbers])
            return relative_error(found, [expected[number] for number in numbers])

        reached, whole = math.inf, model
        for sums in SUMS if _has_sums(model) else SUMS[:1]:
            quantized = _quantized(model, calibrating, sums)
            for margin in MARGINS:
                widened = _widened(quantized, margin)
                now = error(widened)
                if now < reached:
                    reached, whole = now, widened
                if reached <= self.bound:
                    return whole
        work = {name: count / total for name, count in counts.items()}
        names = list(work)
        count = GROUPS_OF_LARGE if total > LARGE else GROUPS
        groups = [list(group) for group in np.array_split(names, count) if len(group)]
        # What each group does alone.
        alone = [
            error(_with_floating(whole, model, [name for name in names if name not in group]), FEW_SAMPLES)
            for group in groups
        ]
        floating: list[str] = []
        best = whole
        for number in sorted(range(len(groups)), key=lambda number: -alone[number]):
            if sum(work[name] for name in floating + groups[number]) > MOST_FLOATING:
                continue
            floating += groups[number]
            partly = _with_floating(whole, model, floating)
            now = error(partly)
            if now < reached:
                reached, best = now, partly
            if reached <= self.bound:
                break
        return best

    def _outputs(self, model: openvino.Model, samples: Sequence[Mapping[str, np.ndarray]]) -> list[np.ndarray]:
        # In float32 whatever the processor likes best: what is measured is int8 alone.
        with signal_stack_kept():
            compiled = openvino.Core().compile_model(model, "CPU", {"INFERENCE_PRECISION_HINT": "f32"})
        return [compiled(sample)[self.output].copy() for sample in samples]


def _evenly(items: Sequence[Any], most: int) -> list[Any]:
    """So many of them at most, evenly spread."""
    count = min(len(items), most)
    return [items[number * len(items) // count] for number in range(count)]


def _quantized(model: openvino.Model, samples: Sequence[Any], sums: nncf.ModelType | None) -> openvino.Model:
    """A copy whose convolutions are computed in int8; `sums` is one of `SUMS`."""
    logger = logging.getLogger("nncf")
    level = logger.level
    logger.setLevel(logging.ERROR)
    try:
        # NNCF writes bars of its own to the terminal.
        quiet = contextlib.redirect_stdout(io.StringIO()), contextlib.redirect_stderr(io.StringIO())
        with quiet[0], quiet[1], signal_stack_kept():
            return nncf.quantize(
                model.clone(),
                nncf.Dataset(samples),
                model_type=sums,
                preset=nncf.QuantizationPreset.PERFORMANCE,
                subset_size=len(samples),
                ignored_scope=nncf.IgnoredScope(types=["MatMul"], validate=False),
                advanced_parameters=nncf.AdvancedQuantizationParameters(
                    activations_range_estimator_params=RangeEstimatorParametersSet.MINMAX,
                    disable_bias_correction=True,
                    smooth_quant_alphas=nncf.AdvancedSmoothQuantParameters(convolution=-1, matmul=-1),
                ),
            )
    finally:
        logger.setLevel(level)


def _has_sums(model: openvino.Model) -> bool:
    """Whether it adds two maps."""
    kinds = (
        [value.get_node().get_type_name() for value in op.input_values()]
        for op in model.get_ops()
        if op.get_type_name() == "Add"
    )
    return any("Constant" not in both for both in kinds)


def _widened(quantized: openvino.Model, margin: float) -> openvino.Model:
    """A copy whose activations are rounded in ranges so many times as wide."""
    copy = quantized.clone()
    for op in copy.get_ops():
        if op.get_type_name() == "FakeQuantize":
            for port in op.inputs()[1:]:
                limit = port.get_source_output().get_node().get_data()
                port.replace_source_output(opset13.constant(limit * np.float32(margin)).output(0))
    return copy


def _with_floating(quantized: openvino.Model, model: openvino.Model, names: Collection[str]) -> openvino.Model:
    """A copy of a quantised network that computes the convolutions of these names as `model` does.

    Quantising anew without them would take as long as the first time, for each try. What others read rounded too stays
    so where they read it through the same pooling, for example.
    """
    copy = quantized.clone()
    exact = {op.get_friendly_name(): op for op in model.get_ops()}
    for op in copy.get_ops():
        if (name := op.get_friendly_name()) in names:
            weights = exact[name].input_value(1).get_node().get_data()
            op.input(1).replace_source_output(opset13.constant(weights).output(0))
    for op in copy.get_ops():
        if op.get_type_name() == "FakeQuantize":
            for port in op.output(0).get_target_inputs():
                if not _is_read_in_int8(port.get_node(), names):
                    port.replace_source_output(op.input_value(0))
    copy.validate_nodes_and_infer_types()
    return copy


def _is_read_in_int8(op: openvino.Node, floating: Collection[str]) -> bool:
    """Whether an operation, or one after it, is a convolution that needs rounded numbers."""
    if op.get_type_name() in CONVOLUTIONS:
        return op.get_friendly_name() not in floating
    if op.get_type_name() == "FakeQuantize":
        return False
    return any(_is_read_in_int8(port.get_node(), floating) for out in op.outputs() for port in out.get_target_inputs())


def _multiplications(model: openvino.Model, sample: Mapping[str, np.ndarray]) -> dict[str, int]:
    """Those of each convolution, for a sample."""
    shaped = model.clone()
    shaped.reshape({name: list(values.shape) for name, values in sample.items()})
    counts = {}
    for op in shaped.get_ordered_ops():
        if op.get_type_name() in CONVOLUTIONS:
            weights = op.input_value(1).get_shape()[CONVOLUTIONS[op.get_type_name()] :]
            counts[op.get_friendly_name()] = math.prod(weights) * math.prod(op.output(0).get_shape())
    return counts


def relative_error(found: Sequence[np.ndarray], expected: Sequence[np.ndarray]) -> float:
    """Norm of all differences over the norm of all that was expected."""
    gap = sum(float(np.square(a - b, dtype=np.float64).sum()) for a, b in zip(found, expected, strict=True))
    return (gap / sum(float(np.square(b, dtype=np.float64).sum()) for b in expected)) ** 0.5


__all__ = ["CarefulQuantizer"]
