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
from pathlib import Path
from typing import Any, BinaryIO

import httpx2
from huggingface_hub import HfApi, get_hf_file_metadata, get_session, hf_hub_url
from huggingface_hub.errors import HfHubHTTPError
from huggingface_hub.hf_api import BlobLfsInfo, RepoFile
from huggingface_hub.utils import (  # type: ignore[attr-defined]
    build_hf_headers,
    hf_raise_for_status,
)

from autotuned.weights.hub.faults import Fault, on_disk, translated
from autotuned.weights.hub.folder import OURS, Folder
from autotuned.weights.selection import may_be_wanted

PARALLEL = 4
"""Files fetched at the same time."""
CHUNK_BYTES = 1 << 20
MAIN = "main"
PROGRESS_S = 0.25


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

    def listing(self, repo: str) -> dict[str, Any]:
        """The commit of the main revision, and each file's name, size, etag and hashes. Raises Fault."""

        def ask() -> dict[str, Any]:
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
            if any(file["size"] is None for file in files):  # some mirrors tell names only
                files = self._sized(repo, str(info.sha), files)
            return {"commit": info.sha, "files": files}

        found: dict[str, Any] = self._patiently(ask)
        return found

    def _sized(self, repo: str, commit: str, files: list[dict[str, Any]]) -> list[dict[str, Any]]:
        """The files with their sizes: from the tree, else from each file that may be wanted itself."""
        try:
            return [
                _described(file.path, file.size, file.lfs, file.blob_id)
                for file in self._api.list_repo_tree(repo, recursive=True, revision=commit)
                if isinstance(file, RepoFile)
            ]
        except HfHubHTTPError:
            folder = Folder(Path(), repo, commit)
            wanted = [file for file in files if may_be_wanted(file["name"])]
            return [self._completed(folder, file) for file in wanted]

    def fetch(self, cache: Path, repo: str, commit: str, files: list[dict[str, Any]]) -> None:
        """Bring all `files` into the cache, each checked against its hash. Raises Fault."""
        folder = Folder(cache, repo, commit)
        self._bytes, self._told = 0, 0.0
        try:
            folder.make()
            folder.sweep()
        except OSError as error:
            raise on_disk(error) from error
        pool = ThreadPoolExecutor(PARALLEL)
        work = [pool.submit(self._fetch_one, folder, file) for file in files]
        done, _ = wait(work, return_when=FIRST_EXCEPTION)
        # After a fault the rest ends with this process; its partial files stay.
        pool.shutdown(wait=False, cancel_futures=True)
        for broken in [future.exception() for future in done]:
            if isinstance(broken, Exception):
                raise translated(broken) from broken
        self._count(0, tell=True)

    def settle(self, cache: Path, repo: str, commit: str) -> None:
        """Make `commit` the repository's main revision in the cache: from now on it is complete."""
        try:
            Folder(cache, repo, commit).settle()
        except OSError as error:
            raise on_disk(error) from error

    def _fetch_one(self, folder: Folder, file: dict[str, Any]) -> None:
        file = self._completed(folder, file)
        etag = file["sha256"] or file["git_sha1"] or file["etag"]
        blob, pointer = folder.blobs / etag, folder.pointer(file["name"])
        with folder.lock(etag):
            if pointer.is_symlink() and pointer.readlink().name != etag:
                message = (
                    f"{file['name']}: revision {folder.commit[:12]} now resolves to other content"
                )
                raise Fault(message, integrity=True)
            there = next((path for path in (pointer, blob) if path.exists()), None)
            if there is None:
                self._download(folder, file, blob)
            else:
                self._check(there, file)
            folder.link(blob, pointer)

    def _completed(self, folder: Folder, file: dict[str, Any]) -> dict[str, Any]:
        """`file` with size and etag, asked from the file itself where the list has none."""
        if file["size"] is not None and (file["sha256"] or file["git_sha1"]):
            return file
        url = self._url(folder, file)
        found = self._patiently(
            lambda: get_hf_file_metadata(url, timeout=self._read_s, headers=build_hf_headers())
        )
        etag = found.etag or ""
        if found.size is None or not re.fullmatch(r"[\w.-]{1,128}", etag):
            message = f"{file['name']}: the hub gives no size and hash"
            raise Fault(message)
        kind = {64: "sha256", 40: "git_sha1"}.get(len(etag), "etag")
        return {**file, "size": found.size, "etag": etag, kind: etag}

    def _download(self, folder: Folder, file: dict[str, Any], blob: Path) -> None:
        """Fetch into a partial file, going on where an earlier process stopped; then give it its name."""
        part = blob.with_name(blob.name + OURS)
        with part.open("a+b") as out:
            resumed = self._begin(out, file)
            digest = self._stream_all(folder, file, out)
            if digest is not None and digest != _wanted_digest(file) and resumed:
                self._count(-file["size"])
                out.truncate(0)  # the part was damaged, perhaps by a power loss: once more, whole
                digest = self._stream_all(folder, file, out)
            if digest is not None and digest != _wanted_digest(file):
                part.unlink(missing_ok=True)
                raise _differs(file, digest)
            os.fsync(out.fileno())
        part.replace(blob)

    def _begin(self, out: BinaryIO, file: dict[str, Any]) -> bool:
        """True when there is something to go on from."""
        whole: int = file["size"]
        size = out.seek(0, os.SEEK_END)
        if size > whole:
            out.truncate(0)
        return 0 < size <= whole

    def _stream_all(self, folder: Folder, file: dict[str, Any], out: BinaryIO) -> str | None:
        """Fetch what is missing of `file`, with retries; its digest, None where nothing is known to compare."""
        hashed = _hasher(file)
        out.seek(0)
        while data := out.read(CHUNK_BYTES):
            hashed.update(data)
            self._count(len(data))
        state = {"at": out.tell(), "hashed": hashed}
        self._patiently(
            lambda: self._stream(folder, file, out, state), progress=lambda: state["at"]
        )
        out.flush()
        return state["hashed"].hexdigest() if _wanted_digest(file) else None

    def _stream(
        self, folder: Folder, file: dict[str, Any], out: BinaryIO, state: dict[str, Any]
    ) -> None:
        """One request from where we are to the end of the file."""
        size, name = file["size"], file["name"]
        if state["at"] == size and size > 0:
            return
        headers = build_hf_headers() | {"Accept-Encoding": "identity"}  # ranges count plain bytes
        if state["at"]:
            headers["Range"] = f"bytes={state['at']}-"
        url = self._url(folder, file)
        with get_session().stream("GET", url, headers=headers, timeout=self._timeout) as answer:
            hf_raise_for_status(answer)
            _check_pin(answer, folder.commit, file)
            if state["at"] and not _continues(answer, state["at"]):
                self._count(-state["at"])
                out.truncate(0)
                state |= {"at": 0, "hashed": _hasher(file)}
            length = answer.headers.get("Content-Length", "")
            plain = answer.headers.get("Content-Encoding", "identity") == "identity"
            if plain and length.isdigit() and int(length) != size - state["at"]:
                message = (
                    f"{name}: has {state['at'] + int(length)} bytes, the hub's list says {size}"
                )
                raise Fault(message, integrity=True)
            for data in answer.iter_bytes():
                state["at"] += len(data)
                if state["at"] > size:
                    message = f"{name}: is longer than the {size} bytes of the hub's list"
                    raise Fault(message, integrity=True)
                out.write(data)
                out.flush()  # what is here must survive a kill
                state["hashed"].update(data)
                self._count(len(data), received=len(data))
        if state["at"] < size:
            message = f"interrupted: {name} ended after {state['at']} of {size} bytes"
            raise Fault(message, retry=True)

    def _check(self, path: Path, file: dict[str, Any]) -> None:
        """A file that is there already must be the one wanted."""
        wanted = _wanted_digest(file)
        hashed = _hasher(file)
        with path.open("rb") as stream:
            while data := stream.read(CHUNK_BYTES):
                hashed.update(data)
                self._count(len(data))
        if wanted and hashed.hexdigest() != wanted:
            fault = _differs(file, hashed.hexdigest())
            message = f"{fault.reason}; remove {path.resolve()} and pull the model again"
            raise Fault(message, integrity=True)

    def _patiently(self, work: Callable[[], Any], progress: Callable[[], int] = lambda: 0) -> Any:
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

    def _url(self, folder: Folder, file: dict[str, Any]) -> str:
        return hf_hub_url(
            folder.repo, file["name"], revision=folder.commit, endpoint=self._endpoint
        )


