"""Log-mel spectrograms as the networks of AudioSet's authors were trained on them, and encoders that read these."""

import math
from collections.abc import Sequence
from typing import Any, ClassVar

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn
from transformers import BatchFeature, PreTrainedModel, SequenceFeatureExtractor

from avad_hf.hub.push import PushedWithCard

from .encoder import Encoder, EncoderSpec
from .processing import in_tensors
from .settings import Bounds, check_arguments, refuse_parts_of_class
from .shared_windows import SharedWindows, TimeStage, shared_rows, whole_rows

# Windows of sound are encoded by so many, or twice that, and so on: matrices of other numbers of rows are multiplied
# in an order that depends on the number of threads, and a store must not. Engines prepare themselves less often, too.
WINDOWS_TOGETHER = 8
# Frames whose spectra fit into a processor's cache: the log-mel frames of windows that share none take half the time.
FRAMES_TOGETHER = 512


def mel_filters(num_bins: int, num_frequencies: int, sampling_rate: int, low_hz: float, high_hz: float) -> Tensor:
    """Triangles that are linear in the mel domain, with peak 1 and no weight on 0 Hz.

    torchaudio and librosa draw them linear in Hz instead, which gives other numbers.

    Returns:
        `torch.Tensor` of shape `(num_frequencies, num_bins)`, float64.
    """

    def to_mel(hz):
        return 1127.0 * torch.log1p(hz / 700.0)

    edges_hz = torch.tensor([low_hz, high_hz], dtype=torch.float64)
    low, high = to_mel(edges_hz).tolist()
    edges = torch.linspace(low, high, num_bins + 2, dtype=torch.float64)
    mel = to_mel(torch.linspace(0.0, sampling_rate / 2, num_frequencies, dtype=torch.float64)).unsqueeze(1)
    rising = (mel - edges[:-2]) / (edges[1:-1] - edges[:-2])
    falling = (edges[2:] - mel) / (edges[2:] - edges[1:-1])
    weights = torch.minimum(rising, falling).clamp_min(0.0)
    weights[0] = 0.0
    return weights


