"""Settings of training from a TOML file, folders in results/, and JSON documents of the verbs."""

import json
import math
import os
import shutil
import sys
import tomllib
from dataclasses import asdict, fields, replace
from pathlib import Path
from types import SimpleNamespace

import pytest
from typer.testing import CliRunner

from avad_hf.cli import app
from avad_hf.cli.results import LATEST, last_folder, write_json
from avad_hf.training.config import TrainingConfig, profiles
from avad_hf.training.settings_file import MAX_BYTES, read_settings, settings_text

from .feature_stores import plant

runner = CliRunner()
ODD = ['a "b" \\ c', "é😀\u2028", "tab\tline\nbell\x07del\x7f", "# no = comment [x]", "'''", "", "none"]


def run(*arguments, code=0):
    done = runner.invoke(app, [str(argument) for argument in arguments])
    assert done.exit_code == code, done.output
    return done


@pytest.fixture
def here(tmp_path, monkeypatch) -> Path:
    """The current folder, which is new."""
    monkeypatch.chdir(tmp_path)
    return tmp_path


@pytest.fixture(scope="module")
def planted(tmp_path_factory) -> Path:
    """A store with planted anomalies."""
    return plant(tmp_path_factory.mktemp("planted") / "store", num_videos=30)


# Settings as TOML


@pytest.mark.parametrize("text", ODD)
def test_odd_text_goes_through_toml(tmp_path, text):
    options = {"plain": text, text or "empty": [text, 1, True], "deep": {"a b": {"c": text}}, "number": 1e-7}
    config = TrainingConfig(text, text, model=text, scene=text, model_options=options, log_with=(text, "wandb"))
    written = settings_text(config, "few")
    parsed = tomllib.loads(written)
    assert parsed["model_options"] == options and parsed["scene"] == text and parsed["log_with"] == [text, "wandb"]
    (tmp_path / "run.toml").write_text(written, encoding="utf-8")
    settings = read_settings(tmp_path / "run.toml")
    assert settings.pop("profile") == "few" and TrainingConfig(**settings) == config


@pytest.mark.parametrize("profile", profiles())
def test_every_recipe_goes_through_toml(tmp_path, profile):
    for model in (None, "checkpoint"):
        config = TrainingConfig.from_profile(profile, data="store", output_dir="run", model=model)
        (tmp_path / "run.toml").write_text(settings_text(config, profile))
        assert TrainingConfig.from_profile(**read_settings(tmp_path / "run.toml")) == config
    names = {item.name for item in fields(TrainingConfig)} - {"output_dir"}
    text = settings_text(config, profile, has_output=False)
    assert "output_dir" not in text and all(name in text for name in names - {"model_options"})


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"model_options": {"threshold": None}}, "model_options.threshold is None, which a TOML file cannot hold"),
        ({"scene": "\udcff"}, "scene is '\\\\udcff', which is not UTF-8"),
    ],
)
def test_what_toml_cannot_hold_is_refused(options, words):
    with pytest.raises(ValueError, match=words):
        settings_text(TrainingConfig("store", "run", **options), "default")


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("epoch = 3", "run.toml: there is no setting epoch. Did you mean epochs?"),
        ("batch-size = 3", "there is no setting batch-size. Did you mean batch_size?"),
        ("store = 'x'", "there is no setting store. Did you mean data?"),
        ("accumulate = 2", "there is no setting accumulate. Did you mean gradient_accumulation_steps?"),
        ("xyzzy = 2", "there is no setting xyzzy. Settings: data, output_dir, model,"),
        ("epochs = 'ten'", "run.toml: epochs must be a whole number, got 'ten'."),
        ("epochs = true", "epochs must be a whole number, got True."),
        ("epochs = 0", "epochs must be a whole number, 1 or more, got 0."),
        ("learning_rate = '1e-3'", "learning_rate must be a number, got '1e-3'."),
        ("learning_rate = nan", "learning_rate must be above 0, got nan."),
        ("fine_tune = 'yes'", "fine_tune must be true or false, got 'yes'."),
        ("patience = 'never'", "patience must be a whole number, or \"none\", got 'never'."),
        ("scene = 3", "scene must be text, got 3."),
        ("optimizer = 'adamx'", "optimizer must be one of adam, adamw, sgd, adagrad, got 'adamx'."),
        ("best_by = 'los'", "best_by must be one of loss, figure, got 'los'."),
        ("log_with = 'wandb'", "log_with must be a list of text, got 'wandb'."),
        ("log_with = [1]", "log_with must be a list of text, got (1,)."),
        ("model_options = 3", "model_options must be a table, got 3."),
        ("profile = 'best'", "profile must be one of default, few, paper"),
        ("profile = 3", "profile must be text, got 3."),
        ("data = 'a'\ndata = 'b'", "run.toml is no TOML file: Cannot overwrite a value"),
        ("data = ", "run.toml is no TOML file"),
        ("\xff", "run.toml is no TOML file"),
        ("#" * MAX_BYTES + "##", "run.toml has more than 1,048,576 bytes, and is no file of settings"),
    ],
)
def test_wrong_files_of_settings_are_refused(here, text, words):
    Path("run.toml").write_bytes(text.encode("latin-1"))
    said = run("train", "store", "--architecture", "avaca", "--config", "run.toml", "--print-config", code=2).stderr
    assert words in said and "Traceback" not in said


