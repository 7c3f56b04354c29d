"""What can go wrong with the Hub ends in an error that says what to do, and goes well when it is done again."""

import json
import re
import shutil
from dataclasses import replace
from pathlib import Path

import pytest

from avad_hf import AvacaForAnomalyDetection, AvacaProcessor, push_checkpoint

from .feature_stores import plant
from .hub_server import Drop, HubServer
from .media_files import frame_times, write_media

# What every child process begins with. The client waits longer and longer before it tries again; here not at all.
SHARED = """
import json, os, time
time.sleep = lambda seconds: None
from pathlib import Path
from huggingface_hub import HfApi, constants
import avad_hf
from avad_hf import AvacaForAnomalyDetection, AvacaProcessor, AvrlProcessor, FeatureDataset, VggishFeatureExtractor
from avad_hf import push_checkpoint, push_corpus
from avad_hf.hub.folders import weights_hash
from transformers import pipeline

root = Path.cwd().parent
found = {}

def attempt(name, call, *args, **options):
    try:
        found[name] = call(*args, **options)
    except Exception as error:
        found[name] = f"{type(error).__name__}: {error}"

def model(place, **options):
    return weights_hash(AvacaForAnomalyDetection.from_pretrained(place, **options))

def processor(place, **options):
    made = AvacaProcessor.from_pretrained(place, **options)
    return [weights_hash(made.video_encoder), weights_hash(made.audio_encoder)]

def encoder(place):
    return weights_hash(AvacaProcessor(VggishFeatureExtractor(), place, root / "vggish").video_encoder)

def detector(place, **options):
    made = pipeline("audio-visual-anomaly", model=place, **options)
    return [weights_hash(made.model), weights_hash(made.processor.video_encoder)]

def store(place, **options):
    return [float(item["visual_features"].sum()) for item in FeatureDataset(place, **options)]

def push(name, **options):
    push_checkpoint(root / "avaca", name, **options)

def push_pipeline(name):
    pipeline("audio-visual-anomaly", model=str(root / "avaca")).push_to_hub(name)

def push_store(name):
    FeatureDataset(root / "store").push_to_hub(name)

def push_rows(name):
    push_corpus(avad_hf.load_dataset("manifest", data_dir=root / "corpus.csv"), name, private=True)

def read(case, name, **options):
    for call in (model, processor, detector, store):
        attempt(f"{case}: {call.__name__}", call, name, **options)

def write(case, name):
    for call in (push, push_pipeline, push_store, push_rows):
        attempt(f"{case}: {call.__name__}", call, name)
"""

ALICE = """
for call, name in (
    (model, "avaca"), (processor, "avaca"), (encoder, "slowfast"), (detector, "avaca"), (store, "store"),
):
    attempt(f"here: {call.__name__}", call, root / name)
api = HfApi()
for again in ("broken", "again"):
    attempt(f"{again}: push_encoder", push_checkpoint, root / "slowfast", "alice/eyes")
for name, private in (("alice/open", False), ("alice/secret", True)):
    push(name, private=private)
    FeatureDataset(root / "store").push_to_hub(name, private=private)
api.create_repo("alice/empty")

for again in ("broken", "again"):
    attempt(f"{again}: push", push, "alice/half")
    found[f"{again}: files"] = api.list_repo_files("alice/half")
    attempt(f"{again}: push_pipeline", push_pipeline, "alice/half-pipeline")
    attempt(f"{again}: push_store", push_store, "alice/half-store")
    attempt(f"{again}: half a store", store, "alice/half-store")
    attempt(f"{again}: push_rows", push_rows, "alice/half-corpus")
    attempt(f"{again}: model", model, "alice/open")
    attempt(f"{again}: processor", processor, "alice/open")
    attempt(f"{again}: encoder", encoder, "alice/eyes")
    attempt(f"{again}: detector", detector, "alice/secret")
    attempt(f"{again}: store", store, "alice/open")
    attempt(f"{again}: listed store", store, "alice/secret")
detector("alice/open")
attempt("licence", push, "alice/free", license="free")
print(json.dumps(found))
"""

