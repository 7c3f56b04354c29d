"""SHADE: crowds in a game, nine classes of events, and its dark subset (Gao et al. 2024, sections IV.B and V.A)."""

from pathlib import Path
from typing import Any

from .classes import SHADE_CLASSES
from .corpus import ALL, CorpusBuilder, CorpusConfig
from .darkness import with_darkness
from .scan import scan

DARK = "dark"


class ShadeConfig(CorpusConfig):
    """SHADE as a whole, or its dark subset."""

    classes = SHADE_CLASSES

    def read(self) -> list[dict[str, Any]]:
        """Rows with what is known of darkness; the dark subset measures what is not."""
        return with_darkness(super().read(), measure=self.name == DARK)

    def read_folder(self, folder: Path) -> list[dict[str, Any]]:
        """Rows of a folder without a manifest, by its layout."""
        return scan(folder, corpus="shade", fps=self.fps).rows


class Shade(CorpusBuilder):
    """SHADE, with the training and test sets that its folders or lists fix; ``dark`` keeps the dark videos of both."""

    BUILDER_CONFIG_CLASS = ShadeConfig
    BUILDER_CONFIGS = [ShadeConfig(name=name) for name in (ALL, DARK)]  # noqa: RUF012
    DEFAULT_CONFIG_NAME = ALL
    description = "Crowds in GTA V with sound, labelled by video: seven kinds of events and two of normal behaviour."
    homepage = "https://doi.org/10.1016/j.neucom.2021.01.031"
    citation = "Lin et al., Neurocomputing 2021; Gao et al., Neurocomputing 582:127489, 2024."

    def select(self) -> list[dict[str, Any]]:
        """All rows, or those that are dark."""
        return [row for row in self.rows if row["dark"]] if self.config.name == DARK else self.rows
