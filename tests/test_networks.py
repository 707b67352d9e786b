from __future__ import annotations

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from hilum import networks
from hilum.errors import RecipeError
from hilum.networks import _blocks

PLANNED = ("plain_unet", "residual_unet")
PLAN = {
    "features": [4, 8, 12],
    "kernels": [[1, 3, 3], [3, 3, 3], [3, 3, 3]],
    "strides": [[1, 1, 1], [1, 2, 2], [2, 2, 2]],
}


def conv(name: str, into: int, out: int, kernel: tuple[int, ...], bias: bool = True) -> dict[str, tuple[int, ...]]:
    shapes = {f"{name}.conv.weight": (out, into, *kernel)}
    if bias:
        shapes[f"{name}.conv.bias"] = (out,)
    return shapes | {f"{name}.norm.weight": (out,), f"{name}.norm.bias": (out,)}


def expected(kind: str, dims: int) -> dict[str, tuple[int, ...]]:
    """Names and shapes of nnU-Net v2's state dict for PLAN, three classes, duplicates left out; its own order."""
    thin, full, one = (1, 3, 3)[3 - dims :], (3,) * dims, (1,) * dims
    shapes: dict[str, tuple[int, ...]] = {}
    if kind == "plain_unet":
        for stage, (into, out, k) in enumerate(((1, 4, thin), (4, 8, full), (8, 12, full))):
            shapes |= conv(f"encoder.stages.{stage}.0.convs.0", into, out, k)
            shapes |= conv(f"encoder.stages.{stage}.0.convs.1", out, out, k)
    else:
        shapes |= conv("encoder.stem.convs.0", 1, 4, thin)
        for stage, (into, out, k, blocks) in enumerate(((4, 4, thin, 1), (4, 8, full, 2), (8, 12, full, 2))):
            for block in range(blocks):
                name = f"encoder.stages.{stage}.blocks.{block}"
                shapes |= conv(f"{name}.conv1", out if block else into, out, k) | conv(f"{name}.conv2", out, out, k)
                if block == 0 and into != out:
                    shapes |= conv(f"{name}.skip.1", into, out, one, bias=False)
    for stage, (width, k) in enumerate(((8, full), (4, thin))):
        shapes |= conv(f"decoder.stages.{stage}.convs.0", 2 * width, width, k)
        if kind == "plain_unet":
            shapes |= conv(f"decoder.stages.{stage}.convs.1", width, width, k)
    strides = ((2, 2, 2)[:dims], (1, 2, 2)[3 - dims :])
    for stage, (deep, width) in enumerate(((12, 8), (8, 4))):
        shapes |= {f"decoder.transpconvs.{stage}.weight": (deep, width, *strides[stage])}
        shapes |= {f"decoder.transpconvs.{stage}.bias": (width,)}
    for stage, width in enumerate((8, 4)):
        shapes |= {f"decoder.seg_layers.{stage}.weight": (3, width, *one), f"decoder.seg_layers.{stage}.bias": (3,)}
    return shapes


def options(name: str) -> dict[str, object]:
    return PLAN | ({"blocks_per_stage": [1, 2, 2]} if name == "residual_unet" else {})


def image(dims: int, batch: int = 2) -> torch.Tensor:
    return torch.randn(batch, 1, *(8, 16, 16)[3 - dims :], generator=torch.Generator().manual_seed(0))


def test_the_folder_is_the_registry() -> None:
    assert set(PLANNED) < set(networks.names())
    assert list(networks.describe()) == networks.names() and all(networks.describe().values())


