"""Pushed from one cache, pulled into another: the same scores, bit for bit; and nothing on the Hub that is private."""

import csv
import hashlib
import json
import re
import shutil
from pathlib import Path

import pytest
import torch
import yaml
from huggingface_hub import DatasetCard, HfApi, ModelCard, SpaceCard, parse_eval_result_entries
from huggingface_hub.repocard_data import eval_results_to_model_index, model_index_to_eval_results
from safetensors.torch import load_file, save_file
from typer.testing import CliRunner

from avad_hf import (
    AvacaConfig,
    AvacaForAnomalyDetection,
    AvacaProcessor,
    FeatureDataset,
    ResNet3dConfig,
    ResNet3dModel,
    SlowFastModel,
    VideoFeatureExtractor,
    load_dataset,
    push_checkpoint,
    push_corpus,
)
from avad_hf.cli import app
from avad_hf.corpora.manifest import ManifestError
from avad_hf.hub.cards import card
from avad_hf.hub.results import SHOWN, read_report
from avad_hf.models.avrl.untrained_avrl import SIZES
from avad_hf.untrained import init, init_avrl

from .feature_stores import plant, plant_videos, recipe
from .hub_server import HubServer
from .media_files import frame_times, gray, sound, write_media
from .own_detector import OwnConfig, OwnDetector
from .test_examples import SHORT
from .test_hub import plant_foreign_encoders

# What every child process begins with; its folder lies beside those of the checkpoints.
SHARED = """
import hashlib, json
from pathlib import Path
import datasets, torch
torch.set_num_threads(1)
import avad_hf
from avad_hf import AvacaProcessor, FeatureDataset, VggishFeatureExtractor
from transformers import AutoFeatureExtractor, AutoModel, AutoModelForVideoClassification, AutoProcessor, pipeline

root = Path.cwd().parent
clip = str(root / "clip.mp4")

def digest(tensors):
    sha = hashlib.sha256()
    for name, tensor in sorted(tensors.items()):
        sha.update(f"{name} {tensor.dtype} {tuple(tensor.shape)}".encode() + tensor.contiguous().numpy().tobytes())
    return sha.hexdigest()

def detect(model, **options):
    return pipeline("audio-visual-anomaly", model=model, **options)(clip)

def encode(place):
    read, encoder = AutoFeatureExtractor.from_pretrained(place), AutoModel.from_pretrained(place).eval()
    if "vggish" in str(place):
        frames = read.examples(read(torch.linspace(-1, 1, 32000).sin())["input_features"][0])
    else:
        frames = read(clip)["pixel_values_videos"]
    with torch.no_grad():
        return digest({"": encoder(frames).pooler_output})

def items(place):
    store = FeatureDataset(place, split="test", seed=0)
    return {row["id"]: digest(item) for row, item in zip(store.rows, store)}

def features_of(rows):
    processor = AvacaProcessor.from_pretrained(root / "avaca")
    return {row["id"]: digest(processor(row)) for row in rows}

def everything(at):
    found = {name: detect(at(name)) for name in ("avaca", "by-id", "avrl")}
    found |= {name: encode(at(name)) for name in ("slowfast", "vggish", "resnet3d")}
    return found | {name: items(at(name)) for name in ("features", "videos")}
"""

WRITE = """
from huggingface_hub import HfApi
from typer.testing import CliRunner
from avad_hf import evaluate, load_dataset, push_checkpoint, push_corpus
from avad_hf.cli import app
from avad_hf.untrained import init_avaca

def command(*arguments):
    done = CliRunner().invoke(app, ["push", *map(str, arguments)])
    assert done.exit_code == 0, done.output

api = HfApi()
def edit(repo, **where):
    text = Path(api.hf_hub_download(repo, "README.md", **where)).read_text()
    text = text.replace("# ", "# By Alice: ", 1).replace("tags:", "language:\\n- mt\\ntags:") + "My own words.\\n"
    api.upload_file(path_or_fileobj=text.encode(), path_in_repo="README.md", repo_id=repo, **where)

push_checkpoint(root / "slowfast", "alice/eyes")
push_checkpoint(root / "slowfast", "alice/eyes", revision="first")
push_checkpoint(root / "vggish", "alice/ears")
init_avaca(root / "by-id", "tiny", video_encoder="alice/eyes", audio_encoder="alice/ears")

found = everything(lambda name: root / name)
for name in ("avaca", "by-id", "avrl", "slowfast", "vggish", "resnet3d"):
    push_checkpoint(root / name, f"alice/{name}", private=name == "avrl")
FeatureDataset(root / "features", split="test").push_to_hub("alice/features")
FeatureDataset(root / "videos").push_to_hub("alice/videos", private=True, revision="v1")
FeatureDataset(root / "videos").push_to_hub("alice/videos")

# Other doors
push_checkpoint(root / "avaca", "alice/branch", revision="v1.0")
for name in ("avaca", "avrl"):
    push_checkpoint(root / name, "alice/many", subfolder=f"all/{name}")
detector = pipeline("audio-visual-anomaly", model=str(root / "avaca"))
detector.push_to_hub("alice/pipeline", private=True)
detector.model.push_to_hub("alice/parts")
edit("alice/parts")
detector.processor.push_to_hub("alice/parts")
detector.processor.save_pretrained("saved", push_to_hub=True, repo_id="alice/saved")
AutoModel.from_pretrained(root / "vggish").push_to_hub("alice/vggish-parts")
AutoFeatureExtractor.from_pretrained(root / "vggish").push_to_hub("alice/vggish-parts")
detector.model.config.push_to_hub("alice/config")
detector.processor.feature_extractor.push_to_hub("alice/extractor")
push_checkpoint(root / "slowfast2", "alice/eyes")
for wheel in ("avad_hf-1-py3-none-any.whl", "avad_hf-2+cpu-py3-none-any.whl"):
    (root / wheel).write_bytes(wheel.encode())
    avad_hf.push_space("alice/avaca", "alice/show", notes=["Untrained."], requirement=root / wheel)
address = "git+https://host/avad-hf@main"
avad_hf.push_space("alice/avaca", "alice/hidden-show", private=True, requirement=address)
try:
    avad_hf.push_space("alice/avaca", "alice/hidden-show", requirement=root / wheel)
except ValueError as error:
    found["refused wheel"] = str(error)
found["metrics"] = [avad_hf.push_metric("anomaly_scores", "alice/scores") for _ in range(2)]

# Corpora, and a store that has lost a video
rows = load_dataset("manifest", data_dir=root / "corpus")
push_corpus(rows, "alice/corpus", private=True)
push_corpus(rows["test"], "alice/corpus-branch", private=True, revision="v2")
found["corpus"] = {
    part: [{name: value for name, value in row.items() if name not in ("video", "audio")} for row in split]
    for part, split in rows.items()
}
found["row features"] = features_of(rows["train"])
for name in ("manifest", "mavad", "shade", "shanghaitech"):
    command(root / "corpora" / f"{name}.csv", f"alice/{name}", "--corpus", name, "--private")
push_corpus(load_dataset("synthetic", "crossing", num_videos=1), "alice/synthetic", private=False)
command(root / "shrunk", "alice/shrunk", "--private", "--revision", "next")

FeatureDataset(root / "features").push_to_hub("alice/shrunk")
edit("alice/shrunk", repo_type="dataset")
command(root / "shrunk", "alice/shrunk", "--private")
edit("alice/corpus", repo_type="dataset")
push_corpus(rows, "alice/corpus", private=True)

# Figures
def judged(name, store, folder, **which):
    model = AutoModelForVideoClassification.from_pretrained(root / name)
    evaluate(model, FeatureDataset(store, **which), num_resamples=20).save(root / folder)
    return root / folder

on_hub = judged("avaca", "alice/features", "on-hub", split="test", seed=0, scene="street")
on_disk = judged("avaca", root / "features", "on-disk")
events = judged("avrl", "alice/videos", "events", split="test", seed=0, revision="v1")
here = judged("avrl", root / "videos", "events-here")
pushed = {
    "figures": push_checkpoint(root / "avaca", "alice/judged", reports=[on_hub, on_disk], license="cc-by-nc-4.0"),
    "own words": push_checkpoint(root / "edited", "alice/judged", reports=[on_disk]),
    "none": push_checkpoint(root / "edited", "alice/judged"),
    "events": push_checkpoint(root / "avrl", "alice/events", reports=[events]),
    "here": push_checkpoint(root / "avrl", "alice/events", reports=[here]),
    "inside": push_checkpoint(root / "avrl", "alice/events-inside", subfolder="sub", reports=[here]),
}
found["commits"] = {name: url.rpartition("/")[2] for name, url in pushed.items()}
print(json.dumps(found))
"""

