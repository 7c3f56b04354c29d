"""The real clients against the Hub of the tests, each in child processes, as they read their settings at import."""

import hashlib
import http.client
import json
import urllib.error
import urllib.request

import pytest

from .hub_server import GITATTRIBUTES, Drop, HubServer


@pytest.fixture
def hub():
    with HubServer(tokens={"tok-a": "alice", "tok-b": "bob"}) as server:
        yield server
        assert server.unknown == []


def send(hub, method: str, path: str, body=b"", token: str = "tok-a", **headers) -> tuple[int, bytes, dict]:
    """One plain request: status, content and headers of the answer."""
    data = body if isinstance(body, bytes) else json.dumps(body).encode()
    headers |= {"Authorization": f"Bearer {token}"} if token else {}
    request = urllib.request.Request(hub.url + path, data or None, headers, method=method)
    try:
        answer = urllib.request.build_opener(urllib.request.ProxyHandler({})).open(request)
    except urllib.error.HTTPError as error:
        answer = error
    with answer:
        return answer.status, answer.read(), dict(answer.headers)


def commit(hub, *operations: dict, header: dict | None = None) -> int:
    """The status that a commit of these operations to alice/m gets."""
    lines = [{"key": "header", "value": {"summary": "s", **(header or {})}}, *operations]
    return send(hub, "POST", "/api/models/alice/m/commit/main", "\n".join(map(json.dumps, lines)).encode())[0]


def test_model_repository(hub, tmp_path):
    weights = bytes(range(256)) * 5000
    folder = tmp_path / "writer" / "upload"
    (folder / "sub").mkdir(parents=True)
    (folder / "README.md").write_text("---\ntags: [test]\n---\n# Title\n")
    (folder / "weights.bin").write_bytes(weights)
    (folder / "empty.txt").touch()
    (folder / "sub" / "größe #1.txt").write_text("1 m")
    expected = {path.relative_to(folder).as_posix(): path.read_bytes() for path in folder.rglob("*.*")}
    printed = hub.run(
        """
        from huggingface_hub import HfApi
        api = HfApi()
        assert api.whoami()["name"] == "alice"
        for _ in range(2):
            api.create_repo("alice/m", private=True, exist_ok=True)
        first = api.upload_folder(repo_id="alice/m", folder_path="upload").oid
        assert api.upload_folder(repo_id="alice/m", folder_path="upload").oid == first
        api.create_branch("alice/m", branch="re/lease")
        api.upload_file(repo_id="alice/m", path_in_repo="new.txt", path_or_fileobj=b"n", revision="re/lease")
        api.delete_file("empty.txt", "alice/m")
        api.delete_folder("sub", "alice/m")
        print(first)
        """,
        tmp_path / "writer",
        bare=True,
    )
    first = printed.strip()
    start = {".gitattributes": GITATTRIBUTES}
    assert hub.repos["model", "alice/m"].private
    assert hub.files("model", "alice/m", first) == start | expected
    assert hub.files("model", "alice/m", "re/lease") == start | expected | {"new.txt": b"n"}
    assert hub.files("model", "alice/m").keys() == {".gitattributes", "README.md", "weights.bin"}
    assert sum(method == "PUT" for method, _, _ in hub.requests) == 1

    printed = hub.run(
        f"""
        from pathlib import Path
        from huggingface_hub import HfApi, HfFileSystem, hf_hub_download, snapshot_download
        from huggingface_hub.errors import RemoteEntryNotFoundError, RevisionNotFoundError
        got, sent = Path(snapshot_download("alice/m", revision="{first}")), Path("../writer/upload")
        for file in sent.rglob("*.*"):
            assert (got / file.relative_to(sent)).read_bytes() == file.read_bytes()
        assert Path(hf_hub_download("alice/m", "new.txt", revision="re/lease")).read_bytes() == b"n"
        api = HfApi()
        assert api.list_repo_files("alice/m") == [".gitattributes", "README.md", "weights.bin"]
        assert [x.path for x in api.list_repo_tree("alice/m", revision="re/lease")][-2:] == ["sub", "weights.bin"]
        assert [x.path for x in api.get_paths_info("alice/m", ["sub", "none"], revision="re/lease")] == ["sub"]
        assert [x.rfilename for x in api.model_info("alice/m").siblings][-1] == "weights.bin"
        with HfFileSystem().open("alice/m/weights.bin", block_size=512) as file:
            file.seek(300)
            assert file.read(5) == {weights[300:305]!r}
        for name, revision in (("empty.txt", "main"), ("README.md", "none")):
            try:
                hf_hub_download("alice/m", name, revision=revision)
            except (RemoteEntryNotFoundError, RevisionNotFoundError) as error:
                print(type(error).__name__)
        """,
        tmp_path / "reader",
        bare=True,
    )
    assert printed.split() == ["RemoteEntryNotFoundError", "RevisionNotFoundError"]


