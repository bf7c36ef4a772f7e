"""The file itself: whole at every instant, backed up first, and left alone where it must be."""

from __future__ import annotations

import fcntl
import hashlib
import os
import resource
import stat
import struct
import subprocess
import sys
import tempfile
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from autotuned.core.config import edit as edit_module
from autotuned.engine.apply import writer as writer_module
from autotuned.engine.apply.writer import Written
from autotuned.errors import ApplyRefused
from autotuned.host import failpoint, operators_file

OLD = "model: acme/old-3B  # mine\nprovider_token: s3cret\n"
NOW = 1_700_000_000


def wanted(model: str = "acme/new-7B", bits: int | None = 8) -> dict[str, Any]:
    return {
        "model": model,
        "kv_bits": bits,
        "max_concurrency_override": 2,
        "max_context_override": 4000,
    }


def apply(path: Path, model: str = "acme/new-7B", *, dry_run: bool = False) -> Written:
    return writer_module.apply(path, wanted(model), NOW, dry_run=dry_run)


def new(text: str = OLD, model: str = "acme/new-7B") -> str:
    found = edit_module.edit(text, wanted(model))
    assert isinstance(found, edit_module.Edited)
    return found.text


def left(path: Path) -> list[str]:
    """The names in the folder, but that of the lock: it stays."""
    names = {beside.name for beside in path.parent.iterdir()}
    return sorted(names - {operators_file.LOCK})


def refused(path: Path, reason: str) -> ApplyRefused:
    with pytest.raises(ApplyRefused) as error:
        apply(path)
    assert error.value.reason == reason
    assert str(path) in error.value.message
    assert "s3cret" not in error.value.message
    return error.value


@pytest.fixture
def config(tmp_path: Path) -> Path:
    path = tmp_path / "home" / "config.yaml"
    path.parent.mkdir()
    path.write_text(OLD, encoding="utf-8")
    return path


def test_two_applies_in_one_second_give_two_backups(config: Path) -> None:
    first, second = apply(config, "acme/a-1B"), apply(config, "acme/b-2B")
    assert first.backup == config.with_name(f"config.yaml.bak-{NOW}-0")
    assert second.backup == config.with_name(f"config.yaml.bak-{NOW}-1")
    assert first.backup.read_text(encoding="utf-8") == OLD
    assert second.backup.read_text(encoding="utf-8") == new(model="acme/a-1B")
    assert config.read_text(encoding="utf-8") == new(model="acme/b-2B")


def test_the_same_again_changes_nothing_and_makes_no_backup(config: Path) -> None:
    apply(config)
    before = config.stat()
    assert apply(config) == Written(config)
    assert config.stat().st_mtime_ns == before.st_mtime_ns
    assert len(left(config)) == 2