def test_a_file_that_is_not_there_and_a_store_that_is_missing(here):
    said = run("train", "--config", "run.toml", code=2).stderr
    assert "--config run.toml cannot be read: No such file or directory." in said
    assert "--config . cannot be read: Is a directory." in run("train", "--config", ".", code=2).stderr
    Path("run.toml").write_text("epochs = 2\n")
    said = run("train", "--config", "run.toml", code=2).stderr
    assert "Missing argument STORE: the feature store, a folder or its Hub id. Or give --config FILE." in said
    assert os.listdir() == ["run.toml"]


def printed(*arguments) -> dict:
    return tomllib.loads(run("train", *arguments, "--print-config").stdout)


def test_print_config_resolves_and_can_be_loaded_again(here, tiny):
    asked = ("store", "--architecture", "avrl", "--epochs", 3, "--set", "modality=audio", "--fusion", "add")
    text = run("train", *asked, "--print-config").stdout
    Path("run.toml").write_text(text)
    assert run("train", "--config", "run.toml", "--print-config").stdout == text
    settings = tomllib.loads(text)
    assert settings["profile"] == "avrl" and settings["optimizer"] == "sgd" and settings["patience"] == "none"
    assert (settings["epochs"], settings["model_options"]) == (3, {"modality": "audio", "fusion": "add"})
    assert "output_dir" not in settings and os.listdir() == ["run.toml"]
    # Options count before the file; either of --model and --architecture takes the place of both.
    changed = printed(
        "--config", "run.toml", "-o", "there", "--epochs", 4, "--fusion", "concat", "--set", "threshold=1"
    )
    options = {"modality": "audio", "fusion": "concat", "threshold": 1}
    assert changed == settings | {"epochs": 4, "output_dir": "there", "model_options": options}
    with_model = printed("other", "--config", "run.toml", "--model", tiny, "--profile", "default")
    assert (with_model["data"], with_model["model"], "architecture" in with_model) == ("other", tiny, False)
    assert with_model["epochs"] == 3 and with_model["profile"] == "default"


def test_a_few_lines_by_hand_are_enough(here):
    Path("run.toml").write_text('data = "store"\narchitecture = "avaca"\nprofile = "few"\nlearning_rate = 1\n')
    settings = printed("--config", "run.toml", "--seed", 7)
    assert (settings["epochs"], settings["learning_rate"], settings["seed"]) == (20, 1.0, 7)


# Folders in results/