def test_strangers_are_refused(hub, tmp_path):
    hub.run(
        """
        from huggingface_hub import HfApi
        for name in ("public", "secret"):
            HfApi().create_repo(name, private=name == "secret", repo_type="space", space_sdk="gradio")
            HfApi().upload_file(repo_id=f"alice/{name}", path_in_repo="f", path_or_fileobj=b"f", repo_type="space")
        """,
        tmp_path / "alice",
        bare=True,
    )
    code = """
        from huggingface_hub import HfApi, hf_hub_download
        from huggingface_hub.errors import HfHubHTTPError, RepositoryNotFoundError
        def refused(call, *args, **kwargs):
            try:
                call(*args, **kwargs)
            except HfHubHTTPError as error:
                print(type(error).__name__, error.response.status_code)
        api = HfApi()
        for name in ("alice/secret", "alice/public"):
            refused(hf_hub_download, name, "f", repo_type="space")
            refused(api.upload_file, repo_id=name, path_in_repo="f", path_or_fileobj=b"g", repo_type="space")
        refused(api.create_repo, "alice/new")
    """
    assert hub.run(code, tmp_path / "bob", token="tok-b", bare=True).splitlines() == [
        "RepositoryNotFoundError 404",
        "RepositoryNotFoundError 404",
        "HfHubHTTPError 403",
        "HfHubHTTPError 403",
    ]
    assert hub.run(code, tmp_path / "nobody", token="", bare=True).splitlines() == [
        "RepositoryNotFoundError 401",
        "RepositoryNotFoundError 401",
        "RepositoryNotFoundError 401",
        "HfHubHTTPError 401",
    ]
    assert (
        hub.run(code, tmp_path / "wrong", token="no-such-token", bare=True).splitlines() == ["HfHubHTTPError 401"] * 5
    )
    assert hub.files("space", "alice/public")["f"] == b"f"
    with pytest.raises(AssertionError, match="ZeroDivisionError"):
        hub.run("1 / 0", tmp_path, bare=True)


def test_damaged_uploads_and_commits_are_refused(hub):
    def lfs(data: bytes) -> dict:
        return {"oid": hashlib.sha256(data).hexdigest(), "size": len(data)}

    send(hub, "POST", "/api/repos/create", {"name": "m"})
    _, batch, _ = send(hub, "POST", "/alice/m.git/info/lfs/objects/batch", {"objects": [lfs(b"good")]})
    href = json.loads(batch)["objects"][0]["actions"]["upload"]["href"].removeprefix(hub.url)
    operation = {"key": "lfsFile", "value": {"path": "f", "algo": "sha256", **lfs(b"good")}}

    assert [send(hub, "PUT", href, data, token="")[0] for data in (b"evil", b"goo", b"")] == [400] * 3
    assert send(hub, "PUT", "/upload/0123", b"good", token="")[0] == 403
    assert send(hub, "POST", "/alice/m.git/info/lfs/verify", lfs(b"good"))[0] == 422
    assert commit(hub, operation) == 422
    assert send(hub, "PUT", href, b"good", token="")[0] == 200
    assert send(hub, "POST", "/alice/m.git/info/lfs/verify", lfs(b"good"))[0] == 200
    assert send(hub, "POST", "/alice/m.git/info/lfs/verify", lfs(b"good") | {"size": 3})[0] == 422
    assert commit(hub, operation) == 200
    assert hub.files("model", "alice/m")["f"] == b"good"

    assert commit(hub, {"key": "deletedFile", "value": {"path": "none"}}) == 404
    assert commit(hub, {"key": "deletedFolder", "value": {"path": "f/"}}) == 404
    assert commit(hub, {"key": "renamed", "value": {"path": "f"}}) == 400
    assert commit(hub, {"key": "file"}) == 400
    assert commit(hub, header={"parentCommit": "0" * 40}) == 412
    assert hub.files("model", "alice/m").keys() == {".gitattributes", "f"}

    for asked, status, content in (("0-1", 206, b"go"), ("2-", 206, b"od"), ("3-9", 206, b"d"), ("4-", 416, b"")):
        answer = send(hub, "GET", "/alice/m/resolve/main/f", Range=f"bytes={asked}")
        assert answer[:2] == (status, content)
    assert answer[2]["Content-Range"] == "bytes */4"

    assert send(hub, "GET", "/api/trending")[0] == 404
    assert hub.unknown == ["GET /api/trending"]
    assert hub.requests[-1] == ("GET", "/api/trending", 404)
    hub.unknown.clear()


