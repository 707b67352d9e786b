"""Names of anybody's own networks, losses, data sets and augmentations, found without touching this package.

Comes in: a name in a recipe. Goes out: the module or function that it means. A dotted name (``my_package.my_module``)
is imported as it stands. A short name is looked up among the entry points of installed packages, one group for each
kind: ``hilum.networks`` and ``hilum.datasets`` name modules, ``hilum.losses`` and ``hilum.augmentations`` functions.
hilum's own names come first; an entry point cannot replace them.
"""

from __future__ import annotations

import importlib
from importlib.metadata import EntryPoint, entry_points
from types import ModuleType
from typing import Any, Literal

from hilum.errors import RecipeError

Kind = Literal["networks", "losses", "datasets", "augmentations"]
_FUNCTIONS: tuple[Kind, ...] = ("losses", "augmentations")


def names(kind: Kind) -> list[str]:
    """The short names that installed packages offer."""
    return sorted({entry.name for entry in _entries(kind)})


def is_own(kind: Kind, name: str) -> bool:
    """Whether a name is dotted or an entry point, so that ``load`` is to be asked for it."""
    return "." in name or bool(_entries(kind, name))


def load(kind: Kind, name: str, where: str, wanted: str) -> Any:
    """The module (networks, data sets) or function (losses, augmentations) of a dotted name or an entry point.

    Args:
        kind: of what.
        name: for which ``is_own`` is true, or anything that shall be refused in words.
        where: the recipe's key, for messages.
        wanted: what the module or function has to be, for messages.

    Raises:
        RecipeError: no such name, it cannot be imported, is no module or function, or two packages offer it.
    """
    entries = _entries(kind, name)
    if not entries and "." not in name:
        raise RecipeError(
            f"{name!r} is no installed entry point of the group 'hilum.{kind}'",
            where=where,
            wanted=f"one of {names(kind)}, or {wanted}" if names(kind) else wanted,
            fix="install the package that offers it, or write the dotted name",
        )
    if len({entry.value for entry in entries}) > 1:
        raise RecipeError(
            f"{name!r} is offered by several packages: {sorted(entry.value for entry in entries)}",
            where=where,
            fix="write the dotted name instead",
        )
    target = entries[0].value if entries else name
    try:
        found = _target(kind, target)
    except (ImportError, AttributeError, ValueError) as error:
        raise RecipeError(
            f"{name!r} cannot be imported ({error})",
            where=where,
            wanted=wanted,
            fix="put its module on PYTHONPATH, or mend the name",
        ) from None
    if not (callable(found) if kind in _FUNCTIONS else isinstance(found, ModuleType)):
        raise RecipeError(f"{name!r} is a {type(found).__name__}", where=where, wanted=wanted)
    return found


def _entries(kind: Kind, name: str | None = None) -> list[EntryPoint]:
    group = entry_points(group=f"hilum.{kind}")
    return [entry for entry in group if name is None or entry.name == name]


def _target(kind: Kind, target: str) -> Any:
    """A dotted name, or an entry point's ``module:function``."""
    module, _, attribute = target.partition(":")
    if not attribute and kind in _FUNCTIONS:
        module, _, attribute = target.rpartition(".")
    found: Any = importlib.import_module(module.strip())
    for part in attribute.strip().split(".") if attribute else ():
        found = getattr(found, part)
    return found
