"""What only two-dimensional plans may say: neighbours as channels (2.5D), slices of one fixed size.

Comes in: the user's wishes. Goes out: nothing, or why they contradict each other.
"""

from __future__ import annotations

from hilum.config import PrepareOptions
from hilum.errors import RecipeError

MOST_CONTEXT = 8
_EDGES = (16, 2048)


def check_slices(options: PrepareOptions) -> None:
    """Refuse ``context`` and ``inplane`` where they cannot be followed.

    Raises:
        RecipeError: naming the key, what was found, what is wanted.
    """
    if not 0 <= options.context <= MOST_CONTEXT:
        raise RecipeError(f"prepare.context = {options.context}", wanted=f"0 to {MOST_CONTEXT} slices on each side")
    inplane = options.inplane
    if inplane and (len(inplane) != 2 or not all(_EDGES[0] <= n <= _EDGES[1] for n in inplane)):
        raise RecipeError(
            f"prepare.inplane = {list(inplane)}",
            wanted=f"rows and columns from {_EDGES[0]} to {_EDGES[1]}, e.g. [256, 256]",
        )
    for key, given in (("context", options.context), ("inplane", list(inplane))):
        if given and options.dims != 2:
            raise RecipeError(f"prepare.{key} = {given} with prepare.dims = 3", wanted="prepare.dims = 2")
    if inplane and options.spacing_mm:
        raise RecipeError(
            f"prepare.inplane = {list(inplane)} and spacing_mm = {list(options.spacing_mm)}",
            wanted="one of them: a fixed size gives every scan a spacing of its own",
        )
    if inplane and options.patch and any(p > n for p, n in zip(options.patch[-2:], inplane, strict=True)):
        raise RecipeError(
            f"prepare.patch = {list(options.patch)} is larger than prepare.inplane = {list(inplane)}",
            wanted="a patch inside the slice",
            fix="leave prepare.patch out: it is then the whole slice",
        )
