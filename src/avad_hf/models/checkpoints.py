"""What every checkpoint of this library refuses: another model type, and weights that are not all there."""

import logging
import os
from dataclasses import fields
from typing import Any, ClassVar

import torch
from huggingface_hub.errors import StrictDataclassClassValidationError, StrictDataclassError
from safetensors import SafetensorError, safe_open
from torch import nn
from transformers import AttentionInterface, PreTrainedConfig, PreTrainedModel
from transformers.utils import SAFE_WEIGHTS_NAME, cached_file

from avad_hf.hub.contents import check_checkpoint, refuse_redirections
from avad_hf.hub.errors import hub_errors
from avad_hf.hub.folders import weights_hash
from avad_hf.hub.push import PushedWithCard

from .engine import HUB_OPTIONS, RECORD, EngineModel, find_engine
from .precision import FLOATS, choose_dtype, describe
from .settings import MOST_CLASSES, Bounds, check_numbers, check_type, refuse_parts_of_class

logger = logging.getLogger(__name__)

# What transformers says of the weights that it has loaded, where there were none to load.
NOTHING_MISSING: dict[str, list] = {"missing_keys": [], "unexpected_keys": [], "mismatched_keys": [], "error_msgs": []}
# What transformers writes or takes as settings of a config that are no fields of it.
NO_FIELDS = ("attn_implementation", "model_type", "name_or_path", "num_labels", "output_attentions", "torch_dtype")
# Settings that all configs of transformers have: `strict` does not check them, whose annotations are text there.
INHERITED: dict[str, Any] = {
    "architectures": list[str] | None,
    "chunk_size_feed_forward": int,
    "dtype": str | torch.dtype | None,
    "id2label": dict[int, str] | dict[str, str] | None,
    "is_encoder_decoder": bool,
    "label2id": dict[str, int] | dict[str, str] | None,
    "output_hidden_states": bool | None,
    "problem_type": str | None,
    "return_dict": bool | None,
    "transformers_version": str | None,
}
# Settings of transformers by which a network would not compute as its class says.
FIXED = {"is_encoder_decoder": False, "chunk_size_feed_forward": 0}
# 1 GB in float32. The largest network that is published in this library's form, VGGish, has 72 million.
MOST_PARAMETERS = 1 << 28