READ = """
found = everything(lambda name: f"alice/{name}")
found["doors"] = {name: detect(f"alice/{name}") for name in ("pipeline", "parts")}
found["doors"]["branch"] = detect("alice/branch", revision="v1.0")
for name, key in (("avaca", "subfolder"), ("avrl", "avrl in a subfolder")):
    inside = {"subfolder": f"all/{name}"}
    model = AutoModelForVideoClassification.from_pretrained("alice/many", **inside)
    found["doors"][key] = detect(model, processor=AutoProcessor.from_pretrained("alice/many", **inside))
found["eyes"] = {}
for place in ("alice/eyes", "alice/eyes@first", str(root / "slowfast"), str(root / "slowfast2")):
    encoder = AvacaProcessor(VggishFeatureExtractor(), place, "alice/ears").video_encoder
    found["eyes"][place.split("/")[-1]] = digest(encoder.state_dict())
found["vggish-parts"] = encode("alice/vggish-parts")
found["row features"] = features_of(datasets.load_dataset("alice/corpus", split="train"))
print(json.dumps(found))
"""

# What is kept in the cache by each kind of reading; the other doors lead to the same.
READ_AGAIN = """
found = everything(lambda name: f"alice/{name}")
found["row features"] = features_of(datasets.load_dataset("alice/corpus", split="train"))
print(json.dumps(found))
"""

PLAIN = """
import hashlib, json, sys
import datasets
found = {}
for part, rows in datasets.load_dataset("alice/corpus").items():
    files = [{name: row[name] for name in ("video", "audio")} for row in rows]
    found[part] = rows.remove_columns(["video", "audio"]).to_list()
    found[part + " files"] = [
        {name: file and [file["path"], hashlib.sha256(file["bytes"]).hexdigest()] for name, file in row.items()}
        for row in files
    ]
found["branch"] = list(datasets.load_dataset("alice/corpus-branch", revision="v2")["test"]["id"])
found["index"] = datasets.load_dataset("alice/features", split="train").select_columns(["id", "label"]).to_list()
assert "avad_hf" not in sys.modules and "torch" not in sys.modules
first = next(iter(datasets.load_dataset("alice/corpus", split="train", streaming=True)))
found["streamed"] = [first["id"], hashlib.sha256(first["video"]["bytes"]).hexdigest()]
import evaluate
metric = evaluate.load("alice/scores")
found["metric"] = metric.compute(predictions=[0.1, 0.4, 0.35, 0.8], references=[0, 0, 1, 1])
assert "avad_hf" not in sys.modules
print(json.dumps(found))
"""


@pytest.fixture(scope="module")
def hub():
    with HubServer(tokens={"tok-a": "alice", "tok-b": "bob"}) as server:
        yield server
        assert server.unknown == []


