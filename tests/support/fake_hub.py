"""A model hub on loopback that speaks the real one's protocol to the real client, and fails as told.

    with fake_hub() as hub:
        hub.add("acme/model", {"config.json": b"{}"}, large={"model.safetensors": b"..."})
        environ["HF_ENDPOINT"] = hub.url
        hub.fault("model.safetensors", reset_after=1000, times=2)

Large files are LFS: they redirect to another path, answer ranges and are named by SHA-256; small ones
by git's hash. What was asked and how many bytes went out is kept.
"""

from __future__ import annotations

import contextlib
import hashlib
import http.server
import json
import re
import socket
import struct
import threading
import urllib.parse
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any


@dataclass
class Repo:
    """One repository at one commit. `declared` are large files that have a size and no content."""

    commit: str
    small: dict[str, bytes]
    large: dict[str, bytes]
    declared: dict[str, int]

    def siblings(self) -> list[dict[str, Any]]:
        """The list of files as the hub's API gives it."""
        listed = [
            {"rfilename": name, "size": len(data), "blobId": git_sha1(data)}
            for name, data in self.small.items()
        ]
        sizes = {name: len(data) for name, data in self.large.items()} | self.declared
        for name, size in sizes.items():
            digest = hashlib.sha256(self.large.get(name, name.encode())).hexdigest()
            lfs = {"sha256": digest, "size": size, "pointerSize": 134}
            listed.append({"rfilename": name, "size": size, "blobId": "b" * 40, "lfs": lfs})
        return listed


@dataclass
class Fault:
    """What happens to requests whose path ends so; `times` None: always."""

    suffix: str
    how: Mapping[str, Any]
    times: int | None


@dataclass
class FakeHub:
    """The server and its script."""

    url: str = ""
    repos: dict[str, Repo] = field(default_factory=dict)
    asked: list[str] = field(default_factory=list)
    """`GET /path` of every request, in order; with ` bytes=...` where a range was asked."""
    sent: dict[str, int] = field(default_factory=dict)
    """Bytes of bodies that went out, by file name; lists count as `api`."""
    names_only: bool = False
    """A mirror that lists no sizes and hashes; its tree has them."""
    faults: list[Fault] = field(default_factory=list)
    released: threading.Event = field(default_factory=threading.Event)
    """Ends all hanging and dripping answers."""
    agents: list[Mapping[str, str]] = field(default_factory=list)
    """The headers of every request."""

    def add(
        self,
        repo: str,
        small: Mapping[str, bytes],
        *,
        large: Mapping[str, bytes] | None = None,
        declared: Mapping[str, int] | None = None,
        commit: str = "c" * 40,
    ) -> Repo:
        """Publish a repository, or a new revision of it."""
        made = Repo(commit, dict(small), dict(large or {}), dict(declared or {}))
        self.repos[repo] = made
        return made

    def fault(self, suffix: str, *, times: int | None = None, **how: Any) -> None:
        """From now on requests to paths with this end fail so.

        `status` (with `code`, the hub's X-Error-Code, and `retry_after`), `hang`, `reset_after` n bytes,
        `truncate_after` n bytes, `body` instead of the right one, `length` announced and sent,
        `drip` seconds between bytes, `headers` beside the right ones.
        """
        self.faults.append(Fault(suffix, how, times))

    def fault_of(self, path: str) -> Mapping[str, Any]:
        """What is to happen to this request."""
        for fault in self.faults:
            if path.endswith(fault.suffix) and fault.times != 0:
                fault.times = None if fault.times is None else fault.times - 1
                return fault.how
        return {}

    def sent_of(self, suffix: str) -> int:
        """Body bytes that went out for files whose name ends so."""
        return sum(count for name, count in self.sent.items() if name.endswith(suffix))