class LogMelFeatureExtractor(PushedWithCard, SequenceFeatureExtractor):
    r"""Turns mono waveforms at 16 kHz into log-mel frames.

    A frame is 25 ms long and a new one begins every 10 ms; nothing is padded or centred, so that one second gives 98
    frames, of which the first 96 make an example.

    Args:
        feature_size: Mel bands.
        sampling_rate: Samples a second, in Hz.
        padding_value: What fills the shorter spectrograms of a batch; by default the log-mel value of silence.
        window_length: Samples of a frame.
        hop_length: Samples from one frame to the next.
        fft_length: Samples of the Fourier transform; a frame is padded with zeros at its end.
        low_hz: Lower edge of the lowest band, in Hz.
        high_hz: Upper edge of the highest band, in Hz.

    Attributes:
        log_offset: The natural logarithm is that of the mel band plus this: silence is its logarithm everywhere.
    """

    log_offset: ClassVar[float]
    model_input_names = ("input_features", "audio_frame_mask")
    bounds: ClassVar[Bounds] = {
        "feature_size": (1, 1024),
        "sampling_rate": (1000, 384000),
        "padding_value": (-1e6, 1e6),
        "window_length": (1, 65536),
        "hop_length": (1, 65536),
        "fft_length": (2, 65536),
        "low_hz": (0, 192000),
        "high_hz": (0, 192000),
    }

    def __init__(
        self,
        feature_size: int = 64,
        sampling_rate: int = 16000,
        padding_value: float | None = None,
        window_length: int = 400,
        hop_length: int = 160,
        fft_length: int = 512,
        low_hz: float = 125.0,
        high_hz: float = 7500.0,
        **kwargs,
    ):
        refuse_parts_of_class(type(self), kwargs)
        padding_value = math.log(self.log_offset) if padding_value is None else padding_value
        settings = {"feature_size": feature_size, "sampling_rate": sampling_rate, "padding_value": padding_value}
        lengths = {"window_length": window_length, "hop_length": hop_length, "fft_length": fft_length}
        check_arguments(LogMelFeatureExtractor, settings | lengths | {"low_hz": low_hz, "high_hz": high_hz})
        if window_length > fft_length:
            raise ValueError(f"fft_length must be window_length {window_length} or more, got {fft_length}.")
        if low_hz >= high_hz:
            raise ValueError(f"high_hz must be above low_hz {low_hz:g}, got {high_hz:g}.")
        super().__init__(feature_size=feature_size, sampling_rate=sampling_rate, padding_value=padding_value, **kwargs)
        self.window_length = window_length
        self.hop_length = hop_length
        self.fft_length = fft_length
        self.low_hz = low_hz
        self.high_hz = high_hz
        # Both are rebuilt on loading: transformers leaves these two names out of the JSON.
        self.window = torch.hann_window(window_length, periodic=True, dtype=torch.float64)
        self.mel_filters = mel_filters(feature_size, fft_length // 2 + 1, sampling_rate, low_hz, high_hz)

    def log_mel(self, waveforms: Tensor) -> Tensor:
        """Compute log-mel frames of waveforms of equal length, all at once.

        Float64 up to the logarithm, as the original: in float32 a pure tone is off by 5e-4.

        Args:
            waveforms (`torch.Tensor` of shape `(..., samples)`): Samples at 16 kHz within -1 and 1.

        Returns:
            `torch.Tensor` of shape `(..., frames, feature_size)`, float32, where
            ``frames = 1 + (samples - 400) // 160``, or 0 for less than 25 ms.
        """
        if waveforms.shape[-1] < self.window_length:
            return torch.empty(*waveforms.shape[:-1], 0, self.feature_size, device=waveforms.device)
        return self._log_mel_of_frames(waveforms.unfold(-1, self.window_length, self.hop_length))

    def _log_mel_of_frames(self, frames: Tensor) -> Tensor:
        """Log-mel of frames of shape `(..., window_length)`, each by itself."""
        window, filters, parts = self.window.to(frames.device), self.mel_filters.to(frames.device), []
        for part in frames.flatten(0, -2).split(FRAMES_TOGETHER):
            spectrum = torch.fft.rfft(part.double() * window, n=self.fft_length).abs()
            parts.append(torch.log(spectrum @ filters + self.log_offset).float())
        return torch.cat(parts).unflatten(0, frames.shape[:-1])

    def log_mel_of_windows(self, windows: Tensor, first_samples: Sequence[int], num_frames: int) -> Tensor:
        """Compute the log-mel frames of overlapping windows of one waveform, each frame that they share once.

        Args:
            windows (`torch.Tensor` of shape `(N, samples)`): Pieces of a waveform at 16 kHz.
            first_samples: Where each of them begins in the waveform, in samples.
            num_frames: Frames of each window, from its begin on; at most what `log_mel` gives.

        Returns:
            `torch.Tensor` of shape `(N, num_frames, feature_size)`, float32: what `log_mel` gives.
        """
        frames, numbers = self.frames_of_windows(windows, first_samples, num_frames)
        return frames[numbers]

    def frames_of_windows(
        self, windows: Tensor, first_samples: Sequence[int], num_frames: int
    ) -> tuple[Tensor, Tensor]:
        """As `log_mel_of_windows`: frames of shape `(F, feature_size)`, and which are whose, `(N, num_frames)`."""
        offsets = torch.arange(num_frames) * self.hop_length
        begins = torch.as_tensor(first_samples).unsqueeze(1) + offsets
        unique, frame_index = begins.unique(return_inverse=True)
        # Any of the windows that hold a frame will do.
        holder = torch.empty(len(unique), dtype=torch.long)
        holder[frame_index.flatten()] = torch.arange(begins.numel())
        framed = windows.unfold(-1, self.window_length, self.hop_length)[:, :num_frames]
        return self._log_mel_of_frames(framed[holder // num_frames, holder % num_frames]), frame_index

    def examples(self, log_mel: Tensor, num_frames: int = 96) -> Tensor:
        """Cut log-mel frames into examples that do not overlap; an incomplete one at the end is dropped.

        Args:
            log_mel (`torch.Tensor` of shape `(..., frames, feature_size)`): Output of `log_mel`.
            num_frames: Frames of an example.

        Returns:
            `torch.Tensor` of shape `(..., frames // num_frames, num_frames, feature_size)`.
        """
        count = log_mel.shape[-2] // num_frames
        return log_mel[..., : count * num_frames, :].unflatten(-2, (count, num_frames))

    def __call__(
        self,
        audio: Tensor | np.ndarray | list | None = None,
        sampling_rate: int | None = None,
        return_tensors: str | None = "pt",
        waveform: Tensor | np.ndarray | list | None = None,
    ) -> BatchFeature:
        """Compute the log-mel spectrograms of one waveform or of several, which may differ in length.

        Args:
            audio: Mono samples within -1 and 1: an array of shape `(samples,)` or `(N, samples)`, or a list of N
                arrays of shape `(samples,)`.
            sampling_rate: Samples a second of the waveforms, in Hz. Must be the extractor's own.
            return_tensors: ``"pt"`` or ``"np"``.
            waveform: An older name of `audio`.

        Returns:
            [`BatchFeature`] with ``input_features`` of shape `(N, frames, 64)`, the shorter ones padded, and
            ``audio_frame_mask`` of shape `(N, frames)`, true where frames are real.

        Raises:
            ValueError: For another sampling rate, several channels, integers, values that are not finite, or nothing.
        """
        if (audio is None) == (waveform is None):
            raise ValueError("Give the waveform as audio, once.")
        waveform = audio if waveform is None else waveform
        if sampling_rate is not None and sampling_rate != self.sampling_rate:
            raise ValueError(
                f"This feature extractor needs sound at {self.sampling_rate} Hz, got sampling_rate={sampling_rate}. "
                f"Resample it first: avad_hf.media.audio.resample(waveform, {sampling_rate}, {self.sampling_rate})."
            )
        if len(waveform) == 0:
            raise ValueError("No waveform was given: an empty list or array.")
        single = not isinstance(waveform, (list, tuple)) or not np.ndim(waveform[0])
        batch = [torch.as_tensor(waveform)] if single else [torch.as_tensor(item) for item in waveform]
        if single and batch[0].dim() == 2:
            batch = list(batch[0])
        for item in batch:
            if item.dim() != 1 or not item.is_floating_point():
                raise ValueError(
                    f"A waveform must be mono floating point samples of shape (samples,), got {tuple(item.shape)} of "
                    f"{item.dtype}. Average the channels, and divide 16-bit integers by 32768."
                )
            if not torch.isfinite(item).all():
                raise ValueError("A waveform holds NaN or infinite samples. Repair or silence them first.")
        spectrograms = [self.log_mel(item) for item in batch]
        lengths = torch.tensor([len(item) for item in spectrograms])
        padded = torch.nn.utils.rnn.pad_sequence(spectrograms, batch_first=True, padding_value=self.padding_value)
        mask = torch.arange(padded.shape[1]).unsqueeze(0) < lengths.unsqueeze(1)
        return in_tensors(BatchFeature({"input_features": padded, "audio_frame_mask": mask}), return_tensors)


class LogMelEncoder(Encoder):
    """An encoder of one second of sound by its log-mel spectrogram.

    Args:
        network: Takes ``input_features`` of shape `(N, frames, num_mel_bins)`; its config says `num_frames` and
            `num_mel_bins`. Or what was exported from one.
        width: Width of its embedding.

    Attributes:
        title: Name of the network for people.
        extractor: Class of the feature extractor that its weights were trained with.
        feature_extractor: Makes the log-mel spectrograms.
        time_stages: What the stages of the network read of time that windows which overlap can share; none by default.
        engines_share: Whether engines are exported in a form that shares, too.
    """

    title: ClassVar[str]
    extractor: ClassVar[type[LogMelFeatureExtractor]]
    output = "pooler_output"
    time_stages: tuple[TimeStage, ...] = ()
    engines_share: ClassVar[bool] = False

    def __init__(self, network: PreTrainedModel, width: int):
        super().__init__(network)
        self.feature_extractor = self.extractor()
        self.spec = EncoderSpec(
            reads="waveform",
            gives="vector",
            width=width,
            window_s=1.0,  # AVACA IV-C; one second makes 98 log-mel frames
            sampling_rate=self.feature_extractor.sampling_rate,
            classes=network.config.class_names,
        )

    def configure(self, **settings: Any) -> "LogMelEncoder":
        """Set ``feature_extractor``, as `Encoder.configure` says."""
        new_extractor = settings.get("feature_extractor")
        if new_extractor is not None and not isinstance(new_extractor, self.extractor):
            raise TypeError(
                f"{self.title} needs a {self.extractor.__name__}, got a {type(new_extractor).__name__}. Leave "
                "feature_extractor out, and every encoder gets its own."
            )
        super().configure(**settings)
        extractor, config = self.feature_extractor, self.network.config
        num_frames = 1 + (round(self.spec.window_s * extractor.sampling_rate) - extractor.window_length) // max(
            1, extractor.hop_length
        )
        for setting, value, fits in (
            ("feature_size", extractor.feature_size, extractor.feature_size == config.num_mel_bins),
            ("sampling_rate", extractor.sampling_rate, extractor.sampling_rate == self.spec.sampling_rate),
            ("hop_length and window_length", num_frames, num_frames >= config.num_frames),
        ):
            if not fits:
                raise ValueError(
                    f"The feature extractor's {setting} ({value}) does not fit the {self.title} network, which reads "
                    f"{config.num_frames} frames of {config.num_mel_bins} bands a second, at "
                    f"{self.spec.sampling_rate} Hz. Use the extractor that belongs to its weights."
                )
        return self

    def inputs_of(self, batch: Tensor, starts: Sequence[int] | None = None) -> dict[str, Tensor]:
        """Log-mel spectrograms of the first 0.96 s of each window: what is left, 25 ms, all public versions leave.

        Or, of windows that share much, what `compute_rows` takes.
        """
        if self._is_staged_engine:
            return self._inputs(batch, starts, self.time_stages, in_stages=True)
        is_engine = hasattr(self.network, "inputs")
        # Measured on CPUs alone; a network that learns may take statistics of whole windows.
        shares = not is_engine and self.network.device.type == "cpu" and not self._learns
        return self._inputs(batch, starts, self.time_stages if shares else (), in_stages=False)

    def traced_inputs_of(self, batch: Tensor, starts: Sequence[int] | None = None) -> dict[str, Tensor]:
        """What `traceable` is called with; arguments as of `encode`."""
        return self._inputs(batch, starts, self.time_stages if self.engines_share else (), self.engines_share)

    def _inputs(
        self, batch: Tensor, starts: Sequence[int] | None, stages: tuple[TimeStage, ...], in_stages: bool
    ) -> dict[str, Tensor]:
        """Inputs in the form of `stages`, where windows share enough; with `in_stages` in any case."""
        num_frames = self.network.config.num_frames
        if starts is None:
            frames = self.feature_extractor.log_mel(batch)[:, :num_frames].flatten(0, 1)
            numbers = torch.arange(len(frames)).view(-1, num_frames)
        else:
            frames, numbers = self.feature_extractor.frames_of_windows(batch, starts, num_frames)
        table = F.pad(frames, (0, 0, 1, 0)).to(self.computing.dtype)  # the first row is of zeros
        numbers, missing = numbers + 1, (0, 0, 0, -len(batch) % WINDOWS_TOGETHER)
        plan = shared_rows(numbers, stages) if stages and starts is not None else None
        if plan is not None:
            plan = (*plan[:-1], F.pad(plan[-1], missing))
        elif in_stages:
            plan = whole_rows(F.pad(numbers, missing), stages)
        else:
            return {"input_features": table[F.pad(numbers, missing)].to(self.network.device)}
        return {"input_features": table[plan[0]]} | {f"rows_{n}": rows for n, rows in enumerate(plan[1:], 1)}

    @property
    def _is_staged_engine(self) -> bool:
        """Whether an engine was exported in a form that shares."""
        return "rows_1" in getattr(self.network, "inputs", ())

    def outputs_of(self, batch: Tensor, starts: Sequence[int] | None = None) -> Any:
        """Outputs of the network; arguments as of `encode`."""
        inputs, computing = self.inputs_of(batch, starts), self.computing
        if len(inputs) == 1 or self._is_staged_engine:
            return computing(**inputs)
        blocks, *rows = inputs.values()
        return computing(blocks, rows=rows)

    @property
    def varying(self) -> tuple[int, ...]:
        """Numbers of the dimensions of its inputs that may vary where it is exported."""
        return (0, 1) if self.engines_share else (0,)

    def traceable(self) -> nn.Module:
        """The network in float32 as it is exported; it takes what `traced_inputs_of` gives."""
        network = super().traceable()
        return SharedWindows(network).eval() if self.engines_share else network


__all__ = ["LogMelEncoder", "LogMelFeatureExtractor", "mel_filters"]
