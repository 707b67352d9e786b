"""What a network sees and says keeps its digits where the rest of it runs in bf16."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from torch import nn

import hilum
from hilum.inference.engines.ends import keep_ends
from hilum.inference.engines.with_torch import TorchEngine
from hilum.model import load_model
from test_every_network import every_network, make, patch


def logits(network: nn.Module, image: torch.Tensor, *, short: bool = True) -> torch.Tensor:
    with torch.inference_mode(), torch.autocast("cpu", torch.bfloat16, enabled=short):
        made: torch.Tensor = network(image)
    return made


def off(found: torch.Tensor, right: torch.Tensor) -> float:
    return float((found.float() - right).square().mean().sqrt() / right.square().mean().sqrt())


def picture(name: str, dims: int) -> torch.Tensor:
    edges = [max(edge, 16) for edge in patch(name, dims)[3 - dims :]]
    return 3 * torch.randn(1, 1, *edges, generator=torch.Generator().manual_seed(0))


@every_network
def test_the_ends_of_every_network_are_found(name: str, dims: int) -> None:
    network, image = make(name, dims).eval(), picture(name, dims)
    keys, right = list(network.state_dict()), logits(network, image, short=False)
    before = logits(network, image)
    kept = keep_ends(network, 1, 3)
    after = logits(network, image)
    assert len(kept) >= 2 and list(network.state_dict()) == keys
    assert before.dtype is torch.bfloat16 and after.dtype is torch.float32
    assert off(after, right) < 1.3 * off(before, right) < 0.05
    assert torch.equal(logits(network, image, short=False), right), "nothing changes outside autocast"


@pytest.mark.parametrize("name", ["plain_unet", "residual_unet"])
@pytest.mark.parametrize("dims", [2, 3])
def test_planned_networks_keep_their_last_block_too(name: str, dims: int) -> None:
    network, image = make(name, dims).eval(), picture(name, dims)
    right, before = logits(network, image, short=False), logits(network, image)
    first = "encoder.stem.convs.0" if name == "residual_unet" else "encoder.stages.0.0.convs.0"
    assert keep_ends(network, 1, 3) == [first, "decoder.stages.1.convs.0", "decoder.seg_layers.1"]
    assert off(logits(network, image), right) < 0.9 * off(before, right)


def test_a_difference_that_bf16_cannot_hold_is_seen_and_said() -> None:
    # 1000 and 1001 are the same number in bf16; the middle layer sees what is left when 1000 is taken away
    see, pass_on, say = (nn.Conv3d(1, 1, 1), nn.Conv3d(1, 1, 1), nn.Conv3d(1, 2, 1))
    with torch.no_grad():
        for layer, bias in ((see, [-1000.0]), (pass_on, [0.0]), (say, [1000.0, 1000.5])):
            layer.weight.fill_(1.0)
            layer.bias.copy_(torch.tensor(bias))  # type: ignore[union-attr]
        say.weight[1] = 0.0  # the second output stands between
    network = nn.Sequential(see, pass_on, say).eval()
    image = torch.tensor([1000.0, 1001.0]).view(1, 1, 1, 1, 2)
    assert logits(network, image).argmax(1).flatten().tolist() == [0, 0]
    assert keep_ends(network, 1, 2) == ["0", "2"]
    made = logits(network, image)
    assert made.argmax(1).flatten().tolist() == [1, 0]
    assert made[0, 0].flatten().tolist() == [1000.0, 1001.0]


def test_the_layers_between_stay_short() -> None:
    network = nn.Sequential(*(nn.Conv2d(a, b, 3, padding=1) for a, b in ((1, 8), (8, 8), (8, 3)))).eval()
    keep_ends(network, 1, 3)
    seen: list[torch.dtype] = []
    network[1].register_forward_hook(lambda _, given, made: seen.extend((given[0].dtype, made.dtype)))
    logits(network, torch.randn(1, 1, 8, 8))
    assert seen == [torch.float32, torch.bfloat16], "what was seen is handed on with all its digits"


def test_one_convolution_that_sees_and_says() -> None:
    network = nn.Sequential(nn.Conv2d(1, 3, 1))
    assert keep_ends(network, 1, 3) == ["0"]
    assert logits(network, torch.randn(1, 1, 4, 4)).dtype is torch.float32


def test_the_engine_keeps_them() -> None:
    model = load_model(Path(hilum.__file__).parent / "models" / "demo")
    network = model.network(0, torch.device("cpu")).eval()
    image = torch.randn(1, 1, *model.plan.patch, generator=torch.Generator().manual_seed(0))
    right, before = logits(network, image, short=False), logits(network, image)
    engine = TorchEngine(model, torch.device("cpu"), "bf16")
    made = engine.networks[0](image)
    assert engine.precision == "bf16" and made.dtype is torch.float32
    assert off(made, right) < 0.7 * off(before, right)