class Handler(http.server.BaseHTTPRequestHandler):
    """The hub's paths."""

    protocol_version = "HTTP/1.1"
    hub: FakeHub

    def log_message(self, *_: Any) -> None:
        """Quiet."""

    def do_HEAD(self) -> None:
        """As GET, without a body."""
        self.do_GET()

    def do_GET(self) -> None:
        """A list, a small file, a redirect to a large one, or that one."""
        path = urllib.parse.unquote(urllib.parse.urlsplit(self.path).path)
        wanted_range = self.headers.get("Range")
        self.hub.asked.append(
            f"{self.command} {path}" + (f" {wanted_range}" if wanted_range else "")
        )
        self.hub.agents.append(dict(self.headers.items()))
        api = re.fullmatch(r"/api/models/([^/]+/[^/]+)/(?:revision|tree)/[^/]+", path)
        resolve = re.fullmatch(r"/([^/]+/[^/]+)/resolve/([^/]+)/(.+)", path)
        stored = re.fullmatch(r"/cdn/([^/]+/[^/]+)/(.+)", path)
        found = api or resolve or stored
        repo = self.hub.repos.get(found[1]) if found else None
        if repo is None or found is None:
            self.refuse(404, "RepoNotFound")
            return
        fault = self.hub.fault_of(path)
        if "status" in fault:
            self.refuse(fault["status"], fault.get("code"), fault.get("retry_after"))
        elif "hang" in fault:
            self.hub.released.wait(60)
            self.close_connection = True
        elif api:
            self.body("api", json.dumps(self.listed(found[1], repo, path)).encode(), fault, {})
        elif stored:
            data = repo.large.get(found[2], b"")
            etag = f'"{hashlib.sha256(data).hexdigest()}"'
            self.body(found[2], data, fault, {"ETag": etag, **fault.get("headers", {})})
        else:
            self.resolve(found[1], repo, found[3], fault)

    def listed(self, repo_id: str, repo: Repo, path: str) -> Any:
        """A revision with its files, or its tree."""
        files = repo.siblings()
        if "/tree/" not in path:
            if self.hub.names_only:
                files = [{"rfilename": file["rfilename"]} for file in files]
            return {"id": repo_id, "sha": repo.commit, "siblings": files}
        tree = []
        for file in files:
            entry = {"type": "file", "path": file["rfilename"], "size": file["size"]}
            entry["oid"] = file["blobId"]
            if "lfs" in file:
                lfs = file["lfs"]
                entry["lfs"] = {"oid": lfs["sha256"], "size": lfs["size"], "pointerSize": 134}
            tree.append(entry)
        return tree

    def resolve(self, repo_id: str, repo: Repo, name: str, fault: Mapping[str, Any]) -> None:
        """A file by revision: small ones at once, large ones elsewhere."""
        pinned = {"X-Repo-Commit": repo.commit, **fault.get("headers", {})}
        if name in repo.small:
            etag = f'"{git_sha1(repo.small[name])}"'
            self.body(name, repo.small[name], fault, {"ETag": etag, **pinned})
        elif name in repo.large:
            digest = hashlib.sha256(repo.large[name]).hexdigest()
            self.send_response(302)
            headers = {
                "Location": f"/cdn/{repo_id}/{name}",
                "X-Linked-Etag": f'"{digest}"',
                "X-Linked-Size": str(len(repo.large[name])),
                "Content-Length": "0",
                **pinned,
            }
            for header, value in headers.items():
                self.send_header(header, value)
            self.end_headers()
        else:
            self.refuse(404, "EntryNotFound")

    def body(
        self, name: str, data: bytes, fault: Mapping[str, Any], headers: Mapping[str, str]
    ) -> None:
        """Send `data`, or its asked range, as the fault will have it."""
        data = fault.get("body", data)
        begin = re.fullmatch(r"bytes=(\d+)-", self.headers.get("Range", ""))
        at = int(begin[1]) if begin else 0
        self.send_response(206 if begin else 200)
        if begin:
            self.send_header("Content-Range", f"bytes {at}-{len(data) - 1}/{len(data)}")
        data = data[at:]
        if "length" in fault:
            data = data[: fault["length"]]
        for header, value in headers.items():
            self.send_header(header, value)
        self.send_header("Content-Length", str(len(data)))
        self.end_headers()
        if self.command == "HEAD":
            return
        cut = fault.get("reset_after", fault.get("truncate_after"))
        with contextlib.suppress(OSError):
            if "drip" in fault:
                self.drip(name, data, fault["drip"])
            else:
                self.write(name, data[:cut])
        if cut is not None:
            self.close_connection = True
            if "reset_after" in fault:  # an RST instead of a FIN
                linger = struct.pack("ii", 1, 0)
                self.connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, linger)
                self.connection.close()

    def drip(self, name: str, data: bytes, pause_s: float) -> None:
        """One kilobyte at a time."""
        for start in range(0, len(data), 1024):
            self.write(name, data[start : start + 1024])
            if self.hub.released.wait(pause_s):
                return

    def write(self, name: str, data: bytes) -> None:
        """Send and count."""
        self.wfile.write(data)
        self.wfile.flush()
        self.hub.sent[name] = self.hub.sent.get(name, 0) + len(data)

    def refuse(self, status: int, code: str | None, retry_after: int | None = None) -> None:
        """An error as the hub words it."""
        body = b'{"error": "planned"}'
        self.send_response(status)
        if code is not None:
            self.send_header("X-Error-Code", code)
        if retry_after is not None:
            self.send_header("Retry-After", str(retry_after))
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(body)


