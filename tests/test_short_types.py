"""Gradients in bf16 are those of fp32 up to rounding, also where the library gets them wrong."""

from __future__ import annotations

import copy

import pytest
import torch
from torch import nn

from hilum.training.short_types import SafeConv3d, make_safe


@pytest.mark.parametrize("depth", [1, 2, 3, 4])
@pytest.mark.parametrize(("kernel", "stride"), [(3, (1, 1, 1)), (3, (1, 2, 2)), (5, (1, 1, 1))])
def test_bf16_gradients_are_fp32_s(depth: int, kernel: int, stride: tuple[int, int, int]) -> None:
    torch.manual_seed(0)
    network = nn.Sequential(nn.Conv3d(32, 32, kernel, stride, kernel // 2))
    x = torch.randn(2, 32, depth, 8, 8)
    y = network(x)
    g = torch.randn_like(y)
    y.backward(g)
    expected = network[0].weight.grad.clone()
    make_safe(network)
    for _ in range(3):
        network.zero_grad()
        with torch.autocast("cpu", torch.bfloat16):
            y = network(x)
        y.backward(g.to(y.dtype))
        found = network[0].weight.grad
        assert bool(found.isfinite().all())
        assert float((found - expected).abs().max()) < 0.05 * float(expected.abs().max())


def test_names_weights_and_copies_stay() -> None:
    network = nn.Sequential(nn.Conv3d(1, 2, 3), nn.Conv2d(1, 2, 3))
    before = {key: value.clone() for key, value in network.state_dict().items()}
    make_safe(network)
    assert type(network[0]) is SafeConv3d and type(network[1]) is nn.Conv2d
    after = copy.deepcopy(network).state_dict()
    assert before.keys() == after.keys() and all(torch.equal(before[key], after[key]) for key in before)


def test_outside_autocast_and_over_larger_maps_nothing_changes() -> None:
    conv = nn.Conv3d(4, 4, 3, padding=1)
    safe = nn.Sequential(copy.deepcopy(conv))
    make_safe(safe)
    for depth in (2, 4):
        x = torch.randn(1, 4, depth, 5, 5)
        assert torch.equal(conv(x), safe(x))
        with torch.autocast("cpu", torch.bfloat16):
            assert safe(x).dtype is (torch.float32 if depth == 2 else torch.bfloat16)