@pytest.fixture(scope="module")
def root(tmp_path_factory, tiny) -> Path:
    """Checkpoints, feature stores, corpora and a clip."""
    root = tmp_path_factory.mktemp("hub")
    write_media(root / "clip.mp4", frame_times(25, 1.7), sound(0, 1.7, 16000), rate=16000, audio_codec="aac")
    shutil.copytree(tiny, root / "avaca")
    processor = AvacaProcessor.from_pretrained(tiny)
    processor.video_encoder.save_pretrained(root / "slowfast")
    torch.manual_seed(1)
    SlowFastModel(processor.video_encoder.config).save_pretrained(root / "slowfast2")
    processor.audio_encoder.save_pretrained(root / "vggish")
    processor.feature_extractor.save_pretrained(root / "vggish")
    ResNet3dModel(ResNet3dConfig(**SIZES["tiny"]["resnet3d"])).save_pretrained(root / "resnet3d")
    VideoFeatureExtractor(size=64).save_pretrained(root / "slowfast")
    VideoFeatureExtractor(num_frames=8, size=(48, 48)).save_pretrained(root / "resnet3d")
    classes = ("arrest", "fight", "normal1", "normal2")
    init_avrl(root / "avrl", size="tiny", video_encoder=root / "resnet3d", classes=classes)

    made = recipe(processor={"processor_class": "AvacaProcessor", "clip_stride": 32, "size": 64}, notices=["Drawn."])
    shape = (processor.video_encoder.config.hidden_size, 1, 3)
    sizes = {"steps": 32, "audio_size": processor.audio_encoder.config.embedding_size, "clips": (1, 3)}
    plant(root / "features", 24, shape, scenes=("street", "yard"), recipe_of=made, **sizes)
    plant(root / "shrunk", 22, shape, scenes=("street", "yard"), recipe_of=made, **sizes)
    plant_videos(root / "videos", 20)
    (root / "corpora").mkdir()
    for name, labels in {
        "manifest": ("normal", "fire"),
        "mavad": ("normal", "horse"),
        "shade": ("normal1", "shoot"),
        "shanghaitech": ("normal", "abnormal"),
    }.items():
        manifest = [("video", "label", "split"), *((f"{label}.mp4", label, "train") for label in labels)]
        write_csv(root / "corpora" / f"{name}.csv", manifest)
        for label in labels:
            shutil.copy(root / "clip.mp4", root / "corpora" / f"{label}.mp4")
    write_corpus(root / "corpus")

    # What training leaves in a checkpoint's folder, and what its owner does.
    for name in ("training.json", ".env", "optimizer.pt", "states/state.json", "video_encoder/notes.txt"):
        path = root / "avaca" / name
        path.parent.mkdir(exist_ok=True)
        path.write_text(f'{{"output_dir": "{root}", "token": "hf_secret"}}')
    (root / "avaca" / "LICENSE.txt").write_text("Do as you like.")
    shutil.copytree(root / "avaca", root / "edited")
    card = (root / "edited" / "README.md").read_text()
    card = card.replace("# Untrained", "# Alice's", 1).replace("tags:", "language:\n- mt\ntags:")
    (root / "edited" / "README.md").write_text(card + "\nMy own words.\n")
    return root


def write_csv(path: Path, rows: list[tuple]) -> None:
    with open(path, "w", newline="") as file:
        csv.writer(file).writerows(rows)


def write_corpus(folder: Path) -> None:
    """One's own corpus: a video with sound, a silent one, and one with its sound beside it, of which a part counts."""
    folder.mkdir()
    times = frame_times(25, 1.4)
    write_media(folder / "a.mp4", times, sound(0, 1.4, 16000), rate=16000, audio_codec="aac")
    write_media(folder / "b.mp4", times)
    write_media(folder / "c.mp4", times, pictures=lambda index, *size: gray(index + 50, *size))
    write_media(folder / "c.wav", samples=sound(3, 1.4, 16000), rate=16000)
    write_csv(
        folder / "manifest.csv",
        [
            ("id", "video", "audio", "label", "scene", "split", "start", "end", "weather", "note"),
            ("a", "a.mp4", "", "normal", "yard", "train", "", "", "rain", "first"),
            ("b", "b.mp4", "", "fire", "yard", "test", "", "", "", "second"),
            ("c", "c.mp4", "c.wav", "fire", "hall", "train", 0.04, 1.36, "fog", ""),
        ],
    )


def child(hub, code: str, home: Path, **options) -> dict:
    """What a child process prints last."""
    return json.loads(hub.run(code, home, **options).splitlines()[-1])


@pytest.fixture(scope="module")
def written(hub, root) -> dict:
    return child(hub, SHARED + SHORT + WRITE, root / "writer")


@pytest.fixture(scope="module")
def pulled(hub, root, written) -> dict:
    return child(hub, SHARED + READ, root / "reader")


@pytest.fixture(scope="module")
def plain(hub, root, written) -> dict:
    """What is read without this library."""
    return child(hub, PLAIN, root / "plain", bare=True)


def readme(hub, kind: str, name: str, revision: str = "main") -> str:
    return hub.files(kind, name, revision)["README.md"].decode()


# What comes back


@pytest.mark.parametrize("name", ["avaca", "by-id", "avrl", "slowfast", "vggish", "resnet3d", "features", "videos"])
def test_pulled_as_pushed(written, pulled, name):
    assert pulled[name] == written[name]


def test_different_checkpoints_give_different_scores(written):
    """Or equal ones would prove nothing."""
    found = [written[name] for name in ("avaca", "by-id", "avrl", "slowfast", "vggish", "resnet3d", "features")]
    assert len({json.dumps(item) for item in found}) == len(found)
    assert len(written["avaca"]["clips"]) == 2 and len(set(written["features"].values())) == len(written["features"])


@pytest.mark.parametrize("door", ["pipeline", "parts", "branch", "subfolder"])
def test_every_way_in_and_out_gives_the_same_scores(written, pulled, door):
    assert pulled["doors"][door] == written["avaca"]


def test_an_encoder_pushed_in_parts(written, pulled):
    assert pulled["vggish-parts"] == written["vggish"]


def test_one_checkpoint_of_many(written, pulled):
    assert pulled["doors"]["avrl in a subfolder"] == written["avrl"]


def test_without_a_network_from_the_cache(hub, root, pulled):
    found = child(hub, SHARED + READ_AGAIN, root / "reader", HF_HUB_OFFLINE="1")
    assert found == {name: pulled[name] for name in found} and len(found) == 9


def test_an_encoder_is_kept_at_the_commit_that_was_loaded(hub, pulled):
    """Its repository has moved on since, and the scores have not (`test_pulled_as_pushed`)."""
    settings = json.loads(hub.files("model", "alice/by-id")["processor_config.json"])
    eyes = hub.repos["model", "alice/eyes"]
    first = eyes.branches["first"]
    assert settings["video_encoder"] == f"alice/eyes@{first}" and eyes.branches["main"] != first
    assert re.fullmatch("alice/ears@[0-9a-f]{40}", settings["audio_encoder"])


def test_a_revision_chooses_an_encoder(pulled):
    eyes = pulled["eyes"]
    assert eyes["eyes@first"] == eyes["slowfast"] != eyes["slowfast2"] == eyes["eyes"]


# What goes out


def test_a_checkpoint_is_its_own_files_and_nothing_else(hub, written):
    assert hub.files("model", "alice/avaca").keys() == {
        ".gitattributes",
        "LICENSE.txt",
        "README.md",
        "audio_encoder/config.json",
        "audio_encoder/model.safetensors",
        "config.json",
        "model.safetensors",
        "processor_config.json",
        "video_encoder/config.json",
        "video_encoder/model.safetensors",
    }


