"""The serving programs, and which of them to use.

One file each behind `interface.Provider`; a dict, so that reading it is knowing them all.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING

from autotuned.core.command_line import Commands
from autotuned.errors import ConfigError, ProviderMissing
from autotuned.providers.interface import Provider
from autotuned.providers.llama_server import LlamaServer
from autotuned.providers.macprovider import MacProvider
from autotuned.providers.mlx_lm import MlxLm

if TYPE_CHECKING:
    from autotuned.settings import ProviderSettings

FACTORIES: dict[str, type[MacProvider] | type[LlamaServer] | type[MlxLm]] = {
    "macprovider": MacProvider,
    "llama-server": LlamaServer,
    "mlx-lm": MlxLm,
}
"""By kind, in the order in which `auto` tries them."""


def choose(kind: str, settings: ProviderSettings, environ: Mapping[str, str]) -> Provider:
    """The adapter of `kind`; for `auto` the first whose program is installed.

    The settings' binary and arguments belong to the settings' kind: asked for another, they are left
    out. Raises ConfigError for a kind that does not exist, ProviderMissing when nothing is installed.
    """
    if kind == "auto":
        return _installed(settings, environ)
    if kind not in FACTORIES:
        raise ConfigError("provider", kind, f"is none of auto, {', '.join(FACTORIES)}")
    return _made(kind, settings, environ)


def commands(settings: ProviderSettings) -> Commands:
    """Command words of the live server before any run has said which kind it tunes."""
    kind = _owner(settings)
    return commands_of("macprovider" if kind == "auto" else kind, settings)


def commands_of(kind: str, settings: ProviderSettings) -> Commands:
    """Command words of one kind; the settings' binary counts where it is of that kind, or of none."""
    named = settings.binary if _owner(settings) in (kind, "auto") else None
    return FACTORIES[kind](named, (), {}).commands


def _installed(settings: ProviderSettings, environ: Mapping[str, str]) -> Provider:
    if settings.binary is not None:
        return _made(_owner(settings), settings, environ)
    for kind in FACTORIES:
        provider = _made(kind, settings, environ)
        if provider.find() is not None:
            return provider
    message = (
        "no serving program is installed: install macprovider, or llama.cpp's llama-server, or run "
        "pip install 'autotuned[llama]' (any machine) or 'autotuned[mlx]' (Apple silicon)"
    )
    raise ProviderMissing(message)


def _made(
    kind: str, settings: ProviderSettings, environ: Mapping[str, str]
) -> MacProvider | LlamaServer | MlxLm:
    ours = settings.binary is None or kind == _owner(settings)
    binary = settings.binary if ours else None
    return FACTORIES[kind](binary, settings.extra_args if ours else (), environ)


def _owner(settings: ProviderSettings) -> str:
    """Which kind the settings' binary is: as they say, else by its name, else macprovider."""
    if settings.kind != "auto" or settings.binary is None:
        return settings.kind
    name = settings.binary.name
    known = (kind for kind, made in FACTORIES.items() if made(None, (), {}).commands[0][0] == name)
    return next(known, "macprovider")
