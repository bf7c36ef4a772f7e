"""A script of ours that serves the recipe, for whoever calls it from a plist, a unit or a terminal."""

from __future__ import annotations

import shlex

from autotuned.writers import Edited, NotOurs, Recipe

NAME = "serve-recipe.sh"
HEAD = "#!/bin/sh\n# Written by autotunectl apply; autotunectl revert removes it.\n"


def edit(text: str, recipe: Recipe) -> Edited:
    """The script for `recipe`. Raises NotOurs for one that somebody else has written."""
    if text and not text.startswith(HEAD):
        message = "it was not written by autotunectl apply: move it aside"
        raise NotOurs(message)
    after = f'{HEAD}exec {shlex.join(recipe.serve)} "$@"\n'
    before = text.removeprefix(HEAD).strip() or None
    if after == text:
        return Edited(text)
    return Edited(after, {"serve": {"before": before, "after": after.removeprefix(HEAD).strip()}})
