"""A hub on loopback for tests: plain files in memory behind the routes that huggingface_hub, datasets and transformers ask for.

The routes were found by watching those clients; one that is not known answers 404 and is kept in `unknown`. A test can make the
server slow, let it drop a connection, damage a file on its way, or take the network away.
"""

import base64
import hashlib
import json
import re
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any
from urllib.parse import parse_qs, unquote, urlparse

import yaml

TOKEN = "hf_" + "t" * 34
"""the only token that this hub knows; its owner is 'me'"""
_LFS = (".safetensors", ".parquet", ".bin", ".gguf")


@dataclass(eq=False)
class Repo:
    """One repository: the files of each revision, the newest behind 'main'."""

    name: str
    kind: str = "models"
    private: bool = False
    gated: bool = False
    revisions: dict[str, dict[str, bytes]] = field(default_factory=lambda: {"main": {}})

    @property
    def files(self) -> dict[str, bytes]:
        return self.revisions["main"]

    def revision(self, wanted: str) -> dict[str, bytes] | None:
        named = self.revisions.get(wanted)
        return named if named is not None else next((files for files in self.revisions.values() if commit_of(files) == wanted), None)


def commit_of(files: dict[str, bytes]) -> str:
    """A commit's name, which its files alone decide."""
    return hashlib.sha1(b"".join(name.encode() + hashlib.sha1(data).digest() for name, data in sorted(files.items()))).hexdigest()


def is_large(name: str) -> bool:
    """Whether a file is kept as a large one, whose name in the cache is then its SHA-256."""
    return name.endswith(_LFS)


def git_hash(data: bytes) -> str:
    return hashlib.sha1(b"blob %d\0" % len(data) + data).hexdigest()


@dataclass(eq=False)
class Hub:
    """The server's memory, which a test fills, and what was asked of it."""

    repos: dict[tuple[str, str], Repo] = field(default_factory=dict)
    renamed: dict[str, str] = field(default_factory=dict)
    objects: dict[str, bytes] = field(default_factory=dict)
    """uploaded large files by SHA-256, of a commit or not yet of one"""
    log: list[str] = field(default_factory=list)
    unknown: list[str] = field(default_factory=list)
    ranges: list[str] = field(default_factory=list)
    """the Range headers of downloads that went on in the middle"""
    seen_tokens: set[str] = field(default_factory=set)
    drops: dict[str, list[int]] = field(default_factory=dict)
    """file name -> after how many bytes its connection breaks, once for each figure"""
    damaged: set[str] = field(default_factory=set)
    """files of which one byte is wrong on the way"""
    pause: float = 0.0
    """seconds between two pieces of a large file"""
    refuse_uploads: int = 0
    """large files that may still come in before the next is refused; 0: no limit"""
    write_allowed: bool = True
    address: str = ""

    def add(self, name: str, source: Path | dict[str, bytes], kind: str = "models", **about: Any) -> Repo:
        """A repository of a folder's files, or of files by name."""
        files = source if isinstance(source, dict) else {
            str(path.relative_to(source)): path.read_bytes() for path in sorted(source.rglob("*")) if path.is_file()
        }  # fmt: skip
        repo = Repo(name, kind, revisions={"main": dict(files)}, **about)
        self.repos[kind, name] = repo
        return repo

    def calm(self) -> None:
        """Forget what a test did to the network."""
        self.drops, self.damaged, self.pause, self.refuse_uploads, self.write_allowed = {}, set(), 0.0, 0, True
        self.log, self.ranges, self.unknown, self.seen_tokens = [], [], [], set()

    def asked_for(self, ending: str) -> list[str]:
        """The downloads of files with this ending."""
        return [line for line in self.log if line.startswith("GET") and "/resolve/" in line and line.endswith(ending)]