OTHERS = """
read("nobody, private", "alice/secret")
read("nobody, missing", "alice/none")
attempt("nobody, missing: encoder", encoder, "alice/none")
attempt("nobody, revision: encoder", encoder, "alice/eyes@v9")
read("nobody, revision", "alice/open", revision="v9")
attempt("nobody, no file: processor", processor, "alice/empty")
attempt("nobody, no file: avrl", AvrlProcessor.from_pretrained, "alice/empty")
write("nobody", "alice/new")
os.environ["HF_TOKEN"] = "tok-b"
read("bob, private", "alice/secret")
write("bob", "alice/new")
write("bob, present", "alice/open")
os.environ["HF_TOKEN"] = "expired"
read("expired", "alice/open")
write("expired", "alice/new")
print(json.dumps(found))
"""

AWAY = """
for call, name in ((detector, "open"), (store, "open"), (encoder, "eyes")):
    attempt(f"gone, in the cache: {call.__name__}", call, f"alice/{name}")
for case in ("gone", "offline"):
    read(f"{case}, not in the cache", "alice/other")
    attempt(f"{case}, not in the cache: encoder", encoder, "alice/other")
    write(case, "alice/new")
    # What HF_HUB_OFFLINE=1 sets when the client is imported.
    constants.HF_HUB_OFFLINE = True
attempt("offline, not in the cache: avrl", AvrlProcessor.from_pretrained, "alice/other")
print(json.dumps(found))
"""

# What is broken off: six times where the client tries again.
DROPS = [
    Drop("PUT", "^/upload/", after=5000, times=6),
    Drop("POST", "^/api/models/alice/half/commit/", after=100),
    Drop("POST", "^/alice/half-pipeline.git/info/lfs/objects/batch", after=10, times=6),
    Drop("POST", "^/datasets/alice/half-store.git/info/lfs/objects/batch", times=6),
    Drop("POST", "^/datasets/alice/half-corpus.git/info/lfs/objects/batch", times=6),
    Drop("GET", "^/alice/open/resolve/[^/]*/model.safetensors", after=3000, times=6),
    Drop("HEAD", "^/alice/open/resolve/[^/]*/audio_encoder/model.safetensors"),
    Drop("GET", "^/alice/eyes/resolve/[^/]*/config.json", after=30, times=6),
    # The pipeline loads a processor a second time, to see why it failed.
    Drop("HEAD", "^/alice/secret/resolve/[^/]*/video_encoder/model.safetensors", times=2),
    Drop("GET", "^/datasets/alice/open/resolve/[^/]*/recipe.json", after=30, times=6),
    Drop("GET", "^/api/datasets/alice/secret/tree/[0-9a-f]{40}", after=30, times=6),
]


@pytest.fixture(scope="module")
def root(tmp_path_factory, tiny) -> Path:
    """A checkpoint, two encoders, a feature store and a corpus."""
    root = tmp_path_factory.mktemp("hub")
    shutil.copytree(tiny, root / "avaca")
    processor = AvacaProcessor.from_pretrained(tiny)
    processor.video_encoder.save_pretrained(root / "slowfast")
    processor.audio_encoder.save_pretrained(root / "vggish")
    plant(root / "store", 4)
    write_media(root / "v.mp4", frame_times(25, 0.4))
    (root / "corpus.csv").write_text("video,label\nv.mp4,normal\n")
    return root


@pytest.fixture(scope="module")
def hub():
    """A Hub that is gone at the end."""
    return HubServer(tokens={"tok-a": "alice", "tok-b": "bob"})


@pytest.fixture(scope="module")
def found(hub, root) -> dict:
    """What was returned or raised, by the case."""
    with hub:
        hub.drops = [replace(drop) for drop in DROPS]
        runs = [hub.run(SHARED + ALICE, root / "alice"), hub.run(SHARED + OTHERS, root / "others", token="")]
    runs.append(hub.run(SHARED + AWAY, root / "alice"))
    assert hub.unknown == []
    return {case: what for run in runs for case, what in json.loads(run.splitlines()[-1]).items()}


