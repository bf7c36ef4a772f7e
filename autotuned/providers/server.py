"""Any serving program by its description: where it is, how it is started, how it names its models.

What data cannot say of one server is a subclass beside its description, which overrides that answer
alone. Must not know the search, the store, or how processes are started and measured.
"""

from __future__ import annotations

import os
import re
import sys
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from autotuned.core.command_line import Commands, program
from autotuned.core.model import WeightsFormat
from autotuned.descriptions import Entry
from autotuned.errors import ProviderMissing
from autotuned.providers import binary as programs
from autotuned.providers import log_reason
from autotuned.server_spec import ServerSpec, Value, fill
from autotuned.shared import paths
from autotuned.shared.knobs import Knobs
from autotuned.shared.tools import Answer

_VERSIONS = (
    "import sys; from importlib.metadata import version; "
    "print(', '.join(f'{name} {version(name)}' for name in sys.argv[1:]))"
)
NAMED = "or name the program as [provider] binary in autotuned.toml"


@dataclass(frozen=True, slots=True)
class Binary:
    """The serving program that was found: how to call it, and which version answers."""

    command: tuple[str, ...]
    """Absolute path first; more than one word where an interpreter or launcher is needed."""
    version: str
    candidate_flags: bool = False
    """Whether it takes the private flags of a candidate (macprovider)."""


@dataclass(frozen=True, slots=True)
class Launch:
    """One start that is asked for. `knobs` None: the binary's own defaults (stage 1)."""

    model: str
    """The id as the request names it: what the server must list."""
    weights: Path
    """The folder (mlx) or the `.gguf` file (gguf) on this disk; for an id, its snapshot in the cache."""
    knobs: Knobs | None
    port: int
    target_context: int
    folder: Path
    """A private folder (0700) of this start, for configuration files of ours."""
    parent_pid: int
    """The pid that will be the candidate's parent."""


@dataclass(frozen=True, slots=True)
class Command:
    """What to run: `argv`, and the changes to the agent's environment."""

    argv: tuple[str, ...]
    env: Mapping[str, str] = field(default_factory=dict)
    settings: tuple[str, ...] = ()
    """Prefixes of the variables that would configure this kind of server."""
    files: Mapping[Path, str] = field(default_factory=dict)
    """Files to write first, mode 0600."""


