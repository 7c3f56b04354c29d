"""MAVAD: traffic in three scenes, normal videos and ten classes of anomalies (Leporowski et al. 2023, section III)."""

from pathlib import Path
from typing import Any

from .classes import MAVAD_CLASSES, MAVAD_SCENES
from .corpus import ALL, CorpusBuilder, CorpusConfig
from .scan import scan


class MavadConfig(CorpusConfig):
    """A scene of MAVAD, or all three."""

    classes = MAVAD_CLASSES
    scenes = MAVAD_SCENES

    def read_folder(self, folder: Path) -> list[dict[str, Any]]:
        """Rows of a folder without a manifest, by its layout."""
        return scan(folder, corpus="mavad", fps=self.fps).rows


class Mavad(CorpusBuilder):
    """MAVAD, of which neither layout nor split is published: folders by class, divided 60/20/20 by a seed."""

    BUILDER_CONFIG_CLASS = MavadConfig
    BUILDER_CONFIGS = [MavadConfig(name=name) for name in (ALL, *MAVAD_SCENES.names)]  # noqa: RUF012
    DEFAULT_CONFIG_NAME = ALL
    description = "Traffic with sound in three scenes of Malta, labelled by video: normal, and ten anomalies."
    homepage = "https://gitlab.au.dk/maleci/audiovisualanomalydetection"
    citation = "Leporowski et al., Audio-Visual Dataset and Method for Anomaly Detection in Traffic Videos, 2023."