def test_runs_without_output_are_numbered_and_latest_is_the_last(here, planted, undrawn):
    Path("run.toml").write_text(f'data = "{planted}"\narchitecture = "avaca"\nepochs = 1\nbatch_size = 8\n')
    assert "There is no run in results to resume" in run("train", "--config", "run.toml", "--resume", code=2).stderr
    done = run("train", "--config", "run.toml", "--json", "train.json")
    assert "results/train-1: epoch 1 of 1" in done.stdout and "Output folder: results/train-1" in done.stderr
    assert os.readlink("results/latest") == "train-1"
    # What reads results/latest finds the run before, and no folder that is not finished.
    done = run("evaluate", "results/latest", planted, "--split", "all", "--json", "-")
    figures = json.loads(done.stdout)
    assert figures == json.loads(Path("results/evaluate-1/metrics.json").read_text())
    assert "Report: results/evaluate-1/report.html" in done.stderr and os.readlink(LATEST) == "evaluate-1"
    # --resume means the last run of training, whatever came after it.
    done = run("train", "--config", "run.toml", "--resume", "--json", "-")
    assert json.loads(done.stdout) == json.loads(Path("train.json").read_text())
    assert os.readlink(LATEST) == "train-1" and last_folder("train") == Path("results/train-1")
    # Alone, it takes the store and the settings of that run.
    done = run("train", "--resume", "--json", "-")
    assert json.loads(done.stdout) == json.loads(Path("train.json").read_text())
    assert "seed: 0 there, 7 now" in run("train", "--resume", "-o", "results/train-1", "--seed", 7, code=2).stderr
    # A refusal names and leaves no folder, and the link stays as it was.
    for words in (("evaluate", "/nowhere", planted), ("train", "nosuch", "--architecture", "avaca")):
        refused = run(*words, code=2)
        assert "no such folder" in refused.stderr or "nosuch" in refused.stderr
        assert "Output folder" not in refused.stderr
    assert sorted(os.listdir("results")) == ["evaluate-1", "latest", "train-1"] and os.readlink(LATEST) == "train-1"
    run("evaluate", "results/latest", planted, "--split", "all", "-o", "mine")
    assert Path("mine/metrics.json").exists() and os.readlink(LATEST) == "train-1"


@pytest.fixture
def nothing_trained(monkeypatch):
    """Training only writes a file; what it raises can be set."""
    from avad_hf.training import loop

    state = SimpleNamespace(error=None, configs=[])

    def train(config, resume, on_begin):
        state.configs.append(config)
        if state.error is not None:
            raise state.error
        on_begin()
        Path(config.output_dir, "model.safetensors").write_text("")
        return loop.TrainingResult(config.output_dir, 1, 1, {"roc_auc": math.nan}, 0.5, None)

    monkeypatch.setattr(loop, "train", train)
    return state


def test_numbers_links_and_what_lies_in_the_way(here, nothing_trained, monkeypatch):
    asked = ("train", "store", "--architecture", "avaca")
    Path("results/train-7").mkdir(parents=True)
    Path("results/train-9.old").mkdir()
    Path("results/latest").mkdir()  # somebody's own
    run(*asked)
    assert nothing_trained.configs[0].output_dir == "results/train-8" and not Path("results/latest").is_symlink()
    Path("results/latest").rmdir()
    Path("results/latest").symlink_to("gone")
    run(*asked)
    assert os.readlink(LATEST) == "train-9"
    nothing_trained.error = ValueError("refused")
    run(*asked, code=2)
    assert not Path("results/train-10").exists() and os.readlink(LATEST) == "train-9"
    nothing_trained.error = RuntimeError("no memory")
    assert run(*asked, code=1).stderr.splitlines()[-1] == "Error: no memory"
    nothing_trained.error = None
    # A file system without links.
    monkeypatch.setattr(Path, "symlink_to", lambda *arguments, **options: (_ for _ in ()).throw(OSError("no links")))
    assert "no links" not in run(*asked).output and Path("results/train-10/model.safetensors").exists()
    monkeypatch.setenv("WORLD_SIZE", "2")
    assert "Several processes must write to one folder. Give it: -o DIR." in run(*asked, code=2).stderr
    shutil.rmtree("results")
    monkeypatch.delenv("WORLD_SIZE")
    Path("results").write_text("")
    assert "results is a file. Give a folder." in run(*asked, code=2).stderr