class Provider:
    fatal = log_reason.FATAL
    """What a line of a candidate's log holds that says: it will never serve."""

    def __init__(
        self,
        kind: str,
        spec: ServerSpec,
        catalogue: Sequence[Entry],
        named: Path | None,
        extra_args: Sequence[str],
        environ: Mapping[str, str],
    ) -> None:
        """`catalogue`: its default list, largest first; `named`: the program of the settings, if any; `environ`: the agent's environment."""
        self.kind, self.spec, self.catalogue = kind, spec, catalogue
        self._named, self._extra, self._environ = named, tuple(extra_args), environ
        self.weights: WeightsFormat = "gguf" if spec.weights == "gguf" else "mlx"
        self.readiness = spec.ready
        """Paths that must answer 200, `/v1/models` first; 503 on any means: still loading."""
        self.commands = commands(spec, named)
        """Command words by which a process that serves is recognised."""

    def find(self) -> tuple[str, ...] | None:
        """How to call it: the program of the settings, of the PATH, of its usual places, or beside our interpreter.

        None where it is not installed. Raises ProviderMissing for a bad setting.
        """
        if self._named is not None:
            return (str(programs.named(self._named)),)
        name = self.spec.command[0]
        if paths.is_path(name):
            places = [Path(paths.expanded(name, self._environ))]
        else:
            on_path = programs.on_path(name, self._environ)
            usual = (
                Path(paths.expanded(place, self._environ)) / name for place in self.spec.places
            )
            places = [*([on_path] if on_path else []), *usual, Path(sys.executable).with_name(name)]
        path = programs.first(places)
        return None if path is None else (str(path),)

    async def locate(self) -> Binary:
        """Find the program and ask its version. Raises ProviderMissing with the remedy."""
        command = self.find()
        if command is None:
            places = " or ".join(("on the PATH", *(f"in {place}" for place in self.spec.places)))
            remedy = f"{self.spec.install}, {NAMED}" if self.spec.install else NAMED[3:]
            message = f"no {self.spec.command[0]} {places}: {remedy}"
            raise ProviderMissing(message)
        return Binary(command, await self._version(command))

    async def _version(self, command: tuple[str, ...]) -> str:
        if self.spec.packages:
            return await self._versions(command[0])
        if self.spec.version is None:
            return await programs.digest(Path(command[0]))
        first, *words = self.spec.version
        argv = [*(command if first == self.spec.command[0] else [first]), *words]
        answer = await programs.ask(argv, self._environ)
        if answer.code != 0:
            message = f"{' '.join(argv)} {answer.ended}: {answer.line}"
            raise ProviderMissing(message)
        return self._version_in(answer) or await programs.digest(Path(command[0]))

    async def _versions(self, path: str) -> str:
        """Of its packages. The interpreter that its first line names knows what is installed."""
        interpreter = programs.interpreter(Path(path))
        if interpreter is None:
            message = f"{path} is no Python program, so its version cannot be asked; {NAMED[3:]}"
            raise ProviderMissing(message)
        argv = [interpreter, "-I", "-c", _VERSIONS, *self.spec.packages]
        answer = await programs.ask(argv, self._environ)
        version = programs.last_line(answer.out)
        if answer.code != 0 or version is None:
            reason = log_reason.telling_line(answer.err) or answer.ended
            message = f"{path}: {interpreter} does not know {self.spec.packages[0]}: {reason}"
            raise ProviderMissing(message)
        return version

    def _version_in(self, answer: Answer) -> str | None:
        return programs.last_line(answer.out) or programs.last_line(answer.err)

    def command(self, binary: Binary, launch: Launch) -> Command:
        """The argv (and private files) for one start; pure."""
        return Command(
            argv=self._argv(binary, launch, self._extra, self._words(binary, launch)),
            env={**programs.OFFLINE, **self.spec.env, **self._env(launch)},
            settings=self.spec.scrub,
            files=self._files(launch),
        )

    def serve_argv(self, binary: Binary, launch: Launch) -> tuple[str, ...]:
        """What the operator would type to serve with these knobs: `command` without what only a candidate needs."""
        return self._argv(binary, launch, self._extra, None)

    def _argv(
        self, binary: Binary, launch: Launch, extra: Sequence[str], hook: Sequence[str] | None
    ) -> tuple[str, ...]:
        """`hook` None: as the operator would type it."""
        knobs = None if launch.knobs is None else launch.knobs.chosen()
        names, serving = self._names(launch), hook is None
        return self.spec.argv(
            binary.command, names, knobs, extra=extra, hook=hook or (), serving=serving
        )

    def _names(self, launch: Launch) -> dict[str, Value]:
        return {
            "weights": str(launch.weights),
            "model": launch.model,
            "source": self._source(launch),
            "folder": str(launch.folder),
            "port": launch.port,
            "context": launch.target_context,
        }

    def serves(self, listing: object, model: str) -> bool:
        """True when the decoded answer of `/v1/models` names `model`, by its id, an alias or a path of its weights."""
        ids = set(listed_in(listing))
        wanted = {model, *(part.strip() for part in model.split(","))}  # commas part aliases
        if paths.is_path(model):
            path = paths.expanded(model, self._environ)
            wanted |= {path, os.path.realpath(path), os.path.basename(path)}  # noqa: PTH119
        snapshot = f"/models--{model.replace('/', '--')}/snapshots/"
        return not wanted.isdisjoint(ids) or any(snapshot in listed for listed in ids)

    def request_model(self, launch: Launch) -> str:
        return fill(self.spec.request_model, self._names(launch))

    def telling_line(self, log: str) -> str | None:
        """The line of a candidate's log that says best why it failed, without what stands before its words."""
        line = log_reason.telling_line(log)
        return re.sub(self.spec.log_prefix, "", line) if line and self.spec.log_prefix else line

    # --- what a server's own class may know better -------------------------------------------------

    def _source(self, launch: Launch) -> str:
        """The id, or the weights of a local model."""
        return str(launch.weights) if paths.is_path(launch.model) else launch.model

    def _words(self, binary: Binary, launch: Launch) -> Sequence[str]:
        """Words of a candidate's command line that no template can say."""
        return ()

    def _env(self, launch: Launch) -> Mapping[str, str]:
        """Changes of a candidate's environment that depend on the start."""
        return {}

    def _files(self, launch: Launch) -> Mapping[Path, str]:
        """Files to write before a start."""
        return {}


def listed_in(listing: object) -> Iterator[str]:
    """Every id and alias that a decoded answer of `/v1/models` names, whatever its shape.

    Servers send `{"data": [{"id": ...}]}`; some a bare list, `models` instead of `data`, or strings.
    """
    if isinstance(listing, Mapping):
        for key in ("data", "models"):
            yield from listed_in(listing.get(key))
        return
    if not isinstance(listing, list | tuple):
        return
    for entry in listing:
        if isinstance(entry, str):
            yield entry
        elif isinstance(entry, Mapping):
            for key in ("id", "name", "model"):
                if isinstance(entry.get(key), str):
                    yield entry[key]
            aliases = entry.get("aliases")
            if isinstance(aliases, list):
                yield from (alias for alias in aliases if isinstance(alias, str))


def commands(spec: ServerSpec, named: Path | None) -> Commands:
    """Command words by which a process of this server is recognised, that of the settings among them."""
    listed = [tuple(words.split()) for words in spec.process] or [_own_words(spec.command)]
    others = [(named.name, *listed[0][1:])] if named else []
    return [*listed, *others]


def _own_words(command: Sequence[str]) -> tuple[str, ...]:
    """The words of a description's command before its first flag or template."""
    words = program(command) or tuple(command)
    ends = (i for i, word in enumerate(words) if i and (word.startswith("-") or "{" in word))
    first, *others = words[: next(ends, len(words))]
    return (first.rpartition("/")[2], *others)
