"""COMPILE, WHERE IT PAYS: ``torch.compile`` tried on a copy of the network before a long run takes it.

Comes in: a network, one batch, seconds that are left. Goes out: the compiled network, or None, and a sentence that
says why. Compiling changes the order of sums, so that a run compiles from its start or not at all within one part;
what was chosen travels in the checkpoint.
"""

from __future__ import annotations

import copy
import time
from collections.abc import Callable
from typing import cast

import torch
from torch import nn

LONG_RUN_S = 1800.0  # compiling took 37 s on two cores, and a try as long again
_GAIN = 0.05
_TRIES = 3


def compiled(network: nn.Module) -> nn.Module:
    """The network, compiled for tensors of one shape."""
    return cast(nn.Module, torch.compile(network, dynamic=False))


def try_compiling(
    network: nn.Module, one_step: Callable[[nn.Module], None], seconds_left: float
) -> tuple[nn.Module | None, str]:
    """Measure a forward and backward pass both ways, on copies.

    Args:
        network: what trains; it stays as it is.
        one_step: a forward and backward pass of the network that it is given.
        seconds_left: of the run.

    Returns:
        The compiled network if it saves at least a twentieth and more than compiling costs, else None; and a sentence.
    """
    twin = copy.deepcopy(network)
    with torch.random.fork_rng():
        plain = _fastest(one_step, twin)
        begin = time.monotonic()
        try:
            fast = compiled(copy.deepcopy(network))
            one_step(fast)
        except Exception as error:  # whatever a compiler that is missing or too old may raise
            reason = str(error).strip().splitlines()
            return None, f"torch.compile does not work here ({reason[0] if reason else type(error).__name__})"
        cost = time.monotonic() - begin
        quick = _fastest(one_step, fast)
    share = 1 - quick / plain
    said = f"torch.compile: {plain:.3f} s a pass without, {quick:.3f} s with, after {cost:.0f} s of compiling"
    if share > _GAIN and share * seconds_left > cost:
        return compiled(network), f"{said}: taken"
    return None, f"{said}: not taken"


def _fastest(one_step: Callable[[nn.Module], None], network: nn.Module) -> float:
    seconds = []
    for _ in range(_TRIES):
        begin = time.monotonic()
        one_step(network)
        if torch.cuda.is_available():
            torch.cuda.synchronize()
        seconds.append(time.monotonic() - begin)
    return min(seconds)
