"""Instance normalisation: values and gradients in both memory layouts."""

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
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
@pytest.mark.parametrize("many", [1, 2**17])
def test_gradients_are_those_of_pytorch(shape, piece, many, monkeypatch):
    monkeypatch.setattr(_norm, "_PIECE", piece)
    monkeypatch.setattr(_norm, "_MANY", many)
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
    for made in (gradients(norm, layout(x), layout(grad)), gradients(norm, layout(x), grad), gradients(norm, x, grad)):
        for found, right in zip(made, wanted, strict=True):
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
    x = layout(torch.randn(2, 5, 7, 6, 4))
    with torch.no_grad():
        y = InstanceNorm(5)(x)
    assert y.grad_fn is None
    torch.testing.assert_close(y, InstanceNorm(5)(x).detach(), rtol=0, atol=0)


def test_weights_learn_where_features_do_not():
    norm, x = InstanceNorm(3), layout(torch.randn(2, 3, 5, 4, 6))
    norm(x).square().sum().backward()
    exact = [p.detach().double().requires_grad_() for p in (norm.weight, norm.bias)]
    F.instance_norm(x.double(), weight=exact[0], bias=exact[1], eps=norm.eps).square().sum().backward()
    for found, right in zip((norm.weight, norm.bias), exact, strict=True):
        assert found.grad is not None
        torch.testing.assert_close(found.grad.double(), right.grad, rtol=1e-5, atol=1e-3)


@pytest.mark.parametrize("many", [1, 2**17])
def test_worked_numbers_of_two_channels(many, monkeypatch):
    monkeypatch.setattr(_norm, "_MANY", many)
    # voxels 1, 3, 5, 7: mean 4, variance 5; and the same 10 times as large and shifted, in another channel
    x = torch.tensor([1.0, 3.0, 5.0, 7.0]).view(1, 1, 1, 2, 2)
    norm = InstanceNorm(2, eps=0.0)
    with torch.no_grad():
        norm.weight.copy_(torch.tensor([5.0**0.5, 2.0]))
        norm.bias.copy_(torch.tensor([1.0, 0.0]))
        y = norm(layout(torch.cat([x, 10 * x - 70], dim=1)))
    torch.testing.assert_close(y[0, 0].flatten(), torch.tensor([-2.0, 0.0, 2.0, 4.0]))
    torch.testing.assert_close(y[0, 1].flatten(), 2 * torch.tensor([-3.0, -1.0, 1.0, 3.0]) / 5**0.5)


@pytest.mark.parametrize("grad", [False, True])
def test_large_fp32_fields_keep_their_digits_where_channels_are_last(grad):
    # far from nought and many voxels: PyTorch's own is 1e-3 off here
    generator = torch.Generator().manual_seed(3)
    x = 10 + torch.randn((1, 8, 40, 64, 64), generator=generator)
    norm = InstanceNorm(8)
    with torch.set_grad_enabled(grad):
        y = norm(layout(x)).detach()
    wanted = F.instance_norm(x.double(), eps=norm.eps)
    assert (y.double() - wanted).abs().max() < 1e-5
    assert (y.double() - wanted).square().mean().sqrt() < 2e-6


@settings(max_examples=40, deadline=None)
@given(
    shape=st.tuples(*[st.integers(1, n) for n in (3, 6, 5, 6)], st.integers(2, 7)),  # PyTorch refuses a single voxel
    mean=st.floats(-1000, 1000),
    spread=st.floats(1e-3, 1000),
    piece=st.sampled_from([1, 16, 65_536]),
    seed=st.integers(0, 2**16),
)
def test_any_layout_gives_the_double_precision_values(shape, mean, spread, piece, seed):
    generator = torch.Generator().manual_seed(seed)
    x = (mean + spread * torch.randn(shape, generator=generator, dtype=torch.float64)).float()
    norm = InstanceNorm(shape[1])
    with pytest.MonkeyPatch.context() as patched, torch.no_grad():
        patched.setattr(_norm, "_PIECE", piece)
        patched.setattr(_norm, "_MANY", 1)
        y = norm(layout(x))
    exact = x.double().flatten(2)
    rate = (exact.var(2, correction=0, keepdim=True) + norm.eps).rsqrt()
    wanted = ((exact - exact.mean(2, keepdim=True)) * rate).view(shape)
    # what fp32 can hold of a channel whose mean is many deviations from nought
    assert (y.double() - wanted).abs().max() <= 1e-6 * (10 + (abs(mean) + 5 * spread) * float(rate.max()))


@pytest.mark.parametrize("piece", [4, 65_536])
def test_gradcheck(piece, monkeypatch):
    monkeypatch.setattr(_norm, "_PIECE", piece)
    monkeypatch.setattr(_norm, "_MANY", 1)
    generator = torch.Generator().manual_seed(4)
    x = layout(torch.randn((2, 3, 3, 2, 4), generator=generator, dtype=torch.float64)).requires_grad_()
    weight, bias = (torch.rand(3, generator=generator, dtype=torch.float64).requires_grad_() for _ in range(2))

    def normed(*values: torch.Tensor) -> torch.Tensor:
        return _norm._ChannelsLast.apply(*values, 1e-5)

    assert torch.autograd.gradcheck(normed, (x, weight, bias))
