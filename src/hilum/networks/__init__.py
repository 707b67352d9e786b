"""BATCH -> LOGITS: networks by file name, in 2D and 3D.

Comes in: a name, a table of options (what the plan decided, overridden by what the recipe chose) and channel counts.
Goes out: an ``nn.Module`` whose ``forward(images_BCDHW)`` gives ``logits_BKDHW``, or while it is training with deep
supervision a list of them, finest first. Knows no data, no plan's origin, no loss.

The folder is the registry: each file whose name has no leading underscore is a network and holds
``build(options, in_channels, out_channels, dims)`` and ``check_patch(options, patch)``, and if need be ``DIMS`` (where
it is defined; both 2D and 3D unless said) and ``NEEDS`` (packages of an extra); only the file asked for is imported.
Every network is handed what ``plan_options`` says and ``deep_supervision``; one with a topology of its own leaves
exactly these aside and refuses any other key that it does not know. A dotted name, or an entry point of the group
``hilum.networks``, is anybody's own module with the same two functions.
"""

from __future__ import annotations

import ast
import importlib
import pkgutil
from collections.abc import Mapping, Sequence
from importlib.util import find_spec
from pathlib import Path
from types import ModuleType
from typing import TYPE_CHECKING, Any

from hilum import plugins
from hilum.errors import RecipeError, UsageError

if TYPE_CHECKING:
    import torch
    from torch import nn

    from hilum.prepare.plan import Plan

__all__ = [
    "build",
    "canonical_keys",
    "check_name",
    "check_patch",
    "describe",
    "dims_of",
    "fitting_patch",
    "names",
    "overview",
    "plan_options",
]


def names() -> list[str]:
    """The networks that ship with hilum, by the names that recipes use."""
    return sorted(info.name for info in pkgutil.iter_modules(__path__) if not info.name.startswith("_"))


def describe() -> dict[str, str]:
    """The first line of each network's docstring, by name; nothing is imported for it."""
    texts = {}
    for name in names():
        source = (Path(__file__).parent / f"{name}.py").read_text(encoding="utf-8")
        texts[name] = (ast.get_docstring(ast.parse(source)) or "").partition("\n")[0]
    return texts


def overview() -> tuple[dict[str, dict[str, Any]], str]:
    """Every network with its first line and what it costs for a reference patch; seconds of work.

    Returns:
        By name ``description``, and for "2d" and "3d" where it is defined the numbers of ``_costs.cost``; the same as
        text.
    """
    from hilum.networks import _costs

    return _costs.overview()


def build(name: str, options: Mapping[str, Any], in_channels: int, out_channels: int, dims: int) -> nn.Module:
    """A freshly initialised network.

    Args:
        name: a file of this folder, or the dotted name of one's own module.
        options: what that network takes; ``plan_options`` makes the planned part.
        in_channels: channels of the image (1 for CT).
        out_channels: classes, background included.
        dims: 2 or 3.

    Raises:
        RecipeError: no such network, an option it does not know, or options that contradict each other.
        UsageError: it needs a package that is not installed.
    """
    assert dims in (2, 3), dims
    module = _module(name, "build")
    _check_dims(name, module, dims)
    _check_needs(name, module)
    network: nn.Module = module.build(options, in_channels, out_channels, dims)
    return network


def check_name(name: str) -> None:
    """Refuse a name now, and not after hours of preparing.

    Raises:
        RecipeError: there is no network of this name; the known ones are listed.
        UsageError: it needs a package that is not installed.
    """
    _check_needs(name, _module(name, "build"))


def check_patch(name: str, options: Mapping[str, Any], patch: Sequence[int]) -> None:
    """Refuse, before any training, a patch that the network cannot halve as often as its strides ask for.

    Args:
        name: as for ``build``.
        options: as for ``build``.
        patch: (D, H, W) in voxels; D is 1 for a 2D network.

    Raises:
        RecipeError: naming the axis, the size found and the next sizes that fit.
    """
    module = _module(name, "check_patch")
    if len(patch) == 3 and patch[0] == 1:
        _check_dims(name, module, 2)
    module.check_patch(options, patch)


