"""`avad-hf push`: checkpoints, feature stores and corpora to the Hub."""

import tempfile
from enum import StrEnum
from pathlib import Path
from typing import Annotated, Any

import typer

from .options import AnonymiseOption, JsonOption, hidden_names
from .results import check_json, write_json
from .terminal import fail, hush_libraries, refuse, stage, stop_for, stoppable


class Corpus(StrEnum):
    """Corpora whose classes are known."""

    manifest = "manifest"
    mavad = "mavad"
    shade = "shade"
    shanghaitech = "shanghaitech"


@stoppable("The repository on the Hub may be there already, without all of its files. Run the same command again.")
def push(
    directory: Annotated[
        Path,
        typer.Argument(
            metavar="DIR", help="Checkpoint, feature store, or corpus (its folder or manifest).", show_default=False
        ),
    ],
    repo: Annotated[
        str, typer.Argument(metavar="USER/NAME", help="Repository; made if there is none.", show_default=False)
    ],
    private: Annotated[
        bool | None,
        typer.Option(
            "--private/--public",
            help="Needed for stores and corpora, which show people.",
            show_default="checkpoints: public, or as the repository is",
        ),
    ] = None,
    revision: Annotated[str | None, typer.Option(help="Branch to write to.", show_default="main")] = None,
    subfolder: Annotated[
        str | None,
        typer.Option(help="Folder of the repository, for one checkpoint of many.", show_default="its top folder"),
    ] = None,
    report: Annotated[
        list[Path] | None,
        typer.Option(
            help="Folder that `avad-hf evaluate` wrote: figures for the card. Repeat it for several.",
            show_default="none",
        ),
    ] = None,
    license: Annotated[
        str | None,
        typer.Option(help="Licence of the weights: apache-2.0, cc-by-nc-4.0, ...", show_default="as the card says"),
    ] = None,
    space: Annotated[
        str | None,
        typer.Option(
            help="user/name of a Space to make too (gradio), which scores uploaded videos.", show_default="none"
        ),
    ] = None,
    requirement: Annotated[
        str | None,
        typer.Option(
            help="Where the Space gets this library: git+https://..., the address of a wheel, or a wheel's path.",
            show_default="none; --space needs it",
        ),
    ] = None,
    corpus: Annotated[
        Corpus | None, typer.Option(help="Which corpus a folder or manifest is.", show_default="none")
    ] = None,
    anonymise: AnonymiseOption = None,
    json: JsonOption = None,
) -> None:
    """Upload a checkpoint, a feature store or a corpus to the Hub, with its card. Log in first: `hf auth login`.

    Example: avad-hf push checkpoints/street alice/street --report reports/street
    """
    if not directory.exists():
        refuse(f"{directory}: no such file or folder.")
    is_checkpoint = (directory / "config.json").is_file()
    is_store = not is_checkpoint and (directory / "recipe.json").is_file()
    if not is_checkpoint and (subfolder or report or license or space):
        refuse("--subfolder, --report, --license and --space belong to checkpoints.")
    if space and (subfolder or revision or not (directory / "processor_config.json").is_file()):
        refuse("--space needs a detector with its processor, on the main branch and not in a subfolder.")
    if requirement is not None and space is None:
        refuse("--requirement belongs to --space.")
    if (is_checkpoint or is_store) and corpus is not None:
        refuse(f"--corpus belongs to corpora, and {directory} is a {'checkpoint' if is_checkpoint else 'store'}.")
    if not is_checkpoint and not is_store and corpus is None:
        refuse(
            f"{directory} is no checkpoint (config.json) and no feature store (recipe.json). If it is a corpus or a "
            "manifest, say which: --corpus manifest, mavad, shade or shanghaitech."
        )
    if not is_checkpoint and private is None:
        refuse(
            "push needs --private or --public for stores and corpora: the people in the videos did not consent to "
            "publication."
        )
    if anonymise is not None and corpus is None:
        refuse(f"--anonymise hides faces and plates in the videos of a corpus, and {directory} holds none.")
    tell = check_json(json)
    hush_libraries()
    from avad_hf.corpora.loading import load_dataset
    from avad_hf.corpora.sharing import push_corpus
    from avad_hf.features.dataset import FeatureDataset
    from avad_hf.hub.push import push_checkpoint
    from avad_hf.hub.space import check_requirement, push_space

    try:
        if space is not None:
            check_requirement(requirement, private)
        if is_checkpoint:
            url = push_checkpoint(
                directory,
                repo,
                private=private,
                revision=revision,
                subfolder=subfolder,
                reports=report or [],
                license=license,
            )
        elif is_store:
            url = FeatureDataset(directory).push_to_hub(repo, private=private, revision=revision)
        else:
            rows = load_dataset(corpus.value, data_dir=directory)
            with tempfile.TemporaryDirectory() as folder:
                if anonymise is not None:
                    rows = _anonymised(rows, anonymise, Path(folder))
                url = push_corpus(rows, repo, private=private, revision=revision)
    except (OSError, ValueError) as error:
        stop_for(error)
    tell(f"Pushed {directory} to {url}")
    space_url = None
    if space is not None:
        try:
            space_url = push_space(repo, space, private=private, requirement=requirement)
        except (OSError, ValueError) as error:  # the checkpoint is there already
            fail(error)
            raise typer.Exit(1) from None
        tell(f"The Space is {space_url}")
        if private:
            tell("It needs a token that may read the detector: add HF_TOKEN to the secrets in its settings.")
    write_json({"directory": str(directory), "url": url, "space": space_url}, json)


def _anonymised(rows: Any, names: str, folder: Path) -> Any:
    """The same rows with videos that are written again; raises ``ValueError`` if one of them cannot be."""
    from avad_hf.anonymise.choosing import Choice
    from avad_hf.anonymise.folder import anonymise_videos, tasks_of

    pairs = {row["video"]: row.get("audio") for part in rows.values() for row in part}
    tasks = tasks_of({video: {"video": video, "audio": audio} for video, audio in pairs.items()}, Path.cwd().anchor)
    done = anonymise_videos(tasks, folder, Choice(hidden_names(names)), on_stage=stage)
    if done.failed:
        raise ValueError("; ".join(f"{name}: {error}" for name, error in done.failed.items()))
    written = {task.path: str(folder / f"{task.name}.mp4") for task in tasks}
    return rows.map(lambda row: row | {"video": written[row["video"]], "audio": None})
