"""Planned U-Nets by Winograd's tiles: every layer and whole networks against PyTorch in double precision."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn
from torch.nn import functional as F

from hilum import networks
from hilum.inference.winograd import compiled, native, pool
from hilum.inference.winograd.fields import Field, Store
from hilum.inference.winograd.layers import Direct, Norm, Pointwise, Winograd, head, normalise
from hilum.inference.winograd.sources import FieldSource, Up, UpSource
from hilum.inference.winograd.transforms import transform
from hilum.model.tensors import StoredTensors, write_tensors


def random(*size: int, seed: int = 0) -> torch.Tensor:
    return torch.randn(size, generator=torch.Generator().manual_seed(seed))


def field_of(image: torch.Tensor, store: Store, dealt: bool = True) -> Field:
    """(C, D, H, W) as a field."""
    field = store.field(tuple(image.shape[1:]), len(image), dealt)
    field.write(0, image.permute(1, 2, 3, 0))
    return field


def image_of(field: Field) -> torch.Tensor:
    return field.read(0, field.shape[0]).permute(3, 0, 1, 2)


ENGINES = ("pytorch", "plain", "avx2", "avx512")


@pytest.fixture(params=ENGINES)
def engine(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> str:
    """PyTorch's operations, and each library that was compiled and that this processor can run."""
    here = torch.backends.cpu.get_cpu_capability().lower()
    if request.param != "pytorch" and native.load(request.param) is None:
        pytest.skip(f"no {request.param} library was compiled when hilum was installed")
    if request.param.startswith("avx") and (not here.startswith("avx") or request.param > here):
        pytest.skip(f"this processor has no {request.param}")
    library = None if request.param == "pytorch" else native.load(request.param)
    monkeypatch.setattr(native, "library", lambda: library)
    return str(request.param)


def off(found: torch.Tensor, wanted: torch.Tensor) -> float:
    return float((found - wanted).abs().max() / wanted.std())


@pytest.mark.parametrize("outputs", [1, 2, 3, 4])
def test_tiles_give_what_a_filter_gives(outputs: int) -> None:
    of = transform(outputs)
    data, kernel = random(outputs + 2).double(), random(3, seed=1).double()
    found = of.result.double() @ ((of.kernel @ kernel) * (of.data.double() @ data))
    wanted = torch.stack([(data[place : place + 3] * kernel).sum() for place in range(outputs)])
    torch.testing.assert_close(found, wanted, atol=1e-6, rtol=0)  # the matrices are fp32
    assert float(of.data.abs().max()) == 1


@settings(max_examples=30, deadline=None)
@given(
    depth=st.integers(1, 9),
    tiles=st.integers(1, 4),
    width=st.integers(1, 7),
    channels=st.integers(1, 3),
    part=st.data(),
)
def test_a_dealt_field_reads_what_was_written(depth: int, tiles: int, width: int, channels: int, part) -> None:
    image = random(channels, depth, 4 * tiles, width)
    field = field_of(image, Store())
    assert torch.equal(image_of(field), image)
    low = part.draw(st.integers(0, depth - 1))
    high = part.draw(st.integers(low + 1, depth))
    top = part.draw(st.integers(0, 4 * tiles - 1))
    bottom = part.draw(st.integers(top + 1, 4 * tiles))
    assert torch.equal(field.read(low, high, top, bottom), image.permute(1, 2, 3, 0)[low:high, top:bottom])
    inside = sum(float(piece.abs().sum()) for plane in range(depth) for piece in field.plane(plane))
    assert inside == pytest.approx(float(image.abs().sum()), rel=1e-5)
    assert float(field.buffer.abs().sum()) == pytest.approx(inside, rel=1e-5)  # nothing in the border