def test_encoders_of_the_hub_are_not_uploaded_again(hub, written):
    assert not [path for path in hub.files("model", "alice/by-id") if "encoder" in path]


def test_nothing_says_where_it_was_made(hub, root, written):
    contents = {
        (name, path): blob.data
        for (_, name), repo in hub.repos.items()
        for commit in repo.commits.values()
        for path, blob in commit.files.items()
        if not blob.lfs
    }
    assert len(contents) > 60
    assert [place for place, data in contents.items() if str(root).encode() in data or b"hf_secret" in data] == []


@pytest.mark.parametrize(
    ("kind", "name", "private"),
    [
        ("model", "avrl", True),
        ("model", "avaca", False),
        ("model", "pipeline", True),
        ("dataset", "videos", True),
        ("dataset", "features", True),
        ("dataset", "corpus", True),
        ("dataset", "synthetic", False),
    ],
)
def test_private_as_asked(hub, written, kind, name, private):
    assert hub.repos[kind, f"alice/{name}"].private is private


def test_a_branch_leaves_main_alone(hub, written):
    assert hub.files("model", "alice/branch").keys() == {".gitattributes"}
    assert "model.safetensors" in hub.files("model", "alice/branch", "v1.0")


@pytest.mark.parametrize("name", ["config", "extractor", "parts", "pipeline", "saved", "vggish-parts"])
def test_whatever_is_pushed_alone_gets_a_card(hub, written, name):
    card = ModelCard(readme(hub, "model", f"alice/{name}"))
    assert card.data.library_name == "avad-hf" and f"alice/{name}" in card.text


def test_the_owners_card_stays_when_parts_are_pushed(hub, written):
    card = ModelCard(readme(hub, "model", "alice/parts"))
    assert "# By Alice: parts" in card.text and card.text.endswith("My own words.\n")
    assert card.data.language == ["mt"]


def test_a_processor_that_is_saved_and_pushed_brings_its_encoders(hub, written):
    whole = hub.files("model", "alice/avaca")
    saved = hub.files("model", "alice/saved")
    assert saved.keys() == {path for path in whole if path not in ("LICENSE.txt", "config.json", "model.safetensors")}
    assert saved["video_encoder/model.safetensors"] == whole["video_encoder/model.safetensors"]


def test_the_command_pushes_a_checkpoint(hub, root, written):
    arguments = [root / "avaca", "alice/by-command", "--private", "--revision", "v2", "--license", "mit"]
    words = ["avad-hf", "push", *map(str, arguments), "--report", str(root / "on-disk")]
    code = f"""
        import sys
        from importlib.metadata import entry_points
        sys.argv = {words!r}
        entry_points(group='console_scripts')['avad-hf'].load()()
    """
    printed = hub.run(code, root / "writer")
    repo = hub.repos["model", "alice/by-command"]
    assert f"Pushed {root / 'avaca'} to {hub.url}/alice/by-command/commit/{repo.branches['v2']}" in printed
    assert repo.private and repo.at("v2").files.keys() == hub.files("model", "alice/avaca").keys()
    card = ModelCard(readme(hub, "model", "alice/by-command", "v2"))
    assert card.data.license == "mit" and card.data.eval_results


def test_a_space_shows_a_detector(hub, written):
    files = hub.files("space", "alice/show")
    wheel = "avad_hf-2+cpu-py3-none-any.whl"  # and not the one of before
    assert files.keys() == {".gitattributes", "README.md", "app.py", "requirements.txt", wheel}
    assert files[wheel] == wheel.encode()
    address = f"{hub.url}/spaces/alice/show/resolve/main/avad_hf-2%2Bcpu-py3-none-any.whl"
    assert files["requirements.txt"].decode() == f"avad-hf[app] @ {address}\n"
    card = SpaceCard(files["README.md"].decode())
    assert (card.data.sdk, card.data.app_file, card.data.models) == ("gradio", "app.py", ["alice/avaca"])
    assert "https://huggingface.co/alice/avaca" in card.text and "Untrained." in card.text
    names = compile(files["app.py"], "app.py", "exec").co_names
    assert "serve" in names and b'"alice/avaca"' in files["app.py"] and b"{{" not in files["app.py"]


def test_a_private_space_gets_an_address_and_no_wheel(hub, written):
    files = hub.files("space", "alice/hidden-show")
    assert files["requirements.txt"] == b"avad-hf[app] @ git+https://host/avad-hf@main\n"
    assert not any(name.endswith(".whl") for name in files)
    assert "A private Space cannot install a wheel that lies in it" in written["refused wheel"]


def test_a_metric_is_loaded_by_its_name(hub, written, plain, root):
    assert written["metrics"] == [f"{hub.url}/spaces/alice/scores"] * 2
    files = hub.files("space", "alice/scores")
    assert files.keys() == {".gitattributes", "README.md", "app.py", "ranking.py", "requirements.txt", "scores.py"}
    card = SpaceCard(files["README.md"].decode())
    assert (card.data.sdk, card.data.app_file, card.data.tags[:2]) == ("gradio", "app.py", ["evaluate", "metric"])
    assert 'evaluate.load("alice/scores")' in card.text
    assert plain["metric"]["roc_auc"] == 0.75


# A class that this library does not know: a child process must import it before it loads a checkpoint.
OWN = f"""
import sys
from pathlib import Path
sys.path.insert(0, {str(Path(__file__).parents[1])!r})
import tests.own_detector
from transformers import AutoModelForVideoClassification, AutoProcessor, pipeline
"""
OWN_WRITE = """
from avad_hf import push_checkpoint
from huggingface_hub import HfApi
push_checkpoint("own", "alice/own", license="mit")
model = AutoModelForVideoClassification.from_pretrained("own")
model.push_to_hub("alice/parts")
before = Path(HfApi().hf_hub_download("alice/parts", "README.md")).read_text()
AutoProcessor.from_pretrained("own").push_to_hub("alice/parts")
print(before.count("pipeline("), model.score.weight.sum().item())
"""
OWN_READ = """
for name in ("own", "parts"):
    detect = pipeline("audio-visual-anomaly", model=f"alice/{name}")
    print(type(detect.model).__name__, detect.model.score.weight.sum().item())
"""
UNKNOWN = """
import avad_hf
try:
    avad_hf.push_checkpoint("own", "alice/unknown")
except ValueError as error:
    print(error)
"""


