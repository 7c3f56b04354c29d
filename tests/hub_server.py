"""The Hugging Face Hub in memory, on 127.0.0.1, for the real clients: huggingface_hub, datasets, transformers."""

import base64
import contextlib
import hashlib
import json
import os
import re
import secrets
import subprocess
import sys
import textwrap
import threading
from collections.abc import Iterator
from dataclasses import dataclass, field
from functools import cached_property
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path, PurePosixPath
from typing import Any, ClassVar
from urllib.parse import parse_qs, unquote, urlsplit

import yaml

from . import warm

# A name without a namespace is asked for as well, although nothing here has one.
API = r"/api/(?P<kind>models|datasets|spaces)/(?P<repo>[^/]+(?:/[^/]+)?)"
WEB = r"(?:/(?P<kind>datasets|spaces))?/(?P<repo>[^/]+(?:/[^/]+)?)"
REVISION = r"/(?P<revision>[^/]+)"
PATH = r"/(?P<path>.+)"

LFS_SUFFIXES = (".bin", ".mp4", ".npy", ".parquet", ".pt", ".safetensors", ".wav", ".zip")
LFS_SIZE = 10 * 2**20
GITATTRIBUTES = "".join(f"*{suffix} filter=lfs diff=lfs merge=lfs -text\n" for suffix in LFS_SUFFIXES).encode()

# Some of what the Hub asks of the metadata of cards: sets are choices.
LICENSES = {"apache-2.0", "mit", "bsd-2-clause", "cc-by-4.0", "cc-by-nc-4.0", "other"}
COLOURS = {"red", "yellow", "green", "blue", "indigo", "purple", "pink", "gray"}
TASKS = {"video-classification", "audio-classification", "image-classification", "feature-extraction"}
RESULT = {
    "task": {"type": str},
    "dataset": {"type": str, "name": str},
    "metrics": [{"type": str, "value": (int, float, str)}],
}
SHARED_FIELDS = {"license": LICENSES, "tags": [str]}
FIELDS = {
    "model": {"library_name": str, "pipeline_tag": str, "model-index": [{"name": str, "results": [RESULT]}]},
    "dataset": {"pretty_name": str, "task_categories": [str], "configs": [{"config_name": str}]},
    "space": {"sdk": {"gradio", "docker", "static"}, "colorFrom": COLOURS, "colorTo": COLOURS, "app_file": str},
}

ROUTES = []


def route(method: str, pattern: str, write: bool = False):
    """Serve `method` on paths of this pattern; `write` asks for the token of the repository's owner."""

    def register(function):
        ROUTES.append((re.compile(f"{method} {pattern}"), write, function))
        return function

    return register


@dataclass(eq=False)
class Reply(Exception):
    """What goes back to the client; raised where a request is refused."""

    status: int
    body: object = b""  # sent as it is when bytes, else as JSON
    headers: dict[str, str] = field(default_factory=dict)


def refusal(status: int, message: str, code: str | None = None, **body) -> Reply:
    headers = {"X-Error-Message": message.encode("ascii", "backslashreplace").decode()}
    return Reply(status, {"error": message, **body}, headers | ({"X-Error-Code": code} if code else {}))


def not_found(path: str) -> Reply:
    return refusal(404, f"Entry not found: {path}", "EntryNotFound")


def misfits(value: Any, schema: Any, where: str) -> Iterator[str]:
    """What of a card's metadata is not as the Hub has it."""
    if isinstance(schema, set):
        if value not in schema:
            yield f'"{where}" must be one of [{", ".join(sorted(schema))}]'
    elif isinstance(schema, list):
        if not isinstance(value, list):
            yield f'"{where}" must be an array'
        else:
            for index, item in enumerate(value):
                yield from misfits(item, schema[0], f"{where}[{index}]")
    elif isinstance(schema, dict):
        for name, inner in schema.items():
            if not isinstance(value, dict) or name not in value:
                yield f'"{where}.{name}" is required'
            else:
                yield from misfits(value[name], inner, f"{where}.{name}")
    elif not isinstance(value, schema):
        yield f'"{where}" is of the wrong type'