@pytest.mark.parametrize(
    ("shape", "kernel"),
    [((4, 4, 5), 3), ((8, 24, 12), 3), ((6, 12, 7), 3), ((5, 8, 6), 1), ((12, 40, 33), 3)],
)
@pytest.mark.parametrize(("inputs", "outputs"), [(9, 7), (16, 32), (48, 64)])
def test_tiles_convolve_as_pytorch_does(engine: str, shape, kernel: int, inputs: int, outputs: int) -> None:
    image, weight = random(inputs, *shape), random(outputs, inputs, kernel, 3, 3, seed=1)
    store = Store()
    out = store.field(shape, outputs, dealt=True)
    found = Winograd(weight, shape[0])([FieldSource(field_of(image, store))], out)
    wanted = F.conv3d(image[None].double(), weight.double(), padding=(kernel // 2, 1, 1))[0]
    assert off(image_of(out), wanted) < 4e-5
    assert sum(count for count, _, _ in found) == shape[0] * shape[1] * shape[2]
    weight, bias = random(outputs, seed=2), random(outputs, seed=3)
    normalise(out, found, Norm(weight, bias, 1e-5, 0.01))
    wanted = F.instance_norm(wanted[None], weight=weight.double(), bias=bias.double())
    assert off(image_of(out), F.leaky_relu(wanted, 0.01)[0]) < 4e-5


@pytest.mark.parametrize("stride", [(2, 2, 2), (1, 2, 2), (1, 1, 1)])
@pytest.mark.parametrize("below_dealt", [True, False])
@pytest.mark.parametrize(("channels", "outputs"), [(5, 3), (32, 32)])
def test_the_way_up_beside_a_skip(engine: str, stride, below_dealt: bool, channels: int, outputs: int) -> None:
    below, up, bias = random(6, 4, 8, 10), random(6, channels, *stride, seed=1), random(channels, seed=2)
    shape = tuple(n * s for n, s in zip(below.shape[1:], stride, strict=True))
    skip, weight = random(channels, *shape, seed=3), random(outputs, 2 * channels, 3, 3, 3, seed=4)
    store = Store()
    out = store.field(shape, outputs, dealt=True)
    brought = UpSource(field_of(below, store, below_dealt), Up(up, bias, tiled=True))
    Winograd(weight, shape[0], sources=2)([brought, FieldSource(field_of(skip, store))], out)
    up_there = F.conv_transpose3d(below[None].double(), up.double(), bias.double(), stride)
    wanted = F.conv3d(torch.cat([up_there, skip[None].double()], 1), weight.double(), padding=1)[0]
    assert off(image_of(out), wanted) < 4e-5


@pytest.mark.parametrize(("size", "stride"), [((3, 3, 3), (2, 2, 2)), ((1, 3, 3), (1, 2, 2)), ((3, 3, 3), (1, 1, 1))])
@pytest.mark.parametrize(("from_dealt", "to_dealt"), [(True, True), (True, False), (False, False), (False, True)])
@pytest.mark.parametrize("outputs", [70, 64])
def test_direct_convolutions(engine: str, size, stride, from_dealt: bool, to_dealt: bool, outputs: int) -> None:
    image, weight = random(3, 6, 16, 9), random(outputs, 3, *size, seed=1)
    wanted = F.conv3d(image[None].double(), weight.double(), stride=stride, padding=[n // 2 for n in size])[0]
    store = Store()
    out = store.field(tuple(wanted.shape[1:]), outputs, to_dealt)
    found = Direct(weight, stride, dealt=to_dealt)(field_of(image, store, from_dealt), out)
    assert off(image_of(out), wanted) < 1e-5
    normalise(out, found, Norm(torch.ones(outputs), torch.zeros(outputs), 1e-5, None))
    assert off(image_of(out), F.instance_norm(wanted[None])[0]) < 1e-5


def test_means_products_and_logits() -> None:
    image, weight, bias = random(3, 4, 8, 6), random(5, 3, 1, 1, 1, seed=1), random(5, seed=2)
    store = Store()
    field = field_of(image, store)
    out = store.field((2, 4, 3), 5, dealt=True)
    Pointwise(weight, (2, 2, 2))(field, out)
    assert off(image_of(out), F.conv3d(F.avg_pool3d(image[None], 2), weight)[0]) < 1e-5
    assert off(head(field, weight, bias), F.conv3d(image[None], weight, bias)[0]) < 1e-5


def network(name: str = "plain_unet", **more) -> nn.Module:
    """A small U-Net with weights, scales and shifts drawn."""
    options = {
        "features": [16, 32, 64, 20],
        "kernels": [[1, 3, 3], [3, 3, 3], [3, 3, 3], [3, 3, 3]],
        "strides": [[1, 1, 1], [1, 2, 2], [2, 2, 2], [2, 2, 2]],
    }
    torch.manual_seed(0)
    made = networks.build(name, {**options, **more}, 1, 3, 3).eval().requires_grad_(False)
    for part in made.parameters():
        part.copy_(torch.randn_like(part) * 0.2 + (1 if part.ndim == 1 else 0))
    return made


@pytest.mark.parametrize("name", ["plain_unet", "residual_unet"])
@pytest.mark.parametrize("patch", [(8, 32, 24), (16, 48, 40), (20, 16, 16), (4, 72, 40)])
def test_whole_networks(engine: str, name: str, patch: tuple[int, int, int]) -> None:
    made, images = network(name), random(2, 1, *patch)
    wanted = made.double()(images.double())
    run = compiled(made.float(), patch)
    assert run is not None
    for _ in range(2):  # the second time in memory that was used before
        assert off(run(images), wanted) < 2e-5


def test_several_channels_in_and_strides_of_one() -> None:
    """Kernels of 3 everywhere, a stride of 1 deep down, a cascade's channels."""
    torch.manual_seed(1)
    options = {"features": [8, 8, 8], "kernels": [[3, 3, 3]] * 3, "strides": [[1, 1, 1], [2, 2, 2], [1, 1, 1]]}
    made = networks.build("plain_unet", options, 4, 2, 3).eval().requires_grad_(False)
    images = random(1, 4, 12, 24, 16)
    wanted = made.double()(images.double())
    assert off(compiled(made.float(), (12, 24, 16))(images), wanted) < 2e-5


def test_the_number_of_threads_changes_no_bit(engine: str, monkeypatch: pytest.MonkeyPatch) -> None:
    images, before = random(1, 1, 16, 48, 40), torch.get_num_threads()
    several = compiled(network(), (16, 48, 40))(images)
    monkeypatch.setattr(pool, "cpu_count", lambda: 1)
    assert torch.equal(compiled(network(), (16, 48, 40))(images), several)
    assert torch.get_num_threads() == before


def test_memory_of_a_thread_serves_within_inference_mode_and_without() -> None:
    with torch.inference_mode():
        pool.scratch("asked here first", 4).fill_(1)
    again = pool.scratch("asked here first", 2, 2)
    assert torch.equal(again.add_(1), torch.full((2, 2), 2.0)) and not again.is_inference()


def test_exact_where_pytorchs_own_normalisation_is_not(engine: str) -> None:
    """Channels far from zero: sums of squares alone would lose their spread."""
    image = random(4, 16, 64, 64) + 300
    store = Store()
    out = store.field((16, 64, 64), 4, dealt=True)
    eye = torch.eye(4).view(4, 4, 1, 1, 1)
    found = Pointwise(eye, (1, 1, 1))(field_of(image, store), out)
    normalise(out, found, Norm(torch.ones(4), torch.zeros(4), 1e-5, None))
    assert off(image_of(out), F.instance_norm(image[None].double())[0]) < 1e-4


def test_other_networks_are_left_to_pytorch() -> None:
    flat = networks.build(
        "plain_unet", {"features": [8, 8], "kernels": [[1, 3, 3]] * 2, "strides": [[1, 1, 1], [1, 2, 2]]}, 1, 2, 2
    )
    assert compiled(flat, (1, 16, 16)) is None
    assert compiled(networks.build("vnet", {}, 1, 2, 3), (16, 16, 16)) is None


@pytest.mark.skipif(not hasattr(os, "fork"), reason="this system does not fork")
def test_a_forked_process_has_threads_of_its_own() -> None:
    code = (
        "import os, torch\n"
        "from hilum.inference.winograd.pool import each\n"
        "assert each(lambda n: n + 1, [1, 2]) == [2, 3]\n"
        "child = os.fork()\n"
        "if child == 0: os._exit(0 if each(lambda n: n + 1, [1, 2]) == [2, 3] else 1)\n"
        "assert os.waitpid(child, 0)[1] == 0\n"
    )
    subprocess.run([sys.executable, "-W", "ignore", "-c", code], check=True, timeout=120)


def test_weights_left_in_the_file_are_the_same_and_are_let_go(tmp_path: Path) -> None:
    """A wide network, whose deep layers are not packed: read from the file in every pass."""
    made, images = network(features=[16, 32, 64, 200]), random(1, 1, 8, 32, 24)
    write_tensors(tmp_path / "weights.safetensors", made.state_dict())
    stored = StoredTensors(tmp_path / "weights.safetensors")
    wanted = compiled(network(features=[16, 32, 64, 200]), (8, 32, 24))(images)
    made.load_state_dict({name: stored.in_file(name) for name in stored}, assign=True)
    asked: list[torch.Tensor | None] = []
    run = compiled(made, (8, 32, 24), let_go=lambda weight: (asked.append(weight), stored.let_go(weight))[1])
    for _ in range(2):
        assert torch.equal(run(images), wanted)
    assert asked[0] is None and len(asked) > 2
    assert all(torch.equal(stored.in_file(name), stored[name]) for name in stored)
