"""The process that speaks to the model hub: run by the agent, never imported by it.

A download inside huggingface_hub cannot be cancelled, a process can be killed. Orders come as JSON
lines on stdin, reports go to stdout; end of file on stdin means that the agent is gone, and so are we.
Partial files stay, and the next process goes on from them.
"""

from __future__ import annotations

import hashlib
import json
import os
import re
import sys
import threading
import time
from collections.abc import Callable
from concurrent.futures import FIRST_EXCEPTION, ThreadPoolExecutor, wait
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any, BinaryIO, TypeVar

import httpx2
from huggingface_hub import HfApi, get_hf_file_metadata, get_session, hf_hub_url
from huggingface_hub.errors import HfHubHTTPError
from huggingface_hub.hf_api import BlobLfsInfo, RepoFile
from huggingface_hub.utils import (  # type: ignore[attr-defined]
    build_hf_headers,
    hf_raise_for_status,
)

from autotuned.weights.hub import Listing, RemoteFile
from autotuned.weights.hub.faults import Fault, translated
from autotuned.weights.hub.folder import OURS, Folder
from autotuned.weights.selection import may_be_wanted

PARALLEL = 4
"""Files fetched at the same time."""
CHUNK_BYTES = 1 << 20
MAIN = "main"
PROGRESS_S = 0.25

T = TypeVar("T")


@dataclass(slots=True)
class Arrived:
    """How much of a file is here, and the hash of that."""

    at: int
    hashed: hashlib._Hash