class CheckpointConfig(PushedWithCard, PreTrainedConfig):
    """A config that loads only checkpoints of its own ``model_type``.

    Args:
        notice: What a user must know about these weights (say, that they are untrained). Every result that is made
            with them repeats it. ``None`` for ordinary weights.
    """

    # What the Hub is told: name of the card's template in hub_cards/, a sentence, and the Hub's own kind of task.
    card: ClassVar[str] = "encoder"
    summary: ClassVar[str] = "A network of avad_hf."
    pipeline_tag: ClassVar[str] = "feature-extraction"
    # Settings that came later, and the value that stands for what was there before: recipes of stores and of trained
    # detectors name them only where they differ.
    later_settings: ClassVar[dict[str, Any]] = {}
    # Settings that change nothing that is computed of a video.
    idle_settings: ClassVar[tuple[str, ...]] = ()
    # Between which numbers settings must be, of its own and of the classes that it inherits from.
    bounds: ClassVar[Bounds] = {}

    notice: str | None = None

    def __post_init__(self, **kwargs):
        self._check_inherited(kwargs)
        kwargs = {name: value for name, value in kwargs.items() if name != "num_labels" or value is not None}
        super().__post_init__(**kwargs)
        # Before anything is computed of them, by the validators of a class for one.
        bounds: dict[str, tuple[float, float]] = {}
        for config_class in reversed(type(self).__mro__):
            bounds |= vars(config_class).get("bounds", {})
        try:
            for item in fields(self):
                check_numbers(item.name, getattr(self, item.name), bounds)
        except ValueError as error:  # as of the validators
            raise StrictDataclassClassValidationError("bounds", cause=error) from error

    def _check_inherited(self, kwargs: dict[str, Any]) -> None:
        """Raise ``ValueError`` for settings of all configs of transformers, or others, that no network can have."""
        refuse_redirections(type(self).__name__, kwargs)
        refuse_parts_of_class(type(self), kwargs, NO_FIELDS)
        for name, hint in INHERITED.items():
            check_type(name, getattr(self, name), hint)
        forms = ("eager", *AttentionInterface().valid_keys())
        if (attention := kwargs.get("attn_implementation")) is not None and attention not in forms:
            raise ValueError(f"attn_implementation must be one of {', '.join(forms)}, got {attention!r}.")
        self._check_classes(kwargs.get("num_labels"))
        for name, value in FIXED.items():
            if getattr(self, name) not in (None, value):
                raise ValueError(f"{name} must be {value}, got {getattr(self, name)!r}.")
        for dtype in (self.dtype, kwargs.get("torch_dtype")):
            if isinstance(dtype, str) and getattr(torch, dtype, None) not in FLOATS:
                raise ValueError(f"dtype must be a floating point type such as 'float32', got {dtype!r}.")

    def _check_classes(self, num_labels: Any) -> None:
        """Raise ``ValueError`` for class numbers and names that no classifier can have."""
        is_count = isinstance(num_labels, int) and not isinstance(num_labels, bool)
        if num_labels is not None and not (is_count and 1 <= num_labels <= MOST_CLASSES):
            raise ValueError(f"num_labels must be a whole number within 1 and {MOST_CLASSES}, got {num_labels!r}.")
        if self.id2label is not None:
            if not 1 <= len(self.id2label) <= MOST_CLASSES:
                raise ValueError(f"id2label must have 1 to {MOST_CLASSES} classes, got {len(self.id2label)}.")
            for number, name in self.id2label.items():
                if not str(number).isdecimal():
                    raise ValueError(f"id2label must give class numbers their names, got {number!r}: {name!r}.")
        for name, number in (self.label2id or {}).items():
            if not str(number).isdecimal():
                raise ValueError(f"label2id must give class names their numbers, got {name!r}: {number!r}.")

    def facts(self) -> dict[str, Any]:
        """Its own settings, without what transformers adds: what features depend on."""
        settings = {item.name: getattr(self, item.name) for item in fields(self)}
        return {
            name: settings[name]
            for name in type(self).__annotations__
            if name in settings and name not in self.idle_settings and not self._is_as_before(name, settings[name])
        }

    def _is_as_before(self, name: str, value: Any) -> bool:
        return name in self.later_settings and value == self.later_settings[name]

    @property
    def class_names(self) -> tuple[str, ...]:
        """Names of its classes in their order; empty where they have only numbers."""
        names = [name for _, name in sorted((self.id2label or {}).items())]
        return () if all(name == f"LABEL_{number}" for number, name in enumerate(names)) else tuple(names)

    def describe(self) -> dict[str, str]:
        """What a card says of the architecture, by the names of the card's template."""
        return {}

    def to_dict(self) -> dict[str, Any]:
        """All settings; without the folders of this machine that parts were loaded from."""
        settings = super().to_dict()
        for name in self.sub_configs:
            if isinstance(part := settings.get(name), dict):
                part.pop("_name_or_path", None)
        return settings

    @classmethod
    def from_dict(cls, config_dict: dict[str, Any], **kwargs):
        """Build the config from its JSON; raises ``ValueError`` for the JSON of another model type."""
        if config_dict.get("return_dict") is False:  # what is asked of a call is no part of a checkpoint
            raise ValueError("return_dict must be True in a checkpoint, got False. Give it where the model is called.")
        model_type = config_dict.get("model_type")
        if model_type is not None and model_type != cls.model_type:
            raise ValueError(
                f"This checkpoint holds a model of type '{model_type}', but {cls.__name__} reads only "
                f"'{cls.model_type}'. Give a '{cls.model_type}' checkpoint, or load this one with the classes of "
                f"'{model_type}'."
            )
        try:
            return super().from_dict(config_dict, **kwargs)
        except StrictDataclassError as error:  # which is no ValueError
            raise ValueError(f"The config of this '{cls.model_type}' checkpoint is not valid: {error}") from error


def _refuse_whole_numbers(model: PreTrainedModel, checkpoint: str | os.PathLike, options: dict[str, Any]) -> None:
    """Raise ``ValueError`` for whole numbers in place of weights: packed ones, taken as they are by transformers."""
    options = {name: options[name] for name in HUB_OPTIONS if options.get(name) is not None}
    options["local_files_only"] = True
    path = cached_file(checkpoint, SAFE_WEIGHTS_NAME, **options, _raise_exceptions_for_missing_entries=False)
    if path is None:  # in several files, as no network of this library is written
        return
    expected, prefix = model.state_dict(), f"{model.base_model_prefix}."
    with safe_open(path, "pt") as file:
        for name in file.keys():  # noqa: SIM118
            names = (name, f"{prefix}{name}", name.removeprefix(prefix))
            tensor = next((expected[full_name] for full_name in names if full_name in expected), None)
            stored_dtype = file.get_slice(name).get_dtype()
            if tensor is not None and tensor.is_floating_point() and not stored_dtype.startswith(("F", "BF")):
                raise ValueError(
                    f"{checkpoint}: {name} is of type {stored_dtype}, and must be of floating point. The weights are "
                    "packed in a way that this library does not read: give those that they were made from."
                )


def weights_state(model: nn.Module) -> tuple:
    """What changes whenever a model's weights are moved, replaced or written to."""
    tensors = (*model.parameters(), *model.buffers())
    return tuple((tensor.data_ptr(), tensor._version, tensor.dtype, tensor.device) for tensor in tensors)


