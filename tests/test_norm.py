"""Instance normalisation: values and gradients in both memory layouts."""

import pytest
import torch
from torch.nn import functional as F

from hilum.networks import _norm
from hilum.networks._norm import InstanceNorm

SHAPES = [(2, 5, 7, 6, 4), (3, 4, 9, 11)]


def layout(x: torch.Tensor) -> torch.Tensor:
    return x.contiguous(memory_format=torch.channels_last_3d if x.ndim == 5 else torch.channels_last)


def gradients(norm: InstanceNorm, x: torch.Tensor, grad: torch.Tensor) -> list[torch.Tensor]:
    x = x.detach().requires_grad_()
    norm.zero_grad()
    y = norm(x)
    y.backward(grad)
    assert x.grad is not None and norm.weight.grad is not None and norm.bias.grad is not None
    return [y.detach(), x.grad, norm.weight.grad, norm.bias.grad]


@pytest.mark.parametrize("shape", SHAPES)
@pytest.mark.parametrize("piece", [8, 65_536])
def test_gradients_are_those_of_pytorch(shape, piece, monkeypatch):
    monkeypatch.setattr(_norm, "_PIECE", piece)
    generator = torch.Generator().manual_seed(1)
    x, grad = (3 + 2 * torch.randn(shape, generator=generator, dtype=torch.float64).float() for _ in range(2))
    norm = InstanceNorm(shape[1])
    with torch.no_grad():
        norm.weight.uniform_(0.5, 2, generator=generator)
        norm.bias.uniform_(-1, 1, generator=generator)
    exact = x.double().requires_grad_()
    weight, bias = (p.detach().double().requires_grad_() for p in (norm.weight, norm.bias))
    y = F.instance_norm(exact, weight=weight, bias=bias, eps=norm.eps)
    y.backward(grad.double())
    wanted = [y.detach(), exact.grad, weight.grad, bias.grad]
    for given in (gradients(norm, layout(x), layout(grad)), gradients(norm, layout(x), grad), gradients(norm, x, grad)):
        for found, right in zip(given, wanted, strict=True):
            torch.testing.assert_close(found.double(), right, rtol=2e-5, atol=2e-4)


def test_channels_last_takes_its_own_gradient_and_stays_channels_last():
    x = layout(torch.randn(2, 5, 7, 6, 4)).requires_grad_()
    y = InstanceNorm(5)(x)
    assert "_ChannelsLast" in type(y.grad_fn).__name__
    y.sum().backward()
    assert y.is_contiguous(memory_format=torch.channels_last_3d)
    assert x.grad is not None and x.grad.is_contiguous(memory_format=torch.channels_last_3d)


@pytest.mark.parametrize("shape", SHAPES)
def test_short_numbers_lose_no_more_than_their_own_rounding(shape):
    generator = torch.Generator().manual_seed(2)
    x, grad = (torch.randn(shape, generator=generator) for _ in range(2))
    norm = InstanceNorm(shape[1])
    short = gradients(norm, layout(x.bfloat16()), layout(grad.bfloat16()))
    long = gradients(norm, layout(x.bfloat16().float()), layout(grad.bfloat16().float()))
    assert short[0].dtype == short[1].dtype == torch.bfloat16
    for found, right in zip(short, long, strict=True):
        torch.testing.assert_close(found.float(), right, rtol=2**-7, atol=0.02)


def test_nothing_is_kept_for_a_gradient_that_nobody_wants():
    y = InstanceNorm(5)(layout(torch.randn(2, 5, 7, 6, 4)))
    assert "_ChannelsLast" not in type(y.grad_fn).__name__