def check_card(kind: str, content: str) -> dict[str, list[str]]:
    """Errors, for which the Hub refuses a card, and warnings."""
    front = re.match(r"---\n(.*?)\n---(\n|$)", content, re.DOTALL)
    try:
        data = (yaml.safe_load(front[1]) if front else None) or {}
    except yaml.YAMLError as error:
        return {"errors": [str(error)], "warnings": []}
    fields = SHARED_FIELDS | FIELDS[kind]
    errors = [text for name in fields if name in data for text in misfits(data[name], fields[name], name)]
    if kind == "space" and not {"sdk", "emoji"} <= data.keys():
        errors.append('"sdk" and "emoji" are required')
    if "emoji" in data and data["emoji"].isascii():
        errors.append('"emoji" must be an emoji')
    warnings = [] if data else ["empty or missing yaml metadata in repo card"]
    for task in {data.get("pipeline_tag"), *data.get("task_categories", [])} - {None, *TASKS}:
        warnings.append(f'The task "{task}" is not in the official list')
    return {"errors": errors, "warnings": warnings}


@dataclass(frozen=True)
class Blob:
    """The content of a file, in the git tree itself or behind a Git LFS pointer."""

    data: bytes
    lfs: bool = False

    @cached_property
    def sha256(self) -> str:
        return hashlib.sha256(self.data).hexdigest()

    @cached_property
    def in_git(self) -> bytes:
        pointer = f"version https://git-lfs.github.com/spec/v1\noid sha256:{self.sha256}\nsize {len(self.data)}\n"
        return pointer.encode() if self.lfs else self.data

    @cached_property
    def oid(self) -> str:
        return hashlib.sha1(b"blob %d\0" % len(self.in_git) + self.in_git).hexdigest()

    @property
    def etag(self) -> str:
        return self.sha256 if self.lfs else self.oid

    def entry(self, path: str) -> dict:
        """What tree and paths-info say of the file."""
        size = len(self.data)
        pointer = {"lfs": {"oid": self.sha256, "size": size, "pointerSize": len(self.in_git)}}
        return {"type": "file", "path": path, "size": size, "oid": self.oid} | (pointer if self.lfs else {})


@dataclass(frozen=True)
class Commit:
    """A state of all files of a repository."""

    files: dict[str, Blob]
    title: str
    parent: str | None = None

    @cached_property
    def sha(self) -> str:
        tree = sorted((path, blob.oid) for path, blob in self.files.items())
        return hashlib.sha1(repr((tree, self.title, self.parent)).encode()).hexdigest()

    def entries(self) -> dict[str, dict]:
        """All files and folders."""
        folders = {str(folder) for path in self.files for folder in PurePosixPath(path).parents} - {"."}
        entries = {path: blob.entry(path) for path, blob in self.files.items()}
        for path in folders:
            oid = hashlib.sha1(path.encode()).hexdigest()
            entries[path] = {"type": "directory", "path": path, "size": 0, "oid": oid}
        return dict(sorted(entries.items()))


class Repo:
    """Branches of commits, and the LFS objects that were uploaded for them."""

    def __init__(self, kind: str, name: str, private: bool):
        self.kind, self.name, self.private = kind, name, private
        self.owner = name.split("/")[0]
        self.web_path = f"/{name}" if kind == "model" else f"/{kind}s/{name}"
        self.lfs_objects: dict[str, Blob] = {}
        self.commits: dict[str, Commit] = {}
        self.branches: dict[str, str] = {}
        self.add("main", Commit({".gitattributes": Blob(GITATTRIBUTES)}, f"initial commit of {kind} {name}"))

    def add(self, branch: str, commit: Commit):
        self.commits[commit.sha] = commit
        self.branches[branch] = commit.sha

    def at(self, revision: str) -> Commit:
        sha = self.branches.get(revision, revision)
        if sha not in self.commits:
            raise refusal(404, f"Invalid rev id: {revision}", "RevisionNotFound")
        return self.commits[sha]


@dataclass
class Drop:
    """Connections that break: those of the next requests of a method for a path in which a pattern is found.

    Args:
        after: Bytes of an upload that are read before, or of the answer to a GET that are sent.
        times: How many requests.
    """

    method: str
    path: str
    after: int = 0
    times: int = 1


