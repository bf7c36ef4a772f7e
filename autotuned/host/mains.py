"""Where this machine's power comes from: `pmset` where there is one, else Linux's own files."""

from __future__ import annotations

from pathlib import Path

from autotuned.host import tools

SUPPLIES = Path("/sys/class/power_supply")
EXTERNAL = ("Mains", "USB")


def on_ac() -> bool | None:
    """True on mains power, False on battery, None where it cannot be told. Blocks for as long as the tool takes."""
    if tools.find("pmset") is None:
        return linux_on_ac(SUPPLIES)
    told = tools.ask("pmset", "-g", "batt")
    if "'AC Power'" in told:
        return True
    return False if "drawing from" in told else None


def linux_on_ac(supplies: Path) -> bool | None:
    """The same from a folder of power supplies; a machine without a battery is on mains power."""
    kinds = {
        folder: _read(folder / "type")
        for folder in _folders(supplies)
        if _read(folder / "scope") != "Device"  # the battery of a mouse
    }
    if "Battery" not in kinds.values():
        return True
    external = [folder for folder, kind in kinds.items() if kind in EXTERNAL]
    if any(_read(folder / "online") == "1" for folder in external):
        return True
    states = [_read(folder / "status") for folder, kind in kinds.items() if kind == "Battery"]
    return False if external or "Discharging" in states else None


def _folders(supplies: Path) -> list[Path]:
    try:
        return sorted(supplies.iterdir())
    except OSError:
        return []


def _read(path: Path) -> str:
    try:
        return path.read_text(encoding="utf-8", errors="replace").strip()
    except OSError:
        return ""
