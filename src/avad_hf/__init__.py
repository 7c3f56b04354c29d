"""Audio-visual anomaly detection in video: AVACA (traffic) and AVRL (crowds), as Hugging Face users know it."""

import sys
from pathlib import Path

__version__ = "0.1.0"

# The command answers --help without loading torch: its subcommands import what they use. Everyone else gets all names,
# and transformers learns of our classes and of the pipeline task.
if Path(sys.argv[0] if sys.argv else "").name not in ("avad-hf", "avad-hf.exe"):
    from . import registration
    from .corpora.loading import load_dataset
    from .corpora.sharing import push_corpus
    from .detection.pipeline import AudioVisualAnomalyPipeline
    from .evaluation.evaluate import Evaluation, evaluate
    from .export.engines import export_engines
    from .features.dataset import FeatureDataset
    from .features.extraction import extract_features
    from .features.published.dataset import read_published
    from .hub.errors import HubError
    from .hub.push import push_checkpoint
    from .hub.space import push_space
    from .media.decode import MediaError
    from .models.avaca.configuration_avaca import AvacaConfig
    from .models.avaca.modeling_avaca import AvacaForAnomalyDetection, AvacaModel
    from .models.avaca.processing_avaca import AvacaProcessor
    from .models.avrl.configuration_avrl import AvrlConfig
    from .models.avrl.modeling_avrl import AvrlForVideoClassification, AvrlModel
    from .models.avrl.processing_avrl import AvrlProcessor
    from .models.engine import EngineModel
    from .models.feature_extraction_video import VideoFeatureExtractor
    from .models.resnet3d.configuration_resnet3d import ResNet3dConfig
    from .models.resnet3d.modeling_resnet3d import ResNet3dForVideoClassification, ResNet3dModel
    from .models.slowfast.configuration_slowfast import SlowFastConfig
    from .models.slowfast.modeling_slowfast import SlowFastForVideoClassification, SlowFastModel
    from .models.vggish.configuration_vggish import VggishConfig
    from .models.vggish.feature_extraction_vggish import VggishFeatureExtractor
    from .models.vggish.modeling_vggish import VggishModel
    from .training.config import TrainingConfig
    from .training.loop import TrainingResult, train

    __all__ = [
        "AudioVisualAnomalyPipeline",
        "AvacaConfig",
        "AvacaForAnomalyDetection",
        "AvacaModel",
        "AvacaProcessor",
        "AvrlConfig",
        "AvrlForVideoClassification",
        "AvrlModel",
        "AvrlProcessor",
        "EngineModel",
        "Evaluation",
        "FeatureDataset",
        "HubError",
        "MediaError",
        "ResNet3dConfig",
        "ResNet3dForVideoClassification",
        "ResNet3dModel",
        "SlowFastConfig",
        "SlowFastForVideoClassification",
        "SlowFastModel",
        "TrainingConfig",
        "TrainingResult",
        "VggishConfig",
        "VggishFeatureExtractor",
        "VggishModel",
        "VideoFeatureExtractor",
        "evaluate",
        "export_engines",
        "extract_features",
        "load_dataset",
        "push_checkpoint",
        "push_corpus",
        "push_space",
        "read_published",
        "registration",
        "train",
    ]