class Handler(BaseHTTPRequestHandler):
    """Answers requests one at a time, each by the endpoint below whose route it matches."""

    protocol_version = "HTTP/1.1"
    wbufsize = -1  # a reply's headers and body leave together
    disable_nagle_algorithm = True

    def log_message(self, *args):
        """The server keeps its own list of requests."""

    def respond(self):
        size = int(self.headers.get("Content-Length", 0))
        drop = self.server.drop_of(self.command, self.path)
        if drop is not None and self.command != "GET":
            self.rfile.read(min(size, drop.after))
            self.server.requests.append((self.command, self.path, 0))
            self.close_connection = True
            return
        self.body = self.rfile.read(size)
        with self.server.lock:
            try:
                reply = self.dispatch()
            except Reply as refused:
                reply = refused
            except (KeyError, TypeError, ValueError) as error:
                reply = refusal(400, f"Malformed request: {error!r}")
            self.server.requests.append((self.command, self.path, reply.status))
        is_bytes = isinstance(reply.body, bytes)
        content = reply.body if is_bytes else json.dumps(reply.body).encode()
        kind = "application/octet-stream" if is_bytes else "application/json"
        self.send_response(reply.status)
        for name, value in {"Content-Type": kind, "Content-Length": str(len(content)), **reply.headers}.items():
            self.send_header(name, value)
        self.end_headers()
        if drop is not None:
            content, self.close_connection = content[: drop.after], True
        if self.command != "HEAD":
            self.wfile.write(content)

    do_GET = do_HEAD = do_POST = do_PUT = do_DELETE = respond

    def dispatch(self) -> Reply:
        url = urlsplit(self.path)
        self.query = parse_qs(url.query)
        asked = f"{'GET' if self.command == 'HEAD' else self.command} {url.path}"
        for pattern, write, function in ROUTES:
            if match := pattern.fullmatch(asked):
                self.user = self.authenticate()
                named = {name: unquote(value) for name, value in match.groupdict().items() if value is not None}
                if "repo" in named:
                    kind = named.pop("kind", "models").removesuffix("s")
                    named["repo"] = self.open(kind, named["repo"], write)
                reply = function(self, **named)
                return reply if isinstance(reply, Reply) else Reply(200, reply)
        self.server.unknown.append(f"{self.command} {self.path}")
        return refusal(404, f"Not served: {self.command} {url.path}")

    def authenticate(self) -> str | None:
        token = self.headers.get("Authorization", "").removeprefix("Bearer ")
        if token and token not in self.server.tokens:
            raise refusal(401, "Invalid credentials in Authorization header")
        return self.server.tokens.get(token)

    def open(self, kind: str, name: str, write: bool) -> Repo:
        repo = self.server.repos.get((kind, name))
        is_owner = repo is not None and self.user == repo.owner
        if self.user is None and (repo is None or repo.private or write):
            raise refusal(401, "Invalid username or password.", "RepoNotFound")
        if repo is None or (repo.private and not is_owner):
            raise refusal(404, f"Repository not found: {kind} {name}", "RepoNotFound")
        if write and not is_owner:
            raise refusal(403, f"{self.user} may not write in the namespace of {repo.owner}")
        return repo

    def says(self, name: str) -> bool:
        """Whether the query has `name` set."""
        return self.query.get(name, [""])[0].lower() in ("1", "true")

    @route("GET", "/api/whoami-v2")
    def whoami(self):
        if self.user is None:
            raise refusal(401, "Invalid username or password.")
        access = {"accessToken": {"displayName": "test", "role": "write"}}
        return {"type": "user", "name": self.user, "fullname": self.user, "orgs": [], "auth": access}

    @route("POST", "/api/validate-yaml")
    def validate_yaml(self):
        asked = json.loads(self.body)
        found = check_card(asked["repoType"], asked["content"])
        answer = {name: [{"message": text} for text in texts] for name, texts in found.items()}
        return Reply(400 if found["errors"] else 200, answer)

    @route("POST", "/api/repos/create")
    def create(self):
        if self.user is None:
            raise refusal(401, "Invalid username or password.")
        asked = json.loads(self.body)
        owner = asked.get("organization") or self.user
        if owner != self.user:
            raise refusal(403, f"{self.user} may not create repositories in the namespace of {owner}")
        private = asked.get("visibility") == "private" or asked.get("private") is True
        repo = Repo(asked.get("type") or "model", f"{owner}/{asked['name']}", private)
        url = self.server.url + repo.web_path
        if (repo.kind, repo.name) in self.server.repos:
            raise refusal(409, f"You already created this {repo.kind} repo: {repo.name}", url=url)
        self.server.repos[repo.kind, repo.name] = repo
        return {"url": url, "name": repo.name}

    @route("GET", API)
    @route("GET", f"{API}/revision{REVISION}")
    def info(self, repo, revision="main"):
        commit = repo.at(revision)
        siblings = [{"rfilename": path} for path in commit.files]
        return {"id": repo.name, "sha": commit.sha, "private": repo.private, "tags": [], "siblings": siblings}

    @route("GET", f"{API}/tree{REVISION}")
    @route("GET", f"{API}/tree{REVISION}{PATH}")
    def tree(self, repo, revision, path=""):
        entries = repo.at(revision).entries()
        if path and entries.get(path, {}).get("type") != "directory":
            raise not_found(path)
        inside = f"{path}/" if path else ""
        names = [name for name in entries if name.startswith(inside)]
        return [entries[name] for name in names if self.says("recursive") or "/" not in name.removeprefix(inside)]

    @route("POST", f"{API}/paths-info{REVISION}")
    def paths_info(self, repo, revision):
        entries = repo.at(revision).entries()
        return [entries[path] for path in parse_qs(self.body.decode()).get("paths", []) if path in entries]

    @route("POST", f"{API}/branch{REVISION}", write=True)
    def create_branch(self, repo, revision):
        if revision in repo.branches:
            raise refusal(409, f"Reference already exists: {revision}")
        repo.branches[revision] = repo.at(json.loads(self.body).get("startingPoint", "main")).sha
        return {}

    @route("POST", f"{API}/preupload{REVISION}", write=True)
    def preupload(self, repo, revision):
        present = repo.at(revision).files
        answers = []
        for file in json.loads(self.body)["files"]:
            path, sample = file["path"], base64.b64decode(file["sample"])
            lfs = path.endswith(LFS_SUFFIXES) or b"\0" in sample or file["size"] > LFS_SIZE
            answer = {"path": path, "uploadMode": "lfs" if lfs else "regular", "shouldIgnore": False}
            answers.append(answer | ({"oid": present[path].etag} if path in present else {}))
        return {"files": answers}

    @route("POST", rf"{WEB}\.git/info/lfs/objects/batch", write=True)
    def lfs_batch(self, repo):
        objects = []
        for asked in json.loads(self.body)["objects"]:
            answer = {"oid": asked["oid"], "size": asked["size"]}
            if asked["oid"] not in repo.lfs_objects:
                ticket = secrets.token_hex(8)
                self.server.uploads[ticket] = repo, asked["oid"], asked["size"]
                hrefs = {"upload": f"/upload/{ticket}", "verify": f"{repo.web_path}.git/info/lfs/verify"}
                answer["actions"] = {name: {"href": self.server.url + path} for name, path in hrefs.items()}
            objects.append(answer)
        return {"transfer": "basic", "objects": objects}

    @route("PUT", "/upload/(?P<ticket>[0-9a-f]+)")
    def lfs_upload(self, ticket):
        if ticket not in self.server.uploads:
            raise refusal(403, "No upload was agreed on for this address")
        repo, oid, size = self.server.uploads[ticket]
        blob = Blob(self.body, lfs=True)
        if (blob.sha256, len(blob.data)) != (oid, size):
            raise refusal(400, f"Got {len(blob.data)} bytes of sha256 {blob.sha256}, not {size} of {oid}")
        repo.lfs_objects[oid] = blob
        return Reply(200)

    @route("POST", rf"{WEB}\.git/info/lfs/verify", write=True)
    def lfs_verify(self, repo):
        self.lfs_object(repo, **json.loads(self.body))
        return {}

    def lfs_object(self, repo: Repo, oid: str, size: int | None = None, **ignored) -> Blob:
        blob = repo.lfs_objects.get(oid)
        if blob is None or size not in (None, len(blob.data)):
            raise refusal(422, f"LFS object {oid} of {size} bytes was not uploaded")
        return blob

    @route("POST", f"{API}/commit{REVISION}", write=True)
    def commit(self, repo, revision):
        if self.says("create_pr"):
            raise refusal(400, "Pull requests are not served")
        if revision not in repo.branches:
            raise refusal(404, f"Invalid rev id: {revision}", "RevisionNotFound")
        head = repo.at(revision)
        header, *operations = [json.loads(line) for line in self.body.splitlines()]
        if header["value"].get("parentCommit", head.sha) != head.sha:
            raise refusal(412, f"{revision} has moved on to {head.sha}")
        files = dict(head.files)
        for operation in operations:
            key, value = operation["key"], operation["value"]
            path = value["path"]
            if key == "file":
                files[path] = Blob(base64.b64decode(value["content"]))
            elif key == "lfsFile":
                files[path] = self.lfs_object(repo, **value)
            elif key in ("deletedFile", "deletedFolder"):
                inside = f"{path.rstrip('/')}/"
                kept = {p: b for p, b in files.items() if not (p.startswith(inside) if "Folder" in key else p == path)}
                if kept == files:
                    raise not_found(path)
                files = kept
            else:
                raise refusal(400, f"Unknown operation in a commit: {key}")
        commit = Commit(files, header["value"]["summary"], head.sha)
        repo.add(revision, commit)
        return {"commitOid": commit.sha, "commitUrl": f"{self.server.url}{repo.web_path}/commit/{commit.sha}"}

    @route("GET", f"{WEB}/resolve{REVISION}{PATH}")
    def resolve(self, repo, revision, path):
        commit = repo.at(revision)
        if path not in commit.files:
            raise not_found(path)
        blob = commit.files[path]
        headers = {"X-Repo-Commit": commit.sha, "ETag": f'"{blob.etag}"', "Accept-Ranges": "bytes"}
        asked = re.fullmatch(r"bytes=(\d+)-(\d*)", self.headers.get("Range", ""))
        if not asked:
            return Reply(200, blob.data, headers)
        size = len(blob.data)
        start, stop = int(asked[1]), min(int(asked[2] or size) + 1, size)
        if start >= stop:
            raise Reply(416, b"", {"Content-Range": f"bytes */{size}"})
        return Reply(206, blob.data[start:stop], headers | {"Content-Range": f"bytes {start}-{stop - 1}/{size}"})


