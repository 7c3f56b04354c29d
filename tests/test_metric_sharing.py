"""Metrics as folders and Spaces: `evaluate` loads them where this library is not installed."""

import ast
import re
import sys
from pathlib import Path
from types import ModuleType, SimpleNamespace

import evaluate
import pytest

from avad_hf import push_metric, write_metric
from avad_hf.evaluation.sharing import METRICS
from avad_hf.metrics.modules import AnomalyScores, EventClasses

from . import warm
from .hub_server import check_card

CLASSES = {"anomaly_scores": AnomalyScores, "event_classes": EventClasses}
LABELS, SCORES = [0, 0, 1, 1], [0.1, 0.4, 0.35, 0.8]


@pytest.fixture(autouse=True)
def caches(tmp_path, monkeypatch):
    """What `evaluate` writes goes into the test's folder; modules that it imported are forgotten."""
    from evaluate import config, loading

    monkeypatch.setattr(config, "HF_METRICS_CACHE", str(tmp_path / "cache"))
    modules, loaded = loading.init_dynamic_modules, set(sys.modules)
    monkeypatch.setattr(loading, "init_dynamic_modules", lambda: modules(hf_modules_cache=tmp_path / "modules"))
    monkeypatch.setattr(sys, "path", list(sys.path))
    yield
    for name in set(sys.modules) - loaded:
        if name.startswith("evaluate_modules"):
            del sys.modules[name]


def blocks(card: str) -> list[str]:
    return re.findall(r"```(?:python|text)\n(.*?)```", card, re.DOTALL)


@pytest.mark.parametrize("metric", METRICS)
def test_the_example_of_the_card_gives_the_output_of_the_card(metric, tmp_path):
    write_metric(metric, tmp_path / metric)
    card = (tmp_path / metric / "README.md").read_text()
    code, output = blocks(card)
    *lines, last = code.strip().splitlines()
    names: dict = {}
    exec("\n".join(lines), names)
    assert isinstance(names["metric"], evaluate.Metric) and names["metric"].name == metric
    assert "avad_hf" not in type(names["metric"]).__module__
    assert eval(last, names) == ast.literal_eval(output)
    assert check_card("space", card)["errors"] == []


def test_the_folders_work_where_this_library_is_not_installed(tmp_path):
    for metric in METRICS:
        write_metric(metric, tmp_path / f"my_{metric}")
    folders = [str(tmp_path / f"my_{metric}") for metric in METRICS]
    code = (
        "import sys; sys.modules['avad_hf'] = None; import evaluate; "
        f"print([evaluate.load(path).compute(predictions=[0, 1], references=[0, 1]) for path in {folders!r}])"
    )
    done = warm.run(code=code, env={"HF_HOME": str(tmp_path / "home")}, fresh=True)
    assert "'roc_auc': 1.0" in done.stdout and "'overall': 1.0" in done.stdout


def test_combined_with_others(tmp_path):
    for metric in METRICS:
        write_metric(metric, tmp_path / metric)
    names = [str(tmp_path / metric) for metric in METRICS]
    both = evaluate.combine(names).compute(predictions=LABELS, references=LABELS)
    assert both["roc_auc"] == 1.0 and both["per_class"] == {"0": 1.0, "1": 1.0}
    prefixed = evaluate.combine({"a": AnomalyScores(cache_dir=str(tmp_path)), "b": names[0]}, force_prefix=True)
    figures = prefixed.compute(predictions=SCORES, references=LABELS)
    assert figures["a_roc_auc"] == figures["b_roc_auc"] == 0.75


def test_without_names_classes_are_called_by_their_numbers(tmp_path):
    module = EventClasses(cache_dir=str(tmp_path))
    figures = module.compute(predictions=[0, 2], references=[0, 1])
    assert list(figures["per_class"]) == ["0", "1", "2"] and figures["overall"] == 0.5
    with pytest.raises(ValueError, match="labels must be class numbers from 0 to 0"):
        EventClasses(cache_dir=str(tmp_path / "other")).compute(predictions=[0], references=[-1])


@pytest.mark.parametrize(
    ("predictions", "references", "classes", "message"),
    [
        ([3e7], [1], None, r"Class numbers must be below 1,000, got 3e\+07\. Number them from 0 on\."),
        ([0], [float("inf")], None, "must be below 1,000, got inf"),
        ([float("nan")], [0], None, "must be below 1,000, got nan"),
        ([0], [0], ["a"] * 1_001, "Give 1,000 classes or fewer, got 1,001"),
        ([], [], None, "Give one prediction for each label, and one or more of them"),
    ],
)
def test_numbers_of_classes_are_bounded(tmp_path, predictions, references, classes, message):
    options = {} if classes is None else {"classes": classes}
    with pytest.raises(ValueError, match=message):
        EventClasses(cache_dir=str(tmp_path)).compute(predictions=predictions, references=references, **options)


def test_the_page_of_the_space_computes(tmp_path, monkeypatch):
    """With a stand-in for gradio that keeps what the page is made of."""
    write_metric("anomaly_scores", tmp_path / "scores_of_mine")
    gradio = ModuleType("gradio")
    gradio.Interface = lambda function, **options: SimpleNamespace(function=function, **options)
    gradio.Dataframe = gradio.JSON = lambda **options: options
    gradio.Error = type("Error", (Exception,), {})
    monkeypatch.setitem(sys.modules, "gradio", gradio)
    app = tmp_path / "scores_of_mine" / "app.py"
    names = {"__file__": str(app), "__name__": "app"}
    exec(compile(app.read_text(), app, "exec"), names)
    page = names["page"]
    assert page.inputs["headers"] == ["predictions", "references"] and "How well scores tell" in page.description
    rows = [["0.1", 0], [0.8, 1], ["", ""], [None, None]]
    assert page.function(rows)["roc_auc"] == 1.0
    with pytest.raises(gradio.Error, match="Type in one row or more"):
        page.function([["", ""]])
    with pytest.raises(gradio.Error, match=r"Labels must be 0 \(normal\) or 1"):
        page.function([[0.1, 3]])
    assert page.function(rows)["roc_auc"] == 1.0


def test_the_files_of_a_metric_import_nothing_else_of_ours():
    import avad_hf.metrics

    folder = Path(avad_hf.metrics.__path__[0])
    for names in METRICS.values():
        for name in names:
            tree = ast.parse((folder / name).read_text())
            ours = {f"{n.module}.py" for n in ast.walk(tree) if isinstance(n, ast.ImportFrom) and n.level}
            assert ours <= set(names[1:])
            assert "avad_hf" not in {a.name for n in ast.walk(tree) if isinstance(n, ast.Import) for a in n.names}


def test_refusals(tmp_path):
    with pytest.raises(ValueError, match=r"Unknown metric: 'auc'\. Known metrics: anomaly_scores, event_classes"):
        write_metric("auc", tmp_path / "auc")
    for name in ("my-scores", "2scores", "ranking", "app"):
        with pytest.raises(ValueError, match=f"cannot import '{name}'.*anomaly_scores, for example"):
            write_metric("anomaly_scores", tmp_path / name)
        with pytest.raises(ValueError, match=f"cannot import '{name}'"):
            push_metric("anomaly_scores", f"alice/{name}")
    (tmp_path / "full").mkdir()
    (tmp_path / "full" / "notes.txt").write_text("mine")
    with pytest.raises(FileExistsError, match="full"):
        write_metric("anomaly_scores", tmp_path / "full")
    assert not (tmp_path / "auc").exists()
