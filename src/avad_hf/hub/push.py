"""Uploads to the Hub: a whole checkpoint with its card in one commit."""

import json
import os
import shutil
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import yaml
from huggingface_hub import HfApi, ModelCard, eval_result_entries_to_yaml
from transformers import AutoConfig, AutoModel, AutoModelForVideoClassification, AutoProcessor, PreTrainedModel

from .cards import TEMPLATES, card, refreshed
from .errors import hub_errors
from .folders import weights_hash
from .results import Report, read_report

# What from_pretrained reads, and what a person does. Nothing else leaves the machine: a training's folder also holds
# its settings, with paths, and states to resume from.
SHARED = (
    "config.json",
    "processor_config.json",
    "preprocessor_config.json",
    "model*.safetensors",
    "model.safetensors.index.json",
    "LICENSE*",
)
# Folders of the encoders that a processor carries, and what processor_config.json calls them.
PARTS = ("video_encoder", "audio_encoder")
SUMMARIES = {
    "avaca": "An AVACA detector.",
    "avrl": "An AVRL detector.",
    "slowfast": "A SlowFast video encoder.",
    "vggish": "A VGGish audio encoder.",
    "resnet3d": "A 3D ResNet video encoder.",
}
RESULTS = ".eval_results/avad_hf.yaml"


def push_checkpoint(
    directory: str | os.PathLike,
    repo_id: str,
    *,
    private: bool | None = None,
    token: str | None = None,
    revision: str | None = None,
    subfolder: str | None = None,
    reports: Sequence[str | os.PathLike] = (),
    license: str | None = None,
) -> str:
    """Upload a checkpoint, after it has been loaded to see that it is whole, with its card, in one commit.

    Args:
        directory: Of a detector or an encoder: what ``init``, ``train`` and ``convert`` write, or `save_pretrained`.
        repo_id: ``user/name``; made if there is none.
        private: Whether a new one is.
        token: Of the account; the saved one by default.
        revision: Branch to write to; made if there is none.
        subfolder: Folder of the repository to write to; then without the figures' metadata, which belong to the whole
            repository.
        reports: Folders that ``avad-hf evaluate`` wrote, whose figures the card shall show.
        license: Of the weights, as the Hub names it: ``"apache-2.0"``, ``"cc-by-nc-4.0"``, ...; that of the card by
            default.

    Returns:
        Address of the commit.

    Raises:
        FileNotFoundError: If there is no such folder.
        ValueError: If it is no whole checkpoint, or a report is of other weights; nothing is uploaded then.
        HubError: If the Hub refuses or cannot be reached.
    """
    place = Path(directory)
    model = _load(place)
    sha256 = weights_hash(model)
    found = [read_report(report, sha256) for report in reports]
    api = HfApi(token=token)
    with tempfile.TemporaryDirectory() as folder, hub_errors(repo_id, "model", "uploaded"):
        staged = Path(folder)
        for path in sorted({path for pattern in SHARED for path in place.glob(pattern)}):
            _stage(path, staged / path.name)
        for part in (part for part in PARTS if (place / part / "config.json").is_file()):
            (staged / part).mkdir()
            for path in sorted({path for pattern in SHARED for path in (place / part).glob(pattern)}):
                _stage(path, staged / part / path.name)
        url = api.create_repo(repo_id, private=private, exist_ok=True)
        if revision is not None:
            api.create_branch(url.repo_id, branch=revision, exist_ok=True)
        text = _card(place, model, url.repo_id, found, license, is_main=subfolder is None)
        (staged / "README.md").write_text(text, encoding="utf-8")
        entries = [entry for report in found if (entry := report.entry()) is not None]
        if entries and subfolder is None:
            (staged / RESULTS).parent.mkdir()
            (staged / RESULTS).write_text(yaml.safe_dump(eval_result_entries_to_yaml(entries), sort_keys=False))
        commit = api.upload_folder(
            repo_id=url.repo_id,
            folder_path=folder,
            path_in_repo=subfolder,
            revision=revision,
            commit_message=f"{type(model).__name__}, {len(found)} reports",
            # Figures of weights that were there before would be claimed for these.
            delete_patterns=[RESULTS] if subfolder is None else None,
        )
    return str(commit.commit_url)


