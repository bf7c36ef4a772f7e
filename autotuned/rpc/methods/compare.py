"""`compare`: two runs set against each other."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from autotuned.core.compare import ComparisonDocument, compare
from autotuned.engine.compare import pair
from autotuned.rpc.connection import Connection
from autotuned.rpc.method import Method, Params
from autotuned.rpc.methods.context import Pieces
from autotuned.shared import wire


class CompareParams(Params):
    """Two runs; where one is left out, a good run beside the other; both: the last two good ones."""

    a: str | None = None
    b: str | None = None


def methods(pieces: Pieces) -> list[Method]:
    """Comparing results."""

    async def compared(_: Connection, params: Mapping[str, Any]) -> dict[str, Any]:
        first, second = await pair(pieces.records, params["a"], params["b"])
        return compare(first, second).model_dump(mode="json")

    summary = "two runs, knob by knob and figure by figure, set against their noise"
    return [
        Method("compare", summary, compared, CompareParams, ComparisonDocument, (wire.NOT_FOUND,))
    ]
