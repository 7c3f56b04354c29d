"""The folder of a training run: who may write it, the state to go on from, and the checkpoint in the end."""

import hashlib
import json
import os
import shutil
from dataclasses import replace
from pathlib import Path
from typing import Any, NamedTuple

import torch
from accelerate import Accelerator
from safetensors.torch import load_file, save_file

from avad_hf.disks import DiskError, writing
from avad_hf.features.dataset import FeatureDataset
from avad_hf.files import PARTIAL, as_json, write_text, written_whole
from avad_hf.runs import LOCK, sweep

from .config import BEFORE, TrainingConfig

RUN, HISTORY, STATES, PROGRESS = "training.json", "history.jsonl", "checkpoints", "progress.json"
# What a full disk asks for, once there is room.
RESUME = "resume the run (--resume)"


def data_sha256(*parts: FeatureDataset) -> str:
    """SHA-256 of which videos a run sees, with their labels."""
    seen = [[(row["id"], row["anomaly"], row.get("label")) for row in part.rows] for part in parts]
    return hashlib.sha256(json.dumps(seen).encode()).hexdigest()


class SavedRun(NamedTuple):
    """What the record of a run says.

    Args:
        config: Settings, as `TrainingConfig.to_dict` gives them; a run of an earlier version has fewer.
        data: SHA-256 of its data.
        result: What it came to, once it is finished.
    """

    config: dict[str, Any]
    data: str
    result: dict[str, Any] | None


def has_run(directory: Path) -> bool:
    """Whether a folder holds a training run, finished or not."""
    return (directory / RUN).is_file()


def read_run(directory: Path) -> SavedRun:
    """Read the record of a run.

    Raises:
        ValueError: If it is damaged.
    """
    try:
        record = json.loads((directory / RUN).read_text(encoding="utf-8"))
        return SavedRun(dict(record["config"]), record["data_sha256"], record["result"])
    except (ValueError, KeyError, TypeError) as error:
        raise ValueError(f"{directory / RUN} is damaged ({error!r}). Train anew into another folder.") from error