@pytest.mark.parametrize("dims", [2, 3])
@pytest.mark.parametrize("name", PLANNED)
class TestPlannedNetworks:
    def test_gives_logits_of_the_images_shape(self, name: str, dims: int) -> None:
        network = networks.build(name, options(name), 1, 3, dims)
        x = image(dims)
        scales = network(x)
        assert [tuple(s.shape[1:]) for s in scales] == [(3, *x.shape[2:]), (3, *(8, 8, 8)[3 - dims :])]
        network.eval()
        assert tuple(network(x).shape) == (2, 3, *x.shape[2:])

    def test_without_deep_supervision_gives_one_tensor_and_the_same_names(self, name: str, dims: int) -> None:
        network = networks.build(name, options(name) | {"deep_supervision": False}, 1, 3, dims)
        assert isinstance(network(image(dims)), torch.Tensor)
        assert list(network.state_dict()) == list(expected(name, dims))

    def test_has_the_names_and_shapes_of_nnunet(self, name: str, dims: int) -> None:
        network = networks.build(name, options(name), 1, 3, dims)
        assert {key: tuple(x.shape) for key, x in network.state_dict().items()} == expected(name, dims)

    def test_loads_a_state_dict_with_nnunets_duplicates(self, name: str, dims: int) -> None:
        network = networks.build(name, options(name), 1, 3, dims)
        state = {}
        for key, value in network.state_dict().items():
            for alias in (key, key.replace(".conv.", ".all_modules.0.").replace(".norm.", ".all_modules.1.")):
                state[alias] = value
                if alias.startswith("encoder."):
                    state[f"decoder.{alias}"] = value
        assert len(state) > 2 * len(network.state_dict())
        kept = networks.canonical_keys({f"_orig_mod.{key}": value for key, value in state.items()})
        assert list(kept) == list(network.state_dict())
        assert list(networks.canonical_keys(kept)) == list(kept)

    def test_every_parameter_learns(self, name: str, dims: int) -> None:
        network = networks.build(name, options(name), 1, 3, dims)
        with torch.no_grad():
            for parameter in network.parameters():  # a residual block starts as its skip alone: its weights would rest
                parameter.add_(torch.randn_like(parameter), alpha=0.1)
        sum(s.square().mean() for s in network(image(dims))).backward()
        rests = [key for key, p in network.named_parameters() if p.grad is None or not bool((p.grad != 0).any())]
        # a bias before a normalisation changes nothing: its gradient is rounding noise and may be an exact zero
        assert [key for key in rests if not key.endswith("conv.bias")] == []

    def test_same_seed_same_weights(self, name: str, dims: int) -> None:
        both = []
        for _ in range(2):
            torch.manual_seed(5)
            both.append(networks.build(name, options(name), 1, 3, dims).state_dict())
        assert all(torch.equal(both[0][key], both[1][key]) for key in both[0])

    def test_refuses_a_patch_that_does_not_divide(self, name: str, dims: int) -> None:
        networks.check_patch(name, options(name), (8, 16, 16))
        with pytest.raises(RecipeError, match=r"18 voxels along W.*multiple of 4.*take 16 or 20"):
            networks.check_patch(name, options(name), (8, 16, 18))
        with pytest.raises(RecipeError, match="single voxel"):
            networks.check_patch(name, options(name), (2, 4, 4))

    def test_refuses_unknown_options(self, name: str, dims: int) -> None:
        with pytest.raises(RecipeError, match="depth_of_thought"):
            networks.build(name, options(name) | {"depth_of_thought": 3}, 1, 3, dims)


def test_patches_of_2d_networks_have_one_slice() -> None:
    flat = {"features": [4, 8], "kernels": [[3, 3], [3, 3]], "strides": [[1, 1], [2, 2]]}
    networks.check_patch("plain_unet", flat, (1, 16, 16))
    assert networks.build("plain_unet", flat, 1, 2, 2).eval()(torch.randn(1, 1, 16, 16)).shape == (1, 2, 16, 16)


def test_instance_norm_is_pytorchs() -> None:
    x = torch.randn(2, 5, 6, 7, 8) * 3 + 100
    ours, theirs = _blocks.InstanceNorm(5), torch.nn.InstanceNorm3d(5, affine=True)
    with torch.no_grad():
        ours.weight.copy_(torch.arange(5.0))
    theirs.load_state_dict(ours.state_dict())
    assert torch.allclose(ours(x), theirs(x), atol=2e-4)