def _load(place: Path) -> PreTrainedModel:
    """The model of a whole checkpoint, whose processor loads too."""
    if not place.is_dir():
        raise FileNotFoundError(f"{place}: no such folder. Give the folder of a checkpoint.")
    if not (place / "config.json").is_file():
        raise ValueError(f"{place} holds no checkpoint: config.json is missing.")
    try:
        config = AutoConfig.from_pretrained(place)
        if config.model_type not in TEMPLATES:
            raise ValueError(f"it holds a model of type '{config.model_type}', which is none of this library's.")
        named = (config.architectures or [""])[0]
        auto = AutoModelForVideoClassification if "For" in named else AutoModel
        model = auto.from_pretrained(place)
        if (place / "processor_config.json").is_file():
            AutoProcessor.from_pretrained(place)
    # A broken checkpoint raises whatever its reader does.
    except Exception as error:
        raise ValueError(f"{place} is no whole checkpoint, and nothing was uploaded: {error}") from error
    return model


def _named_encoders(place: Path) -> list[str]:
    """Names on the Hub of the encoders that a checkpoint does not carry itself."""
    path = place / "processor_config.json"
    settings = json.loads(path.read_text(encoding="utf-8")) if path.is_file() else {}
    named = (settings.get(part) for part in PARTS)
    return [name.partition("@")[0] for name in named if name is not None and not name.startswith("./")]


def _stage(path: Path, target: Path) -> None:
    # Not copied: weights are large.
    try:
        os.link(path.resolve(), target)
    except OSError:
        shutil.copyfile(path, target)


def _card(
    place: Path, model: PreTrainedModel, repo_id: str, reports: Sequence[Report], license: str | None, is_main: bool
) -> str:
    """The folder's own card, or a plain one, with the repository's name and the figures of the reports in it.

    Figures of other weights are dropped, whoever wrote them. The card of a subfolder is not the repository's: it keeps
    its example, which would need more than a name, and has no metadata of results.
    """
    kind = model.config.model_type
    path = place / "README.md"
    text = path.read_text(encoding="utf-8") if path.is_file() else plain_card(model.config, repo_id)
    only = None if is_main else ["results"]
    results = [report.shown() for report in reports]
    values = {"location": repo_id, "kind": kind, "results": results}
    values["has_processor"] = (place / "processor_config.json").is_file()
    filled = ModelCard(refreshed(text, TEMPLATES[kind], only, **values))
    if license is not None:
        filled.data.license = license
    if is_main and (named := _named_encoders(place)):
        filled.data.base_model = named
    filled.data.eval_results = [result for report in reports if is_main for result in report.model_index()] or None
    filled.data.model_name = repo_id.split("/")[-1] if filled.data.eval_results else None
    return str(filled)


def plain_card(config: Any, location: str) -> str:
    """A card for a model of which nothing is known but its config."""
    template = TEMPLATES[config.model_type]
    return card(
        template,
        title=location.split("/")[-1],
        summary=SUMMARIES[config.model_type],
        location=location,
        kind=config.model_type,
        facts=[config.notice or "Nobody has written down how these weights came about."],
        results=[],
        **config.describe(),
    )


class PushedWithCard:
    """Gives whatever has ``push_to_hub`` this library's card, where transformers would write a general one."""

    def push_to_hub(self, repo_id: str, **kwargs) -> Any:
        """Upload to the Hub, with a card if the repository has none.

        Args:
            repo_id: ``user/name``; made if there is none.
            kwargs: As for every ``push_to_hub`` of transformers: ``private``, ``token``, ``revision``,
                ``commit_message``, ``create_pr``, ...

        Raises:
            HubError: If the Hub refuses or cannot be reached.
        """
        with hub_errors(repo_id, "model", "uploaded"):
            if not kwargs.get("create_pr"):
                api = HfApi(token=kwargs.get("token"))
                repo = api.create_repo(repo_id, private=kwargs.get("private"), exist_ok=True).repo_id
                if not api.file_exists(repo, "README.md"):
                    text = self.card_text(repo).encode()
                    api.upload_file(path_or_fileobj=text, path_in_repo="README.md", repo_id=repo)
            return super().push_to_hub(repo_id, **kwargs)

    def card_text(self, location: str) -> str:
        """The card of a repository that had none."""
        return plain_card(self.config, location)


class PartPushedWithCard(PushedWithCard):
    """The same for what has no config of a model: processors and feature extractors."""

    # Type of the model that it belongs to.
    part_of: str

    def card_text(self, location: str) -> str:
        """The card of a repository that had none."""
        return card(
            TEMPLATES[self.part_of],
            title=location.split("/")[-1],
            summary=f"{type(self).__name__} alone, without a detector.",
            location=location,
            kind=self.part_of,
            facts=getattr(self, "notices", None) or ["Nobody has written down how these weights came about."],
        )


__all__ = ["PartPushedWithCard", "PushedWithCard", "plain_card", "push_checkpoint"]