class RunFolder:
    """A folder that holds one run. Every epoch leaves a whole state; a kill at any moment costs the epoch at most.

    Args:
        config: Settings of the run.
        data: SHA-256 of its data.
        keep_states: Whether epochs leave their states; the best weights are kept in any case.
    """

    def __init__(self, config: TrainingConfig, data: str, keep_states: bool = True):
        self.keep_states = keep_states
        self.path = Path(config.output_dir)
        self.config = config
        self.data = data
        self.states = self.path / STATES

    def check(self, resume: bool) -> dict[str, Any] | None:
        """Refuse a folder that is not this run's to write, before anything is written.

        Returns:
            The result of the run, if it is finished.

        Raises:
            FileExistsError: If the folder holds something and the run is not to be resumed.
            ValueError: If another run is in it, or files of the run are damaged.
        """
        # Half a claim and its lock are all that a run leaves that was killed right at its beginning.
        names = os.listdir(self.path) if self.path.exists() else []
        if all(name == LOCK or (name.startswith(RUN) and name.endswith(PARTIAL)) for name in names):
            return None
        if not has_run(self.path):
            raise FileExistsError(f"{self.path} is not an empty folder. Give a new one; nothing was overwritten.")
        saved = read_run(self.path)
        if not resume:
            done = "a finished" if saved.result else "an unfinished"
            raise FileExistsError(
                f"{self.path} holds {done} training run. Resume it (--resume), or give a new folder; nothing was "
                "overwritten."
            )
        as_begun = {name: value for name, value in BEFORE.items() if name not in saved.config}
        self.config = replace(self.config, **as_begun)
        different = self.config.differences(BEFORE | saved.config)
        if saved.data != self.data:
            different.append("the videos or their labels are others than those that the run began with")
        if different:
            raise ValueError(
                f"{self.path} holds another run, which cannot be resumed like this:\n  "
                + "\n  ".join(different)
                + "\nGive the same settings, or a new folder."
            )
        return saved.result

    def claim(self, result: dict[str, Any] | None = None) -> None:
        """Write what the run is; with its result once it is finished."""
        content = {"config": self.config.to_dict(), "data_sha256": self.data, "result": result}
        with writing(self.path / RUN, "The record of the run", RESUME):
            write_text(self.path / RUN, as_json(content, indent=2) + "\n")

    def save_state(
        self, accelerator: Accelerator, model: torch.nn.Module, history: list[dict[str, Any]], best_epoch: int
    ) -> None:
        """Write everything that the next epoch depends on; all processes call it."""
        target = self.states / f"epoch_{history[-1]['epoch']:04d}"
        partial = Path(f"{target}{PARTIAL}")
        try:
            with writing(target, "The state of the run", RESUME):
                self._save_state(accelerator, model, history, best_epoch, target, partial)
        except DiskError:
            if accelerator.is_main_process:
                shutil.rmtree(partial, ignore_errors=True)
            raise

    def _save_state(
        self,
        accelerator: Accelerator,
        model: torch.nn.Module,
        history: list[dict[str, Any]],
        best_epoch: int,
        target: Path,
        partial: Path,
    ) -> None:
        if accelerator.is_main_process:
            shutil.rmtree(partial, ignore_errors=True)
            if best_epoch == history[-1]["epoch"]:
                weights = accelerator.unwrap_model(model).state_dict()
                self.states.mkdir(parents=True, exist_ok=True)
                with written_whole(self._best(best_epoch)) as file:
                    save_file({name: value.contiguous() for name, value in weights.items()}, file)
        accelerator.wait_for_everyone()
        if not self.keep_states:
            if accelerator.is_main_process:
                for path in self.states.glob("best_*"):
                    if path != self._best(best_epoch):
                        path.unlink()
            accelerator.wait_for_everyone()
            return
        accelerator.save_state(str(partial))
        accelerator.wait_for_everyone()
        if accelerator.is_main_process:
            (partial / PROGRESS).write_text(as_json({"best_epoch": best_epoch, "history": history}))
            os.replace(partial, target)
            for path in self.states.iterdir():
                if path not in (target, self._best(best_epoch)):
                    shutil.rmtree(path) if path.is_dir() else path.unlink()
        accelerator.wait_for_everyone()

    def load_state(self, accelerator: Accelerator) -> tuple[list[dict[str, Any]], int]:
        """Go back to the last whole state.

        Returns:
            The epochs so far, and the number of the best one; none and 0 if no epoch was finished.

        Raises:
            ValueError: If files of the state are missing or damaged.
        """
        names = sorted(path for path in self.states.glob("epoch_*") if not path.name.endswith(PARTIAL))
        if not names:
            return [], 0
        state = names[-1]
        try:
            progress = json.loads((state / PROGRESS).read_text())
            accelerator.load_state(str(state))
            self.best_weights(progress["best_epoch"])
        # A damaged state raises whatever its reader does.
        except Exception as error:
            raise ValueError(
                f"The state {state} is incomplete or damaged ({type(error).__name__}: {error}). Copy it again, or "
                "delete the run's folder and train anew."
            ) from error
        return progress["history"], progress["best_epoch"]

    def best_weights(self, epoch: int) -> dict[str, torch.Tensor]:
        """Weights of the best epoch."""
        return load_file(self._best(epoch))

    def _best(self, epoch: int) -> Path:
        return self.states / f"best_{epoch:04d}.safetensors"

    def finish(self, written: Path, history: list[dict[str, Any]], result: dict[str, Any]) -> None:
        """Move a checkpoint into the folder, and mark the run as finished."""
        for path in sorted(written.iterdir()):
            target = self.path / path.name
            if target.is_dir():
                shutil.rmtree(target)
            os.replace(path, target)
        write_text(self.path / HISTORY, "".join(as_json(epoch) + "\n" for epoch in history))
        self.claim(result)
        shutil.rmtree(self.states, ignore_errors=True)

    def clean(self, is_finished: bool) -> None:
        """Remove what killed runs left: what is half-written, and states that a finished run needs no more."""
        if is_finished:
            shutil.rmtree(self.states, ignore_errors=True)
        sweep(self.path)


__all__ = ["RunFolder", "SavedRun", "data_sha256", "has_run", "read_run"]
