"""Uploads to the Hub: a whole checkpoint with its card in one commit."""

import fnmatch
import json
import os
import tempfile
from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any

import yaml
from huggingface_hub import CommitInfo, HfApi, ModelCard, eval_result_entries_to_yaml
from huggingface_hub.utils import validate_repo_id
from transformers import (
    MODEL_FOR_VIDEO_CLASSIFICATION_MAPPING,
    MODEL_MAPPING,
    AutoConfig,
    AutoFeatureExtractor,
    AutoModel,
    AutoModelForVideoClassification,
    AutoProcessor,
    PreTrainedConfig,
    PreTrainedModel,
)

from .cards import card, card_values, plain, refreshed
from .contents import CALIBRATED_ON, CONFIGS, ENGINES, PARTS, WEIGHTS, check_checkpoint, checkpoint_files, inside
from .errors import hub_errors
from .folders import weights_hash
from .repository import commit_files, open_repository
from .results import Report, read_report

# Where figures go.
RESULTS = ".eval_results/avad_hf.yaml"
# Part of a card that stands for no model.
PART_MARK = "<!-- part -->"
UNKNOWN = "Nobody has written down how these weights came about."


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
        directory: Checkpoint folder (detector or encoder) that ``init``, ``train`` or ``convert`` wrote.
        repo_id: ``user/name``; created if it does not exist.
        private: Create the repository as private. If it exists, it must already be private.
        token: Token of the account; the saved one by default.
        revision: Branch to write to; created if it does not exist.
        subfolder: Folder of the repository to write to; then without the figures' metadata, which belong to the whole
            repository.
        reports: Folders that ``avad-hf evaluate`` wrote, whose figures the card shall show.
        license: Licence of the weights, as the Hub names it: ``"apache-2.0"``, ``"cc-by-nc-4.0"``, ...; that of the
            card by default.

    Returns:
        Address of the commit.

    Raises:
        FileNotFoundError: If there is no such folder.
        ValueError: If it is no whole checkpoint, or a report is of other weights; nothing is uploaded then.
        HubError: If the Hub refuses or cannot be reached.
    """
    checkpoint_dir = Path(directory)
    model = _load(checkpoint_dir)
    sha256 = weights_hash(model)
    figures = [read_report(report, sha256) for report in dict.fromkeys(Path(report).resolve() for report in reports)]
    files: dict[str, str | bytes] = {**checkpoint_files(checkpoint_dir)}
    for name in (*files, "README.md"):  # what a link leads to would be published
        inside(checkpoint_dir, name, "a file")
    prefix = "" if subfolder is None else f"{subfolder}/"
    validate_repo_id(repo_id)
    api = HfApi(token=token)
    with hub_errors(repo_id, "model", "uploaded"):
        # Before there is a repository: the Hub may not know the licence, for example.
        _validate(ModelCard(_card(checkpoint_dir, model, repo_id, subfolder, figures, license)))
        repo = open_repository(api, repo_id, "model", private, revision)
        files["README.md"] = _card(checkpoint_dir, model, repo, subfolder, figures, license).encode()
        entries = [entry for report in figures if (entry := report.entry()) is not None]
        if entries and not prefix:
            files[RESULTS] = yaml.safe_dump(eval_result_entries_to_yaml(entries), sort_keys=False).encode()
        # Files of a previous checkpoint: its weights might be loaded in place of these, its figures claimed for them.
        stale = [*WEIGHTS, *ENGINES, *CONFIGS, CALIBRATED_ON, *(f"{part}/*" for part in PARTS)]
        commit = commit_files(
            api,
            repo,
            {f"{prefix}{name}": content for name, content in files.items()},
            [*(f"{prefix}{name}" for name in stale), *([] if prefix else [RESULTS])],
            f"{type(model).__name__} with figures of {len(figures)} reports",
            revision,
        )
    return str(commit.commit_url)


def _load(checkpoint_dir: Path) -> PreTrainedModel:
    """The model of a whole checkpoint, whose processor and card can be read too."""
    if not checkpoint_dir.is_dir():
        raise FileNotFoundError(f"{checkpoint_dir}: no such folder. Give the folder of a checkpoint.")
    if not (checkpoint_dir / "config.json").is_file():
        raise ValueError(f"{checkpoint_dir} holds no checkpoint: config.json is missing.")
    try:
        check_checkpoint(checkpoint_dir)
        config = AutoConfig.from_pretrained(checkpoint_dir, trust_remote_code=False)
        if not isinstance(config, PushedWithCard):
            raise ValueError(f"it holds a model of type '{config.model_type}', which is none of this library's.")
        model, info = _auto_class(config).from_pretrained(checkpoint_dir, output_loading_info=True)
        if foreign := sorted(info["unexpected_keys"]):
            raise ValueError(f"its weights hold what is no part of {type(model).__name__}: {', '.join(foreign[:3])}.")
        if (checkpoint_dir / "processor_config.json").is_file():
            AutoProcessor.from_pretrained(checkpoint_dir, trust_remote_code=False)
        if (checkpoint_dir / "preprocessor_config.json").is_file():
            AutoFeatureExtractor.from_pretrained(checkpoint_dir, trust_remote_code=False)
    # A broken checkpoint raises whatever its reader does.
    except Exception as error:
        raise ValueError(f"{checkpoint_dir} is no whole checkpoint, and nothing was uploaded: {error}") from error
    if (checkpoint_dir / "README.md").is_file():
        try:
            ModelCard.load(checkpoint_dir / "README.md")
        except Exception as error:
            raise ValueError(f"The metadata of {checkpoint_dir / 'README.md'} cannot be read: {error}") from error
    return model


def _auto_class(config: PreTrainedConfig) -> type:
    """The Auto class that loads what was saved: a network with its head, or the bare one."""
    saved = (config.architectures or [""])[0]
    head = MODEL_FOR_VIDEO_CLASSIFICATION_MAPPING.get(type(config), None)
    is_head = "For" in saved or type(config) not in MODEL_MAPPING or (head is not None and saved == head.__name__)
    return AutoModelForVideoClassification if is_head else AutoModel


def _named_encoders(checkpoint_dir: Path) -> list[str]:
    """Names on the Hub of the encoders that a checkpoint does not carry itself."""
    path = checkpoint_dir / "processor_config.json"
    settings = json.loads(path.read_text(encoding="utf-8")) if path.is_file() else {}
    named = (settings.get(part) for part in PARTS)
    return [name.partition("@")[0] for name in named if name is not None and not name.startswith("./")]


def _card(
    checkpoint_dir: Path,
    model: PreTrainedModel,
    repo_id: str,
    subfolder: str | None,
    reports: Sequence[Report],
    license: str | None,
) -> str:
    """The folder's own card, or a plain one, with the repository's name and the figures of the reports in it.

    Figures of other weights are dropped, whoever wrote them. The card of a subfolder is not the repository's, and has
    no metadata of results.
    """
    has_processor = (checkpoint_dir / "processor_config.json").is_file()
    path = checkpoint_dir / "README.md"
    text = path.read_text(encoding="utf-8") if path.is_file() else plain_card(model.config, repo_id, has_processor)
    if reports and "<!-- results -->" not in text:
        text = f"{text.rstrip()}\n\n## Results\n\n<!-- results -->\n<!-- /results -->\n"
    filled = ModelCard(
        refreshed(
            text,
            model.config.card,
            ["use", "results"],
            location=repo_id,
            subfolder=subfolder,
            has_processor=has_processor,
            results=[report.shown() for report in reports],
            **card_values(model.config),
        )
    )
    if license is not None:
        filled.data.license = license
    if named := _named_encoders(checkpoint_dir):
        filled.data.base_model = named
    _claim(filled, [] if subfolder else reports, repo_id)
    return str(filled)


def _validate(filled: ModelCard) -> None:
    """Raise ``ValueError`` with what the Hub says against a card."""
    try:
        filled.validate()
    except ValueError as error:
        text = str(error)
        with suppress(ValueError, KeyError, TypeError):
            text = "; ".join(item["message"] for item in json.loads(text)["errors"])
        raise ValueError(f"The Hub does not take the card's metadata, and nothing was uploaded: {text}") from None


def _claim(filled: ModelCard, reports: Sequence[Report], repo_id: str) -> None:
    """Put the figures of these reports, and no others, into a card's metadata."""
    filled.data.eval_results = [result for report in reports for result in report.model_index()] or None
    filled.data.model_name = repo_id.split("/")[-1] if filled.data.eval_results else None