BROKEN = (
    r"The connection to http://127.0.0.1:\d+ failed \(RemoteProtocolError\). Check the network and do the same again"
)
UNKNOWN = r"HubError: .*There is no (model|data set) .*, or it is private.* Check the name, or "
LOGIN = "log in with `hf auth login`, or set HF_TOKEN"
UPLOADS = ("push_encoder", "push", "push_pipeline", "push_store", "push_rows")
DOORS = ("model", "processor", "detector", "store")
WRITERS = ("push", "push_pipeline", "push_store", "push_rows")


@pytest.mark.parametrize("upload", UPLOADS)
def test_a_broken_upload_says_so_and_goes_on_when_it_is_repeated(found, upload):
    assert re.match(f"HubError: alice/.* was not uploaded. {BROKEN}", found[f"broken: {upload}"])
    assert "Error" not in str(found[f"again: {upload}"])


def test_every_connection_was_broken(found, hub):
    assert [drop for drop in hub.drops if drop.times] == []
    assert sum(status == 0 for _, _, status in hub.requests) == sum(
        drop.times for drop in DROPS if drop.method != "GET"
    )


def test_a_broken_upload_leaves_nothing_half(found, hub):
    assert found["broken: files"] == [".gitattributes"]
    assert {path for path in found["again: files"] if path.endswith(".safetensors")} == {
        "model.safetensors",
        "audio_encoder/model.safetensors",
        "video_encoder/model.safetensors",
    }


def test_what_was_transferred_whole_is_not_transferred_again(found, hub):
    """Weights of two checkpoints whose uploads broke off, at a file and after all files."""
    for name, files in (("alice/eyes", 1), ("alice/half", 3)):
        assert len(hub.repos["model", name].lfs_objects) == files
    done = sum(method == "PUT" and status == 200 for method, _, status in hub.requests)
    assert done == sum(len(repo.lfs_objects) for repo in hub.repos.values())


@pytest.mark.parametrize("door", [*DOORS, "encoder", "listed store"])
def test_a_broken_download_says_so_and_succeeds_when_it_is_repeated(found, door):
    assert re.search(f"alice/.* (was not (down)?loaded|cannot be loaded).* {BROKEN}", found[f"broken: {door}"])
    assert found[f"again: {door}"] == found[f"here: {door.removeprefix('listed ')}"]


def test_a_store_whose_upload_broke_off(found):
    assert "2 files of a feature store are missing, first recipe.json" in found["broken: half a store"]
    assert "push the store again" in found["broken: half a store"]
    assert found["again: half a store"] == found["here: store"]


@pytest.mark.parametrize("case", ["nobody, private", "nobody, missing"])
@pytest.mark.parametrize("door", DOORS)
def test_without_a_token(found, case, door):
    words = "OSError: .*logging in with `hf auth login`" if door == "detector" else UNKNOWN + LOGIN
    assert re.match(f"(?s){words}", found[f"{case}: {door}"])


@pytest.mark.parametrize("door", DOORS)
def test_with_a_strangers_token(found, door):
    words = "OSError: .*having permission" if door == "detector" else UNKNOWN + "use a token that may do this"
    assert re.match(f"(?s){words}", found[f"bob, private: {door}"])


@pytest.mark.parametrize("door", DOORS)
def test_a_missing_revision(found, door):
    words = "HubError: .*There is no such branch, tag or commit in the (model|data set) alice/open .*see its page"
    if door == "detector":
        words = "OSError: v9 is not a valid git identifier .* Check the model page"
    assert re.match(words, found[f"nobody, revision: {door}"])


def test_a_missing_encoder_is_named_with_its_role(found):
    missing = "HubError: alice/none was not loaded as video_encoder. There is no model alice/none on "
    assert re.match(missing, found["nobody, missing: encoder"])
    missing = (
        r"HubError: alice/eyes@\S+ was not loaded as video_encoder. There is no such branch, tag or commit in the "
        r"model.*To use another one: AutoProcessor.from_pretrained\(..., video_encoder="
    )
    assert re.match(missing, found["nobody, revision: encoder"])