def test_no_backup_is_ever_overwritten_and_their_number_has_an_end(
    config: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    taken = [config.with_name(f"config.yaml.bak-{NOW}-{number}") for number in (0, 2)]
    for path in taken:
        path.write_text("precious", encoding="utf-8")
    monkeypatch.setattr(operators_file, "MAX_BACKUPS", 3)
    assert apply(config, "acme/a-1B").backup == config.with_name(f"config.yaml.bak-{NOW}-1")
    before = left(config)
    assert "backup names" in refused(config, "io_error").message
    assert config.read_text(encoding="utf-8") == new(model="acme/a-1B")
    assert left(config) == before
    assert [path.read_text(encoding="utf-8") for path in taken] == ["precious", "precious"]


@pytest.mark.parametrize("mode", [0o600, 0o644, 0o640, 0o400, 0o604])
def test_mode_and_owner_are_kept_whatever_the_umask(config: Path, mode: int) -> None:
    config.chmod(mode)
    root = os.geteuid() == 0
    if root:
        os.chown(config, 12_345, 54_321)
    before = os.umask(0o077)
    try:
        backup = apply(config).backup
    finally:
        os.umask(before)
    assert backup is not None
    for found in (config.stat(), backup.stat()):
        assert stat.S_IMODE(found.st_mode) == mode
        assert not root or (found.st_uid, found.st_gid) == (12_345, 54_321)


def test_a_symlink_is_followed_and_stays_a_link(config: Path, tmp_path: Path) -> None:
    link = tmp_path / "links" / "config.yaml"
    link.parent.mkdir()
    link.symlink_to("../home/config.yaml")
    backup = apply(link).backup
    assert link.is_symlink()
    assert config.read_text(encoding="utf-8") == new()
    assert backup is not None
    assert backup.parent == link.parent
    assert backup.name.startswith("config.yaml.bak-")
    config.unlink()
    assert apply(link).backup is None
    assert link.is_symlink()
    assert stat.S_IMODE(config.stat().st_mode) == 0o600
    assert config.read_text(encoding="utf-8") == new("")


def _fifo(path: Path) -> None:
    os.mkfifo(path)


def _linked(path: Path) -> None:
    path.write_text(OLD, encoding="utf-8")
    path.with_name("twin").hardlink_to(path)


def _huge(path: Path) -> None:
    with path.open("wb") as file:
        file.truncate(operators_file.MAX_BYTES + 1)


@pytest.mark.parametrize(
    ("make", "reason", "said"),
    [
        (Path.mkdir, "unusable_file", "not a regular file"),
        (_fifo, "unusable_file", "not a regular file"),
        (_linked, "unusable_file", "hard links"),
        (_huge, "unusable_file", "bytes"),
        (lambda path: path.write_bytes(b"model: \xff\n"), "unusable_file", "not UTF-8"),
        (lambda path: path.write_text("- s3cret\n"), "unusable_file", "no YAML mapping"),
        (lambda path: path.symlink_to(path.name), "unusable_file", "not a regular file"),
    ],
)
def test_what_is_no_plain_file_of_its_own_is_refused_and_left(
    config: Path, make: Callable[[Path], Any], reason: str, said: str
) -> None:
    config.unlink()
    make(config)
    before = left(config)
    assert said in refused(config, reason).message
    assert left(config) == before


def test_a_folder_that_is_missing_is_named(tmp_path: Path) -> None:
    path = tmp_path / "nowhere" / "config.yaml"
    assert str(path.parent) in refused(path, "io_error").message
    assert not path.parent.exists()


def test_an_edit_that_races_another_editor_starts_over_on_what_that_one_wrote(
    config: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    edits = _editor(config, monkeypatch, times=3)
    written = apply(config)
    assert len(edits) == 4
    assert config.read_text(encoding="utf-8") == new(edits[-2])
    assert written.backup is not None
    assert written.backup.read_text(encoding="utf-8") == edits[-2]
    assert left(config) == ["config.yaml", written.backup.name]


def test_an_editor_that_never_rests_is_left_the_field(
    config: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    edits = _editor(config, monkeypatch, times=99)
    refused(config, "changed_meanwhile")
    assert len(edits) == 4
    assert config.read_text(encoding="utf-8") == edits[-1]
    assert left(config) == ["config.yaml"]


def test_a_file_that_appears_meanwhile_is_not_replaced_blindly(
    config: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    config.unlink()
    _editor(config, monkeypatch, times=1)
    written = apply(config)
    assert written.backup is not None
    assert config.read_text(encoding="utf-8") == new(f"{OLD}edit: 0\n")


def _editor(config: Path, monkeypatch: pytest.MonkeyPatch, times: int) -> list[str]:
    """Somebody who saves the file each time that we have looked at it; what was in it after each of our looks."""
    seen: list[str] = []
    really = edit_module.edit

    def edit(text: str, asked: Any) -> Any:
        if len(seen) < times:
            config.write_text(f"{OLD}edit: {len(seen)}\n", encoding="utf-8")
        seen.append(config.read_text(encoding="utf-8"))
        return really(text, asked)

    monkeypatch.setattr(writer_module, "edit", edit)
    return seen


def test_every_observer_sees_the_old_or_the_new_file_whole(config: Path) -> None:
    texts = {OLD, *(new(model=f"acme/{number}-7B") for number in range(25))}
    torn: list[bytes] = []
    reads, done = [0], threading.Event()

    def watch() -> None:
        while not done.is_set():
            content = config.read_bytes()
            reads[0] += 1
            if content.decode() not in texts:
                torn.append(content)

    watcher = threading.Thread(target=watch)
    watcher.start()
    try:
        for number in range(25):
            apply(config, f"acme/{number}-7B")
    finally:
        done.set()
        watcher.join()
    assert torn == []
    assert reads[0] > 25
    backed_up = [path.read_text(encoding="utf-8") for path in operators_file.backups(config)]
    assert backed_up == [new(model=f"acme/{n}-7B") for n in range(23, -1, -1)] + [OLD]


# --- what goes wrong, and what dies ---------------------------------------------------------------

STEPS = (
    "file.written:{}:1",
    "file.renamed:{}:1",
    "apply.backed_up:{}",
    "file.written:{}:2",
    "file.renamed:{}:2",
    "apply.replaced:{}",
)
"""All points that an apply comes to, in their order: the backup is the first file, the configuration the second."""

PROGRAM = """
import sys
from pathlib import Path
from autotuned.engine.apply import writer
from autotuned.errors import ApplyRefused
values = dict(model="acme/new-7B", kv_bits=8, max_concurrency_override=2, max_context_override=4000)
try:
    writer.apply(Path(sys.argv[1]), values, 1_700_000_000, dry_run=False)
except ApplyRefused as error:
    sys.exit(error.message)
"""


def run_apply(config: Path, step: str = "", **options: Any) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-c", PROGRAM, str(config)],
        env={**os.environ, "AUTOTUNED_FAILPOINT": step},
        capture_output=True,
        text=True,
        check=False,
        timeout=60,
        **options,
    )


@pytest.mark.parametrize("step", STEPS)
def test_killed_anywhere_the_file_is_old_or_new_and_backed_up_before_it_is_new(
    config: Path, step: str
) -> None:
    assert run_apply(config, step.format("kill")).returncode == -9
    text = config.read_text(encoding="utf-8")
    kept = [path.read_text(encoding="utf-8") for path in operators_file.backups(config)]
    assert text in (OLD, new())
    assert set(kept) <= {OLD}
    assert text == OLD or kept
    assert (text == new()) == (step in STEPS[4:])
    apply(config)
    assert config.read_text(encoding="utf-8") == new()
    assert [name for name in left(config) if name.startswith(".")] == []


@pytest.mark.parametrize("step", STEPS[:5])
def test_an_error_of_the_disk_is_told_and_leaves_old_or_new(
    config: Path, monkeypatch: pytest.MonkeyPatch, step: str
) -> None:
    monkeypatch.setattr(failpoint, "_armed", failpoint._Armed(step.format("error")))
    refused(config, "io_error")
    replaced = step == STEPS[4]
    assert config.read_text(encoding="utf-8") == (new() if replaced else OLD)
    assert bool(operators_file.backups(config)) == (step in (STEPS[1], STEPS[2], STEPS[4]))
    assert [name for name in left(config) if name.startswith(".")] == []


def test_a_full_disk_is_told_with_the_path_and_leaves_nothing(config: Path) -> None:
    config.write_text(OLD + f"note: {'x' * 20_000}\n", encoding="utf-8")
    before = config.read_bytes()

    def full() -> None:
        resource.setrlimit(resource.RLIMIT_FSIZE, (8192, 8192))

    done = run_apply(config, preexec_fn=full)
    assert done.returncode == 1
    assert str(config) in done.stderr
    assert "have room" in done.stderr
    assert config.read_bytes() == before
    assert left(config) == ["config.yaml"]


@pytest.mark.skipif(os.geteuid() != 0, reason="needs to become somebody else")
@pytest.mark.parametrize(("folder_mode", "said"), [(0o755, "denied"), (0o777, "not permitted")])
def test_a_folder_or_file_of_somebody_else_is_told_and_left(folder_mode: int, said: str) -> None:
    with tempfile.TemporaryDirectory(dir="/tmp") as folder:
        config = Path(folder) / "config.yaml"
        config.write_text(OLD, encoding="utf-8")
        config.chmod(0o644)
        Path(folder).chmod(folder_mode)
        pid = os.fork()
        if pid == 0:  # the child: no test machinery, only a verdict
            code = 1
            try:
                os.setgroups([])
                os.setgid(65_534)
                os.setuid(65_534)
                apply(config)
            except ApplyRefused as error:
                code = 0 if error.reason == "io_error" and said in error.message else 2
            finally:
                os._exit(code)
        assert os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]) == 0
        assert config.read_text(encoding="utf-8") == OLD
        assert left(config) == ["config.yaml"]


def test_a_backup_is_put_back_whole_and_what_it_replaces_is_kept(config: Path) -> None:
    first = apply(config).backup
    assert first is not None
    back = writer_module.put_back(config, first, NOW)
    assert config.read_text(encoding="utf-8") == OLD
    assert back.backup is not None
    assert back.backup.read_text(encoding="utf-8") == new()
    assert "s3cret" not in back.diff
    assert back.changed["model"] == {"before": "acme/new-7B", "after": "acme/old-3B"}
    assert writer_module.put_back(config, first, NOW) == Written(config)


# --- the lock of the provider's own writers, and the record by which a change is taken back ------------


def test_another_program_that_holds_the_lock_is_waited_for_and_then_named(
    config: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(operators_file, "LOCK_S", 0.2)
    descriptor = lock(config)
    with subprocess.Popen(["sleep", "60"], pass_fds=(descriptor,)) as holder:
        os.close(descriptor)  # the other program has it now
        try:
            error = refused(config, "locked")
        finally:
            holder.kill()
    assert f"sleep (pid {holder.pid})" in error.message
    assert config.read_text(encoding="utf-8") == OLD
    assert left(config) == ["config.yaml"]
    apply(config)
    assert config.read_text(encoding="utf-8") == new()


def lock(config: Path) -> int:
    """A descriptor that holds the lock."""
    path = config.parent / ".config.yaml.lock"
    descriptor = os.open(path, os.O_CREAT | os.O_RDWR | os.O_NOFOLLOW, 0o600)
    fcntl.flock(descriptor, fcntl.LOCK_EX)
    return descriptor


def test_a_change_made_under_the_lock_is_never_lost(
    config: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Writers that hold the lock from reading to writing: what each has added is there at the end."""
    monkeypatch.setattr(operators_file, "LOCK_S", 60.0)

    def add(number: int) -> None:
        for turn in range(5):
            with operators_file.locked(config):
                text = config.read_text(encoding="utf-8")
                config.write_text(f"{text}k{number}{turn}: 1\n", encoding="utf-8")

    writers = [threading.Thread(target=add, args=(number,)) for number in range(3)]
    for writer in writers:
        writer.start()
    for number in range(10):
        apply(config, f"acme/{number}-7B")
    for writer in writers:
        writer.join()
    text = config.read_text(encoding="utf-8")
    assert all(f"k{number}{turn}: 1\n" in text for number in range(3) for turn in range(5))
    assert "model: acme/9-7B" in text


def test_the_lock_lies_beside_the_file_that_a_link_leads_to_and_is_private(
    config: Path, tmp_path: Path
) -> None:
    link = tmp_path / "link.yaml"
    link.symlink_to(config)
    apply(link)
    made = config.parent / ".config.yaml.lock"
    assert stat.S_IMODE(made.stat().st_mode) == 0o600
    assert not (tmp_path / ".config.yaml.lock").exists()


@pytest.mark.parametrize("make", [Path.mkdir, lambda path: path.symlink_to("/etc/passwd")])
def test_a_lock_that_is_no_plain_file_is_named_and_nothing_is_written(
    config: Path, make: Callable[[Path], Any]
) -> None:
    path = config.parent / ".config.yaml.lock"
    make(path)
    assert str(path) in refused(config, "unusable_file").message
    assert config.read_text(encoding="utf-8") == OLD


def test_a_dry_run_takes_no_lock(config: Path) -> None:
    apply(config, dry_run=True)
    assert [beside.name for beside in config.parent.iterdir()] == ["config.yaml"]


def test_the_record_of_a_change_is_kept_before_it_is_made_and_tells_how_to_take_it_back(
    config: Path,
) -> None:
    seen: list[tuple[Any, str]] = []

    def remember(rollback: Any) -> None:
        seen.append((rollback, config.read_text(encoding="utf-8")))

    written = writer_module.apply(config, wanted(), NOW, dry_run=False, remember=remember)
    assert seen == [(written.rollback, OLD)]
    assert written.rollback == {
        "path": str(config),
        "backup": str(written.backup),
        "sha256": hashlib.sha256(config.read_bytes()).hexdigest(),
        "lines": [
            {
                "key": "model",
                "new": "model: acme/new-7B  # mine\n",
                "old": "model: acme/old-3B  # mine\n",
            },
            {"key": "kv_bits", "new": "kv_bits: 8\n", "old": None},
            {
                "key": "max_concurrency_override",
                "new": "max_concurrency_override: 2\n",
                "old": None,
            },
            {"key": "max_context_override", "new": "max_context_override: 4000\n", "old": None},
        ],
    }


def test_a_record_that_cannot_be_kept_stops_the_change(config: Path) -> None:
    def full(_: Any) -> None:
        raise OSError(28, "No space left on device")

    with pytest.raises(ApplyRefused, match="No space left"):
        writer_module.apply(config, wanted(), NOW, dry_run=False, remember=full)
    assert config.read_text(encoding="utf-8") == OLD
    assert left(config) == ["config.yaml"]


# --- who may read it ----------------------------------------------------------------------------------

ACL = "system.posix_acl_access"
OWN, NAMED, GROUP, MASK, OTHERS = 0x01, 0x02, 0x04, 0x10, 0x20
NOBODY = 0xFFFFFFFF


def acl(*entries: tuple[int, int, int]) -> bytes:
    """A POSIX access control list as the kernel keeps it: tag, permission, id."""
    return struct.pack("<I", 2) + b"".join(struct.pack("<HHI", *entry) for entry in entries)


READ_BY_4001 = acl(
    (OWN, 6, NOBODY), (NAMED, 4, 4001), (GROUP, 0, NOBODY), (MASK, 4, NOBODY), (OTHERS, 0, NOBODY)
)

linux = pytest.mark.skipif(sys.platform != "linux", reason="POSIX lists are Linux's")


@linux
def test_an_access_control_list_and_attributes_are_kept_on_the_file_and_on_its_backup(
    config: Path,
) -> None:
    os.setxattr(config, ACL, READ_BY_4001)
    os.setxattr(config, "user.note", b"mine")
    backup = apply(config).backup
    assert backup is not None
    for file in (config, backup):
        assert os.getxattr(file, ACL) == READ_BY_4001
        assert os.getxattr(file, "user.note") == b"mine"
        assert stat.S_IMODE(file.stat().st_mode) == 0o640
    writer_module.put_back(config, backup, NOW)
    assert os.getxattr(config, ACL) == READ_BY_4001


@linux
def test_where_the_list_cannot_be_kept_nobody_new_can_read_it(
    config: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    os.setxattr(config, ACL, READ_BY_4001)

    def refuse(*_: Any) -> None:
        raise OSError(95, "Operation not supported")

    monkeypatch.setattr(os, "setxattr", refuse)
    backup = apply(config).backup
    assert backup is not None
    for file in (config, backup):
        assert ACL not in os.listxattr(file)
        assert stat.S_IMODE(file.stat().st_mode) == 0o600


@linux
def test_what_the_folder_gives_to_each_new_file_lets_nobody_new_read_it(config: Path) -> None:
    config.chmod(0o640)
    os.setxattr(config.parent, "system.posix_acl_default", READ_BY_4001)
    backup = apply(config).backup
    assert backup is not None
    for file in (config, backup):
        assert ACL not in os.listxattr(file)
        assert stat.S_IMODE(file.stat().st_mode) == 0o640
