"""int8 by NNCF that measures what it does, and leaves in floating point what would cost too much."""

import contextlib
import io
import logging
import math
from collections.abc import Mapping, Sequence
from typing import Any

import nncf
import numpy as np
import openvino
from nncf.quantization.range_estimator import RangeEstimatorParametersSet
from transformers.exporters import ExportQuantizer
from transformers.exporters.configs import ExportFormat

from avad_hf.models.signal_stack import signal_stack_kept

# Groups of neighbouring convolutions that are left in floating point together, and how much of all convolutions' work
# at most: more would give away what int8 is for. Large networks, of which a try takes many seconds, have fewer groups.
GROUPS, GROUPS_OF_LARGE, MOST_FLOATING = 40, 10, 0.35
LARGE = 10e9  # multiplications of a sample
# Samples that the error of the whole is measured on, and that of a single group.
MOST_SAMPLES, FEW_SAMPLES = 12, 4


class CarefulQuantizer(ExportQuantizer):
    """Quantises the convolutions of a network; linear layers, which are little work, stay in floating point.

    Where the error of the output is above a bound, the groups of convolutions that bring most of it stay in floating
    point too. Measured on the demonstration model's encoders, NNCF's own settings gave errors of 0.15 of what is seen
    and 0.48 of what is heard; the whole range of activations in place of a mean over clips 0.10 and 0.10; linear
    layers in floating point 0.01 for sound; no bias correction 0.03 for what is seen.

    Args:
        samples: Inputs to calibrate on.
        output: Name of the output that is compared.
        bound: Relative error of that output, on these samples, up to which all convolutions are quantised.
    """

    supported_formats = (ExportFormat.OPENVINO,)
    required_packages = ("nncf", "openvino")

    def __init__(self, samples: Sequence[Mapping[str, Any]], output: str, bound: float):
        super().__init__([{name: value.numpy() for name, value in sample.items()} for sample in samples])
        self.output, self.bound = output, bound

    def quantize(self, model: openvino.Model, sample_inputs: Any, export_format: ExportFormat) -> openvino.Model:
        """Quantise a converted network; `sample_inputs` are not looked at."""
        every = self.calibration_dataset
        few = every[:: max(1, len(every) // FEW_SAMPLES)][:FEW_SAMPLES]
        expected, expected_of_few = self._outputs(model, every[:MOST_SAMPLES]), self._outputs(model, few)

        def error(floating: Sequence[str], samples: Sequence[Any]) -> tuple[float, openvino.Model]:
            quantized = _quantized(model, floating, samples)
            whole = samples is every
            found = self._outputs(quantized, every[:MOST_SAMPLES] if whole else few)
            return relative_error(found, expected if whole else expected_of_few), quantized

        reached, best = error([], every)
        if reached <= self.bound:
            return best
        counts = _multiplications(model, every[0])
        total = sum(counts.values())
        work = {name: count / total for name, count in counts.items()}
        names = list(work)
        count = GROUPS_OF_LARGE if total > LARGE else GROUPS
        groups = [list(group) for group in np.array_split(names, count) if len(group)]
        # What each group does alone.
        alone = [error([name for name in names if name not in group], few)[0] for group in groups]
        floating: list[str] = []
        for number in sorted(range(len(groups)), key=lambda number: -alone[number]):
            if sum(work[name] for name in floating + groups[number]) > MOST_FLOATING:
                continue
            floating += groups[number]
            now, quantized = error(floating, every)
            if now < reached:
                reached, best = now, quantized
            if reached <= self.bound:
                break
        return best

    def _outputs(self, model: openvino.Model, samples: Sequence[Mapping[str, np.ndarray]]) -> list[np.ndarray]:
        # In float32 whatever the processor likes best: what is measured is int8 alone.
        with signal_stack_kept():
            compiled = openvino.Core().compile_model(model, "CPU", {"INFERENCE_PRECISION_HINT": "f32"})
        return [compiled(sample)[self.output].copy() for sample in samples]


def _quantized(model: openvino.Model, floating: Sequence[str], samples: Sequence[Any]) -> openvino.Model:
    """A copy whose convolutions, but for some, are computed in int8."""
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
                # Which leaves the sums of residual blocks as they are.
                model_type=nncf.ModelType.TRANSFORMER,
                preset=nncf.QuantizationPreset.PERFORMANCE,
                subset_size=len(samples),
                ignored_scope=nncf.IgnoredScope(types=["MatMul"], names=list(floating), validate=False),
                advanced_parameters=nncf.AdvancedQuantizationParameters(
                    activations_range_estimator_params=RangeEstimatorParametersSet.MINMAX,
                    disable_bias_correction=True,
                    smooth_quant_alphas=nncf.AdvancedSmoothQuantParameters(convolution=-1, matmul=-1),
                ),
            )
    finally:
        logger.setLevel(level)


def _multiplications(model: openvino.Model, sample: Mapping[str, np.ndarray]) -> dict[str, int]:
    """Those of each convolution, for a sample."""
    shaped = model.clone()
    shaped.reshape({name: list(values.shape) for name, values in sample.items()})
    counts = {}
    for op in shaped.get_ordered_ops():
        # Weights of a convolution are of shape (out, in, ...), those of one in groups (groups, out, in, ...).
        inner = {"Convolution": 1, "GroupConvolution": 2}.get(op.get_type_name())
        if inner is not None:
            weights = op.input_value(1).get_shape()[inner:]
            counts[op.get_friendly_name()] = math.prod(weights) * math.prod(op.output(0).get_shape())
    return counts


def relative_error(found: Sequence[np.ndarray], expected: Sequence[np.ndarray]) -> float:
    """Norm of all differences over the norm of all that was expected."""
    gap = sum(float(np.square(a - b, dtype=np.float64).sum()) for a, b in zip(found, expected, strict=True))
    return (gap / sum(float(np.square(b, dtype=np.float64).sum()) for b in expected)) ** 0.5


__all__ = ["CarefulQuantizer"]
