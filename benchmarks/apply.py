"""At length: a reader re-reads the configuration while 500 recipes are applied, each with its backup.

Prints how many reads were torn (it must be none), and how fast both sides went. Run it with
`python benchmarks/apply.py [applies] [reads]`; the files are in a temporary folder.
"""

from __future__ import annotations

import multiprocessing
import sys
import tempfile
import time
from multiprocessing.connection import Connection
from pathlib import Path

from autotuned.core.config.edit import Edited, edit
from autotuned.engine.apply import writer
from autotuned.host import operators_file

OLD = "# mine\nmodel: acme/old-3B  # why\nprovider_token: x\n" + "".join(
    f"key_{number}: value {number}\n" for number in range(20)
)


def wanted(number: int) -> dict[str, str | int | None]:
    """A recipe of its own for each apply; every third leaves kv_bits unset."""
    bits = (None, 4, 8)[number % 3]
    return {
        "model": f"acme/model-{number}B",
        "kv_bits": bits,
        "max_concurrency_override": 1 + number % 2,
        "max_context_override": 2000 + number,
    }


def watch(path: Path, whole: frozenset[bytes], least: int, end: Connection) -> None:
    """Read until told to stop, at least `least` times; sends reads, torn reads and seconds."""
    reads = torn = 0
    began = time.perf_counter()
    while reads < least or not end.poll():
        torn += path.read_bytes() not in whole
        reads += 1
    end.send((reads, torn, time.perf_counter() - began))


def main() -> None:
    """Apply and watch; exit 1 for a torn read or a backup that is not what it should be."""
    applies, reads = (int(word) for word in [*sys.argv[1:], "500", "10000"][:2])
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "config.yaml"
        path.write_text(OLD, encoding="utf-8")
        versions = [OLD]
        for number in range(applies):
            made = edit(versions[-1], wanted(number))
            assert isinstance(made, Edited)
            versions.append(made.text)
        ours, theirs = multiprocessing.Pipe()
        whole = frozenset(version.encode() for version in versions)
        reader = multiprocessing.Process(target=watch, args=(path, whole, reads, theirs))
        reader.start()
        began = time.perf_counter()
        for number in range(applies):
            writer.apply(path, wanted(number), int(time.time()), dry_run=False)
        spent = time.perf_counter() - began
        ours.send("stop")
        done, torn, watched = ours.recv()
        reader.join()
        kept = [backup.read_text(encoding="utf-8") for backup in operators_file.backups(path)]
    good = kept == versions[-2::-1]
    print(f"{applies} applies in {spent:.1f} s: {1000 * spent / applies:.1f} ms each")
    print(f"{done} reads in {watched:.1f} s: {done / watched:,.0f} a second, {torn} torn")
    print(f"{len(kept)} backups, {'each what it replaced' if good else 'NOT what they replaced'}")
    sys.exit(0 if good and not torn else 1)


if __name__ == "__main__":
    main()