class _Refused(Exception):
    def __init__(self, status: int, code: str, words: str) -> None:
        super().__init__(words)
        self.status, self.code = status, code


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    hub: Hub

    def do_GET(self) -> None:
        self._answer()

    do_HEAD = do_POST = do_PUT = do_GET

    def log_message(self, *_arguments: Any) -> None:
        pass

    def _answer(self) -> None:
        self.url = urlparse(self.path)
        path = unquote(self.url.path)
        self.hub.log.append(f"{self.command} {path}")
        token = self.headers.get("Authorization", "").removeprefix("Bearer ")
        if token:
            self.hub.seen_tokens.add(token)
        self.known = token == TOKEN
        self.body = self.rfile.read(int(self.headers.get("Content-Length") or 0))
        try:
            for pattern, route in _ROUTES:
                match = re.fullmatch(pattern, path)
                if match:
                    route(self, **match.groupdict())
                    return
            self.hub.unknown.append(f"{self.command} {path}")
            raise _Refused(404, "", "no such route")
        except _Refused as error:
            self._json({"error": str(error)}, error.status, **({"X-Error-Code": error.code, "X-Error-Message": str(error)}))

    def _json(self, data: Any, status: int = 200, **headers: str) -> None:
        body = json.dumps(data).encode()
        self.send_response(status)
        for key, value in ({"Content-Type": "application/json", "Content-Length": str(len(body))} | headers).items():
            self.send_header(key, value)
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(body)

    def _repo(self, kind: str, name: str, content: bool = False) -> Repo:
        """The repository, if this caller may see it; with `content`, if the caller may read its files."""
        repo = self.hub.repos.get((kind, name))
        if repo is None or (repo.private and not self.known):
            raise _Refused(401, "RepoNotFound", "Repository not found")
        if content and repo.gated and not self.known:
            raise _Refused(403, "GatedRepo", "Access to it is restricted")
        return repo

    def _files(self, repo: Repo, revision: str) -> dict[str, bytes]:
        files = repo.revision(revision)
        if files is None:
            raise _Refused(404, "RevisionNotFound", "Invalid rev id")
        return files

    def _moved(self, kind: str, name: str) -> bool:
        """Whether the repository has another name now, to which this answer sends."""
        new = self.hub.renamed.get(name)
        if new is None or (kind, name) in self.hub.repos:
            return False
        self._json({}, 307, Location=self.path.replace(name, new, 1))
        return True

    def info(self, kind: str, name: str, revision: str | None = None) -> None:
        if self._moved(kind, name):
            return
        repo = self._repo(kind, name)
        files = self._files(repo, revision or "main")
        self._json(
            {
                "id": repo.name, "modelId": repo.name, "author": repo.name.split("/")[0], "sha": commit_of(files), "private": repo.private, "gated": "auto" if repo.gated else False,
                "disabled": False, "tags": [], "cardData": _card_data(files.get("README.md", b"").decode()), "downloads": 0, "likes": 0, "lastModified": "2026-01-01T00:00:00.000Z", "siblings": [{"rfilename": name} | _size(name, data) for name, data in files.items()],
            }
        )  # fmt: skip

    def tree(self, kind: str, name: str, revision: str, folder: str | None = None) -> None:
        folder = folder or ""
        files = self._files(self._repo(kind, name), revision)
        recursive = parse_qs(self.url.query).get("recursive", ["false"])[0].lower() == "true"
        start = folder.strip("/") + "/" if folder.strip("/") else ""
        inside = {path: data for path, data in files.items() if path.startswith(start)}
        if start and not inside:
            raise _Refused(404, "EntryNotFound", f"{folder} does not exist")
        found: dict[str, dict[str, Any]] = {}
        for path, data in inside.items():
            parts = path.removeprefix(start).split("/")
            for depth in range(1, len(parts)):
                if depth == 1 or recursive:
                    within = start + "/".join(parts[:depth])
                    found[within] = {"type": "directory", "path": within, "oid": "0" * 40, "size": 0}
            if len(parts) == 1 or recursive:
                found[path] = _entry(path, data)
        self._json(list(found.values()))

    def paths(self, kind: str, name: str, revision: str) -> None:
        files = self._files(self._repo(kind, name), revision)
        text = self.body.decode()
        wanted = json.loads(text)["paths"] if text.startswith("{") else parse_qs(text)["paths"]
        found = [_entry(path, files[path]) for path in wanted if path in files]
        found += [
            {"type": "directory", "path": path, "oid": "0" * 40, "size": 0}
            for path in wanted
            if path not in files and any(other.startswith(path.rstrip("/") + "/") for other in files)
        ]
        self._json(found)

    def resolve(self, name: str, revision: str, path: str, kind: str = "models") -> None:
        kind = "datasets" if kind == "datasets" else "models"
        if self._moved(kind, name):
            return
        files = self._files(self._repo(kind, name, content=True), revision)
        headers = {"X-Repo-Commit": commit_of(files), "Accept-Ranges": "bytes"}
        if path not in files:
            self._json({}, 404, **headers, **{"X-Error-Code": "EntryNotFound", "X-Error-Message": "Entry not found"})
            return
        data = files[path]
        tag = hashlib.sha256(data).hexdigest() if is_large(path) else git_hash(data)
        headers |= {"ETag": f'"{tag}"', "X-Linked-Etag": f'"{tag}"', "X-Linked-Size": str(len(data))}
        if path in self.hub.damaged:
            data = data[:-1] + bytes([data[-1] ^ 1])
        start, status = 0, 200
        asked = re.fullmatch(r"bytes=(\d+)-(\d*)", self.headers.get("Range", ""))
        if asked:
            start, status = int(asked[1]), 206
            end = int(asked[2]) + 1 if asked[2] else len(data)
            headers["Content-Range"] = f"bytes {start}-{min(end, len(data)) - 1}/{len(data)}"
            data = data[start:end]
            self.hub.ranges.append(f"{path}: {asked[0]}")
        self.send_response(status)
        for key, value in (headers | {"Content-Length": str(len(data)), "Content-Type": "application/octet-stream"}).items():
            self.send_header(key, value)
        self.end_headers()
        if self.command != "HEAD":
            self._send(path, data)

    def _send(self, path: str, data: bytes) -> None:
        breaks = self.hub.drops.get(path, [])
        most = breaks.pop(0) if breaks else len(data)
        step = 16_384 if self.hub.pause else len(data) or 1
        for at in range(0, min(most, len(data)), step):
            try:
                self.wfile.write(data[at : min(at + step, most)])
                self.wfile.flush()
            except OSError:  # the client has gone
                break
            time.sleep(self.hub.pause)
        self.close_connection = most < len(data) or self.close_connection

    def who(self) -> None:
        if not self.known:
            raise _Refused(401, "", "Invalid username or password.")
        self._json({"type": "user", "name": "me", "orgs": [], "auth": {"type": "access_token", "accessToken": {"role": "write"}}})

    def create(self) -> None:
        asked = json.loads(self.body)
        name = f"{asked.get('organization') or 'me'}/{asked['name']}"
        self._require_writer(name)
        if ("models", name) in self.hub.repos:
            self._json({"url": f"{self.hub.address}/{name}", "error": "You already created this model repo"}, 409)
            return
        private = bool(asked.get("private")) or asked.get("visibility") == "private"
        self.hub.repos["models", name] = Repo(name, private=private)
        self._json({"url": f"{self.hub.address}/{name}", "name": name, "id": "0"})

    def _require_writer(self, name: str) -> None:
        if not self.known:
            raise _Refused(401, "", "Invalid username or password.")
        if name.split("/")[0] != "me" or not self.hub.write_allowed:
            raise _Refused(403, "", "You don't have the rights to create a model under this namespace")

    def modes(self, kind: str, name: str, revision: str) -> None:
        files = self._files(self._repo(kind, name), revision)
        told = []
        for each in json.loads(self.body)["files"]:
            path = each["path"]
            mode = {"path": path, "uploadMode": "lfs" if is_large(path) else "regular", "shouldIgnore": False}
            told.append(mode | ({"oid": _entry(path, files[path])["lfs" if is_large(path) else "oid"]} if path in files else {}))
        for mode in told:
            if isinstance(mode.get("oid"), dict):
                mode["oid"] = mode["oid"]["oid"]
        self._json({"files": told})

    def batch(self, name: str) -> None:
        self._require_writer(name)
        objects = []
        for each in json.loads(self.body)["objects"]:
            to = {"href": f"{self.hub.address}/uploads/{each['oid']}", "header": {}}
            objects.append(each | ({} if each["oid"] in self.hub.objects else {"actions": {"upload": to}}))
        self._json({"transfer": "basic", "objects": objects})

    def upload(self, oid: str) -> None:
        if self.hub.refuse_uploads == -1:
            raise _Refused(400, "", "storage is away")
        if self.hub.refuse_uploads > 0:
            self.hub.refuse_uploads -= 1
            self.hub.refuse_uploads = self.hub.refuse_uploads or -1
        assert hashlib.sha256(self.body).hexdigest() == oid
        self.hub.objects[oid] = self.body
        self._json({})

    def commit(self, kind: str, name: str, revision: str) -> None:
        self._require_writer(name)
        repo = self._repo(kind, name)
        files = dict(self._files(repo, revision))
        for line in self.body.splitlines():
            said = json.loads(line)
            if said["key"] == "file":
                files[said["value"]["path"]] = base64.b64decode(said["value"]["content"])
            elif said["key"] == "lfsFile":
                files[said["value"]["path"]] = self.hub.objects[said["value"]["oid"]]
            elif said["key"] == "deletedFile":
                del files[said["value"]["path"]]
        repo.revisions[revision] = files
        oid = commit_of(files)
        self._json({"success": True, "commitOid": oid, "commitUrl": f"{self.hub.address}/{name}/commit/{oid}", "hookOutput": ""})

    def fine(self) -> None:
        self._json({"errors": [], "warnings": []})

    def nothing(self, **_named: str) -> None:
        self._json({})