class Hub:
    """Lists repositories and fetches files into the cache. `report` gets what the agent is told."""

    def __init__(
        self,
        endpoint: str | None,
        report: Callable[..., None],
        delays_s: tuple[float, ...],
        read_s: float,
    ) -> None:
        self._api = HfApi(endpoint=endpoint)
        self._endpoint = endpoint
        self._report, self.delays_s = report, delays_s
        self._timeout = httpx2.Timeout(read_s, connect=min(10.0, read_s))
        self._read_s = read_s
        self._bytes, self._received, self._told, self._counting = 0, 0, 0.0, threading.Lock()

    def listing(self, repo: str) -> Listing:
        """The main revision. Raises Fault."""

        def ask() -> Listing:
            info = self._api.model_info(
                repo, revision=MAIN, files_metadata=True, timeout=self._read_s
            )
            if not re.fullmatch(r"[\w-]{1,64}", info.sha or ""):
                message = f"the hub names no commit, but {info.sha!r}"
                raise Fault(message)
            files = [
                _described(file.rfilename, file.size, file.lfs, file.blob_id)
                for file in info.siblings or ()
            ]
            if any(file.size is None for file in files):  # some mirrors tell names only
                files = self._sized(repo, str(info.sha), files)
            return Listing(repo, str(info.sha), {file.name: file for file in files})

        return self._patiently(ask)

    def _sized(self, repo: str, commit: str, files: list[RemoteFile]) -> list[RemoteFile]:
        """The files with their sizes: from the tree, else from each file that may be wanted itself."""
        try:
            return [
                _described(file.path, file.size, file.lfs, file.blob_id)
                for file in self._api.list_repo_tree(repo, recursive=True, revision=commit)
                if isinstance(file, RepoFile)
            ]
        except HfHubHTTPError:
            folder = Folder(Path(), repo, commit)
            return [self._completed(folder, file) for file in files if may_be_wanted(file.name)]

    def fetch(self, cache: Path, repo: str, commit: str, files: list[RemoteFile]) -> None:
        """Bring all `files` into the cache, each checked against its hash. Raises Fault, or OSError."""
        folder = Folder(cache, repo, commit)
        self._bytes, self._told = 0, 0.0
        folder.make()
        folder.sweep()
        pool = ThreadPoolExecutor(PARALLEL)
        work = [pool.submit(self._fetch_one, folder, file) for file in files]
        done, _ = wait(work, return_when=FIRST_EXCEPTION)
        # After a fault the rest ends with this process; its partial files stay.
        pool.shutdown(wait=False, cancel_futures=True)
        for broken in [future.exception() for future in done]:
            if isinstance(broken, Exception):
                raise translated(broken) from broken
        self._count(0, tell=True)

    def _fetch_one(self, folder: Folder, file: RemoteFile) -> None:
        file = self._completed(folder, file)
        etag = file.digest or str(file.etag)
        blob, pointer = folder.blobs / etag, folder.pointer(file.name)
        with folder.lock(etag):
            if pointer.is_symlink() and pointer.readlink().name != etag:
                message = (
                    f"{file.name}: revision {folder.commit[:12]} now resolves to other content"
                )
                raise Fault(message, integrity=True)
            there = next((path for path in (pointer, blob) if path.exists()), None)
            if there is None:
                self._download(folder, file, blob)
            else:
                self._check(there, file)
            folder.link(blob, pointer)

    def _completed(self, folder: Folder, file: RemoteFile) -> RemoteFile:
        """`file` with size and etag, asked from the file itself where the list has none."""
        if file.size is not None and file.digest:
            return file
        url = self._url(folder, file)
        found = self._patiently(
            lambda: get_hf_file_metadata(url, timeout=self._read_s, headers=build_hf_headers())
        )
        etag = found.etag or ""
        if found.size is None or not re.fullmatch(r"[\w.-]{1,128}", etag):
            message = f"{file.name}: the hub gives no size and hash"
            raise Fault(message)
        kind = {64: "sha256", 40: "git_sha1"}.get(len(etag), "etag")
        return replace(file, size=found.size, **{kind: etag})

    def _download(self, folder: Folder, file: RemoteFile, blob: Path) -> None:
        """Fetch into a partial file, going on where an earlier process stopped; then give it its name."""
        part = blob.with_name(blob.name + OURS)
        with part.open("a+b") as out:
            before = out.seek(0, os.SEEK_END)
            if before > file.bytes:
                out.truncate(0)
            digest = self._stream_all(folder, file, out)
            if digest != file.digest and 0 < before <= file.bytes:
                self._count(-file.bytes)
                out.truncate(0)  # the part was damaged, perhaps by a power loss: once more, whole
                digest = self._stream_all(folder, file, out)
            if digest != file.digest:
                part.unlink(missing_ok=True)
                raise _differs(file, digest)
            os.fsync(out.fileno())
        part.replace(blob)

    def _stream_all(self, folder: Folder, file: RemoteFile, out: BinaryIO) -> str | None:
        """Fetch what is missing of `file`, with retries; its digest, None where nothing is known to compare."""
        out.seek(0)
        hashed = self._hashed(file, out)
        here = Arrived(out.tell(), hashed)
        self._patiently(lambda: self._stream(folder, file, out, here), lambda: here.at)
        out.flush()
        return here.hashed.hexdigest() if file.digest else None

    def _stream(self, folder: Folder, file: RemoteFile, out: BinaryIO, here: Arrived) -> None:
        """One request from where we are to the end of the file."""
        size, name = file.bytes, file.name
        if here.at == size and size > 0:
            return
        headers = build_hf_headers() | {"Accept-Encoding": "identity"}  # ranges count plain bytes
        if here.at:
            headers["Range"] = f"bytes={here.at}-"
        url = self._url(folder, file)
        with get_session().stream("GET", url, headers=headers, timeout=self._timeout) as answer:
            hf_raise_for_status(answer)
            _check_pin(answer, folder.commit, file)
            if here.at and not _continues(answer, here.at):
                self._count(-here.at)
                out.truncate(0)
                here.at, here.hashed = 0, _hasher(file)
            length = answer.headers.get("Content-Length", "")
            plain = answer.headers.get("Content-Encoding", "identity") == "identity"
            if plain and length.isdigit() and int(length) != size - here.at:
                message = f"{name}: has {here.at + int(length)} bytes, the hub's list says {size}"
                raise Fault(message, integrity=True)
            for data in answer.iter_bytes():
                here.at += len(data)
                if here.at > size:
                    message = f"{name}: is longer than the {size} bytes of the hub's list"
                    raise Fault(message, integrity=True)
                out.write(data)
                out.flush()  # what is here must survive a kill
                here.hashed.update(data)
                self._count(len(data), received=len(data))
        if here.at < size:
            message = f"interrupted: {name} ended after {here.at} of {size} bytes"
            raise Fault(message, retry=True)

    def _check(self, path: Path, file: RemoteFile) -> None:
        """A file that is there already must be the one wanted."""
        with path.open("rb") as stream:
            hashed = self._hashed(file, stream)
        if file.digest and hashed.hexdigest() != file.digest:
            fault = _differs(file, hashed.hexdigest())
            message = f"{fault.reason}; remove {path.resolve()} and pull the model again"
            raise Fault(message, integrity=True)

    def _hashed(self, file: RemoteFile, stream: BinaryIO) -> hashlib._Hash:
        """The hash of what is there already; its bytes count as done."""
        hashed = _hasher(file)
        while data := stream.read(CHUNK_BYTES):
            hashed.update(data)
            self._count(len(data))
        return hashed

    def _patiently(self, work: Callable[[], T], progress: Callable[[], int] = lambda: 0) -> T:
        """Do `work`, again after a fault of the network; raises Fault when patience is at its end."""
        failed, reached = 0, progress()
        while True:
            try:
                return work()
            except Exception as error:
                fault = translated(error)
                if progress() > reached:  # it gets on: the count of retries begins anew
                    failed, reached = 0, progress()
                if not fault.retry or failed >= len(self.delays_s):
                    raise fault from error
                time.sleep(max(self.delays_s[failed], fault.wait_s))
                failed += 1

    def _count(self, count: int, *, received: int = 0, tell: bool = False) -> None:
        with self._counting:
            self._bytes += count
            self._received += received
            now = time.monotonic()
            if tell or now - self._told >= PROGRESS_S:
                self._told = now
                self._report(report="progress", bytes=self._bytes, received=self._received)

    def _url(self, folder: Folder, file: RemoteFile) -> str:
        return hf_hub_url(folder.repo, file.name, revision=folder.commit, endpoint=self._endpoint)


