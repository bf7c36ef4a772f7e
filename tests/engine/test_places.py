"""Where a recipe goes when it is not macprovider's, and that the file is treated as carefully there."""

from __future__ import annotations

import stat
from pathlib import Path

import pytest

from autotuned import providers, settings
from autotuned.core.config.policy import WHOLE
from autotuned.core.lease import Rollback
from autotuned.engine.apply import writer
from autotuned.engine.apply.place import Place, choose
from autotuned.errors import ApplyRefused
from autotuned.host.find import Found, Process
from autotuned.host.managers.systemd import UnitState
from autotuned.host.operators_file import roll_back
from autotuned.shared.knobs import Knobs
from autotuned.writers import recipe

LLAMA = providers.made("llama-server")
SERVE = "llama-server -m /m/b.gguf -np 4 -c 8000 -no-kvu"
RECIPE = recipe(LLAMA.spec, "b", Knobs(None, 4, 2000), SERVE, WHOLE)
SECRET = "--api-key sk-nobody-may-see-this"  # noqa: S105
UNIT = f"[Service]\nExecStart=/usr/bin/llama-server -m /m/a.gguf {SECRET} -np 1\n"


def place(tmp_path: Path, *argv: str, unit: UnitState | None = None, **apply: str) -> Place | None:
    """The place that is chosen for a recipe of llama-server."""
    chosen = settings.load({"HOME": str(tmp_path)})
    chosen = chosen.model_copy(update={"apply": settings.ApplySettings.model_validate(apply)})
    found = Found(processes=(Process(1, ("llama-server", *argv), 81),))
    return choose(chosen, LLAMA, found, unit, {"HOME": str(tmp_path)})


def unit(tmp_path: Path) -> UnitState:
    """A unit of the user with a file of its own."""
    file = tmp_path / "llama.service"
    file.write_text(UNIT, encoding="utf-8")
    return UnitState("user", "llama.service", path=str(file))


def test_auto_follows_whoever_runs_the_live_server_and_what_it_reads(tmp_path: Path) -> None:
    kinds = {
        "script": place(tmp_path),
        "systemd": place(tmp_path, unit=unit(tmp_path)),
        "llama-preset": place(tmp_path, "--models-preset", "/x/presets.ini"),
        "llama-swap": place(tmp_path, config="/x/config.yaml"),
    }
    for kind, made in kinds.items():
        assert made is not None
        assert made.kind == kind
    assert place(tmp_path, kind="macprovider") is None
    for kind in ("systemd", "llama-swap", "llama-preset"):
        with pytest.raises(ApplyRefused):
            place(tmp_path, kind=kind)


def test_a_drop_in_is_shown_first_written_once_and_taken_away_with_a_backup(
    tmp_path: Path,
) -> None:
    made = place(tmp_path, unit=unit(tmp_path))
    assert made is not None
    assert made.path == tmp_path / ".config/systemd/user/llama.service.d/50-autotuned.conf"
    shown = writer.put(made, RECIPE, 1, dry_run=True)
    assert not made.path.parent.exists()
    assert "+-np 4" in shown.diff
    assert "sk-nobody" not in shown.diff + str(shown.changed)
    written = writer.put(made, RECIPE, 1, dry_run=False)
    assert (written.backup, stat.S_IMODE(made.path.stat().st_mode)) == (None, 0o600)
    text = made.path.read_text("utf-8")
    assert f"-m /m/b.gguf {SECRET} -np 4 -c 8000 -no-kvu" in text
    assert writer.put(made, RECIPE, 2, dry_run=False).changed == {}
    taken = writer.remove(made, 3)
    assert not made.path.exists()
    assert taken.backup is not None
    assert taken.backup.read_text("utf-8") == text
    assert writer.remove(made, 4).changed == {}
    assert (tmp_path / "llama.service").read_text("utf-8") == UNIT


def test_a_server_that_does_not_start_with_it_gets_what_was_there_before(tmp_path: Path) -> None:
    kept: list[Rollback | None] = []
    made = place(tmp_path, unit=unit(tmp_path))
    assert made is not None
    writer.put(made, RECIPE, 1, dry_run=False, remember=kept.append)
    assert kept[0] is not None
    roll_back(kept[0])
    assert not made.path.exists()
    swap = tmp_path / "swap.yaml"
    before = "models:\n  b:\n    cmd: |\n      llama-server -m /m/b.gguf\n      -np 1\n    ttl: 5\n"
    swap.write_text(before, encoding="utf-8")
    made = place(tmp_path, config=str(swap))
    assert made is not None
    writer.put(made, RECIPE, 1, dry_run=False, remember=kept.append)
    record = kept[1]
    assert record is not None
    edited = swap.read_text("utf-8").replace("ttl: 5", "ttl: 6")  # somebody else's change since
    swap.write_text(edited, encoding="utf-8")
    roll_back(record)
    assert swap.read_text("utf-8") == before.replace("ttl: 5", "ttl: 6")


def test_a_script_may_be_run_by_its_owner_alone_and_a_foreign_one_stays(tmp_path: Path) -> None:
    made = place(tmp_path)
    assert made is not None
    writer.put(made, RECIPE, 1, dry_run=False)
    assert stat.S_IMODE(made.path.stat().st_mode) == 0o700
    made.path.write_text("#!/bin/sh\nmine\n", encoding="utf-8")
    with pytest.raises(ApplyRefused, match="move it aside"):
        writer.put(made, RECIPE, 1, dry_run=False)
    assert made.path.read_text("utf-8") == "#!/bin/sh\nmine\n"