def _card_data(card: str) -> dict[str, Any] | None:
    """The head of a README."""
    return yaml.safe_load(card.split("---\n")[1]) if card.startswith("---\n") else None


def _size(name: str, data: bytes) -> dict[str, Any]:
    about: dict[str, Any] = {"size": len(data), "blobId": git_hash(data)}
    if is_large(name):
        about["lfs"] = {"size": len(data), "sha256": hashlib.sha256(data).hexdigest(), "pointerSize": 130}
    return about


def _entry(path: str, data: bytes) -> dict[str, Any]:
    found: dict[str, Any] = {"type": "file", "path": path, "size": len(data), "oid": git_hash(data)}
    if is_large(path):
        found["lfs"] = {"oid": hashlib.sha256(data).hexdigest(), "size": len(data), "pointerSize": 130}
    return found


_NAME = r"(?P<name>[^/]+/[^/]+?)"
_KIND = r"(?P<kind>models|datasets)"
_ROUTES = [
    (r"/api/whoami-v2", _Handler.who),
    (r"/api/validate-yaml", _Handler.fine),
    (r"/api/repos/create", _Handler.create),
    (r"/uploads/(?P<oid>\w+)", _Handler.upload),
    (rf"/{_NAME}\.git/info/lfs/objects/batch", _Handler.batch),
    (rf"/api/{_KIND}/{_NAME}/preupload/(?P<revision>[^/]+)", _Handler.modes),
    (rf"/api/{_KIND}/{_NAME}/commit/(?P<revision>[^/]+)", _Handler.commit),
    (rf"/api/{_KIND}/{_NAME}/revision/(?P<revision>[^/]+)", _Handler.info),
    (rf"/api/{_KIND}/{_NAME}/tree/(?P<revision>[^/]+)(?P<folder>/.*)?", _Handler.tree),
    (rf"/api/{_KIND}/{_NAME}/paths-info/(?P<revision>[^/]+)", _Handler.paths),
    (rf"/api/{_KIND}/{_NAME}", _Handler.info),
    (rf"/(?P<kind>datasets)/{_NAME}/resolve/(?P<revision>[^/]+)/(?P<path>.+)", _Handler.resolve),
    (rf"/{_NAME}/resolve/(?P<revision>[^/]+)/(?P<path>.+)", _Handler.resolve),
    (r"/api/agent-harnesses", _Handler.nothing),
]


class _Quiet(ThreadingHTTPServer):
    daemon_threads = True

    def handle_error(self, *_arguments: Any) -> None:
        """Clients go in the middle: that is what some tests are about."""


@contextmanager
def running() -> Iterator[Hub]:
    """The hub, answering on a free port of this machine until the block ends."""
    hub = Hub()
    with _Quiet(("127.0.0.1", 0), type("Handler", (_Handler,), {"hub": hub})) as server:
        hub.address = f"http://127.0.0.1:{server.server_port}"
        threading.Thread(target=server.serve_forever, args=(0.05,), daemon=True).start()
        yield hub
        server.shutdown()