def test_a_detector_of_ones_own_is_pushed_with_a_plain_card(tiny, tmp_path):
    """Whole, and in parts; with the processor the card's example becomes the pipeline's."""
    processor = AvacaProcessor.from_pretrained(tiny)
    model = OwnDetector(OwnConfig(visual_size=processor.widths["visual_features"], notice="Trained on a yard."))
    for part in (model, processor):
        part.save_pretrained(tmp_path / "writer" / "own")
    with HubServer(tokens={"tok": "alice"}) as hub:
        written = hub.run(OWN + OWN_WRITE, tmp_path / "writer").split()
        read = hub.run(OWN + OWN_READ, tmp_path / "reader")
        cards = {name: ModelCard(readme(hub, "model", f"alice/{name}")) for name in ("own", "parts")}
        names = hub.files("model", "alice/own").keys()
        # Without the class nobody can load it, and nothing is pushed.
        unknown = hub.run(UNKNOWN, tmp_path / "writer")
        assert "alice/unknown" not in {name for _, name in hub.repos}
    assert [line.split() for line in read.splitlines()] == [["OwnDetector", written[1]]] * 2
    assert "is no whole checkpoint, and nothing was uploaded" in unknown and "tests_own" in unknown
    assert {"config.json", "model.safetensors", "processor_config.json", "video_encoder/model.safetensors"} <= names
    for name, filled in cards.items():
        assert "An Own detector." in filled.text and "Trained on a yard." in filled.text
        assert "import tests.own_detector" in filled.text
        assert f'pipeline("audio-visual-anomaly", model="alice/{name}")' in filled.text
        assert filled.data.pipeline_tag == "video-classification" and filled.data.library_name == "avad-hf"
    assert cards["own"].data.license == "mit" and written[0] == "0"


def test_a_checkpoint_with_encoders_of_others_is_pushed(tmp_path):
    plant_foreign_encoders(tmp_path)
    made = init("avaca", tmp_path / "new", "tiny", video_encoder=tmp_path / "see", audio_encoder=tmp_path / "hear")
    with HubServer(tokens={"tok": "alice"}) as hub:
        hub.run(
            f"""
            import avad_hf
            avad_hf.push_checkpoint({str(tmp_path / "new")!r}, "alice/others")
            """,
            tmp_path / "writer",
        )
        files = hub.files("model", "alice/others")
        read = hub.run(
            """
            import json
            import avad_hf
            from transformers import AutoProcessor
            print(json.dumps(AutoProcessor.from_pretrained("alice/others").recipe()))
            """,
            tmp_path / "reader",
        )
    for part in ("video_encoder", "audio_encoder"):
        assert {f"{part}/{name}" for name in ("config.json", "model.safetensors", "preprocessor_config.json")} <= (
            files.keys()
        )
    assert json.loads(read.splitlines()[-1]) == json.loads(json.dumps(made.processor.recipe()))


BESIDE = """
import avad_hf
from huggingface_hub import HfApi
api = HfApi()
api.create_repo("alice/other")
for name, text in (("README.md", CARD), ("config.json", '{"model_type": "bert"}')):
    api.upload_file(path_or_fileobj=text.encode(), path_in_repo=name, repo_id="alice/other")
avad_hf.AvacaProcessor.from_pretrained(TINY).push_to_hub("alice/other")
"""


def test_a_processor_pushed_beside_a_strangers_model_leaves_its_card(tiny, tmp_path):
    text = "# Mine\n\n<!-- use -->\n<!-- /use -->\n"
    with HubServer(tokens={"tok": "alice"}) as hub:
        hub.run(f"CARD, TINY = {text!r}, {tiny!r}\n{BESIDE}", tmp_path / "writer")
        assert readme(hub, "model", "alice/other").endswith(text)


def cut(path: Path) -> None:
    path.write_bytes(path.read_bytes()[:-5])


def without_a_tensor(path: Path) -> None:
    save_file(dict(list(load_file(path).items())[1:]), path, {"format": "pt"})


@pytest.mark.parametrize(
    ("file", "damage", "words"),
    [
        ("model.safetensors", cut, "nothing was uploaded.*cut or damaged"),
        ("model.safetensors", without_a_tensor, "nothing was uploaded.*weights of .* are missing"),
        ("model.safetensors", Path.unlink, "nothing was uploaded.*model.safetensors"),
        ("config.json", Path.unlink, "holds no checkpoint: config.json is missing"),
        ("config.json", cut, "nothing was uploaded.*is damaged"),
        ("config.json", lambda path: path.write_text('{"model_type": "bert"}'), "type 'bert', which is none of this"),
        ("processor_config.json", cut, "nothing was uploaded.*is damaged"),
        ("video_encoder/model.safetensors", cut, "nothing was uploaded.*video_encoder cannot be loaded.*cut"),
        (
            "README.md",
            lambda path: path.write_text("---\nlicense: [\n---\n"),
            "metadata of .*README.md cannot be read: while parsing",
        ),
    ],
)
def test_a_damaged_checkpoint_is_not_pushed(root, tmp_path, monkeypatch, file, damage, words):
    monkeypatch.setattr(HfApi, "create_repo", lambda *args, **kwargs: pytest.fail("A repository was made."))
    shutil.copytree(root / "avaca", tmp_path / "avaca")
    damage(tmp_path / "avaca" / file)
    with pytest.raises(ValueError, match=f"(?s){words}"):
        push_checkpoint(tmp_path / "avaca", "alice/damaged")


def test_an_encoder_with_a_damaged_feature_extractor_is_not_pushed(root, tmp_path, monkeypatch):
    monkeypatch.setattr(HfApi, "create_repo", lambda *args, **kwargs: pytest.fail("A repository was made."))
    shutil.copytree(root / "slowfast", tmp_path / "slowfast")
    cut(tmp_path / "slowfast" / "preprocessor_config.json")
    with pytest.raises(ValueError, match=r"(?s)nothing was uploaded.*is damaged"):
        push_checkpoint(tmp_path / "slowfast", "alice/damaged")


def test_what_is_no_folder_is_not_pushed(tmp_path):
    with pytest.raises(FileNotFoundError, match=r"no such folder. Give the folder of a checkpoint"):
        push_checkpoint(tmp_path / "none", "alice/none")


