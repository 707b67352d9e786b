"""Networks of MONAI with the arguments that a bundle gives them: SegResNet, SegResNetDS, DynUNet.

Comes in: options ``kind`` and ``arguments``. Goes out: the network, in 2D or 3D, behind the contract of
``hilum.networks``: model folders name this module (``hilum.exchange.monai_networks``) as their network. It answers with
the finest logits only. Nothing else of MONAI is built, whatever a bundle asks for.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any

from torch import nn

from hilum.errors import RecipeError
from hilum.networks._monai import FinestFirst, monai_nets, quiet

NEEDS = ("monai",)
KINDS = ("SegResNet", "SegResNetDS", "DynUNet")


def build(options: Mapping[str, Any], in_channels: int, out_channels: int, dims: int) -> nn.Module:
    """The network; see ``networks.build``."""
    kind, arguments = _read(options)
    nets = monai_nets()
    given = {**arguments, "spatial_dims": dims, "in_channels": in_channels, "out_channels": out_channels}
    with quiet():
        try:
            network = getattr(nets, kind)(**given)
        except (TypeError, ValueError, NotImplementedError, KeyError) as error:
            raise RecipeError(f"{kind} cannot be built so ({error})", where="network.options") from None
    return FinestFirst(network, False)


def check_patch(options: Mapping[str, Any], patch: Sequence[int]) -> None:
    """See ``networks.check_patch``."""
    kind, arguments = _read(options)
    if kind == "DynUNet":
        rows = [[n] * len(patch) if isinstance(n, int) else list(n) for n in arguments.get("strides", [])]
        divisors = [math.prod(row[axis] for row in rows) for axis in range(len(patch))]
    else:
        stages = len(arguments.get("blocks_down", (1, 2, 2, 4)))
        divisors = [2 ** (stages - 1)] * len(patch)
    if any(n > 1 and n % divisor for n, divisor in zip(patch, divisors, strict=True)):
        raise RecipeError(f"a patch of {list(patch)} voxels for {kind}", wanted=f"multiples of {divisors}")


def _read(options: Mapping[str, Any]) -> tuple[str, dict[str, Any]]:
    kind, arguments = options.get("kind"), options.get("arguments", {})
    if kind not in KINDS or set(options) - {"kind", "arguments"} or not isinstance(arguments, Mapping):
        raise RecipeError(f"network options {dict(options)}", wanted=f"kind: one of {list(KINDS)}, and arguments")
    return str(kind), dict(arguments)
