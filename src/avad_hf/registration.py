"""Makes the Auto classes and the pipeline task of transformers know this library. Nothing else."""

from transformers import (
    AutoConfig,
    AutoFeatureExtractor,
    AutoModel,
    AutoModelForVideoClassification,
    AutoProcessor,
)
from transformers.pipelines import PIPELINE_REGISTRY

from .detection.pipeline import DEMO_MODEL, AudioVisualAnomalyPipeline
from .models.avaca.configuration_avaca import AvacaConfig
from .models.avaca.modeling_avaca import AvacaForAnomalyDetection, AvacaModel
from .models.avaca.processing_avaca import AvacaProcessor
from .models.avrl.configuration_avrl import AvrlConfig
from .models.avrl.modeling_avrl import AvrlForVideoClassification, AvrlModel
from .models.avrl.processing_avrl import AvrlProcessor
from .models.feature_extraction_video import VideoFeatureExtractor
from .models.resnet3d.configuration_resnet3d import ResNet3dConfig
from .models.resnet3d.modeling_resnet3d import ResNet3dForVideoClassification, ResNet3dModel
from .models.slowfast.configuration_slowfast import SlowFastConfig
from .models.slowfast.modeling_slowfast import SlowFastForVideoClassification, SlowFastModel
from .models.vggish.configuration_vggish import VggishConfig
from .models.vggish.feature_extraction_vggish import VggishFeatureExtractor
from .models.vggish.modeling_vggish import VggishModel

AutoConfig.register("slowfast", SlowFastConfig)
AutoModel.register(SlowFastConfig, SlowFastModel)
AutoModelForVideoClassification.register(SlowFastConfig, SlowFastForVideoClassification)
AutoFeatureExtractor.register(SlowFastConfig, VideoFeatureExtractor)

AutoConfig.register("vggish", VggishConfig)
AutoModel.register(VggishConfig, VggishModel)
AutoFeatureExtractor.register(VggishConfig, VggishFeatureExtractor)

AutoConfig.register("resnet3d", ResNet3dConfig)
AutoModel.register(ResNet3dConfig, ResNet3dModel)
AutoModelForVideoClassification.register(ResNet3dConfig, ResNet3dForVideoClassification)
AutoFeatureExtractor.register(ResNet3dConfig, VideoFeatureExtractor)

AutoConfig.register("avaca", AvacaConfig)
AutoModel.register(AvacaConfig, AvacaModel)
# An Auto class for the pipeline: given a concrete class, transformers loads any checkpoint as that one.
AutoModelForVideoClassification.register(AvacaConfig, AvacaForAnomalyDetection)
AutoProcessor.register(AvacaConfig, AvacaProcessor)

AutoConfig.register("avrl", AvrlConfig)
AutoModel.register(AvrlConfig, AvrlModel)
AutoModelForVideoClassification.register(AvrlConfig, AvrlForVideoClassification)
AutoProcessor.register(AvrlConfig, AvrlProcessor)

PIPELINE_REGISTRY.register_pipeline(
    "audio-visual-anomaly",
    pipeline_class=AudioVisualAnomalyPipeline,
    pt_model=AutoModelForVideoClassification,
    default={"model": (str(DEMO_MODEL), "main")},
    type="multimodal",
)
