"""One contract, every network of the folder, in 2D and 3D: what training, the model folder and inference rely on."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import replace
from functools import cache
from pathlib import Path
from typing import Any

import pytest
import torch

from hilum import networks
from hilum.cli import main
from hilum.errors import RecipeError, UsageError
from hilum.labels import SCHEMES
from hilum.model import NetworkSpec, load_model, save_model
from hilum.networks import _costs
from hilum.training.losses import make_loss
from threshold_model import make_plan

pytest.importorskip("monai", reason="the extra hilum[networks] is not installed")

# the smallest of each: what the plan says, and each network's own options
PLANNED = {
    "features": [4, 6, 8],
    "kernels": [[3, 3, 3]] * 3,
    "strides": [[1, 1, 1], [2, 2, 2], [2, 2, 2]],
    "convs_per_stage": [1, 1, 1],
    "deep_supervision": True,
}
OWN: dict[str, dict[str, Any]] = {
    "attention_unet": {"width": 4, "stages": 3},
    "dynunet": {},
    "mednext": {"width": 2},
    "plain_unet": {"decoder_convs": 1},
    "residual_unet": {"blocks_per_stage": 1},
    "resnet_unet": {"encoder": "resnet10", "decoder_widths": [4] * 5},
    "resunet": {"width": 4, "stages": 3},
    "segresnet": {"width": 4, "blocks": [1, 1, 1]},
    "swinunetr": {"width": 12, "window": 4},
    "unet": {"width": 4, "stages": 3},
    "unet3d": {"width": 4, "stages": 3, "dropout": 0.1},
    "unetplusplus": {"width": 2},
    "vnet": {"width": 4, "dropout": 0.1},
}
HALVINGS = {"mednext": 4, "resnet_unet": 5, "swinunetr": 5, "unetplusplus": 4, "vnet": 4}
SUPERVISED = {"dynunet": 2, "mednext": 5, "plain_unet": 2, "residual_unet": 2, "segresnet": 2, "unetplusplus": 4}
EVERYWHERE = [(name, dims) for name in OWN for dims in (networks.dims_of(name) if name in networks.names() else ())]
every_network = pytest.mark.parametrize(("name", "dims"), EVERYWHERE, ids=lambda x: str(x))


def options(name: str, dims: int = 3) -> dict[str, Any]:
    flat = {"kernels": [[1, 3, 3]] * 3, "strides": [[1, 1, 1], [1, 2, 2], [1, 2, 2]]}
    return PLANNED | (flat if dims == 2 else {}) | OWN[name]


def patch(name: str, dims: int) -> tuple[int, int, int]:
    """The smallest that each network takes."""
    step = 2 ** HALVINGS.get(name, 2)
    return (1 if dims == 2 else step, step, 2 * step)


def image(name: str, dims: int) -> torch.Tensor:
    return torch.randn(2, 1, *patch(name, dims)[3 - dims :], generator=torch.Generator().manual_seed(0))


def make(name: str, dims: int, seed: int = 0, **more: object) -> torch.nn.Module:
    torch.manual_seed(seed)
    return networks.build(name, options(name, dims) | more, 1, 3, dims)


@pytest.fixture(autouse=True, scope="module")
def one_thread() -> Iterator[None]:
    threads = torch.get_num_threads()
    torch.set_num_threads(1)  # what is this small gains nothing from a second one, and tests share the machine
    yield
    torch.set_num_threads(threads)


@cache
def trained(name: str, dims: int) -> tuple[torch.nn.Module, list[float], list[str]]:
    """A network after three steps on one batch; the losses; parameters without a gradient at the first step."""
    network, x = make(name, dims, 3), image(name, dims)
    truth = (x[:, 0] > 0).long() + (x[:, 0] > 1).long()
    loss, optimizer = make_loss("dice_ce", {}, 3), torch.optim.AdamW(network.parameters(), 2e-3)
    losses, rests = [], []
    for step in range(3):
        optimizer.zero_grad()
        answer = network(x)
        value = loss(answer, truth)
        # the loss leaves the coarsest logits out: their head learns nothing from it, but must be able to
        every = answer if isinstance(answer, list) else [answer]
        (value + sum(scale.float().square().mean() for scale in every) * (1e-6 if step else 1.0)).backward()
        if step == 0:
            rests = [key for key, p in network.named_parameters() if p.grad is None or not bool((p.grad != 0).any())]
        torch.nn.utils.clip_grad_norm_(network.parameters(), 12.0)
        optimizer.step()
        losses.append(float(value.detach()))
    return network, losses, rests


def test_no_network_is_left_out() -> None:
    assert sorted(OWN) == networks.names()


@every_network
class TestEveryNetwork:
    @torch.no_grad()
    def test_logits_have_the_images_shape(self, name: str, dims: int) -> None:
        network, x = make(name, dims), image(name, dims)
        answer = network(x)
        if name in SUPERVISED:
            assert isinstance(answer, list) and len(answer) == SUPERVISED[name]
            halved = [
                tuple(n // (1 if name == "unetplusplus" else 2**i) for n in x.shape[2:]) for i in range(len(answer))
            ]
            assert [tuple(scale.shape) for scale in answer] == [(len(x), 3, *shape) for shape in halved]
        else:
            assert isinstance(answer, torch.Tensor) and answer.shape == (len(x), 3, *x.shape[2:])
        assert all(bool(scale.isfinite().all()) for scale in answer)
        assert network.eval()(x).shape == (len(x), 3, *x.shape[2:])

    def test_every_parameter_learns_and_the_loss_falls(self, name: str, dims: int) -> None:
        _, losses, rests = trained(name, dims)
        # a residual block of nnU-Net's starts as its skip alone: at the first step its weights rest
        assert name == "residual_unet" or [key for key in rests if not key.endswith("bias")] == []
        assert losses[-1] < losses[0]

    @torch.no_grad()
    def test_same_seed_same_answers(self, name: str, dims: int) -> None:
        first, second = make(name, dims, 5), make(name, dims, 5)
        x, answers = image(name, dims), []
        for network in (first, second):
            torch.manual_seed(6)  # dropout draws from it
            answer = network(x)
            answers.append(answer[0] if isinstance(answer, list) else answer)
        assert torch.equal(*answers)
        assert not torch.equal(make(name, dims, 7).eval()(x), first.eval()(x))

    def test_a_model_folder_holds_it(self, name: str, dims: int, tmp_path: Path) -> None:
        network = trained(name, dims)[0].eval()
        spec = NetworkSpec(name, options(name, dims), 1, 3, dims)
        plan = replace(make_plan(patch(name, dims), (2.0, 1.0, 1.0), dims), batch=2)
        save_model(tmp_path / "m", spec, network.state_dict(), plan, SCHEMES["lits"])
        again, x = load_model(tmp_path / "m").network(), image(name, dims)
        with torch.no_grad():
            assert torch.equal(again(x), network(x))

    def test_patches_are_checked(self, name: str, dims: int) -> None:
        good = patch(name, dims)
        networks.check_patch(name, options(name, dims), good)
        for bad, said in (
            ((*good[:2], good[2] + 1), "voxels along W.*a multiple of"),
            ((good[0], 3, good[2]), "voxels along H.*a multiple of"),
            ((good[0], good[1], good[1]), "single voxel"),
            (good[1:], "three numbers"),
        ):
            with pytest.raises(RecipeError, match=said):
                networks.check_patch(name, options(name, dims), bad)

    def test_any_planned_patch_is_made_to_fit(self, name: str, dims: int) -> None:
        good = patch(name, dims)
        assert networks.fitting_patch(name, options(name, dims), good) == good
        for wish in ((80, 72, 94), (33, 150, 61)):
            odd = wish if dims == 3 else (1, *wish[1:])
            fits = networks.fitting_patch(name, options(name, dims), odd)
            networks.check_patch(name, options(name, dims), fits)
            assert all(n <= max(m, 64) for n, m in zip(fits, odd, strict=True)) and (dims == 3 or fits[0] == 1)
        with pytest.raises(RecipeError, match="depth_of_thought"):
            networks.fitting_patch(name, options(name, dims) | {"depth_of_thought": 3}, good)

    def test_unknown_options_are_refused_and_the_known_listed(self, name: str, dims: int) -> None:
        known = sorted(OWN[name])[0] if OWN[name] else "features"
        for refuse in (
            lambda table: networks.build(name, table, 1, 3, dims),
            lambda table: networks.check_patch(name, table, patch(name, dims)),
        ):
            with pytest.raises(RecipeError, match=f"depth_of_thought.*{known}"):
                refuse(options(name, dims) | {"depth_of_thought": 3})

    @torch.no_grad()
    def test_without_deep_supervision_there_is_one_tensor(self, name: str, dims: int) -> None:
        if name not in SUPERVISED:
            return  # its options are the same, its answer was seen
        network, x = make(name, dims, deep_supervision=False), image(name, dims)
        answer = network(x)
        assert isinstance(answer, torch.Tensor) and answer.shape == (len(x), 3, *x.shape[2:])


def test_networks_of_one_dimension_say_so() -> None:
    for refuse in (
        lambda: networks.build("unet3d", options("unet3d"), 1, 3, 2),
        lambda: networks.check_patch("unet3d", options("unet3d"), (1, 16, 16)),
    ):
        with pytest.raises(RecipeError, match="'unet3d' is defined in 3D, and the plan is in 2D"):
            refuse()


@pytest.mark.parametrize(
    ("name", "change", "said"),
    [
        ("unet", {"width": 0}, "at least 1"),
        ("unet", {"norm": "layer"}, r"one of \['batch', 'instance', 'none'\]"),
        ("unet", {"dropout": 1}, "below 1"),
        ("unet", {"stages": 2.5}, "whole number"),
        ("attention_unet", {"stages": 1}, "at least 2"),
        ("dynunet", {"residual": 1}, "true or false"),
        ("dynunet", {"features": [4, 8], "kernels": [[3] * 3] * 2, "strides": [[1] * 3] * 2}, "at least three"),
        ("mednext", {"kernel": 4}, "odd"),
        ("mednext", {"size": "XXL"}, "one of"),
        ("resnet_unet", {"encoder": "vgg"}, "resnet34"),
        ("resnet_unet", {"decoder_widths": [8]}, "five"),
        ("segresnet", {"blocks": [1]}, "two stages"),
        ("segresnet", {"blocks": []}, "whole numbers"),
        ("swinunetr", {"width": 10}, "multiple of 12"),
    ],
)
def test_options_that_make_no_network_are_refused(name: str, change: dict[str, Any], said: str) -> None:
    with pytest.raises(RecipeError, match=said):
        networks.check_patch(name, options(name) | change, (32, 32, 64))


def test_parameters_are_those_of_the_papers() -> None:
    # 3D U-Net: "19 069 955 parameters in total" (Cicek et al. 2016, 3 classes, 3 channels); MedNeXt S: 5.6 M (table 1)
    with torch.device("meta"):
        unet3d = networks.build("unet3d", {}, 3, 3, 3)
        mednext = networks.build("mednext", {}, 1, 14, 3)
    count = [sum(p.numel() for p in network.parameters()) for network in (unet3d, mednext)]
    assert count[0] == pytest.approx(19_069_955, rel=1e-3)
    assert count[1] == pytest.approx(5.6e6, rel=0.02)


def test_a_narrow_vnet_is_the_papers_with_fewer_channels() -> None:
    def shapes(width: int) -> dict[str, tuple[int, ...]]:
        network = networks.build("vnet", {"width": width}, 1, 3, 3)
        return {name: tuple(value.shape) for name, value in network.state_dict().items()}

    paper, half = shapes(16), shapes(8)
    ends = ("in_tr.conv_block.conv.weight", "out_tr.conv_block.conv.weight")
    assert (paper[ends[0]][:2], half[ends[0]][:2]) == ((16, 1), (8, 1))
    assert (paper[ends[1]][:2], half[ends[1]][:2]) == ((3, 32), (3, 16))
    fixed = {1, 2, 3, 5}  # channels of the image, kernels, classes
    for name, shape in paper.items():
        assert half[name] == tuple(n if n in fixed else n // 2 for n in shape), name


def test_costs_are_those_counted_by_hand() -> None:
    facts = _costs.cost("unet", 2)
    assert facts["patch"] == [1, 1, 256, 256]
    # the same network by hand: convolutions of 3x3 and 2x2 and the head, one multiplication and one addition each
    widths, total = [32, 64, 128, 256, 512], 0
    for i, w in enumerate(widths):
        voxels = (256 // 2**i) ** 2
        total += 2 * 9 * voxels * ((widths[i - 1] if i else 1) * w + w * w)
        if i < 4:
            total += 2 * 9 * voxels * (2 * w * w + w * w) + 2 * voxels * widths[i + 1] * w
    total += 2 * 256**2 * 32 * 4
    assert facts["gflops"] == pytest.approx(total / 1e9)
    # kept for the way back: at least each stage's activations, and less than a hundred bytes a voxel and channel
    low = 4 * sum((256 // 2**i) ** 2 * w * 4 for i, w in enumerate(widths)) / 1e6
    assert low < facts["training_mb"] - 12e-6 * facts["parameters"] < 6 * low


def test_the_overview_names_every_network_and_its_reference(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(networks, "names", lambda: ["mednext", "plain_unet", "unet3d"])
    monkeypatch.setitem(sys.modules, "monai", None)
    facts, text = networks.overview()
    assert list(facts) == ["mednext", "plain_unet", "unet3d"]
    assert "hilum[networks]" in facts["mednext"]["missing"] and "2d" not in facts["mednext"]
    assert set(facts["unet3d"]) == {"description", "3d"} and set(facts["plain_unet"]) == {"description", "2d", "3d"}
    assert "1x1x256x256 or 1x1x64x64x64" in text and "GFLOP" in text
    assert main(["model", "list", "--networks", "--json"]) == 0
    assert json.loads(capsys.readouterr().out) == facts


def test_without_monai_the_extra_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "einops", None)
    for refuse in (lambda: networks.check_name("swinunetr"), lambda: make("swinunetr", 3)):
        with pytest.raises(UsageError, match=r"einops, which is not installed.*pip install 'hilum\[networks\]'"):
            refuse()
    monkeypatch.setitem(sys.modules, "monai.networks.nets", None)
    with pytest.raises(UsageError, match=r"cannot be imported.*pip install 'hilum\[networks\]'"):
        make("vnet", 3)


def test_monai_is_imported_only_to_build_its_networks() -> None:
    code = (
        "import sys; from hilum import networks; networks.check_patch('vnet', {}, (16, 16, 32));"
        "networks.build('unet', {}, 1, 2, 2); assert 'monai' not in sys.modules"
    )
    subprocess.run([sys.executable, "-W", "error", "-c", code], check=True, timeout=120)