def _described(
    name: str, size: int | None, lfs: BlobLfsInfo | None, git_sha1: str | None
) -> RemoteFile:
    """A file as the agent is told of it: large ones go by their SHA-256, small ones by git's hash."""
    # The hashes become names of files: what is none counts as not told.
    if lfs is None:
        known = git_sha1 if re.fullmatch(r"[0-9a-f]{40}", git_sha1 or "") else None
        return RemoteFile(name, size, None, known)
    known = lfs.sha256 if re.fullmatch(r"[0-9a-f]{64}", lfs.sha256 or "") else None
    return RemoteFile(name, lfs.size, known, None)


def _check_pin(answer: httpx2.Response, commit: str, file: RemoteFile) -> None:
    """The answer must come from the revision that was listed, and name the same content."""
    wanted = file.digest
    for step in (*answer.history, answer):
        named = step.headers.get("X-Repo-Commit")
        if named is not None and named != commit:
            message = f"{file.name}: revision {commit[:12]} now resolves to {named[:12]}"
            raise Fault(message, integrity=True)
        linked = step.headers.get("X-Linked-Etag", "").removeprefix("W/").strip('"')
        if wanted and len(linked) == len(wanted) and linked != wanted:
            message = f"{file.name}: revision {commit[:12]} now resolves to other content"
            raise Fault(message, integrity=True)


def _continues(answer: httpx2.Response, at: int) -> bool:
    return answer.status_code == 206 and answer.headers.get("Content-Range", "").startswith(
        f"bytes {at}-"
    )


def _hasher(file: RemoteFile) -> hashlib._Hash:
    if file.sha256 or not file.git_sha1:
        return hashlib.sha256()
    # Git's own name of a file's content.
    return hashlib.sha1(f"blob {file.size}\0".encode(), usedforsecurity=False)


def _differs(file: RemoteFile, digest: str | None) -> Fault:
    kind = "SHA-256" if file.sha256 else "git hash"
    here, wanted = (str(each)[:12] for each in (digest, file.digest))
    reason = f"{file.name}: its {kind} is {here}..., the hub's is {wanted}..."
    return Fault(reason, integrity=True)


def main() -> None:
    """Obey orders until stdin ends."""
    out, writing = sys.stdout, threading.Lock()

    def report(**fields: object) -> None:
        with writing:
            try:
                out.write(json.dumps(fields) + "\n")
                out.flush()
            except OSError:
                os._exit(1)

    begin = json.loads(sys.stdin.readline())
    hub = Hub(begin["endpoint"], report, (), begin["read_s"])
    for line in sys.stdin:
        # Orders are obeyed on threads, so that the end of stdin is seen in the middle of a download.
        threading.Thread(target=_obey, args=(hub, json.loads(line), report), daemon=True).start()
    os._exit(0)


def _obey(hub: Hub, order: dict[str, Any], report: Callable[..., None]) -> None:
    number, result = order["number"], None
    hub.delays_s = tuple(order.get("delays_s", ()))
    try:
        match order["do"]:
            case "list":
                result = asdict(hub.listing(order["repo"]))
            case "fetch":
                files = [RemoteFile(**file) for file in order["files"]]
                hub.fetch(Path(order["cache"]), order["repo"], order["commit"], files)
            case _:  # settle
                Folder(Path(order["cache"]), order["repo"], order["commit"]).settle()
    except Exception as error:  # noqa: BLE001 - a bug of ours must be told, or the agent would wait
        found = translated(error)
        fault = {"reason": found.reason, "integrity": found.integrity}
        fault["unreachable"] = found.unreachable
        report(report="failed", number=number, fault=fault)
    else:
        report(report="done", number=number, result=result)


if __name__ == "__main__":
    main()