@pytest.mark.parametrize("kind", ["processor", "avrl"])
def test_a_repository_without_a_processor(found, kind):
    words = "HubError: alice/empty was not loaded. A file is missing in the model alice/empty .*processor_config.json"
    assert re.match(words, found[f"nobody, no file: {kind}"])


@pytest.mark.parametrize("door", DOORS)
def test_an_expired_token(found, door):
    words = "HubError: .*The Hub does not know who asks for the (model|data set) .*use a token that may do this"
    if door == "detector":
        words = "OSError: .*Invalid credentials"
    assert re.match(f"(?s){words}", found[f"expired: {door}"])


@pytest.mark.parametrize("writer", WRITERS)
def test_an_upload_without_a_token(found, writer):
    words = f"HubError: alice/new was not uploaded. The Hub does not know who asks for the .* alice/new .*: {LOGIN}"
    assert re.match(words, found[f"nobody: {writer}"])


@pytest.mark.parametrize("case", ["bob", "bob, present"])
@pytest.mark.parametrize("writer", WRITERS)
def test_an_upload_to_a_strangers_name(found, case, writer):
    words = "HubError: alice/.* was not uploaded. This account may not write the .* alice/.*, or see it. Give a name"
    # Whether one that is there is private, as it must be for data, shows before it is written to.
    not_private = "HubError: The data set alice/open is there already and is public, not private; nothing was uploaded"
    is_data = writer in ("push_store", "push_rows") and case == "bob, present"
    assert re.match(not_private if is_data else words, found[f"{case}: {writer}"])


def test_refused_uploads_make_no_repository(found, hub):
    names = {name for _, name in hub.repos}
    assert "alice/new" not in names and all(name.startswith("alice/") for name in names)


def test_a_licence_that_the_hub_does_not_know(found):
    words = (
        "ValueError: The Hub does not take the card's metadata, and nothing was uploaded: .*license.* must be one of"
    )
    assert re.match(words, found["licence"])


@pytest.mark.parametrize("door", ["detector", "store", "encoder"])
def test_what_is_in_the_cache_needs_no_hub(found, door):
    assert found[f"gone, in the cache: {door}"] == found[f"here: {door}"]


@pytest.mark.parametrize("case", ["gone", "offline"])
@pytest.mark.parametrize("door", [*DOORS, "encoder"])
def test_what_is_not_in_the_cache_needs_a_network(found, case, door):
    words = "HubError: .*no network .*alice/other is not in the cache .* Connect once, or give a folder"
    if door == "detector":
        words = "OSError: We couldn't connect .*Check your internet connection"
    assert re.match(f"(?s){words}", found[f"{case}, not in the cache: {door}"])


def test_the_processor_of_avrl_needs_a_network_too(found):
    assert re.match("HubError: .*Connect once", found["offline, not in the cache: avrl"])


@pytest.mark.parametrize("writer", WRITERS)
def test_an_upload_without_a_network(found, writer):
    gone = r"HubError: alice/new was not uploaded. The connection to .* failed \(ConnectError\). Check the network"
    assert re.match(gone, found[f"gone: {writer}"])
    offline = "HubError: alice/new was not uploaded. HF_HUB_OFFLINE is set, and this needs .* Unset it"
    assert re.match(offline, found[f"offline: {writer}"])


@pytest.mark.parametrize("name", ["a/b/c", "alice/a name", "alice/--"])
@pytest.mark.parametrize(
    "call", [push_checkpoint, AvacaForAnomalyDetection.from_pretrained, AvacaProcessor.from_pretrained]
)
def test_what_is_no_name_of_a_repository(tiny, call, name):
    with pytest.raises((ValueError, OSError), match=r"Repo id must (be in the form|use alphanumeric chars)"):
        call(*([tiny] if call is push_checkpoint else []), name)