# Figures


def claimed(hub, written, push: str, repo: str = "alice/judged") -> tuple[ModelCard, dict[str, bytes]]:
    files = hub.files("model", repo, written["commits"][push])
    return ModelCard(files["README.md"].decode()), files


def figures(folder: Path) -> dict:
    return json.loads((folder / "metrics.json").read_text())


def test_a_card_claims_what_was_measured(hub, root, written):
    card, _ = claimed(hub, written, "figures")
    found = [(result.metric_type, result.metric_value) for result in card.data.eval_results]
    reports = [figures(root / name) for name in ("on-hub", "on-disk")]
    expected = [
        (name, (report[place] or {}).get(name)) for report in reports for place, name, _ in SHOWN if place in report
    ]
    assert found == [pair for pair in expected if pair[1] is not None]
    assert len(found) > 8


def test_figures_survive_the_hubs_own_reading(hub, written):
    card, _ = claimed(hub, written, "figures")
    index = yaml.safe_load(card.data.to_yaml())["model-index"]
    name, results = model_index_to_eval_results(index)
    assert name == "judged" and results == card.data.eval_results
    assert eval_results_to_model_index(name, results) == index


def test_a_card_says_what_was_measured_on(hub, root, written):
    card, _ = claimed(hub, written, "figures")
    data = hub.repos["dataset", "alice/features"].branches["main"]
    first, last = card.data.eval_results[0], card.data.eval_results[-1]
    assert (first.dataset_type, first.dataset_split, first.dataset_revision) == ("alice/features", "test", data)
    assert first.dataset_args == {"split_seed": 0, "scene": "street", "audio_path": "focused"}
    assert (last.dataset_type, last.dataset_split, last.dataset_revision) == ("features", "all", None)
    assert "On `alice/features` (test videos, scene street, split seed 0, " in card.text
    assert "On `features` (all videos, 24 videos, 12 anomalous, sound focused)" in card.text
    video = figures(root / "on-disk")["video"]
    low, high = video["roc_auc_interval_95"]
    assert f"| ROC AUC of videos | {video['roc_auc']:.3f} | {low:.3f} to {high:.3f} |" in card.text
    assert "- Drawn." in card.text and "No evaluation has been added" not in card.text


def test_the_main_figure_of_data_on_the_hub_stands_on_the_models_page(hub, root, written):
    _, files = claimed(hub, written, "figures")
    (entry,) = parse_eval_result_entries(yaml.safe_load(files[".eval_results/avad_hf.yaml"]))
    assert (entry.dataset_id, entry.value) == ("alice/features", figures(root / "on-hub")["video"]["roc_auc"])
    assert entry.dataset_revision == hub.repos["dataset", "alice/features"].branches["main"]
    assert entry.notes.startswith("ROC AUC of videos; test videos, scene street, split seed 0, ")


def test_data_that_is_not_on_the_hub_has_no_leaderboard(hub, written):
    card, files = claimed(hub, written, "own words")
    assert card.data.eval_results and ".eval_results/avad_hf.yaml" not in files


def test_event_classes_have_their_own_main_figure(hub, root, written):
    card, files = claimed(hub, written, "events", "alice/events")
    (entry,) = parse_eval_result_entries(yaml.safe_load(files[".eval_results/avad_hf.yaml"]))
    events = figures(root / "events")["events"]
    assert (entry.dataset_id, entry.value) == ("alice/videos", events["top1_accuracy"])
    assert entry.dataset_revision == hub.repos["dataset", "alice/videos"].branches["v1"]
    assert entry.notes.startswith("top-1 accuracy of event classes; test videos, split seed 0")
    found = {result.metric_type: result.metric_value for result in card.data.eval_results}
    assert found["top1_accuracy"] == events["top1_accuracy"] and found["top1_macro"] == events["top1_macro"]


def test_a_card_forgets_figures_that_are_not_given_again(hub, written):
    card, files = claimed(hub, written, "none")
    assert card.data.eval_results is None and "model-index" not in card.data.to_yaml()
    assert "No evaluation has been added" in card.text and "ROC AUC" not in card.text
    assert ".eval_results/avad_hf.yaml" not in files
    _, files = claimed(hub, written, "here", "alice/events")
    assert ".eval_results/avad_hf.yaml" not in files


@pytest.mark.parametrize("push", ["own words", "none"])
def test_the_owners_words_stay(hub, written, push):
    card, _ = claimed(hub, written, push)
    assert "# Alice's AVACA" in card.text and card.text.endswith("My own words.\n")
    assert card.data.language == ["mt"] and 'model="alice/judged"' in card.text


def test_the_licence_is_the_given_one(hub, written):
    assert claimed(hub, written, "figures")[0].data.license == "cc-by-nc-4.0"
    assert claimed(hub, written, "none")[0].data.license == "apache-2.0"


def test_a_subfolder_claims_nothing_for_the_whole_repository(hub, written):
    files = hub.files("model", "alice/events-inside", written["commits"]["inside"])
    card = ModelCard(files["sub/README.md"].decode())
    assert "README.md" not in files and not [path for path in files if ".eval_results" in path]
    assert card.data.eval_results is None and "top-1 accuracy" in card.text


def test_figures_of_other_weights_are_refused(root, written):
    with pytest.raises(ValueError, match=r"figures of other weights .* Evaluate this checkpoint: avad-hf evaluate"):
        push_checkpoint(root / "avrl", "alice/other", reports=[root / "on-disk"])


@pytest.mark.parametrize(
    ("text", "words"),
    [
        (None, "is no report: it holds no metrics.json. `avad-hf evaluate` writes one"),
        ("{", "damaged, or of an older version .* Run avad-hf evaluate again"),
        ("{}", "damaged, or of an older version .*KeyError.* Run avad-hf evaluate again"),
    ],
)
def test_what_is_no_report_is_refused(tmp_path, text, words):
    if text is not None:
        (tmp_path / "metrics.json").write_text(text)
    with pytest.raises(ValueError, match=words):
        read_report(tmp_path, "0" * 64)


# Data sets


def test_plain_datasets_reads_a_corpus(written, plain):
    assert {part: plain[part] for part in written["corpus"]} == written["corpus"]
    assert [row["id"] for row in plain["train"]] == ["a", "c"] and plain["train"][1]["start"] == 0.04


