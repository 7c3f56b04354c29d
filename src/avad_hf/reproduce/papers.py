"""Which protocol makes the tables of which corpus; what runs is imported when it is run."""

import os
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any


@dataclass(frozen=True)
class Paper:
    """The protocol of a paper on one corpus.

    Args:
        architecture: Model type of the detector that is trained.
        run: Makes the tables, as Markdown: ``run(corpus, output_dir, model, num_videos, **options)``. All take
            ``data_dir``, ``profile``, ``seeds``, ``settings`` and ``on_stage``.
        options: What else it can be told.
        needs: What a checkpoint is needed for.
        num_videos: Videos of a synthetic corpus, which needs no checkpoint and no folder; ``None`` for a real one.
        encoders: Names of the published encoders that are got where no checkpoint is given.
        seeds: Seeds of the splits, or of the repeats.
    """

    architecture: str
    run: Callable[..., str]
    options: tuple[str, ...]
    needs: str
    num_videos: int | None = None
    encoders: tuple[str, str] | None = None
    seeds: tuple[int, ...] = (0, 1, 2)


def _scores_of_clips(
    corpus: str,
    output_dir: str | os.PathLike,
    model: str | None,
    num_videos: int | None,
    device: Any = None,
    dtype: str = "float32",
    fusion: list[str] | None = None,
    **options: Any,
) -> str:
    from transformers import AutoProcessor

    from avad_hf.detection.pipeline import DEMO_MODEL
    from avad_hf.processes import process_state

    from .avaca import reproduce

    processor = AutoProcessor.from_pretrained(model or DEMO_MODEL, dtype=dtype, trust_remote_code=False).to(
        device or process_state().device
    )
    options |= {} if num_videos is None else {"num_videos": num_videos}
    options |= {"fusions": tuple(dict.fromkeys(fusion))} if fusion else {}
    return reproduce(corpus, processor, output_dir, **options)


def _event_classes(
    corpus: str,
    output_dir: str | os.PathLike,
    model: str | None,
    num_videos: int | None,
    study: list[str] | None = None,
    ratio: list[float] | None = None,
    **options: Any,
) -> str:
    from .avrl import RATIOS, STUDIES, reproduce_shade

    return reproduce_shade(
        output_dir,
        model=model,
        studies=study or STUDIES,
        ratios=tuple(ratio or RATIOS),
        num_videos=num_videos,
        **options,
    )


def _real_recordings(
    corpus: str,
    output_dir: str | os.PathLike,
    model: str | None,
    num_videos: int | None,
    device: Any = None,
    dtype: str = "float32",
    **options: Any,
) -> str:
    from .cctv_fights import reproduce_cctv_fights

    return reproduce_cctv_fights(_encoders(corpus, model, device, dtype), output_dir, **options)


def _normal_footage(
    corpus: str,
    output_dir: str | os.PathLike,
    model: str | None,
    num_videos: int | None,
    device: Any = None,
    dtype: str = "float32",
    **options: Any,
) -> str:
    from .normal_footage import reproduce_drawn, reproduce_real

    if num_videos is None:
        return reproduce_real(_encoders(corpus, model, device, dtype), output_dir, **options)
    # Finer maps than by default, so that places can be told.
    processor = _encoders(corpus, model, device, dtype, feature_grid=(4, 7))
    return reproduce_drawn(processor, output_dir, num_videos=num_videos, **options)


def _anonymised(
    corpus: str,
    output_dir: str | os.PathLike,
    model: str | None,
    num_videos: int | None,
    device: Any = None,
    dtype: str = "float32",
    **options: Any,
) -> str:
    from avad_hf.detection.pipeline import DEMO_MODEL

    from .anonymised import reproduce_anonymised

    processor = _encoders(corpus, model or DEMO_MODEL, device, dtype)
    return reproduce_anonymised(processor, output_dir, num_videos=num_videos, **options)


def _encoders(corpus: str, model: str | None, device: Any, dtype: str, **settings: Any) -> Any:
    """The processor of a checkpoint, or one with the published encoders of a corpus, and these settings."""
    from transformers import AutoProcessor

    from avad_hf.models.avaca.processing_avaca import AvacaProcessor
    from avad_hf.processes import process_state

    if model is None:
        from avad_hf.convert.getting import get

        seeing, hearing = (get(name) for name in PAPERS[corpus].encoders)
        processor = AvacaProcessor(video_encoder=seeing, audio_encoder=hearing, **settings)
    else:
        processor = AutoProcessor.from_pretrained(model, trust_remote_code=False)
    return processor.to(device or process_state().device, dtype)


_AVACA = {
    "architecture": "avaca",
    "run": _scores_of_clips,
    "options": ("raw_dir", "match_by", "device", "dtype"),
    "needs": "a checkpoint with trained encoders makes the features",
}
# Table III can be made with other fusions, and of detectors that name classes.
_TABLE_III = _AVACA | {"options": (*_AVACA["options"], "fusion", "classes")}
_AVRL = {
    "architecture": "avrl",
    "run": _event_classes,
    "options": ("study", "ratio", "dark_from", "gradient_checkpointing"),
    "needs": "the checkpoint that training begins with (avad-hf init avrl)",
}
_NORMAL = {
    "architecture": "avaca",
    "run": _normal_footage,
    "options": ("device", "dtype"),
    "needs": "its processor makes the features",
    "encoders": ("i3d", "yamnet"),
    "seeds": (0, 1),
}
PAPERS = {
    "mavad": Paper(**_TABLE_III),
    "shanghaitech": Paper(**_AVACA),
    "synthetic": Paper(**_TABLE_III | {"options": (*_TABLE_III["options"], "world_seed")}, num_videos=200),
    "shade": Paper(**_AVRL),
    "crowd": Paper(**_AVRL, num_videos=540),
    "cctv-fights": Paper(
        architecture="avaca",
        run=_real_recordings,
        options=("device", "dtype"),
        needs="its processor makes the features",
        encoders=("i3d", "yamnet"),
        seeds=(0, 1, 2, 3, 4),
    ),
    "normal-cctv-fights": Paper(**_NORMAL),
    "normal-synthetic": Paper(**_NORMAL, num_videos=40),
    "anonymised-synthetic": Paper(
        architecture="avaca",
        run=_anonymised,
        options=("device", "dtype"),
        needs="its processor makes the features",
        num_videos=60,
    ),
}

__all__ = ["PAPERS", "Paper"]