def plain_card(config: Any, location: str, has_processor: bool) -> str:
    """A card for a model of which nothing is known but its config."""
    return card(
        config.card,
        {"pipeline_tag": config.pipeline_tag},
        title=location.split("/")[-1],
        summary=config.summary,
        location=location,
        has_processor=has_processor,
        facts=[plain(config.notice or UNKNOWN)],
        **card_values(config),
    )


class PushedWithCard:
    """Pushes in one commit, with this library's card, where transformers would write a general one.

    A card that is there stays, but for its example; new weights drop what it says of the old ones, and their figures.
    """

    # What the whole is called that it is a part of, for processors and feature extractors.
    whole: str | None = None

    def push_to_hub(
        self,
        repo_id: str,
        *,
        commit_message: str | None = None,
        commit_description: str | None = None,
        private: bool | None = None,
        token: str | None = None,
        revision: str | None = None,
        create_pr: bool = False,
        max_shard_size: int | str = "50GB",
        tags: Sequence[str] | None = None,
    ) -> CommitInfo:
        """Upload to the Hub, with a card.

        Args:
            repo_id: ``user/name``; created if it does not exist.
            commit_message: Title of the commit.
            commit_description: Text of the commit.
            private: Create the repository as private. If it exists, it must already be private.
            token: Token of the account; the saved one by default.
            revision: Branch to write to; created if it does not exist.
            create_pr: Whether to propose it and not to do it.
            max_shard_size: Largest size of a file of weights.
            tags: Added to the card's.

        Raises:
            HubError: If the Hub refuses or cannot be reached.
        """
        api = HfApi(token=token)
        with hub_errors(repo_id, "model", "uploaded"), tempfile.TemporaryDirectory() as folder:
            repo = open_repository(api, repo_id, "model", private, None if create_pr else revision)
            self.save_pretrained(folder, max_shard_size=max_shard_size)
            files: dict[str, str | bytes] = {
                path.relative_to(folder).as_posix(): str(path) for path in Path(folder).rglob("*") if path.is_file()
            }
            present = set(api.list_repo_files(repo, revision=revision))
            before, where = None, {"revision": revision, "token": token}
            if "README.md" in present:
                before = Path(api.hf_hub_download(repo, "README.md", revision=revision)).read_text(encoding="utf-8")
            brings_weights = any(fnmatch.filter(files, pattern) for pattern in (*WEIGHTS, *ENGINES))
            filled = ModelCard(self._card(repo, before, present | files.keys(), brings_weights, **where))
            if brings_weights:
                _claim(filled, [], repo)
            if tags:
                filled.data.tags = list(dict.fromkeys([*(filled.data.tags or []), *tags]))
            files["README.md"] = str(filled).encode()
            return commit_files(
                api,
                repo,
                files,
                [*WEIGHTS, *ENGINES, CALIBRATED_ON, RESULTS] if brings_weights else [],
                commit_message or f"Upload {type(self).__name__}",
                revision,
                commit_description,
                create_pr,
            )

    def _card(self, repo: str, before: str | None, names: set[str], brings_weights: bool, **where: Any) -> str:
        """The card of the repository once it holds these names; `where` as of ``from_pretrained``."""
        config = getattr(getattr(self, "model", self), "config", self)
        has_processor = "processor_config.json" in names
        if brings_weights and (before is None or PART_MARK in before):
            return plain_card(config, repo, has_processor)
        if before is None:
            whole = self.whole or config.summary[0].lower() + config.summary[1:-1]
            values = {"title": repo.split("/")[-1], "part": type(self).__name__, "location": repo, "whole": whole}
            return card("part", **values, facts=map(plain, getattr(self, "notices", [])))
        if PART_MARK in before:
            return before
        if not hasattr(config, "card"):
            # A processor, of which the detector that is there already knows the card.
            config = _config_there(repo, names, **where)
            if config is None:
                return before
        # What was said of other weights is not true of these.
        facts = [plain(getattr(config, "notice", None) or UNKNOWN)]
        values = {"location": repo, "subfolder": None, "has_processor": has_processor, "results": []}
        only = None if brings_weights else ["use"]
        return refreshed(before, config.card, only, facts=facts, **values, **card_values(config))


def _config_there(repo: str, names: set[str], **where: Any) -> PreTrainedConfig | None:
    """The config of a model that is on the Hub; ``None`` if there is none, or none with a card of this library."""
    if "config.json" not in names:
        return None
    try:
        config = AutoConfig.from_pretrained(repo, trust_remote_code=False, **where)
    except ValueError:  # of a type that nobody here knows
        return None
    return config if isinstance(config, PushedWithCard) else None


__all__ = ["PushedWithCard", "plain_card", "push_checkpoint"]