def test_resume_alone_takes_what_the_record_says(here, nothing_trained):
    assert "There is no run in results to resume" in run("train", "--resume", code=2).stderr
    assert "Missing argument STORE" in run("train", "--resume", "-o", "new", code=2).stderr
    begun = TrainingConfig.from_profile(
        "paper", data="store", output_dir="elsewhere", architecture="avaca", log_with=("tensorboard",), patience=None
    )
    Path("results/train-3").mkdir(parents=True)
    record = Path("results/train-3/training.json")
    record.write_text(json.dumps({"config": begun.to_dict(), "data_sha256": "", "result": None}))
    run("train", "--resume")
    assert nothing_trained.configs == [replace(begun, output_dir="results/train-3")]
    run("train", "--resume", "--epochs", 7)  # which the run itself refuses
    assert nothing_trained.configs[1].epochs == 7
    for text in ("{", "[]", '{"config": 1, "data_sha256": "", "result": null}', '{"config": {}}'):
        record.write_text(text)
        assert "results/train-3/training.json is damaged" in run("train", "--resume", code=2).stderr


def test_what_begins_with_results_is_a_path(here, planted):
    """The Hub would be asked for half a minute."""
    checkpoint = "results/latest: no such folder. Give the folder of a checkpoint, or its Hub id."
    for words in (
        ("detect", __file__, "--model"),
        ("train", "store", "--model"),
        ("extract", "m.csv", "-o", "s", "--model"),
        ("benchmark", "--model"),
    ):
        assert f"--model {checkpoint}" in run(*words, LATEST, code=2).stderr
    assert f"MODEL {checkpoint}" in run("evaluate", LATEST, planted, code=2).stderr
    assert f"MODEL {checkpoint}" in run("export", LATEST, "new", code=2).stderr
    store = "STORE results/latest: no such folder. Give the folder of a feature store, or its Hub id."
    assert store in run("train", LATEST, "--architecture", "avaca", code=2).stderr
    assert store in run("evaluate", "nobody/nothing", LATEST, code=2).stderr
    assert not Path("results").exists()


def test_a_link_to_what_is_no_checkpoint_is_named(here, planted):
    Path("results/evaluate-1").mkdir(parents=True)
    LATEST.symlink_to("evaluate-1")
    ends = "which holds no checkpoint (no config.json). Give the folder of a finished training."
    said = run("evaluate", LATEST, planted, code=2).stderr
    assert f"MODEL results/latest leads to results/evaluate-1, {ends}" in said
    said = run("detect", __file__, "--model", "results/evaluate-1", code=2).stderr
    assert "--model results/evaluate-1 holds no checkpoint (no config.json)" in said and "leads" not in said
    # A processor alone is enough to extract.
    Path("results/evaluate-1/processor_config.json").write_text("{}")
    assert "no checkpoint" not in run("extract", "none.csv", "-o", "s", "--model", LATEST, code=2).stderr


def test_output_of_the_file_counts_and_the_first_refusal_leaves_nothing(here, nothing_trained):
    Path("run.toml").write_text('data = "store"\narchitecture = "avaca"\noutput_dir = "there"\n')
    Path("there").mkdir()
    run("train", "--config", "run.toml")
    assert Path("there/model.safetensors").exists() and not Path("results").exists()
    nothing_trained.error = ValueError("refused")
    run("train", "store", "--architecture", "avaca", code=2)
    assert not Path("results").exists()


def test_reproduce_goes_on_in_one_folder_of_its_corpus(here, monkeypatch):
    from avad_hf.reproduce import papers

    folders = []

    def tables(corpus, output_dir, model, num_videos, **options):
        folders.append(str(output_dir))
        Path(output_dir, "tables.md").write_text("tables")
        return "tables"

    paper = SimpleNamespace(**asdict(papers.PAPERS["synthetic"]) | {"run": tables})
    monkeypatch.setitem(papers.PAPERS, "synthetic", paper)
    for _ in range(2):
        assert "Written to results/reproduce-synthetic/tables.md" in run("reproduce", "synthetic").stdout
    assert folders == ["results/reproduce-synthetic"] * 2 and os.readlink(LATEST) == "reproduce-synthetic"


# JSON documents


