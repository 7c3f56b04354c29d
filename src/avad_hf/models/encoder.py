"""The contract of every frozen encoder: this library's own, those of transformers, and exported engines.

An encoder is called with 8-bit pixels or a waveform, and gives numbers in float32. How it normalises, where and in
which precision it computes, what its weights are and what it is called are its own business. A config of this library
makes the encoder of its network (`as_encoder`); networks of others go through `avad_hf.models.foreign`.
"""

import math
import os
from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import torch
from huggingface_hub import hf_hub_download
from torch import Tensor, nn
from transformers import AutoConfig, AutoModel, PreTrainedModel
from transformers.utils import CONFIG_NAME

from avad_hf.hub.contents import check_checkpoint
from avad_hf.hub.errors import HubError, hub_errors

from .checkpoints import CheckpointModel
from .precision import choose_dtype

# Attribute of a network that says which repository of the Hub, at which commit, it came from.
HUB_ID = "hub_id"


@dataclass(frozen=True)
class EncoderSpec:
    """What an encoder reads and gives.

    Args:
        reads: ``"pixels"`` of a clip, or ``"waveform"`` of a window of sound.
        gives: ``"map"``, rows and columns of vectors; ``"tokens"``, vectors over time; or ``"vector"``, one.
        width: Length of each vector.
        num_frames: Frames of a clip.
        frame_step: Frames of a video from one frame of a clip to the next, as the weights were trained.
        size: Short side of the frames, in pixels, which keeps the proportion; or their height and width, for networks
            that take no other.
        grid: Rows and columns to which maps are averaged unless something else is asked for.
        window_s: Length of a window of sound, in seconds.
        sampling_rate: Samples a second of the sound, in Hz.
        classes: Names of what its classifier was trained on; empty where nobody has named them.
    """

    reads: Literal["pixels", "waveform"]
    gives: Literal["map", "tokens", "vector"]
    width: int
    num_frames: int = 1
    frame_step: int = 1
    size: int | tuple[int, int] = 256
    grid: tuple[int, int] = (1, 1)
    window_s: float = 1.0
    sampling_rate: int = 16000
    classes: tuple[str, ...] = ()