def test_datasets(hub, tmp_path):
    shared = """
        from pathlib import Path
        import datasets
        from datasets import ClassLabel, Dataset, DatasetDict, Features, Value, Video, load_dataset

        def table(rows):
            columns = {
                "name": [f"clip {i}" for i in range(rows)],
                "frames": list(range(rows)),
                "score": [i / 3 for i in range(rows)],
                "label": [i % 2 for i in range(rows)],
                "start": [i / 2 if i % 2 else None for i in range(rows)],
            }
            label = ClassLabel(names=["normal", "anomaly"])
            kinds = [Value("string"), Value("int32"), Value("float64"), label, Value("float32")]
            return Dataset.from_dict(columns, features=Features(zip(columns, kinds)))

        splits = DatasetDict(train=table(5), test=table(3))
        clip = Path("../clip.mp4").resolve()
        videos = Dataset.from_dict({"video": [str(clip), None]}).cast_column("video", Video(decode=False))
    """
    (tmp_path / "clip.mp4").write_bytes(bytes(range(256)) * 100)
    write = """
        splits.push_to_hub("alice/tables", private=True)
        DatasetDict(train=table(2)).push_to_hub("alice/tables", config_name="small")
        table(4).push_to_hub("alice/tables", revision="next", split="validation")
        videos.push_to_hub("videos")
    """
    hub.run(shared + write, tmp_path / "writer", bare=True)
    files = hub.files("dataset", "alice/tables")
    assert {path for path in files if path.endswith(".parquet")} == {
        "data/train-00000-of-00001.parquet",
        "data/test-00000-of-00001.parquet",
        "small/train-00000-of-00001.parquet",
    }

    read = """
        loaded = load_dataset("alice/tables")
        assert loaded.keys() == splits.keys()
        for name, split in splits.items():
            assert loaded[name].features == split.features
            assert loaded[name].to_list() == split.to_list()
        assert load_dataset("alice/tables", "small", split="train").to_list() == table(2).to_list()
        assert datasets.get_dataset_config_names("alice/tables") == ["default", "small"]
        assert load_dataset("alice/tables", revision="next")["validation"].to_list() == table(4).to_list()
        stream = load_dataset("alice/tables", split="test", streaming=True)
        assert list(stream) == table(3).to_list()

        loaded = load_dataset("alice/videos", split="train")
        assert loaded.features == videos.features and not loaded.features["video"].decode
        assert loaded[0]["video"] == {"path": "clip.mp4", "bytes": clip.read_bytes()}
        assert loaded[1]["video"] is None
    """
    hub.run(shared + read, tmp_path / "reader", bare=True)


def test_transformers(hub, tmp_path):
    hub.run(
        """
        from transformers import BertConfig, BertModel
        sizes = {"hidden_size": 8, "intermediate_size": 8, "vocab_size": 11}
        config = BertConfig(num_hidden_layers=1, num_attention_heads=2, **sizes)
        BertModel(config).push_to_hub("alice/bert", private=True)
        config.push_to_hub("alice/config")
        """,
        tmp_path / "writer",
    )
    assert hub.files("model", "alice/config").keys() == {".gitattributes", "README.md", "config.json"}
    assert hub.repos["model", "alice/bert"].private
    hub.run(
        """
        from transformers import AutoConfig, AutoModel
        assert AutoConfig.from_pretrained("alice/config").hidden_size == 8
        assert AutoModel.from_pretrained("alice/bert").get_input_embeddings().weight.shape == (11, 8)
        """,
        tmp_path / "reader",
    )