def _described(
    name: str, size: int | None, lfs: BlobLfsInfo | None, git_sha1: str | None
) -> dict[str, Any]:
    """A file as the agent is told of it: large ones go by their SHA-256, small ones by git's hash."""
    # The hashes become names of files: what is none counts as not told.
    if lfs is None:
        known = git_sha1 if re.fullmatch(r"[0-9a-f]{40}", git_sha1 or "") else None
        return {"name": name, "size": size, "sha256": None, "git_sha1": known}
    known = lfs.sha256 if re.fullmatch(r"[0-9a-f]{64}", lfs.sha256 or "") else None
    return {"name": name, "size": lfs.size, "sha256": known, "git_sha1": None}


def _check_pin(answer: httpx2.Response, commit: str, file: dict[str, Any]) -> None:
    """The answer must come from the revision that was listed, and name the same content."""
    wanted = _wanted_digest(file)
    for step in (*answer.history, answer):
        named = step.headers.get("X-Repo-Commit")
        if named is not None and named != commit:
            message = f"{file['name']}: revision {commit[:12]} now resolves to {named[:12]}"
            raise Fault(message, integrity=True)
        linked = step.headers.get("X-Linked-Etag", "").removeprefix("W/").strip('"')
        if wanted and len(linked) == len(wanted) and linked != wanted:
            message = f"{file['name']}: revision {commit[:12]} now resolves to other content"
            raise Fault(message, integrity=True)