class _Server(http.server.ThreadingHTTPServer):
    daemon_threads = True
    block_on_close = False

    def handle_error(self, *_: Any) -> None:
        """A client that was killed is no news."""


@contextlib.contextmanager
def fake_hub() -> Iterator[FakeHub]:
    """A running hub on a free port."""
    hub = FakeHub()
    handler = type("BoundHandler", (Handler,), {"hub": hub})
    server = _Server(("127.0.0.1", 0), handler)
    hub.url = f"http://127.0.0.1:{server.server_address[1]}"
    thread = threading.Thread(target=server.serve_forever, args=(0.02,), daemon=True)
    thread.start()
    try:
        yield hub
    finally:
        hub.released.set()
        server.shutdown()
        thread.join()
        server.server_close()


def git_sha1(data: bytes) -> str:
    """Git's name of a file's content."""
    return hashlib.sha1(b"blob %d\0" % len(data) + data, usedforsecurity=False).hexdigest()


def model_files(
    weights_bytes: int = 4096, *, shards: int = 1
) -> tuple[dict[str, bytes], dict[str, bytes]]:
    """Small and large files of a whole mlx model whose tensors have about this many bytes in all."""
    small = {"config.json": b'{"model_type": "llama"}', "README.md": b"# A model\n"}
    large = {"tokenizer.json": b'{"added_tokens": [{"content": "<|special|>", "special": true}]}'}
    if shards == 1:
        large["model.safetensors"] = safetensors("weight", weights_bytes)
        return small, large
    weight_map = {}
    for part in range(1, shards + 1):
        name = f"model-{part:05d}-of-{shards:05d}.safetensors"
        large[name] = safetensors(f"weight.{part}", weights_bytes // shards)
        weight_map[f"weight.{part}"] = name
    small["model.safetensors.index.json"] = json.dumps({"weight_map": weight_map}).encode()
    return small, large


def safetensors(tensor: str, size: int) -> bytes:
    """A whole safetensors file with one tensor of `size` bytes that are not all the same."""
    header = json.dumps(
        {tensor: {"dtype": "U8", "shape": [size], "data_offsets": [0, size]}}
    ).encode()
    block = hashlib.sha256(tensor.encode()).digest()
    return struct.pack("<Q", len(header)) + header + (block * (size // len(block) + 1))[:size]
