"""Configuration of AVACA."""

from collections.abc import Mapping, Sequence
from typing import Any, ClassVar, Literal, get_args

from huggingface_hub.dataclasses import strict
from torch import Tensor
from transformers import AutoConfig, PreTrainedConfig

from avad_hf.models.detector import DetectorConfig, DetectorSpec
from avad_hf.models.settings import LARGEST, Bounds

AudioPath = Literal["focused", "plain", "zeroed"]
Fusion = Literal["transformer", "attention", "late"]
Normalisation = Literal["batch", "none"]

# MAVAD's classes, in the order of the paper's Table I.
LABELS = (
    *("normal", "pedestrians", "pedestrians_crossing", "bicycle", "bus", "exit_side_street", "heavy_goods_vehicle"),
    *("obstruction", "u_turn", "scooter", "horse"),
)


@strict
class AvacaConfig(DetectorConfig):
    r"""Architecture, loss and threshold of an AVACA detector (Leporowski et al., arXiv 2305.15084, section IV).

    The paper gives neither widths nor kernels; they are those of the code that it is based on (Chumachenko et al.,
    ICPR 2022), made equal in both paths so that the two transformers are "identical", as IV-D says.

    Args:
        visual_size: Channels of the video encoder's feature map.
        audio_size: Width of the audio encoder's embeddings.
        num_audio_steps: Sound steps of a clip, one a frame. Used only where zeros stand in for missing sound.
        hidden_size: Width of both stage-1 outputs and of the transformers.
        intermediate_size: Width between the two layers of stage 2.
        num_attention_heads: Heads of each transformer (4, section V-B).
        mlp_ratio: Width of a transformer's hidden layer, as a multiple of `hidden_size`.
        kernel_size: Kernel of all convolutions; they keep the length, so that the 32 sound steps give 31 differences.
        audio_path: Keys and values of the transformer in the audio path: ``"focused"``, differences of neighbouring
            sound steps; ``"plain"``, the sound steps themselves; ``"zeroed"``, zero sound features on the focused
            path, which is how the paper runs corpora without sound (V-A).
        fusion: How sight and sound are put together, of the three ways of Chumachenko et al.: ``"transformer"``, their
            intermediate transformer fusion and the paper's choice, attention blocks between the stages;
            ``"attention"``, intermediate attention fusion, where the map alone counts, by which a stream's steps are
            weighted as the other sense asks for them; ``"late"``, late transformer fusion, attention blocks after both
            stages. All take all audio paths.
        fusion_residual: For fusion ``"transformer"``, as the others have no sum: add each transformer's output to its
            query stream, as in the code that the paper is based on. The paper mentions no such sum; without it the
            focused path finds short sounds badly.
        normalisation: After each convolution: ``"batch"`` norm, as in the code that the paper is based on, or
            ``"none"``, with which few videos are learnt better: by folds within 27 recordings of fights one hidden
            layer lost 0.11 of AUC by batch norm.
        dmil_alpha: A video of t clips is judged by ``max(1, t // dmil_alpha)`` of them. Not in the paper; AR-Net's 4.
        dmil_weight: Weight of the DMIL loss (theta; 10 on MAVAD, 20 on ShanghaiTech).
        center_weight: Weight of the center loss (lambda).
        normal_labels: Classes that are no anomaly, of a detector that names classes; by default ``normal``, or the
            first one where none is called so.
        class_weight: Weight of the cross-entropy of the videos' classes. Not in the paper, which names no classes.
        video_config: Config of a video encoder within the model, which then takes pixels too. Not part of the paper,
            whose encoders are frozen.
        audio_config: Config of an audio encoder within the model, which then takes waveforms too.
        feature_grid: Rows and columns of the feature maps of the encoder within; its own by default.

    With more than two classes (``num_labels``, ``id2label``) the detector names the class of a video as well, by its
    highest clips: normal is one of them. Of two classes the score says all. Eleven without names are MAVAD's.

    Raises:
        StrictDataclassClassValidationError: If the parts do not fit each other.
    """

    model_type = "avaca"
    card: ClassVar[str] = "avaca"
    summary: ClassVar[str] = "An AVACA detector."
    later_settings: ClassVar[dict[str, Any]] = DetectorConfig.later_settings | {
        "normalisation": "batch",
        "fusion": "transformer",
        "normal_labels": None,
        "class_weight": 1.0,
        "video_config": None,
        "audio_config": None,
        "feature_grid": None,
    }
    encoder_settings: ClassVar[tuple[str, ...]] = ("video_config", "audio_config", "feature_grid")
    sub_configs: ClassVar[dict[str, type]] = {"video_config": AutoConfig, "audio_config": AutoConfig}
    audio_paths: ClassVar[tuple[str, ...]] = get_args(AudioPath)
    fusions: ClassVar[tuple[str, ...]] = get_args(Fusion)
    # For Trainer, which takes all other outputs for predictions.
    keys_to_ignore_at_inference: ClassVar[list[str]] = ["dmil_loss", "center_loss", "class_loss", "attentions"]
    bounds: ClassVar[Bounds] = {
        "visual_size": (1, LARGEST),
        "audio_size": (1, LARGEST),
        "num_audio_steps": (1, 4096),  # one a frame of a clip
        "hidden_size": (1, LARGEST),
        "intermediate_size": (1, LARGEST),
        "num_attention_heads": (1, 1024),
        "mlp_ratio": (0, 1024),
        "kernel_size": (1, 255),  # of maps of a few cells
        "dmil_alpha": (1, LARGEST),
        "dmil_weight": (0, 1e6),
        "center_weight": (0, 1e6),
        "class_weight": (0, 1e6),
        "feature_grid": (1, 64),
    }

    # Architecture
    visual_size: int = 2304
    audio_size: int = 128
    num_audio_steps: int = 32
    hidden_size: int = 128
    intermediate_size: int = 256
    num_attention_heads: int = 4
    mlp_ratio: float | int = 2.0
    kernel_size: int = 3
    audio_path: AudioPath = "focused"
    fusion: Fusion = "transformer"
    fusion_residual: bool = True
    normalisation: Normalisation = "batch"

    # Training
    dmil_alpha: int = 4
    dmil_weight: float | int = 10.0
    center_weight: float | int = 1.0
    class_weight: float | int = 1.0

    # Detection
    normal_labels: list[str] | tuple[str, ...] | None = None

    # Encoders within
    video_config: dict[str, Any] | PreTrainedConfig | None = None
    audio_config: dict[str, Any] | PreTrainedConfig | None = None
    feature_grid: list[int] | tuple[int, ...] | None = None

    def __post_init__(self, **kwargs):
        self._check_inherited(kwargs)
        if (self.video_config is None) != (self.audio_config is None):
            raise ValueError("Give video_config and audio_config, or neither: a model holds both encoders or none.")
        if self.video_config is not None:
            from .end_to_end_avaca import encoder_config  # which imports torch's modules

            for name in self.sub_configs:
                setattr(self, name, encoder_config(name, getattr(self, name)))
        if self.id2label is None and self.label2id:
            self.id2label = {int(number): name for name, number in self.label2id.items()}
        if self.id2label is None and kwargs.get("num_labels") == len(LABELS):
            self.id2label = dict(enumerate(LABELS))
        super().__post_init__(**kwargs)
        if self.names_classes:
            # In the order of the numbers, which JSON does not keep.
            self.id2label = dict(sorted(self.id2label.items()))
            self.label2id = {name: number for number, name in self.id2label.items()}
            if self.normal_labels is None:
                names = list(self.id2label.values())
                self.normal_labels = ["normal" if "normal" in names else names[0]]

    @property
    def names_classes(self) -> bool:
        """Whether the detector names classes of videos beside its scores: transformers gives all configs two."""
        return self.num_labels > 2

    @property
    def detector_spec(self) -> DetectorSpec:
        """Clips that do not see each other."""
        inputs = {"visual_features": self.visual_size, "audio_features": self.audio_size}
        normal = tuple(self.normal_labels) if self.names_classes else ()
        return DetectorSpec("AVACA", inputs=inputs, alpha=self.dmil_alpha, normal_labels=normal)

    @classmethod
    def for_data(
        cls,
        item: Mapping[str, Tensor],
        rows: Sequence[Mapping[str, Any]],
        recipe: Mapping[str, Any] | None,
        **settings: Any,
    ) -> "AvacaConfig":
        """A config in the shape of stored features, as `DetectorConfig.for_data` says."""
        _, num_steps, audio_size = item["audio_features"].shape
        shapes = {
            "visual_size": item["visual_features"].shape[1],
            "audio_size": audio_size,
            "num_audio_steps": num_steps,
        }
        return cls(**cls.new_settings(num_steps) | shapes | settings)

    @classmethod
    def class_settings(cls, rows: Sequence[Mapping[str, Any]], num_labels: int) -> dict[str, Any]:
        """The classes of some videos: MAVAD's eleven, or their own, normal ones first; as of `DetectorConfig`."""
        anomalies = {row["label"]: row["anomaly"] for row in rows if row["label"] is not None}
        names = list(LABELS)
        if num_labels != len(LABELS) or not anomalies.keys() <= set(LABELS):
            names = sorted(anomalies, key=lambda name: (bool(anomalies[name]), name))
        if num_labels != len(names):
            raise ValueError(
                f"num_labels is {num_labels}, but these videos have {len(names)} classes: {', '.join(names)}. Give "
                "the number of the classes, or id2label with the names of all."
            )
        normal = [name for name in names if not anomalies.get(name, name != LABELS[0])]
        return {"id2label": dict(enumerate(names)), "label2id": None, "normal_labels": normal}

    @staticmethod
    def new_settings(num_audio_steps: int) -> dict[str, Any]:
        """Settings of new detectors that differ from the published ones, by the sound steps of a clip."""
        # Differences of sound steps need two of them.
        return {"normalisation": "none"} | ({"audio_path": "plain"} if num_audio_steps == 1 else {})

    def validate_architecture(self):
        """Check that heads divide the width and that convolutions can keep the length."""
        if self.hidden_size % self.num_attention_heads:
            raise ValueError(
                f"hidden_size {self.hidden_size} is not a multiple of num_attention_heads {self.num_attention_heads}."
            )
        if self.feature_grid is not None and len(self.feature_grid) != 2:
            raise ValueError(f"feature_grid must be rows and columns, got {list(self.feature_grid)}.")
        if int(self.hidden_size * self.mlp_ratio) < 1:
            raise ValueError(f"mlp_ratio {self.mlp_ratio} leaves no width of a hidden_size of {self.hidden_size}.")
        if self.kernel_size % 2 == 0:
            raise ValueError(f"kernel_size must be odd so that convolutions keep the length, got {self.kernel_size}.")

    def validate_classes(self):
        """Check the classes of a detector that names some."""
        if not self.names_classes:
            return
        numbers, names = list(self.id2label), list(self.id2label.values())
        if numbers != list(range(len(numbers))):
            raise ValueError(f"Class numbers must run from 0 to {len(numbers) - 1}, got {numbers}.")
        if len(set(names)) < len(names):
            raise ValueError(f"Class names must differ, got {', '.join(names)}.")
        if not set(self.normal_labels) <= set(names) or not 0 < len(set(self.normal_labels)) < len(names):
            raise ValueError(
                f"normal_labels must name some of the classes ({', '.join(names)}), but not all of them; got "
                f"{', '.join(self.normal_labels) or 'none'}."
            )
