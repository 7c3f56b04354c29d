"""Writes originals once, damages them, has them read, and judges."""

import shutil
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from avad_hf.media.coverage import NOTABLE_S

from .damage import Case, NotPossibleError, damage
from .judge import Verdict, judge, judge_undamaged
from .originals import BY_NAME, Original
from .runner import Runner


class Bench:
    """Where cases are tried; originals and what was read of them are kept.

    Args:
        folder: For files.
        runner: Reads them.
    """

    def __init__(self, folder: Path, runner: Runner):
        self.folder, self.runner = folder, runner
        self._known: dict[str, tuple[dict[str, str], dict[str, Any]]] = {}

    def original(self, name: str) -> tuple[dict[str, str], dict[str, Any]]:
        """An original's files, and what was read of them in order."""
        if name not in self._known:
            source = BY_NAME[name].write(self.folder)
            reference = self.runner.read(source)
            if reference["outcome"] != "read":
                raise RuntimeError(f"{name} in order is not read: {reference['words']}")
            self._known[name] = source, reference
        return self._known[name]

    def try_case(self, case: Case, keep: Path | None = None) -> tuple[str, Verdict | None]:
        """What was done to a file, and what became of it; no verdict where it could not be done.

        Args:
            case: Which.
            keep: A folder in which the damaged file stays.
        """
        source, reference = self.original(case.original)
        with tempfile.TemporaryDirectory(dir=self.folder) as folder:
            try:
                damaged = damage(case, source, Path(folder))
            except NotPossibleError as error:
                return str(error), None
            if keep is not None:
                shutil.copytree(folder, keep / case.id.replace(":", "_"), dirs_exist_ok=True)
            observed = self.runner.read(damaged.source, **(damaged.request or {}))
            verdict = judge(BY_NAME[case.original], reference, damaged, observed)
            if verdict.silent:
                self._excuse(verdict, source, damaged.source)
        return damaged.description, verdict

    def _excuse(self, verdict: Verdict, source: dict[str, str], damaged: dict[str, str]) -> None:
        """Do not call silent what FFmpeg itself tells nobody of.

        Overwritten samples of PCM are samples, and VP9 decodes any bytes. Of damage within a picture that is there
        all the same, H.264 and HEVC often tell FFmpeg's log alone, which a program with threads cannot listen to.
        """
        before, after = (self.runner.read(files, task="signs") for files in (source, damaged))
        if after["outcome"] != "read":
            return
        for what in list(verdict.silent):
            other = {"picture": "audio:", "sound": "video:"}[what]
            if not all(error.startswith(other) for error in after["errors"]):
                continue
            if not after["complaints"] and before["packets"] == after["packets"]:
                verdict.unknowable.append(what)
            elif verdict.lost[f"{what} missing"] < NOTABLE_S:
                verdict.concealed.append(what)
            else:
                continue
            verdict.silent.remove(what)

    def try_original(self, original: Original) -> str | None:
        """What is wrong with what is read of a file in order; ``None`` if nothing is."""
        with tempfile.TemporaryDirectory(dir=self.folder) as folder:
            return judge_undamaged(original, self.runner.read(original.write(Path(folder))))


@contextmanager
def open_bench(runner: Runner) -> Iterator[Bench]:
    """A bench in a folder that goes away; its reader ends with whoever made it."""
    with tempfile.TemporaryDirectory(prefix="laboratory-") as folder:
        yield Bench(Path(folder), runner)
