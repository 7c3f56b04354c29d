"""Many videos: several at the same time, each whole or not at all, and a run that was stopped goes on."""

import hashlib
import json
import os
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor, as_completed
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import av

from avad_hf.disks import FULL
from avad_hf.files import as_json, write_text
from avad_hf.media.errors import MediaError
from avad_hf.processes import share_cores
from avad_hf.runs import only_run

from .choosing import Choice
from .sheets import write_checks, write_sheet, write_table
from .speech import SpeechFinder
from .video import Anonymised, Speech, anonymise_video

RECORDS, SHEETS, CHECKS, REPORT = "records", "sheets", "checks", "report.json"


@dataclass(frozen=True)
class Task:
    """One video of many.

    Args:
        name: Its name in the output folder, without the ending: ``day1/camera2``.
        source: A path, or what `open_media` takes for a video with a sound file beside it.
        path: The path of the video.
    """

    name: str
    source: Any
    path: str


@dataclass
class Done:
    """What came of many videos.

    Args:
        reports: By the names of the videos, in order.
        failed: What was wrong, by the names of those that could not be written.
    """

    reports: dict[str, dict[str, Any]] = field(default_factory=dict)
    failed: dict[str, str] = field(default_factory=dict)


def tasks_of(sources: dict[str, Any], root: str | os.PathLike) -> list[Task]:
    """Videos with their names in the output folder: their paths from `root` on; of equal ones the second gets -2."""
    tasks, taken = [], set()
    for path, source in sources.items():
        stem = name = Path(os.path.relpath(path, root)).with_suffix("").as_posix()
        if stem.startswith(".."):
            stem = name = Path(path).stem
        number = 2
        while name in taken:
            name, number = f"{stem}-{number}", number + 1
        taken.add(name)
        tasks.append(Task(name, source, path))
    return tasks


