"""Where a recipe goes: chosen by the settings, else by who runs the live server and what it reads."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path

from autotuned.core.command_line import option
from autotuned.engine.apply.consent import CONFIGURED_KIND
from autotuned.errors import ApplyRefused
from autotuned.host.find import Found
from autotuned.host.managers.systemd import UnitState
from autotuned.providers.server import Provider
from autotuned.settings import Settings
from autotuned.writers import Edited, NotOurs, Recipe, llama, ours

PRESETS, SWAPS = (".ini",), (".yaml", ".yml")
"""How the files end that `auto` takes for presets, and for llama-swap's configuration."""


@dataclass(frozen=True, slots=True)
class Place:
    """One file that the live server reads. `edit` makes its new text of the one that is there."""

    kind: str
    path: Path
    edit: Callable[[str, Recipe], Edited]
    ours: bool = False
    """The file is ours alone: a revert removes it."""
    mode: int = 0o600
    unit: UnitState | None = None
    """The unit that has to be read again."""


def choose(
    settings: Settings,
    provider: Provider,
    found: Found,
    unit: UnitState | None,
    environ: Mapping[str, str],
) -> Place | None:
    """The place for a recipe measured with `provider`; None for macprovider's own configuration.

    Raises ApplyRefused where the one that the settings name cannot be used.
    """
    chosen, live = settings.apply, found.live
    presets = None if live is None else option(live.argv, "--models-preset")
    config = chosen.config or (Path(presets) if presets else None)
    kind: str = chosen.kind
    if kind == "auto":
        kind = _kind(provider, config, unit)
    match kind:
        case "macprovider":
            return None
        case "systemd":
            return _drop_in(provider, unit, environ)
        case "llama-preset" | "llama-swap":
            if config is None:
                message = (
                    f"which file does {kind} read? name it as [apply] config in autotuned.toml"
                )
                raise ApplyRefused(message, "no_file")
            edit = llama.edit_presets if kind == "llama-preset" else llama.edit_swap

            def named(text: str, recipe: Recipe) -> Edited:
                return edit(text, recipe, chosen.model or recipe.model)

            return Place(kind, config, named)
        case _:
            return Place("script", settings.home / ours.SCRIPT, ours.script, ours=True, mode=0o700)


def _kind(provider: Provider, config: Path | None, unit: UnitState | None) -> str:
    if provider.kind == CONFIGURED_KIND:
        return CONFIGURED_KIND
    if config is not None and config.suffix in PRESETS:
        return "llama-preset"
    if config is not None and config.suffix in SWAPS:
        return "llama-swap"
    return "systemd" if unit is not None else "script"


def _drop_in(provider: Provider, unit: UnitState | None, environ: Mapping[str, str]) -> Place:
    if unit is None:
        message = (
            'no live server runs in a unit of systemd: name it as [live] service = "systemd:UNIT"'
        )
        raise ApplyRefused(message, "no_unit")
    home = Path(environ.get("XDG_CONFIG_HOME") or Path(environ.get("HOME") or "~", ".config"))
    path = ours.drop_in_path(unit.label, unit.domain, home)
    others = [Path(name) for name in (unit.path or "", *unit.drop_ins) if name]

    def edit(text: str, recipe: Recipe) -> Edited:
        try:
            files = [other.read_text("utf-8") for other in others if other.name != ours.DROP_IN]
            return ours.drop_in(files, text, recipe, provider.commands)
        except (OSError, ValueError, NotOurs) as error:
            message = f"{unit.label}: {error}"
            raise NotOurs(message) from None

    return Place("systemd", path, edit, ours=True, unit=unit)