class HubServer(ThreadingHTTPServer):
    """A Hub for tests. `tokens` names the user of each token; users write in their own namespace only."""

    request_queue_size = 64
    ports: ClassVar[list[int]] = []  # those of earlier ones, by whose addresses child processes have begun

    def __init__(self, tokens: dict[str, str]):
        for port in (*self.ports, 0):
            with contextlib.suppress(OSError):  # another one has it
                super().__init__(("127.0.0.1", port), Handler)
                break
        if self.server_port not in self.ports:
            self.ports.append(self.server_port)
        self.tokens = tokens
        self.url = f"http://127.0.0.1:{self.server_port}"
        self.repos: dict[tuple[str, str], Repo] = {}
        self.requests: list[tuple[str, str, int]] = []  # method, path with query, status (0: broken off)
        self.unknown: list[str] = []  # method and path of what no endpoint serves
        self.uploads: dict[str, tuple[Repo, str, int]] = {}  # LFS uploads by ticket: repo, sha256, size
        self.drops: list[Drop] = []  # connections to break, each of the first that fits
        self.lock = threading.Lock()

    def __enter__(self):
        threading.Thread(target=self.serve_forever, kwargs={"poll_interval": 0.05}, daemon=True).start()
        return self

    def __exit__(self, *error):
        self.shutdown()
        self.server_close()

    def drop_of(self, method: str, path: str) -> Drop | None:
        """Whether, and where, to break this request's connection."""
        with self.lock:
            for drop in self.drops:
                if drop.times and drop.method == method and re.search(drop.path, path):
                    drop.times -= 1
                    return drop
        return None

    def env(self, home, token: str | None = None, **settings: str) -> dict[str, str]:
        """The environment of a child process with caches in `home` and the first token ("" as token: nobody's)."""
        inherited = {k: v for k, v in os.environ.items() if not k.startswith(("HF_", "HUGGING", "TRANSFORMERS_"))}
        return inherited | {
            "HF_ENDPOINT": self.url,
            "HF_TOKEN": next(iter(self.tokens)) if token is None else token,
            "HF_HOME": str(home),
            "HF_HUB_OFFLINE": "0",
            "HF_HUB_DISABLE_XET": "1",
            "HF_HUB_DISABLE_TELEMETRY": "1",
            "HF_HUB_DISABLE_PROGRESS_BARS": "1",
            "HF_UPDATE_DOWNLOAD_COUNTS": "0",
            "NO_PROXY": "127.0.0.1",
            "no_proxy": "127.0.0.1",
            **settings,
        }

    def run(
        self, code: str, home, token: str | None = None, bare: bool = False, fresh: bool = False, **settings: str
    ) -> str:
        """Run Python code in a child process, in the folder `home` (made if missing); returns what it printed.

        Everything is imported in it already; `fresh`, torch and others are, but nothing that reads the Hub's settings
        and not this library; `bare`, nothing is.
        """
        Path(home).mkdir(parents=True, exist_ok=True)
        code, env = textwrap.dedent(code), self.env(home, token, **settings)
        if bare:
            command = [sys.executable, "-c", code]
            done = subprocess.run(command, cwd=home, env=env, capture_output=True, text=True, timeout=300)
        else:
            # Relative to its folder, and so the same for all: another setting would cost another import of everything.
            done = warm.run(code=code, hub=env | {"HF_HOME": os.curdir}, cwd=home, fresh=fresh, check=False)
        if done.returncode:
            raise AssertionError(f"the child process failed:\n{done.stdout}{done.stderr}")
        return done.stdout

    def files(self, kind: str, name: str, revision: str = "main") -> dict[str, bytes]:
        """The files of a repository of kind model, dataset or space."""
        return {path: blob.data for path, blob in self.repos[kind, name].at(revision).files.items()}