def anonymise_videos(
    tasks: Sequence[Task],
    output_dir: str | os.PathLike,
    choice: Choice,
    *,
    speech: Speech = "keep",
    num_checks: int = 0,
    num_workers: int | None = None,
    device: str | None = None,
    on_stage: Callable[[str], None] = lambda stage: None,
    on_video: Callable[[str, str | None], None] = lambda name, error: None,
) -> Done:
    """Write many videos again without what tells who is in them.

    ``NAME.mp4`` are the videos, ``sheets/NAME.jpg`` contact sheets, ``report.json`` says what was found, and
    ``checks/checks.csv`` names pictures of random times that a person looks through. What was done before with the
    same settings is not done again. A video that fails is named, and the others go on.

    Args:
        tasks: The videos.
        output_dir: Their folder.
        choice: What is hidden, and how.
        speech: As for [`anonymise_video`].
        num_checks: Pictures of each video for a person to confirm.
        num_workers: Videos at the same time; by default one for every two cores. They share the cores.
        device: Where detectors of transformers compute.
        on_stage: Told in words what is downloaded.
        on_video: Told of each video that ends, with what was wrong or ``None``.

    Raises:
        ValueError: If the folder was made with other settings, is one of another run, or holds one of the videos.
        OSError: If it cannot be written.
    """
    folder = Path(output_dir)
    for task in tasks:
        if (folder / f"{task.name}.mp4").exists() and os.path.samefile(folder / f"{task.name}.mp4", task.path):
            raise ValueError(f"{task.path} would be written over itself. Give another folder.")
    cores = share_cores()
    workers = max(1, min(num_workers or cores // 2, len(tasks)))
    with only_run(folder):
        # The first anonymiser downloads what is missing; each worker has one of its own.
        threads = max(1, cores // workers)
        ready = [choice.anonymiser(on_stage, threads, device)]
        settings = ready[0].recipe | {"speech": speech, "num_checks": num_checks}
        records = {task.name: _record(folder, task, settings) for task in tasks}
        pending = [task for task in tasks if records[task.name] is None]
        done = Done({name: record["report"] for name, record in records.items() if record is not None})
        checks = [row for record in records.values() if record is not None for row in record["checks"]]
        if pending:
            ready += [choice.anonymiser(on_stage, threads, device) for _ in range(workers - 1)]
            finder = SpeechFinder() if speech != "keep" else None

            def work(task: Task) -> Anonymised:
                anonymiser = ready.pop()
                try:
                    path = folder / f"{task.name}.mp4"
                    path.parent.mkdir(parents=True, exist_ok=True)
                    return anonymise_video(
                        task.source, path, anonymiser, speech=speech, finder=finder, num_checks=num_checks
                    )
                finally:
                    ready.append(anonymiser)

            for task, found, error in _worked(pending, work, workers):
                if error is not None:
                    done.failed[task.name] = f"{type(error).__name__}: {error}"
                else:
                    done.reports[task.name] = found.report
                    checks += _kept(folder, task, settings, found)
                on_video(task.name, done.failed.get(task.name))
        done.reports = {task.name: done.reports[task.name] for task in tasks if task.name in done.reports}
        if num_checks:
            write_table(folder / CHECKS / "checks.csv", sorted(checks, key=lambda row: row["picture"]))
        write_text(
            folder / REPORT,
            as_json({"settings": settings, "videos": done.reports, "failed": done.failed}, indent=2) + "\n",
        )
    return done


def _worked(
    tasks: Sequence[Task], work: Callable[[Task], Anonymised], workers: int
) -> Iterator[tuple[Task, Anonymised | None, Exception | None]]:
    """Results as they come; what is no fault of a video, such as a full disk, ends the run."""
    with ThreadPoolExecutor(workers) as pool:
        running = {pool.submit(work, task): task for task in tasks}
        try:
            for future in as_completed(running):
                error = future.exception()
                if error is not None and not _is_the_videos_own(error):
                    raise error
                yield running[future], None if error is not None else future.result(), error
        finally:
            for future in running:
                future.cancel()


def _is_the_videos_own(error: BaseException) -> bool:
    """Whether only this video is at fault: it cannot be read, or FFmpeg cannot write it. A full disk ends all."""
    if isinstance(error, av.FFmpegError):
        return error.errno not in FULL
    return isinstance(error, (MediaError, ValueError, TypeError, FileNotFoundError))


def _kept(folder: Path, task: Task, settings: dict[str, Any], found: Anonymised) -> list[dict[str, str]]:
    """Write what goes with a video that is there, and its record last; returns its rows of pictures to confirm."""
    sheet = folder / SHEETS / f"{task.name}.jpg"
    sheet.parent.mkdir(parents=True, exist_ok=True)
    write_sheet(sheet, found.samples)
    checks = write_checks(folder / CHECKS, task.name, found.checks)
    record = _record_path(folder, task)
    record.parent.mkdir(parents=True, exist_ok=True)
    asked = settings | {"source": _fingerprint(task.path)}
    write_text(record, as_json({"asked": asked, "report": found.report, "checks": checks}) + "\n")
    return checks


def _record_path(folder: Path, task: Task) -> Path:
    return folder / RECORDS / f"{task.name}.json"


def _record(folder: Path, task: Task, settings: dict[str, Any]) -> dict[str, Any] | None:
    """What was found before of a video; ``None`` if it is not there, or was another file then."""
    path = _record_path(folder, task)
    if not path.is_file() or not (folder / f"{task.name}.mp4").is_file():
        return None
    try:
        record = json.loads(path.read_text(encoding="utf-8"))
        asked = record["asked"]
    except (ValueError, KeyError, TypeError) as error:
        raise ValueError(f"{path} is damaged ({error!r}). Delete it, and run the same command again.") from error
    if different := [name for name, value in settings.items() if asked.get(name) != value]:
        raise ValueError(
            f"{folder} was made with other settings ({', '.join(different)}). Give the same ones, or a new folder."
        )
    return record if asked["source"] == _fingerprint(task.path) else None


def _fingerprint(path: str) -> str:
    """Size, time and first bytes of a file; another one of the same name is told from it."""
    try:
        status = os.stat(path)
        with open(path, "rb") as file:
            begin = file.read(1 << 16)
    except OSError:  # which is named when the video is read
        return ""
    return hashlib.sha256(f"{status.st_size} {status.st_mtime_ns} ".encode() + begin).hexdigest()


__all__ = ["Done", "Task", "anonymise_videos", "tasks_of"]