class Encoder(ABC):
    """A frozen network, as processors call it.

    Args:
        network: With trained weights, or an exported one. Its weights get no gradients.

    Attributes:
        spec: What it reads and gives.
        output: Name of the network's output that counts.
        class_output: Name of the output with the scores of its classes, `EncoderSpec.classes`; ``None`` where its
            checkpoint has no classifier.
        int8_bound: Relative error of that output that int8 may bring, found on the demonstration model; 0 for a
            network that stays in floating point then.
        varying: Numbers of the dimensions of its inputs that may vary where it is exported.
    """

    spec: EncoderSpec
    output: str
    class_output: str | None = None
    int8_bound: float = 0.02
    varying: tuple[int, ...] = (0,)

    def __init__(self, network: PreTrainedModel):
        self.network = network.requires_grad_(False).eval()
        self._dtype: torch.dtype | str | None = None
        self._learns = False

    def unfrozen(self) -> "Encoder":
        """Let the weights learn: from now on the network itself computes, with gradients."""
        self._learns = True
        self.network.requires_grad_(True)
        return self

    @abstractmethod
    def inputs_of(self, batch: Tensor, starts: Sequence[int] | None = None) -> dict[str, Tensor]:
        """What the network is called with; arguments as of `encode`."""

    def traced_inputs_of(self, batch: Tensor, starts: Sequence[int] | None = None) -> dict[str, Tensor]:
        """What `traceable` is called with; arguments as of `encode`."""
        return self.inputs_of(batch, starts)

    def encode(self, batch: Tensor, starts: Sequence[int] | None = None) -> Tensor:
        """Encode clips or windows.

        Args:
            batch: Pixels of shape `(N, num_frames, 3, H, W)` from 0 to 255, or a waveform of shape `(N, samples)`
                within -1 and 1.
            starts: Where windows of one waveform begin, in samples: what they share is computed once.

        Returns:
            Float32: ``"map"`` of shape `(N, width, h, w)`, ``"tokens"`` of shape `(N, T, width)` in their order,
            ``"vector"`` of shape `(N, width)`.
        """
        return self.read(self.outputs_of(batch, starts))[: len(batch)].float()

    def encode_and_name(self, batch: Tensor, starts: Sequence[int] | None = None) -> tuple[Tensor, Tensor | None]:
        """As `encode`, and the probabilities of its classes, of shape `(N, len(spec.classes))`, by one pass.

        They are ``None`` where its checkpoint has no classifier.
        """
        outputs = self.outputs_of(batch, starts)
        probabilities = None if self.class_output is None else self.probabilities(outputs)[: len(batch)]
        return self.read(outputs)[: len(batch)].float(), probabilities

    def name_features(self, features: Tensor) -> Tensor | None:
        """Probabilities of its classes, of shape `(N, len(spec.classes))`, from features that were stored.

        Args:
            features: What `encode` gives, of shape `(N, width)` each: a map or a window averaged over its places.

        Returns:
            ``None`` where it has no classifier, or one that needs more than that.
        """
        return None

    def outputs_of(self, batch: Tensor, starts: Sequence[int] | None = None) -> Any:
        """Outputs of the network; arguments as of `encode`."""
        return self.computing(**self.inputs_of(batch, starts))

    def read(self, outputs: Any) -> Tensor:
        """Features among the network's outputs."""
        return outputs[self.output]

    def probabilities(self, outputs: Any) -> Tensor:
        """Probabilities of its classes, of which one is true, in float32."""
        return outputs[self.class_output].float().softmax(dim=-1)

    def configure(self, **settings: Any) -> "Encoder":
        """Replace its own normalisation by a processor's; what is ``None``, or not its own, is left.

        Args:
            settings: ``image_mean`` and ``image_std``, or ``feature_extractor``.

        Raises:
            ValueError: For what pixels cannot be normalised by.
            TypeError: For a feature extractor of another kind.
        """
        for name, value in settings.items():
            if value is not None and hasattr(self, name):
                setattr(self, name, tuple(value) if isinstance(value, list) else value)
        return self

    @property
    def computing(self) -> nn.Module:
        """What computes: an engine, or the network in its fastest form, made anew after its weights have changed."""
        return self.network if self._learns else self.network.for_inference(self._dtype or self.network.dtype)

    def traceable(self) -> nn.Module:
        """The network in float32 as it is exported; it takes what `traced_inputs_of` gives."""
        return self.network.for_inference(torch.float32)

    def to(self, device: str | torch.device | None = None, dtype: torch.dtype | str | None = None) -> "Encoder":
        """Move it, and choose what it computes in; its weights stay as they are, and engines where and as they are.

        Args:
            device: Where to.
            dtype: A floating point type, or ``"auto"``, as in `avad_hf.models.precision.choose_dtype`.

        Raises:
            ValueError: For a name that is no floating point type.
        """
        self.network.to(device=device)
        if dtype is not None:
            choose_dtype(dtype, self.device)
            self._dtype = dtype
        return self

    @property
    def device(self) -> torch.device:
        """Where it computes."""
        return self.network.device

    @property
    def dtype(self) -> torch.dtype:
        """What it computes in."""
        return choose_dtype(self._dtype, self.device) or self.network.dtype

    @property
    def computes_in(self) -> str:
        """What computes, where, in which precision, and why, in words."""
        return self.network.describe_inference(self._dtype or self.network.dtype)

    @property
    def notices(self) -> list[str]:
        """What a user must know about the weights; empty for ordinary ones."""
        return [self.network.config.notice] if self.network.config.notice else []

    @property
    def name(self) -> str:
        """What errors call it."""
        return self.network.name_or_path or type(self.network).__name__

    def recipe(self) -> dict[str, Any]:
        """Everything that its features depend on: settings, weights, and precision."""
        return {"config": self.facts(), **self.network.numerics(self._dtype)}

    def facts(self) -> dict[str, Any]:
        """Settings of the network that its features depend on."""
        return self.network.config.facts()

    @property
    def hub_id(self) -> str | None:
        """``user/name@commit``, if it was loaded by a name on the Hub."""
        return getattr(self.network, HUB_ID, None)

    def save_pretrained(self, directory: str | os.PathLike) -> None:
        """Write it as a checkpoint of its own."""
        self.network.save_pretrained(directory)