class CheckpointModel(PushedWithCard, PreTrainedModel):
    """A model that refuses a checkpoint in which some of its weights are missing.

    transformers fills missing weights with random numbers and logs a warning: a detector would then give scores that
    mean nothing.
    """

    # Losses are means over a batch: Trainer has to divide them by the batches that it accumulates.
    accepts_loss_kwargs = False
    # A larger network of one's own says so here.
    most_parameters: ClassVar[int] = MOST_PARAMETERS
    # What its processor makes beside the inputs of `forward`, which is left out there.
    unread_inputs: ClassVar[tuple[str, ...]] = ()
    # What `from_pretrained` was asked for as `dtype`, and what came of it.
    asked_dtype: tuple[torch.dtype | str, torch.dtype] | None = None
    _form: tuple | None = None
    # The notice of weights that were new when the checkpoint was loaded, and these weights.
    _untrained: tuple[str, dict[str, torch.Tensor]] | None = None

    @property
    def inference_dtype(self) -> torch.dtype | str:
        """What a pipeline's frozen networks compute in: what was asked for, or this model's own unless float32."""
        if self.asked_dtype is not None and self.asked_dtype[1] == self.dtype:
            return self.asked_dtype[0]
        return "auto" if self.dtype == torch.float32 else self.dtype

    @property
    def computes_in(self) -> str:
        """What a pipeline computes with, where, in which precision, and why, in words."""
        return self.describe_inference(self.inference_dtype)

    def describe_inference(self, dtype: torch.dtype | str) -> str:
        """What computes in a type, where, and why in that one, in words."""
        return describe(dtype, self.device)

    def numerics(self, dtype: torch.dtype | str | None) -> dict[str, str]:
        """For recipes: which weights it has, and what it computes in where a type was asked for."""
        chosen = choose_dtype(dtype, self.device) or self.dtype
        return {"dtype": str(chosen).removeprefix("torch."), "weights_sha256": weights_hash(self)}

    def for_inference(self, dtype: torch.dtype | str | None = None) -> PreTrainedModel:
        """The model, or a faster form of it for inference.

        Such a form is made once, and anew after weights have been moved or changed.

        Args:
            dtype: What it computes in, or ``"auto"``; by default `inference_dtype`.
        """
        dtype = choose_dtype(self.inference_dtype if dtype is None else dtype, self.device)
        state = (dtype, weights_state(self))
        if self._form is None or self._form[0] != state:
            self._form = None  # not to be copied
            self._form = state, self._make_form(dtype)
        return self._form[1]

    def post_init(self) -> None:
        """Finish building; raises ``ValueError`` for a network that is too large, before it has memory."""
        super().post_init()
        if (count := sum(parameter.numel() for parameter in self.parameters())) > self.most_parameters:
            raise ValueError(
                f"The config of this {type(self).__name__} asks for {count} weights, and it may have "
                f"{self.most_parameters} at most. Correct the sizes in config.json."
            )

    def train(self, mode: bool = True):
        """Put the model into training mode, or out of it; what was made of its weights is forgotten."""
        if mode:
            self._form = None
        return super().train(mode)

    def __getstate__(self) -> dict[str, Any]:
        return self.__dict__ | {"_form": None}

    def _make_form(self, dtype: torch.dtype) -> PreTrainedModel:
        """Make what `for_inference` gives."""
        return self

    @classmethod
    def from_pretrained(cls, pretrained_model_name_or_path: str | os.PathLike, *args, **kwargs):
        """Load it, or the [`EngineModel`] where ``avad-hf export`` wrote the checkpoint.

        Raises:
            ValueError: When weights are missing, damaged or of other shapes; when files or settings of the checkpoint
                lead out of it, or no network can be built from them.
            ImportError: For an engine whose runtime is not installed.
            HubError: Without the Hub.
        """
        wants_info = kwargs.pop("output_loading_info", False)
        may_differ = kwargs.pop("ignore_mismatched_sizes", False)
        check_checkpoint(pretrained_model_name_or_path, kwargs.get("subfolder"))
        try:
            with hub_errors(str(pretrained_model_name_or_path), "model", "loaded"):
                if os.path.isdir(pretrained_model_name_or_path):
                    engine = cls._engine(pretrained_model_name_or_path, **kwargs)
                    if engine is not None:
                        return (engine, NOTHING_MISSING) if wants_info else engine
                    # On the Hub transformers would ask a server to convert other weights.
                    kwargs.setdefault("use_safetensors", True)
                try:
                    # Shapes that differ are refused below, by the names of the tensors.
                    model, info = super().from_pretrained(
                        pretrained_model_name_or_path,
                        *args,
                        output_loading_info=True,
                        ignore_mismatched_sizes=True,
                        **kwargs,
                    )
                except OSError:
                    # On the Hub it is looked for where there are no weights, so that ordinary ones cost no request.
                    engine = cls._engine(pretrained_model_name_or_path, **kwargs)
                    if engine is None:
                        raise
                    return (engine, NOTHING_MISSING) if wants_info else engine
        except SafetensorError as error:
            raise ValueError(
                f"{pretrained_model_name_or_path}: the weights file is cut or damaged ({error}). Copy or download the "
                "checkpoint again."
            ) from error
        if (differing := sorted(info["mismatched_keys"])) and not may_differ:
            name, found, needed = differing[0]
            raise ValueError(
                f"{pretrained_model_name_or_path}: {len(differing)} weights have another shape than this "
                f"{cls.__name__} needs, first {name}: it is {tuple(found)}, and must be {tuple(needed)}. Either the "
                "weights and config.json belong to different networks: copy or download both again. Or you have asked "
                "for other classes: to train a new head for them, give ignore_mismatched_sizes=True."
            )
        _refuse_whole_numbers(model, pretrained_model_name_or_path, kwargs)
        if missing := sorted(info["missing_keys"]):
            if not model._is_head_of_bare_body(missing):
                raise ValueError(
                    f"{pretrained_model_name_or_path}: {len(missing)} weights of {cls.__name__} are missing "
                    f"({', '.join(missing[:3])}{', ...' if len(missing) > 3 else ''}). Give a complete {cls.__name__} "
                    f"checkpoint; to start from new weights, build {cls.__name__}(config) instead."
                )
            body = getattr(model, model.base_model_prefix)
            why = f"its checkpoint held the body alone ({type(body).__name__})"
            model._begin_untrained(pretrained_model_name_or_path, missing, why)
        elif differing:
            names = [name for name, _, _ in differing]
            model._begin_untrained(pretrained_model_name_or_path, names, "those of its checkpoint had other shapes")
        asked = kwargs.get("dtype", kwargs.get("torch_dtype"))
        if isinstance(asked, torch.dtype) or (isinstance(asked, str) and asked != "auto"):
            model.asked_dtype = asked, model.dtype
        return (model, info) if wants_info else model

    def _is_head_of_bare_body(self, missing: list[str]) -> bool:
        """Whether the checkpoint was saved by the body alone, and nothing but what this class adds is missing."""
        body = getattr(self, self.base_model_prefix, None)
        saved_as = self.config.architectures or []
        return (
            body is not None
            and saved_as == [type(body).__name__]
            and not any(name.startswith(f"{self.base_model_prefix}.") for name in missing)
        )

    def _begin_untrained(self, checkpoint: str | os.PathLike, names: list[str], why: str) -> None:
        """Say which weights are new, here, in the log, and in every result until they have been trained."""
        weights = self.state_dict()
        notice = (
            f"The weights {', '.join(names)} of this {type(self).__name__} are new and untrained: {why}. Train it "
            "first; until then its scores mean nothing."
        )
        logger.warning("%s: %s", checkpoint, notice)
        self._untrained = notice, {name: weights[name].detach().cpu().clone() for name in names}
        self.config.notice = " ".join(filter(None, [self.config.notice, notice]))

    def save_pretrained(self, *args, **kwargs):
        """Write the checkpoint; without the notice of untrained weights once they have been trained.

        What a call is asked to return (``return_dict``) is no part of it.
        """
        if self._untrained is not None:
            notice, before = self._untrained
            now = self.state_dict()
            numbers = {name: tensor for name, tensor in before.items() if tensor.is_floating_point()}
            if not any(torch.equal(now[name].detach().cpu(), tensor) for name, tensor in numbers.items()):
                self.config.notice = (self.config.notice or "").replace(notice, "").strip() or None
                self._untrained = None
        return_dict, self.config.return_dict = self.config.return_dict, True
        try:
            return super().save_pretrained(*args, **kwargs)
        finally:
            self.config.return_dict = return_dict

    @classmethod
    def _engine(cls, place: str | os.PathLike, config: PreTrainedConfig | None = None, **kwargs) -> EngineModel | None:
        """What was exported from a model of this class, if the checkpoint holds that."""
        options = {name: kwargs[name] for name in HUB_OPTIONS if kwargs.get(name) is not None}
        if (record := find_engine(place, **options)) is None:
            return None
        if any(record.parent.glob("model*.safetensors")):
            raise ValueError(
                f"{place} holds both weights and an exported network, and nobody can tell which is meant. Remove "
                f"{RECORD} and what belongs to it, or model.safetensors."
            )
        if not isinstance(config, PreTrainedConfig):
            config = cls.config_class.from_pretrained(place, **options)
        return EngineModel.load(place, record, config, made_from=cls, **options)