def test_connections_break_where_they_are_told_to(hub):
    send(hub, "POST", "/api/repos/create", {"name": "m"})
    operation = {"key": "file", "value": {"path": "f", "content": "Z29vZA=="}}
    hub.drops = [
        Drop("POST", "/commit/", after=10),
        Drop("GET", "/m/resolve/main/f", after=3, times=2),
        Drop("HEAD", "/resolve/"),
    ]
    with pytest.raises((urllib.error.URLError, ConnectionError)):
        commit(hub, operation)
    assert hub.files("model", "alice/m").keys() == {".gitattributes"}
    assert commit(hub, operation) == 200
    for _ in range(2):
        with pytest.raises(http.client.IncompleteRead) as broken:
            send(hub, "GET", "/alice/m/resolve/main/f")
        assert broken.value.partial == b"goo" and broken.value.expected == 1
    with pytest.raises((urllib.error.URLError, ConnectionError)):
        send(hub, "HEAD", "/alice/m/resolve/main/f")
    assert send(hub, "GET", "/alice/m/resolve/main/f")[1] == b"good"
    assert send(hub, "HEAD", "/alice/m/resolve/main/f")[0] == 200
    assert [drop.times for drop in hub.drops] == [0, 0, 0]
    assert sum(status == 0 for _, _, status in hub.requests) == 2


RESULT = {"task": {"type": "t"}, "dataset": {"type": "d", "name": "D"}, "metrics": [{"type": "auc", "value": 0.5}]}


@pytest.mark.parametrize(
    ("kind", "data", "errors"),
    [
        ("model", {"license": "mit", "tags": ["a"], "model-index": [{"name": "m", "results": [RESULT]}]}, []),
        ("model", {"license": "free"}, ['"license" must be one of [apache-2.0, ']),
        ("model", {"tags": "a"}, ['"tags" must be an array']),
        ("model", {"tags": [1]}, ['"tags[0]" is of the wrong type']),
        ("model", {"model-index": [{"results": []}]}, ['"model-index[0].name" is required']),
        (
            "model",
            {"model-index": [{"name": "m", "results": [RESULT | {"dataset": {}, "metrics": [{"type": "auc"}]}]}]},
            [
                f'"model-index[0].results[0].{name}" is'
                for name in ("dataset.type", "dataset.name", "metrics[0].value")
            ],
        ),
        ("dataset", {"configs": [{"config_name": "default", "data_files": "x.jsonl"}]}, []),
        ("dataset", {"configs": [{}]}, ['"configs[0].config_name" is required']),
        ("space", {"sdk": "gradio", "emoji": "🚦", "colorFrom": "red", "colorTo": "gray"}, []),
        (
            "space",
            {"sdk": "qt", "emoji": ":)", "colorFrom": "black"},
            ['"sdk" must', '"colorFrom" must', '"emoji" must'],
        ),
        ("space", {"title": "T"}, ['"sdk" and "emoji" are required']),
    ],
)
def test_metadata_of_cards_are_checked(hub, kind, data, errors):
    body = {"repoType": kind, "content": f"---\n{json.dumps(data)}\n---\n# Title\n"}
    status, answer, _ = send(hub, "POST", "/api/validate-yaml", body)
    found = [error["message"] for error in json.loads(answer)["errors"]]
    assert status == (400 if errors else 200) and len(found) == len(errors)
    assert all(text.startswith(start) for text, start in zip(found, errors, strict=True))


@pytest.mark.parametrize(
    ("content", "errors", "warnings"),
    [
        ("---\n{\n---\n", ["expected"], []),
        ("# Title\n", [], ["empty or missing yaml metadata"]),
        ("---\npipeline_tag: guessing\n---\n", [], ["not in the official list"]),
    ],
)
def test_what_is_said_of_odd_cards(hub, content, errors, warnings):
    _, answer, _ = send(hub, "POST", "/api/validate-yaml", {"repoType": "model", "content": content})
    for name, words in (("errors", errors), ("warnings", warnings)):
        found = [item["message"] for item in json.loads(answer)[name]]
        assert len(found) == len(words) and all(word in text for text, word in zip(found, words, strict=True))


def test_the_client_refuses_a_card_that_the_hub_refuses(hub, tmp_path):
    printed = hub.run(
        """
        from huggingface_hub import HfApi, ModelCard
        HfApi().create_repo("alice/m")
        card = "---\\nlicense: free\\n---\\n"
        for call in (ModelCard(card).validate, lambda: HfApi().upload_file(
            path_or_fileobj=card.encode(), path_in_repo="README.md", repo_id="alice/m")):
            try:
                call()
            except ValueError as error:
                print("license" in str(error))
        """,
        tmp_path,
        bare=True,
    )
    assert printed.split() == ["True", "True"]
    assert hub.files("model", "alice/m").keys() == {".gitattributes"}