def fitting_patch(name: str, options: Mapping[str, Any], patch: Sequence[int]) -> tuple[int, int, int]:
    """The patch itself if the network can halve it, else the largest below it whose edges share a power of two.

    Args:
        name, options, patch: as for ``check_patch``. An edge below that power of two becomes it; D = 1 stays.

    Raises:
        RecipeError: no power of two up to 128 helps; it says what the network wants.
    """
    z, y, x = patch
    try:
        check_patch(name, options, patch)
        return z, y, x
    except RecipeError as error:
        for edge in (2, 4, 8, 16, 32, 64, 128):
            z, y, x = (n if n == 1 else max(edge, n // edge * edge) for n in patch)
            try:
                check_patch(name, options, (z, y, x))
                return z, y, x
            except RecipeError:
                continue
        raise error


def dims_of(name: str) -> tuple[int, ...]:
    """2, 3 or both: where a network is defined (its ``DIMS``; both where it says nothing)."""
    return tuple(getattr(_module(name, "build"), "DIMS", (2, 3)))


def plan_options(plan: Plan) -> dict[str, Any]:
    """What the plan decides about a network, as plain lists (JSON keeps them unchanged)."""
    return {
        "features": [int(n) for n in plan.features],
        "kernels": [[int(n) for n in kernel] for kernel in plan.kernels],
        "strides": [[int(n) for n in stride] for stride in plan.strides],
        "convs_per_stage": [int(n) for n in plan.convs_per_stage],
    }


def canonical_keys(state: Mapping[str, torch.Tensor]) -> dict[str, torch.Tensor]:
    """A state dict without the second names that nnU-Net v2 gives to the same tensors.

    Its blocks hold every layer twice (``conv`` and ``all_modules.0``) and its decoder holds the encoder again
    (``decoder.encoder.*``); wrappers for compiling and for several GPUs put ``_orig_mod.`` or ``module.`` in front.
    What is left are the names that this folder's networks use.
    """
    kept = {}
    for key, tensor in state.items():
        for prefix in ("module.", "_orig_mod."):
            key = key.removeprefix(prefix)
        if not key.startswith("decoder.encoder.") and ".all_modules." not in key:
            kept[key] = tensor
    return kept


def _check_needs(name: str, module: ModuleType) -> None:
    missing = [package for package in getattr(module, "NEEDS", ()) if find_spec(package) is None]
    if missing:
        raise UsageError(
            f"the network {name!r} is built with {' and '.join(missing)}, which is not installed",
            where="network.name",
            fix="pip install 'hilum[networks]'",
        )


def _check_dims(name: str, module: ModuleType, dims: int) -> None:
    known = tuple(getattr(module, "DIMS", (2, 3)))
    if dims not in known:
        raise RecipeError(
            f"the network {name!r} is defined in {' and '.join(f'{n}D' for n in known)}, and the plan is in {dims}D",
            where="network.name",
            fix="choose another network, or another prepare.dims",
        )


def _module(name: str, function: str) -> ModuleType:
    wanted = "build(options, in_channels, out_channels, dims) and check_patch(options, patch)"
    if name in names():
        return importlib.import_module(f"{__name__}.{name}")
    if not plugins.is_own("networks", name):
        raise RecipeError(
            f"no network {name!r}",
            where="network.name",
            wanted=f"one of {names() + plugins.names('networks')}, or the dotted name of your own module",
        )
    module = plugins.load("networks", name, "network.name", f"a module with {wanted}")
    if not hasattr(module, function):
        raise RecipeError(
            f"the module {name!r} has no function {function!r}",
            where="network.name",
            wanted=wanted,
        )
    own: ModuleType = module
    return own
