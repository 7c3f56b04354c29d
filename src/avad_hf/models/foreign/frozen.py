"""What foreign encoders of pictures and of sound share: weights, precision, recipes, trial runs."""

import copy
import inspect
import json
from abc import abstractmethod
from dataclasses import dataclass
from itertools import chain
from typing import Any, NoReturn

import torch
from torch import Tensor, nn
from transformers import PreTrainedConfig, PreTrainedModel

from avad_hf.hub.folders import weights_hash
from avad_hf.models.checkpoints import weights_state
from avad_hf.models.encoder import HUB_ID, Encoder
from avad_hf.models.precision import choose_dtype, describe

# Settings of a config that change no feature: who wrote it, and names.
NOISE = ("_name_or_path", "architectures", "dtype", "id2label", "label2id", "problem_type", "transformers_version")


class NoStates(TypeError):
    """A network gives nothing that could serve as features."""


class ForeignEncoder(Encoder):
    """A network of transformers as a frozen encoder.

    Args:
        network: The bare network.
        name: What errors call it.
    """

    def __init__(self, network: PreTrainedModel, name: str):
        super().__init__(network)
        self._name = name
        # A copy in another precision, and the state of the weights that it was made from.
        self._form: tuple[tuple, nn.Module] | None = None
        arguments = inspect.signature(self._called(network).forward).parameters
        # V-JEPA 2 would predict masked patches as well, which costs time and gives nothing here.
        self._options = {"skip_predictor": True} if "skip_predictor" in arguments else {}

    def __getstate__(self) -> dict[str, Any]:
        return self.__dict__ | {"_form": None, "network": Packed.of(self.network)}

    def __setstate__(self, state: dict[str, Any]) -> None:
        self.__dict__.update(state | {"network": state["network"].unpacked()})

    @property
    def computing(self) -> nn.Module:
        """The network, or its copy in the precision that was asked for, made anew after its weights have changed."""
        dtype = self.dtype
        if dtype == self.network.dtype:
            return self._called(self.network)
        state = (dtype, weights_state(self.network))
        if self._form is None or self._form[0] != state:
            self._form = None  # frees the old copy first
            self._form = state, copy.deepcopy(self.network).to(dtype)
        return self._called(self._form[1])

    def _called(self, network: PreTrainedModel) -> PreTrainedModel:
        """The part that is called: the encoder, where the network also has a decoder (Whisper)."""
        return network.get_encoder() if getattr(network.config, "is_encoder_decoder", False) else network

    def encode(self, batch: Tensor, starts: Any = None) -> Tensor:
        """Encode clips or windows, as `Encoder.encode` says."""
        return super().encode(batch, starts).contiguous()  # safetensors stores no other

    def outputs_of(self, batch: Tensor, starts: Any = None) -> Any:
        """Outputs of the network, as `Encoder.outputs_of` says."""
        return self.computing(**self.inputs_of(batch, starts), **self._options)

    @abstractmethod
    def read(self, outputs: Any) -> Tensor:
        """The features among the network's outputs, laid out."""

    def _try(self, inputs: dict[str, Tensor]) -> Tensor:
        """The states for some input. Only their shape counts, so they are computed without values where that works.

        Raises:
            NoStates: If the network has no such output.
        """
        try:
            # This costs next to nothing, however large the network is.
            shadow = self._called(without_values(self.network))
            outputs = shadow(**{name: value.to("meta") for name, value in inputs.items()}, **self._options)
        except Exception:  # some networks look at values, which then raises anything
            outputs = self.computing(**inputs, **self._options)
        return self._states(outputs)

    def _states(self, outputs: Any) -> Tensor:
        """The hidden states of the last layer, or the pooled ones where there is nothing else."""
        for name in ("last_hidden_state", "pooler_output"):
            if isinstance(states := getattr(outputs, name, None), Tensor):
                return states
        raise NoStates(
            f"{self.name}, a network of type '{self.network.config.model_type}', gives no last_hidden_state, so it "
            "cannot be used as an encoder."
        )

    @property
    def computes_in(self) -> str:
        """What computes, where, in which precision, and why, in words."""
        return describe(self._dtype or self.network.dtype, self.device)

    @property
    def notices(self) -> list[str]:
        """What a user must know about the weights, if their config has a notice."""
        notice = getattr(self.network.config, "notice", None)
        return [notice] if notice else []

    @property
    def name(self) -> str:
        """What errors call it."""
        return self._name

    def recipe(self) -> dict[str, Any]:
        """Everything that its features depend on: settings, weights, and precision."""
        chosen = choose_dtype(self._dtype, self.device) or self.network.dtype
        return {
            "config": self.facts(),
            "dtype": str(chosen).removeprefix("torch."),
            "weights_sha256": weights_hash(self.network),
        }

    def facts(self) -> dict[str, Any]:
        """Settings that differ from their defaults: a newer transformers with more settings changes nothing."""
        config = self.network.config
        try:
            defaults = without_noise(json.loads(type(config)().to_json_string()))
        except Exception:  # some configs have no defaults
            defaults = {}
        settings = without_noise(json.loads(config.to_json_string()))
        return {
            name: value
            for name, value in settings.items()
            if name == "model_type" or name not in defaults or defaults[name] != value
        }

    def traceable(self) -> NoReturn:
        """Refuse: exported forms have not been tried with networks in general."""
        raise ValueError(
            f"{self.name}, a network of type '{self.network.config.model_type}', cannot be exported: only encoders of "
            "this library can. Use the checkpoint as it is."
        )

    @property
    def class_names(self) -> tuple[str, ...]:
        """Names of the classes that it was trained on; empty where they have only numbers."""
        labels = getattr(self.network.config, "id2label", None) or {}
        names = [name for _, name in sorted(labels.items())]
        return () if all(name == f"LABEL_{number}" for number, name in enumerate(names)) else tuple(names)


def without_noise(settings: dict[str, Any]) -> dict[str, Any]:
    """A config's settings, and those of the configs in it, without `NOISE`."""
    return {
        name: without_noise(value) if isinstance(value, dict) else value
        for name, value in settings.items()
        if name not in NOISE
    }


@dataclass(frozen=True)
class Packed:
    """A network in pieces, for copies and pickles: torch cannot pickle weight norms (Wav2Vec2 and its kin)."""

    kind: type[PreTrainedModel]
    config: PreTrainedConfig
    tensors: dict[str, Tensor]
    hub_id: str | None

    @classmethod
    def of(cls, network: PreTrainedModel) -> "Packed":
        """Take a network to pieces."""
        tensors = dict(chain(network.named_parameters(), network.named_buffers()))
        return cls(type(network), network.config, tensors, getattr(network, HUB_ID, None))

    def unpacked(self) -> PreTrainedModel:
        """Put it together again, frozen and in evaluation mode."""
        with torch.device("meta"):  # draws no random weights
            network = self.kind(self.config)
        for name, tensor in self.tensors.items():
            owner, _, last = name.rpartition(".")
            module = network.get_submodule(owner)
            (module._parameters if last in module._parameters else module._buffers)[last] = tensor
        if self.hub_id is not None:
            setattr(network, HUB_ID, self.hub_id)
        return network.requires_grad_(False).eval()


def without_values(network: PreTrainedModel) -> PreTrainedModel:
    """A copy of a network without the values of its weights, which computes shapes."""
    tensors = chain(network.parameters(), network.buffers())
    return copy.deepcopy(network, {id(tensor): tensor.detach().to("meta") for tensor in tensors})


__all__ = ["ForeignEncoder", "NoStates", "Packed", "without_values"]
