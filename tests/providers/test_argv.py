"""The command lines of the three first servers, as they were recorded before descriptions became data."""

from __future__ import annotations

import shlex
from pathlib import Path

import pytest

from autotuned.providers import made
from autotuned.providers.server import Binary, Launch
from autotuned.shared.knobs import Knobs

RECORDED = [
    line.split("\t")
    for line in Path(__file__).with_name("recorded_argv.tsv").read_text().splitlines()
]


def knobs(text: str) -> Knobs | None:
    if text == "defaults":
        return None
    bits, batch, context = text.split("/")
    return Knobs(None if bits == "None" else int(bits), int(batch), int(context))


@pytest.mark.parametrize("recorded", RECORDED, ids=range(len(RECORDED)))
def test_a_command_line_is_to_the_letter_what_it_was(recorded: list[str]) -> None:
    kind, model, cell, extra, use, argv = recorded
    server = made(kind, None, () if extra == "-" else tuple(shlex.split(extra)))
    binary = Binary(("/bin/server",), "1", candidate_flags=cell.startswith("8/"))
    weights = Path("/w" if model == "org/m" else model)
    launch = Launch(model, weights, knobs(cell), 18080, 2000, Path("/private"), 77)
    words = (
        server.command(binary, launch).argv
        if use == "candidate"
        else server.serve_argv(binary, launch)
    )
    assert shlex.join(words) == argv
