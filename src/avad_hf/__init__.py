"""Audio-visual anomaly detection in video, as Hugging Face users know it.

Names are imported when they are first used (PEP 562), so that the command answers ``--help`` without loading torch.
"""

from importlib import import_module
from typing import Any

from . import registration
from .late import call_once_loaded

__version__ = "0.1.0"

# Names for users, and where they are; those of the architectures say their folders.
_PUBLIC = {
    "AudioVisualAnomalyPipeline": "avad_hf.detection.pipeline",
    "DetectorConfig": "avad_hf.models.detector",
    "DetectorModel": "avad_hf.models.detector",
    "DetectorSpec": "avad_hf.models.detector",
    "AlarmCalibration": "avad_hf.evaluation.calibrate",
    "Comparison": "avad_hf.comparison.compare",
    "Drift": "avad_hf.evaluation.drift",
    "Encoder": "avad_hf.models.encoder",
    "EncoderSpec": "avad_hf.models.encoder",
    "EngineModel": "avad_hf.models.engine",
    "FolderFit": "avad_hf.folders.fitting",
    "FolderRanking": "avad_hf.folders.ranking",
    "FitResult": "avad_hf.training.fitting",
    "Evaluation": "avad_hf.evaluation.evaluate",
    "FeatureDataset": "avad_hf.features.dataset",
    "HubError": "avad_hf.hub.errors",
    "MediaError": "avad_hf.media.decode",
    "Pooled": "avad_hf.features.changes",
    "Scaled": "avad_hf.features.changes",
    "Standardised": "avad_hf.features.changes",
    "TrainingConfig": "avad_hf.training.config",
    "TrainingResult": "avad_hf.training.loop",
    "calibrate": "avad_hf.evaluation.calibrate",
    "compare": "avad_hf.comparison.compare",
    "describe": "avad_hf.describing",
    "drift": "avad_hf.evaluation.drift",
    "evaluate": "avad_hf.evaluation.evaluate",
    "evaluate_scores": "avad_hf.evaluation.evaluate",
    "export_engines": "avad_hf.export.engines",
    "extract_features": "avad_hf.features.extraction",
    "fit": "avad_hf.training.fitting",
    "fit_folder": "avad_hf.folders.fitting",
    "load_dataset": "avad_hf.corpora.loading",
    "push_checkpoint": "avad_hf.hub.push",
    "push_corpus": "avad_hf.corpora.sharing",
    "push_metric": "avad_hf.evaluation.sharing",
    "push_space": "avad_hf.hub.space",
    "read_published": "avad_hf.features.published.dataset",
    "rank": "avad_hf.folders.ranking",
    "train": "avad_hf.training.loop",
    "update": "avad_hf.training.fitting",
    "watch": "avad_hf.watching.starting",
    "write_metric": "avad_hf.evaluation.sharing",
}
for _one in registration.ARCHITECTURES.values():
    _PUBLIC |= {name: path.rpartition(".")[0] for name, path in _one.public.items()}

__all__ = sorted([*_PUBLIC, "registration"])


def __getattr__(name: str) -> Any:
    if name not in _PUBLIC:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    value = globals()[name] = getattr(import_module(_PUBLIC[name]), name)
    return value


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})


# To import transformers here would take seconds. Whenever somebody does, it learns of this library.
call_once_loaded("transformers", within=__name__, call=registration.register)
