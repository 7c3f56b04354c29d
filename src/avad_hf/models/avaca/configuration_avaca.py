"""Configuration of AVACA."""

from typing import ClassVar, Literal, get_args

from huggingface_hub.dataclasses import strict

from avad_hf.models.checkpoints import CheckpointConfig

AudioPath = Literal["focused", "plain", "zeroed"]


@strict
class AvacaConfig(CheckpointConfig):
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
        kernel_size: Of all convolutions; they keep the length, so that the 32 sound steps give 31 differences.
        audio_path: Keys and values of the transformer in the audio path: ``"focused"``, differences of neighbouring
            sound steps; ``"plain"``, the sound steps themselves; ``"zeroed"``, zero sound features on the focused
            path, which is how the paper runs corpora without sound (V-A).
        fusion_residual: Add each transformer's output to its query stream, as in the code that the paper is based on.
            The paper mentions no such sum; without it the focused path finds short sounds badly.
        dmil_alpha: A video of t clips is judged by ``max(1, t // dmil_alpha)`` of them. Not in the paper; AR-Net's 4.
        dmil_weight: Weight of the DMIL loss (theta; 10 on MAVAD, 20 on ShanghaiTech).
        center_weight: Weight of the center loss (lambda).
        threshold: Score from which on a clip is called anomalous.
        threshold_origin: How the threshold was found; ``None`` if nobody has looked for one.
        recipe_sha256: Of the features that it was trained on, so that features of another recipe are refused;
            ``None`` if not known.
    """

    model_type = "avaca"
    audio_paths: ClassVar[tuple[str, ...]] = get_args(AudioPath)
    # For Trainer, which takes all other outputs for predictions.
    keys_to_ignore_at_inference: ClassVar[list[str]] = ["dmil_loss", "center_loss", "attentions"]

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
    fusion_residual: bool = True

    # Training
    dmil_alpha: int = 4
    dmil_weight: float | int = 10.0
    center_weight: float | int = 1.0

    # Detection
    threshold: float | int = 0.5
    threshold_origin: str | None = None
    recipe_sha256: str | None = None

    def validate_architecture(self):
        """Check that heads divide the width and that convolutions can keep the length."""
        if self.hidden_size % self.num_attention_heads:
            raise ValueError(
                f"hidden_size {self.hidden_size} is not a multiple of num_attention_heads {self.num_attention_heads}."
            )
        if self.kernel_size % 2 == 0:
            raise ValueError(f"kernel_size must be odd so that convolutions keep the length, got {self.kernel_size}.")
        if not 0.0 <= self.threshold <= 1.0:
            raise ValueError(f"threshold must be between 0 and 1, got {self.threshold}.")