def test_a_corpus_is_streamed(root, plain):
    assert plain["streamed"] == ["a", hashlib.sha256((root / "corpus" / "a.mp4").read_bytes()).hexdigest()]


def test_a_corpus_on_a_branch(hub, plain):
    assert plain["branch"] == ["b"]
    assert hub.files("dataset", "alice/corpus-branch").keys() == {".gitattributes"}


def test_the_files_of_a_corpus_lie_inside(root, plain):
    def file(name: str) -> list[str]:
        return [name, hashlib.sha256((root / "corpus" / name).read_bytes()).hexdigest()]

    assert plain["train files"] == [
        {"video": file("a.mp4"), "audio": None},
        {"video": file("c.mp4"), "audio": file("c.wav")},
    ]


def test_a_row_goes_into_the_processor_as_it_is(written, pulled):
    assert pulled["row features"] == written["row features"]
    assert len(set(written["row features"].values())) == 2


def test_plain_datasets_reads_the_index_of_a_store(root, plain):
    rows = [json.loads(line) for line in (root / "features" / "index.jsonl").read_text().splitlines()]
    assert plain["index"] == [{"id": row["id"], "label": row["label"]} for row in rows]


def test_the_card_of_a_store_counts_and_says_how_it_was_made(hub, written):
    card = DatasetCard(readme(hub, "dataset", "alice/features"))
    assert "24 videos, 12 of them anomalous." in card.text
    assert "| street | normal | no | " in card.text and 'FeatureDataset("alice/features"' in card.text
    assert "clip_stride: 32" in card.text and f"video_encoder: SHA-256 of its weights `{'a' * 64}`" in card.text
    assert "- Drawn." in card.text
    assert card.data.configs == [{"config_name": "default", "data_files": "index.jsonl"}]


def test_a_store_is_its_index_recipe_and_features(hub, root, written):
    """Whatever part of it was pushed: here the test videos."""
    local = {path.relative_to(root / "features").as_posix() for path in (root / "features").rglob("*.*")}
    assert hub.files("dataset", "alice/features").keys() == {".gitattributes", "README.md", *local}


def test_a_store_that_has_lost_videos(hub, root, written):
    files = hub.files("dataset", "alice/shrunk")
    assert sum(path.startswith("features/") for path in files) == 22
    card = DatasetCard(files["README.md"].decode())
    assert "22 videos, 11 of them anomalous." in card.text and "24 videos" not in card.text


@pytest.mark.parametrize("name", ["shrunk", "corpus"])
def test_the_owners_words_stay_in_the_card_of_a_data_set(hub, written, name):
    card = DatasetCard(readme(hub, "dataset", f"alice/{name}"))
    assert f"# By Alice: {name}" in card.text and card.text.endswith("My own words.\n")
    assert card.data.language == ["mt"]


def test_a_store_on_a_branch(hub, written):
    files = hub.files("dataset", "alice/shrunk", "next")
    assert "22 videos" in files["README.md"].decode() and "index.jsonl" in files


@pytest.mark.parametrize(
    ("name", "title", "row"),
    [
        ("manifest", "# manifest", "|  | fire | yes | 1 | 1 |"),
        ("mavad", "# MAVAD", "|  | horse | yes | 1 | 1 |"),
        ("shade", "# SHADE", "|  | shoot | yes | 1 | 1 |"),
        ("shanghaitech", "# ShanghaiTech Campus", "|  | abnormal | yes | 1 | 1 |"),
        ("synthetic", "# Synthetic world of avad_hf", "| crossing | normal | no | 1 | 1 |"),
    ],
)
def test_each_corpus_has_its_card(hub, written, name, title, row):
    card = DatasetCard(readme(hub, "dataset", f"alice/{name}"))
    assert f"\n{title}\n" in card.text and row in card.text
    assert f'load_dataset("alice/{name}")' in card.text
    # What `datasets` has added.
    assert card.data.configs[0]["data_files"] and card.data.dataset_info["splits"]


def test_the_card_of_a_corpus_counts_scenes_classes_and_splits(hub, written):
    text = DatasetCard(readme(hub, "dataset", "alice/corpus")).text
    table = """\
3 videos, 2 of them anomalous.

| scene | class | anomaly | train | test | all |
|---|---|---|---|---|---|
| hall | fire | yes | 1 | 0 | 1 |
| yard | normal | no | 1 | 0 | 1 |
| yard | fire | yes | 0 | 1 | 1 |
"""
    assert table in text


@pytest.mark.parametrize(
    ("video", "words"),
    [
        ("pictures", "pictures: a folder of pictures, which cannot be put into a data set"),
        ("gone.mp4", "gone.mp4: no file here, which cannot be put into a data set"),
        ("https://x.org/v.mp4", "https://x.org/v.mp4: no file here, which cannot be put into a data set"),
    ],
)
def test_what_cannot_lie_inside_is_named_before_anything_is_uploaded(root, tmp_path, monkeypatch, video, words):
    monkeypatch.setattr(HfApi, "create_repo", lambda *args, **kwargs: pytest.fail("A repository was made."))
    shutil.copytree(root / "corpus", tmp_path / "corpus")
    (tmp_path / "corpus" / "pictures").mkdir()
    shutil.copy(root / "clip.mp4", tmp_path / "corpus" / "gone.mp4")
    write_media(tmp_path / "corpus" / "pictures" / "1.jpg", [0.0], video_codec="mjpeg")
    write_csv(tmp_path / "corpus" / "manifest.csv", [("video", "fps"), ("a.mp4", ""), (video, 25)])
    rows = load_dataset("manifest", data_dir=tmp_path / "corpus", cache_dir=tmp_path / "cache")
    (tmp_path / "corpus" / "gone.mp4").unlink()
    with pytest.raises(ManifestError, match=words):
        push_corpus(rows, "alice/corpus2", private=True)


def test_stretches_of_one_video_would_carry_it_whole(root, tmp_path):
    shutil.copytree(root / "corpus", tmp_path / "corpus")
    manifest = tmp_path / "corpus" / "manifest.csv"
    write_csv(manifest, [("video", "start", "end"), ("a.mp4", 0.0, 0.5), ("a.mp4", 0.5, 1.0)])
    rows = load_dataset("manifest", data_dir=manifest, cache_dir=tmp_path / "cache")
    with pytest.raises(ManifestError, match=r"1 videos stand in several rows, as stretches, first .*a\.mp4: each row"):
        push_corpus(rows, "alice/corpus2", private=True)