def test_documents_have_no_nan_and_appear_whole(here, nothing_trained, capsysbinary):
    done = run("train", "store", "--architecture", "avaca", "--json", "-")
    assert json.loads(done.stdout)["validation"] == {"roc_auc": None}
    assert "validation ROC AUC nan" in done.stderr
    write_json({"a": math.inf}, Path("-"))
    assert json.loads(capsysbinary.readouterr().out) == {"a": None}


def test_new_checkpoints_by_option_or_word_with_their_json(here):
    document = json.loads(run("init", "avaca", "-o", "new", "--size", "tiny", "--json", "-").stdout)
    assert (document["directory"], document["architecture"]) == ("new", "avaca") and Path("new/config.json").exists()
    assert "Untrained detector (random weights, seed 0)" in document["notices"][0]
    for verb, word in (("init", "avaca"), ("export", "new")):
        said = run(verb, word, "a", "-o", "b", code=2).stderr
        assert "The new folder is given twice: a and --output b. Give it once." in said
        assert "Missing argument DIR: the new folder." in run(verb, word, code=2).stderr
    assert "given twice: b and --output c" in run("convert", "slowfast", "a", "b", "-o", "c", code=2).stderr
    assert "Missing argument OUT: the new folder." in run("convert", "slowfast", code=2).stderr


def test_json_of_convert_export_extract_and_push(here, tiny, monkeypatch):
    from avad_hf.convert import encoders
    from avad_hf.export import engines
    from avad_hf.export.parity import Parity
    from avad_hf.features import extraction
    from avad_hf.hub import push

    asked = []

    def convert(encoder, source, directory):
        asked.append((encoder, source, directory))
        return encoders.Conversion(str(directory), "pytorchvideo", "0" * 64, 12, None)

    monkeypatch.setattr(encoders, "convert", convert)
    document = json.loads(run("convert", "slowfast", "weights.pyth", "-o", "out", "--json", "-").stdout)
    assert document == {
        **{"directory": "out", "origin": "pytorchvideo", "source_sha256": "0" * 64, "num_parameters": 12},
        "parity": None,
    }
    run("convert", "slowfast", "-o", "out")
    assert asked == [("slowfast", Path("weights.pyth"), Path("out")), ("slowfast", None, Path("out"))]

    parity = Parity(1, 2, {"visual_features": math.nan}, 0.5)
    monkeypatch.setattr(
        engines, "export_engines", lambda model, output, **options: engines.Export(output, None, parity, 7)
    )
    document = json.loads(run("export", tiny, "-o", "engines", "--json", "-").stdout)
    assert (document["directory"], document["num_bytes"]) == ("engines", 7)
    assert document["parity"]["relative_errors"] == {"visual_features": None}

    Path("m.csv").write_text("video,id\nnone.mp4,none\n")
    Path("none.mp4").write_text("no video")
    done = run("extract", "m.csv", "--model", tiny, "-o", "store", "--json", "-", code=1)
    document = json.loads(done.stdout)
    assert (document["store"], document["num_stored"], document["failed"][0]["id"]) == ("store", 0, "none")
    monkeypatch.setattr(extraction, "verify_features", lambda *arguments, **options: {"v": 1e-4})
    document = json.loads(run("extract", "m.csv", "--model", tiny, "-o", "store", "--verify", "--json", "-").stdout)
    assert document == {"relative_differences": {"v": 1e-4}}

    monkeypatch.setattr(push, "push_checkpoint", lambda directory, repo, **options: f"https://hub/{repo}")
    document = json.loads(run("push", tiny, "alice/street", "--json", "-").stdout)
    assert document == {"directory": tiny, "url": "https://hub/alice/street", "space": None}


def test_a_document_that_cannot_be_written_is_a_failure(here, nothing_trained, monkeypatch):
    def write_text(path, text):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(sys.modules["avad_hf.cli.results"], "write_text", write_text)
    done = run("train", "store", "--architecture", "avaca", "--json", "r.json", code=1)
    assert "Error: r.json cannot be written: [Errno 28] No space left on device" in done.stderr
    assert "results/train-1: epoch 1" in done.stdout and os.readlink(LATEST) == "train-1"