def _continues(answer: httpx2.Response, at: int) -> bool:
    return answer.status_code == 206 and answer.headers.get("Content-Range", "").startswith(
        f"bytes {at}-"
    )


def _wanted_digest(file: dict[str, Any]) -> str | None:
    found: str | None = file["sha256"] or file["git_sha1"]
    return found


def _hasher(file: dict[str, Any]) -> Any:
    if file["sha256"] or not file["git_sha1"]:
        return hashlib.sha256()
    # Git's own name of a file's content.
    return hashlib.sha1(f"blob {file['size']}\0".encode(), usedforsecurity=False)


def _differs(file: dict[str, Any], digest: str) -> Fault:
    kind = "SHA-256" if file["sha256"] else "git hash"
    wanted = _wanted_digest(file) or ""
    reason = f"{file['name']}: its {kind} is {digest[:12]}..., the hub's is {wanted[:12]}..."
    return Fault(reason, integrity=True)


def main() -> None:
    """Obey orders until stdin ends."""
    out, writing = sys.stdout, threading.Lock()

    def report(**fields: Any) -> None:
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
    number, do = order.pop("number"), order.pop("do")
    hub.delays_s = tuple(order.pop("delays_s", ()))
    if "cache" in order:
        order["cache"] = Path(order["cache"])
    work: dict[str, Callable[..., Any]]
    work = {"list": hub.listing, "fetch": hub.fetch, "settle": hub.settle}
    try:
        found = work[do](**order)
    except Fault as fault:
        kind = {"integrity": fault.integrity, "unreachable": fault.unreachable}
        report(report="failed", number=number, reason=fault.reason, **kind)
    except Exception as error:  # noqa: BLE001 - a bug of ours must be told, or the agent would wait
        kind = {"integrity": False, "unreachable": False}
        report(report="failed", number=number, reason=translated(error).reason, **kind)
    else:
        report(report="done", number=number, result=found)


if __name__ == "__main__":
    main()