class VideoEncoder(Encoder):
    """An encoder of this library that reads pixels.

    Args:
        network: A [`VideoNetwork`], or what was exported from one.

    Attributes:
        image_mean: Subtracted from pixels within 0 and 1, of all channels or of each.
        image_std: Divides them then.
    """

    output = "feature_map"
    # What the weights were trained on, where nothing else is asked for.
    image_mean: float | tuple[float, ...] = 0.45
    image_std: float | tuple[float, ...] = 0.225

    def configure(self, **settings: Any) -> "VideoEncoder":
        """Set ``image_mean`` and ``image_std``, as `Encoder.configure` says."""
        super().configure(**settings)
        check_normalisation(self.image_mean, self.image_std)
        return self

    def inputs_of(self, batch: Tensor, starts: Sequence[int] | None = None) -> dict[str, Tensor]:
        """Pixels as they are."""
        return {"pixels": batch}

    def name_features(self, features: Tensor) -> Tensor | None:
        """Probabilities of its classes, of shape `(N, len(spec.classes))`, from features that were stored.

        Args:
            features: What `encode` gives, of shape `(N, width)` each: a map or a window averaged over its places.

        Returns:
            ``None`` where it has no classifier, or one that needs more than that.
        """
        return None

    def outputs_of(self, batch: Tensor, starts: Sequence[int] | None = None) -> Any:
        """Outputs of the network, of clips."""
        return self.computing.on_pixels(batch, self.image_mean, self.image_std)

    def traceable(self) -> nn.Module:
        """The network in float32 with its normalisation."""
        return OnPixels(super().traceable(), self.image_mean, self.image_std).eval()


def check_normalisation(mean: Any, std: Any) -> None:
    """Raise ``ValueError`` for what pixels cannot be normalised by."""
    for name, value in (("image_mean", mean), ("image_std", std)):
        values = value if isinstance(value, (list, tuple)) else (value,)
        is_number = all(isinstance(item, (int, float)) and not isinstance(item, bool) for item in values)
        if len(values) not in (1, 3) or not is_number or not all(map(math.isfinite, values)):
            raise ValueError(f"{name} must be a number, or three of them, one a channel, got {value!r}.")
        if name == "image_std" and min(values) <= 0:
            raise ValueError(f"image_std divides pixels and must be above 0, got {value!r}.")


def normalise(pixels: Tensor, mean: float | Sequence[float], std: float | Sequence[float]) -> Tensor:
    """Pixels of shape `(..., 3, H, W)` from 0 to 255, as ``(x / 255 - mean) / std`` in float32."""
    shift: Any = mean
    scale: Any = std
    if isinstance(mean, (list, tuple)) or isinstance(std, (list, tuple)):
        shift, scale = (torch.as_tensor(value, device=pixels.device).expand(3).view(3, 1, 1) for value in (mean, std))
    return pixels.to(torch.float32, copy=True).div_(255.0 * scale).sub_(shift / scale)


class VideoNetwork(CheckpointModel):
    """A network that reads normalised frames, and normalises 8-bit ones where it computes."""

    def on_pixels(self, pixels: Tensor, mean: float | Sequence[float], std: float | Sequence[float]) -> Any:
        """Outputs of frames of shape `(N, num_frames, 3, H, W)` from 0 to 255: copied as bytes, a quarter as many."""
        return self(normalise(pixels, mean, std).to(self.dtype))


class OnPixels(PreTrainedModel):
    """A network and its normalisation, to be exported as one graph."""

    main_input_name = "pixels"

    def __init__(self, network: VideoNetwork, mean: float | Sequence[float], std: float | Sequence[float]):
        super().__init__(network.config)
        self.network, self.mean, self.std = network, mean, std

    def forward(self, pixels: Tensor) -> Any:
        """Outputs of the network, of frames from 0 to 255."""
        return self.network.on_pixels(pixels, self.mean, self.std)


def encoder_of(network: Any, reads: Literal["pixels", "waveform"] | None = None, **settings: Any) -> Encoder:
    """The encoder of a network: by its config, or through the adapter for networks of others.

    Args:
        network: A model, loaded, exported or new; or an [`Encoder`].
        reads: What it must read: of a foreign network with several parts the fitting one is taken.
        settings: Its normalisation: ``image_mean`` and ``image_std``, or ``feature_extractor``.

    Raises:
        TypeError: If it is no model, or one that encodes neither videos nor sound.
    """
    if isinstance(network, Encoder):
        return network
    if not isinstance(network, PreTrainedModel):
        raise TypeError(
            f"An encoder must be a model of transformers, or the folder or Hub id of one, got a "
            f"{type(network).__name__}."
        )
    settings = {name: value for name, value in settings.items() if value is not None}
    if hasattr(network.config, "as_encoder"):
        return network.config.as_encoder(network).configure(**settings)
    from .foreign.adapter import foreign_encoder  # which imports this

    return foreign_encoder(network, reads=reads, **settings)