def test_whether_a_corpus_or_a_store_is_private_must_be_said(root):
    with pytest.raises(TypeError, match="private"):
        push_corpus(None, "alice/corpus")
    done = CliRunner().invoke(app, ["push", str(root / "corpus"), "alice/corpus", "--corpus", "manifest"])
    assert done.exit_code == 2
    words = "push needs --private or --public for stores and corpora: the people in the videos did not consent"
    assert words in " ".join(done.output.split())
    done = CliRunner().invoke(app, ["push", str(root / "features"), "alice/features"])
    assert done.exit_code == 2 and words in " ".join(done.output.split())


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (("none", "alice/m"), "none: no such file or folder"),
        (("corpus", "alice/m"), "is no checkpoint .* and no feature store .* --corpus manifest, mavad"),
        (("features", "alice/m", "--license", "mit"), "--subfolder, --report, .* belong to checkpoints"),
        (("features", "alice/m", "--corpus", "mavad"), "--corpus belongs to corpora, and .* is a store"),
        (("avaca", "alice/m", "--corpus", "mavad"), "--corpus belongs to corpora, and .* is a checkpoint"),
        (("avaca", "alice/m", "--report", "corpus"), "corpus is no report: it holds no metrics.json"),
    ],
)
def test_the_command_refuses_what_cannot_be_meant(root, monkeypatch, arguments, words):
    monkeypatch.chdir(root)
    done = CliRunner().invoke(app, ["push", *arguments])
    assert done.exit_code == 2 and re.search(words, " ".join(done.output.split()))


# What was there before


def pushed_again(hub, tmp_path, first: str, second: str) -> str:
    """What the second of two pushes to alice/again leads to, in one process: the sum of the weights that load."""
    code = f"""
        import json
        from pathlib import Path
        import avad_hf, torch
        from avad_hf import AvacaConfig, AvacaForAnomalyDetection, push_checkpoint
        from transformers import pipeline
        root = Path({str(tmp_path)!r})
        new, old = (AvacaForAnomalyDetection.from_pretrained(root / "checkpoint") for _ in range(2))
        torch.nn.init.ones_(new.classifier.bias)
        old.save_pretrained(root / "old")
        new.save_pretrained(root / "new", max_shard_size="50KB")
        {first}
        {second}
        print(AvacaForAnomalyDetection.from_pretrained("alice/again").classifier.bias.item())
    """
    return hub.run(code, tmp_path / "home").split()[-1]


@pytest.mark.parametrize(
    "second",
    [
        'push_checkpoint(root / "new", "alice/again")',
        'new.push_to_hub("alice/again", max_shard_size="50KB")',
    ],
)
def test_weights_of_before_are_not_left_to_be_loaded(tiny, tmp_path, second):
    """Of one file before and of several after: the one file would be taken."""
    shutil.copytree(tiny, tmp_path / "checkpoint")
    with HubServer(tokens={"tok": "alice"}) as hub:
        assert pushed_again(hub, tmp_path, 'push_checkpoint(root / "checkpoint", "alice/again")', second) == "1.0"
        names = hub.files("model", "alice/again").keys()
        assert "model.safetensors" not in names and "model.safetensors.index.json" in names
        # The processor of another checkpoint goes; what is pushed alone leaves it.
        assert ("processor_config.json" in names) is second.startswith("new.")


def test_figures_of_before_are_not_claimed_for_new_weights(tmp_path):
    store = plant(tmp_path / "store", 8)
    item = FeatureDataset(store)[0]["visual_features"]
    model = AvacaForAnomalyDetection(AvacaConfig(visual_size=item.shape[1], audio_size=5, num_audio_steps=8))
    model.save_pretrained(tmp_path / "checkpoint")
    values = {"title": "T", "summary": "S.", "location": "x", "facts": ["Drawn by lot."]}
    (tmp_path / "checkpoint" / "README.md").write_text(card("avaca", **values))
    with HubServer(tokens={"tok": "alice"}) as hub:
        first = f"""
        from avad_hf import FeatureDataset, evaluate
        FeatureDataset({str(store)!r}).push_to_hub("alice/data")
        evaluate(old, FeatureDataset("alice/data"), num_resamples=0).save(root / "report")
        push_checkpoint(root / "checkpoint", "alice/again", reports=[root / "report"])
        """.strip()
        pushed_again(hub, tmp_path, first, "")
        before = hub.files("model", "alice/again")
        assert ".eval_results/avad_hf.yaml" in before and b"model-index" in before["README.md"]
        hub.run(
            f"""
            from avad_hf import AvacaForAnomalyDetection
            AvacaForAnomalyDetection.from_pretrained({str(tmp_path / "new")!r}).push_to_hub("alice/again")
            """,
            tmp_path / "home",
        )
        after = hub.files("model", "alice/again")
    assert ".eval_results/avad_hf.yaml" not in after
    assert b"model-index" not in after["README.md"] and b"ROC AUC" not in after["README.md"]
    assert b"No evaluation has been added to this card." in after["README.md"]
    assert b"Drawn by lot." in before["README.md"] and b"Drawn by lot." not in after["README.md"]


def test_a_public_repository_is_not_taken_for_a_private_one(tiny, tmp_path):
    with HubServer(tokens={"tok": "alice"}) as hub:
        printed = hub.run(
            f"""
            import avad_hf
            from huggingface_hub import HfApi
            HfApi().create_repo("alice/open", private=False)
            HfApi().create_repo("alice/open", private=False, repo_type="dataset")
            model = avad_hf.AvacaForAnomalyDetection.from_pretrained({tiny!r})
            for push in (
                lambda: avad_hf.push_checkpoint({tiny!r}, "alice/open", private=True),
                lambda: model.push_to_hub("alice/open", private=True),
                lambda: avad_hf.FeatureDataset({str(plant(tmp_path / "store", 4))!r}).push_to_hub("alice/open"),
            ):
                try:
                    push()
                except avad_hf.HubError as error:
                    print(error)
            """,
            tmp_path / "home",
        )
        assert (
            hub.files("model", "alice/open").keys() == hub.files("dataset", "alice/open").keys() == {".gitattributes"}
        )
    lines = printed.splitlines()
    assert len(lines) == 3
    words = "The (model|data set) alice/open is there already and is public, not private; nothing was uploaded"
    assert all(re.match(words, line) for line in lines)
