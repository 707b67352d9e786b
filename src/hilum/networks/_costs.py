"""NETWORK NAME -> what it costs: parameters, arithmetic and memory for one reference patch, without computing anything.

Comes in: a name, or nothing for all of them. Goes out: plain numbers, and a table of them. Tensors are shapes without
memory (PyTorch's "meta" device), so that it takes a second whatever the size. Knows no data and no machine: what a run
really needs, its log says.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import nn
from torch.utils.flop_counter import FlopCounterMode

from hilum import networks
from hilum.errors import UsageError

# one image, one channel; four classes, as in KiTS
PATCHES: dict[int, tuple[int, ...]] = {2: (256, 256), 3: (64, 64, 64)}
CLASSES = 4
_BYTES = 4


def reference_options(dims: int) -> dict[str, Any]:
    """What a plan would say for the reference patch: 4 voxels at the coarsest; 32 features, doubled to 320 or 512."""
    stages, most = (7, 512) if dims == 2 else (5, 320)
    kernel, stride = ([1, 3, 3], [1, 2, 2]) if dims == 2 else ([3, 3, 3], [2, 2, 2])
    return {
        "features": [min(32 * 2**i, most) for i in range(stages)],
        "kernels": [kernel] * stages,
        "strides": [[1, 1, 1], *[stride] * (stages - 1)],
        "convs_per_stage": [2] * stages,
        "deep_supervision": True,
    }


def cost(name: str, dims: int) -> dict[str, Any]:
    """What a network with its default options (and a reference plan) needs for one reference patch.

    Args:
        name: of ``networks.names()``.
        dims: 2 or 3.

    Returns:
        ``patch``: batch, channel, D, H, W; ``parameters``: how many; ``gflops``: 10^9 floating-point operations of one
        forward pass, a multiplication and an addition being two (convolutions and matrix products, which is what
        PyTorch counts); ``training_mb``: 10^6 bytes of weights, gradients, one momentum and everything that the
        forward pass keeps for the backward one, in fp32. Workspaces of convolutions come on top, mixed precision
        makes it less.
    """
    shape = (1, 1, *PATCHES[dims])
    with torch.device("meta"):
        network = networks.build(name, reference_options(dims), 1, CLASSES, dims)
        patch = torch.empty(shape)
    parameters = sum(p.numel() for p in network.parameters())
    with FlopCounterMode(display=False) as counter, torch.no_grad():
        network.eval()(patch)
    return {
        "patch": list(shape),
        "parameters": parameters,
        "gflops": counter.get_total_flops() / 1e9,
        "training_mb": training_bytes(network, shape) / 1e6,
    }


def training_bytes(network: nn.Module, shape: tuple[int, ...]) -> int:
    """Bytes of weights, gradients, one momentum and what the forward pass keeps, in fp32.

    Args:
        network: built on PyTorch's "meta" device.
        shape: of the images, (B, C, ...).
    """
    parameters = sum(p.numel() for p in network.parameters())
    return 3 * _BYTES * parameters + _kept_bytes(network.train(), torch.empty(shape, device="meta"))


def overview() -> tuple[dict[str, dict[str, Any]], str]:
    """Every network with its first line and its costs: for programs, and as text for people.

    A network whose extra is not installed says so in the place of its costs (``missing``).
    """
    facts: dict[str, dict[str, Any]] = {}
    lines = [f"{'':32} {'parameters':>12} {'GFLOP':>8} {'training MB':>12}"]
    for name, text in networks.describe().items():
        facts[name] = {"description": text}
        lines.append(f"{name:16} {text}")
        try:
            costs = {f"{dims}d": cost(name, dims) for dims in networks.dims_of(name)}
        except UsageError as error:
            facts[name]["missing"] = str(error)
            lines.append(f"{'':28} {error}")
            continue
        facts[name] |= costs
        lines += [
            f"{'':28} {dims:3} {x['parameters']:12,} {x['gflops']:8.1f} {x['training_mb']:12.0f}"
            for dims, x in costs.items()
        ]
    sizes = " or ".join("x".join(map(str, (1, 1, *PATCHES[dims]))) for dims in PATCHES)
    lines.append(
        f"For a reference patch of {sizes}, {CLASSES} classes and default options: GFLOP of one forward pass; MB "
        "(10^6 bytes) of one training step in fp32: weights, gradients, momentum and kept activations."
    )
    return facts, "\n".join(lines)


def _kept_bytes(network: nn.Module, patch: torch.Tensor) -> int:
    """Bytes that autograd keeps between forward and backward; tensors that share storage count once, parameters not."""
    own = {p.untyped_storage()._cdata for p in network.parameters()}
    kept: dict[int, torch.UntypedStorage] = {}

    def pack(tensor: torch.Tensor) -> torch.Tensor:
        storage = tensor.untyped_storage()
        if storage._cdata not in own:
            kept[storage._cdata] = storage
        return tensor

    with torch.autograd.graph.saved_tensors_hooks(pack, lambda tensor: tensor):
        answer = network(patch)
    assert answer is not None  # the graph lives until here
    return sum(storage.nbytes() for storage in kept.values())