def load_encoder(
    place: str | os.PathLike,
    reads: Literal["pixels", "waveform"],
    subfolder: str = "",
    settings: Mapping[str, Any] | None = None,
    **hub_kwargs: Any,
) -> Encoder:
    """Load an encoder from a folder or a repository of the Hub, of any architecture.

    Args:
        place: Folder or Hub id.
        reads: What it must read: of a network with several parts the fitting one is taken.
        subfolder: Where in it.
        settings: As of `encoder_of`.
        hub_kwargs: ``revision``, ``token``, ``cache_dir``, ...

    Raises:
        OSError: If it is not there.
        TypeError: If it encodes neither videos nor sound.
        ValueError: If it is damaged.
    """
    check_checkpoint(place, subfolder)
    with hub_errors(str(place), "model", "loaded"):
        config = AutoConfig.from_pretrained(place, subfolder=subfolder, trust_remote_code=False, **hub_kwargs)
    if not hasattr(config, "as_encoder"):
        from .foreign.loading import load_foreign  # which imports this

        return load_foreign(place, config, reads, subfolder, settings or {}, **hub_kwargs)
    network = AutoModel.from_pretrained(place, subfolder=subfolder, trust_remote_code=False, **hub_kwargs)
    return encoder_of(network, **settings or {})


def encoder_for(
    role: str, reads: Literal["pixels", "waveform"], encoder: Any, settings: Mapping[str, Any] | None = None
) -> Encoder:
    """The encoder of a processor's slot, from an object, a folder, or ``user/name[@revision]`` on the Hub.

    Args:
        role: Name of the slot, for errors.
        reads: What belongs there.
        encoder: An [`Encoder`], a model, or where one is.
        settings: As of `encoder_of`.

    Raises:
        TypeError: For what reads something else, or is no encoder.
    """
    settings = settings or {}
    try:
        if isinstance(encoder, (str, os.PathLike)):
            place = os.fspath(encoder)
            load = load_encoder if os.path.isdir(place) else encoder_from_hub
            encoder = load(place, reads, settings=settings)
        made = encoder_of(encoder, reads, **settings)
    except TypeError as error:
        raise TypeError(f"{role} cannot be used: {error}") from error
    if made.spec.reads != reads:
        other = "audio_encoder" if made.spec.reads == "waveform" else "video_encoder"
        raise TypeError(
            f"{role} must read {NAMES[reads]}, but {made.name}, a network of type "
            f"'{made.network.config.model_type}', reads {NAMES[made.spec.reads]}. Give it as {other}."
        )
    return made.configure(**settings)


NAMES = {"pixels": "pictures", "waveform": "sound"}


def encoder_from_hub(
    place: str,
    reads: Literal["pixels", "waveform"],
    settings: Mapping[str, Any] | None = None,
    **hub_kwargs: Any,
) -> Encoder:
    """Load an encoder from ``user/name`` or ``user/name@revision``, and remember the commit."""
    name, _, revision = place.partition("@")
    role = "video_encoder" if reads == "pixels" else "audio_encoder"
    try:
        with hub_errors(place, "model", f"loaded as {role}"):
            # The cache keeps a commit's files in a folder of its name.
            config = Path(hf_hub_download(name, CONFIG_NAME, revision=revision or None, **hub_kwargs))
            encoder = load_encoder(name, reads, settings=settings, revision=config.parent.name, **hub_kwargs)
    except HubError as error:
        raise HubError(f"{error} To use another one: AutoProcessor.from_pretrained(..., {role}=...).") from error
    setattr(encoder.network, HUB_ID, f"{name}@{config.parent.name}")
    return encoder


__all__ = [
    "Encoder",
    "EncoderSpec",
    "OnPixels",
    "VideoEncoder",
    "VideoNetwork",
    "encoder_for",
    "encoder_from_hub",
    "encoder_of",
    "load_encoder",
    "normalise",
]