def test_he_initialisation() -> None:
    network = networks.build("plain_unet", PLAN, 1, 3, 3)
    weight = network.encoder.stages[2][0].convs[1].conv.weight
    assert weight.std().item() == pytest.approx((2 / (1 + 0.01**2) / (12 * 27)) ** 0.5, rel=0.05)
    assert not bool(network.encoder.stages[0][0].convs[0].conv.bias.any())


def test_residual_blocks_start_as_their_skip() -> None:
    network = networks.build("residual_unet", options("residual_unet"), 1, 3, 3)
    block = network.encoder.stages[2].blocks[1]
    x = torch.randn(1, 12, 4, 4, 4)
    assert torch.allclose(block(x), torch.nn.functional.leaky_relu(x, 0.01))


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"features": [4, 8]}, "one of each for every stage"),
        ({"features": [4, 0, 8]}, "at least 1"),
        ({"features": 4}, "whole numbers"),
        ({"kernels": [[2, 3, 3]] * 3}, "odd kernels"),
        ({"strides": [[2, 2, 2]] * 3}, "first stride of 1"),
        ({"strides": [[1, 1, 1], 2, [2, 2, 2]]}, "whole numbers"),
        ({"kernels": []}, "for every stage"),
        ({"decoder_convs": [1, 1, 1]}, "one number, or 2"),
        ({"convs_per_stage": [2, True, 2]}, "whole numbers"),
    ],
)
def test_options_that_make_no_network_are_refused(change: dict[str, object], said: str) -> None:
    with pytest.raises(RecipeError, match=said):
        networks.build("plain_unet", PLAN | change, 1, 3, 3)


def test_missing_options_are_named() -> None:
    with pytest.raises(RecipeError, match="kernels"):
        networks.build("plain_unet", {"features": [4, 8]}, 1, 3, 3)


@pytest.mark.parametrize(
    ("name", "said"),
    [
        ("plain_unte", "one of .*'plain_unet', 'residual_unet'"),
        ("_blocks", "no network"),
        ("not_there.at_all", "cannot be imported"),
        ("hilum.errors", "has no function"),
    ],
)
def test_unknown_networks_are_refused(name: str, said: str) -> None:
    with pytest.raises(RecipeError, match=said):
        networks.build(name, PLAN, 1, 3, 3)


def test_a_dotted_name_is_ones_own_module(tmp_path, monkeypatch) -> None:
    (tmp_path / "my_nets").mkdir()
    (tmp_path / "my_nets" / "tiny.py").write_text(
        "from torch import nn\ndef build(options, i, o, dims): return nn.Conv3d(i, o, 1)\ndef check_patch(o, p): pass\n"
    )
    monkeypatch.syspath_prepend(tmp_path)
    networks.check_patch("my_nets.tiny", {}, (1, 1, 1))
    assert networks.build("my_nets.tiny", {}, 1, 3, 3)(image(3)).shape == (2, 3, 8, 16, 16)


@settings(max_examples=20, deadline=None)
@given(
    st.lists(st.tuples(*[st.sampled_from([1, 2])] * 3), min_size=1, max_size=3),
    st.tuples(*[st.integers(1, 3)] * 3),
)
def test_any_patch_that_passes_the_check_comes_back_whole(strides, factors) -> None:
    table = {
        "features": [2] * (len(strides) + 1),
        "kernels": [[3, 3, 3]] * (len(strides) + 1),
        "strides": [[1, 1, 1], *map(list, strides)],
        "convs_per_stage": 1,
        "decoder_convs": 1,
    }
    step = torch.tensor(strides).prod(0)
    patch = [int(s) * f for s, f in zip(step, factors, strict=True)]
    try:
        networks.check_patch("plain_unet", table, patch)
    except RecipeError:
        assert max(factors) == 1
        return
    assert networks.build("plain_unet", table, 1, 2, 3).eval()(torch.zeros(1, 1, *patch)).shape[2:] == tuple(patch)
