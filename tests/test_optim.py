from __future__ import annotations

import math
from dataclasses import replace

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from hilum.config import TrainingOptions
from hilum.errors import RecipeError
from hilum.training.optim import OPTIMIZERS, SCHEDULES, AveragedWeights, learning_rate, make_optimizer

ANY = TrainingOptions()


def net() -> torch.nn.Module:
    torch.manual_seed(0)
    return torch.nn.Sequential(torch.nn.Linear(3, 4), torch.nn.LayerNorm(4), torch.nn.Linear(4, 1))


@pytest.mark.parametrize("name", sorted(OPTIMIZERS))
def test_every_optimizer_learns(name: str) -> None:
    network = net()
    optimizer = make_optimizer(network, replace(ANY, optimizer=name, learning_rate=0.01, momentum=0.9))
    x = torch.randn(16, 3, generator=torch.Generator().manual_seed(1))
    losses = []
    for _ in range(60):
        loss = (network(x) - x[:, :1]).square().mean()
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        losses.append(loss.item())
    assert losses[-1] < 0.3 * losses[0]


def test_nesterov_step_by_hand() -> None:
    p = torch.nn.Linear(1, 1, bias=False)
    with torch.no_grad():
        p.weight.fill_(1.0)
    optimizer = make_optimizer(p, replace(ANY, momentum=0.9, weight_decay=0.1, learning_rate=0.5))
    (2 * p.weight).sum().backward()
    optimizer.step()
    gradient = 2 + 0.1 * 1  # with decay; the first momentum buffer is the gradient itself
    assert p.weight.item() == pytest.approx(1 - 0.5 * (gradient + 0.9 * gradient))


def test_scales_and_biases_are_not_decayed_by_adamw() -> None:
    network = net()
    optimizer = make_optimizer(network, replace(ANY, optimizer="adamw", weight_decay=0.3))
    decays = {id(p): group["weight_decay"] for group in optimizer.param_groups for p in group["params"]}
    assert {key: decays[id(p)] for key, p in network.named_parameters()} == {
        key: 0.3 if p.ndim > 1 else 0.0 for key, p in network.named_parameters()
    }


@pytest.mark.parametrize("name", sorted(SCHEDULES))
@given(st.floats(0, 1), st.floats(0, 1))
def test_every_schedule_starts_at_one_and_never_grows(name: str, a: float, b: float) -> None:
    schedule = SCHEDULES[name]
    assert schedule(0.0) == 1
    assert 0 <= schedule(max(a, b)) <= schedule(min(a, b)) + 1e-12 <= 1 + 1e-12


def test_worked_rates() -> None:
    options = replace(ANY, learning_rate=0.01, schedule="poly")
    assert learning_rate(options, 500, 0.5) == pytest.approx(0.01 * 0.5**0.9)
    assert learning_rate(options, 1000, 1.2) == 0
    cosine = replace(options, schedule="cosine", warmup_steps=10)
    assert learning_rate(cosine, 4, 0.0) == pytest.approx(0.005)
    assert learning_rate(cosine, 50, 0.25) == pytest.approx(0.01 * (1 + math.sqrt(0.5)) / 2)


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"optimizer": "lion"}, r"one of \['sgd', 'adamw', 'adam', 'auto'\]"),
        ({"schedule": "steps"}, "one of"),
        ({"learning_rate": 0.0}, "above 0"),
        ({"momentum": 1.0}, "below 1"),
        ({"ema": 1.0}, "below 1"),
        ({"clip_norm": -1.0}, "above 0"),
        ({"weight_decay": -1.0}, "at least 0"),
        ({"warmup_steps": -1}, "at least 0"),
    ],
)
def test_wrong_options_are_refused(change: dict[str, object], said: str) -> None:
    with pytest.raises(RecipeError, match=said):
        make_optimizer(net(), replace(ANY, **change))


def test_average_forgets_the_first_weights_and_then_follows_slowly() -> None:
    network = torch.nn.BatchNorm1d(1)  # floats and an integer counter
    average = AveragedWeights(network, 0.5)
    for value, expected in ((10.0, 0.9 * 10 + 0.1), (20.0, 0.0)):
        with torch.no_grad():
            network.weight.fill_(value)
            network.num_batches_tracked.add_(1)
        before = average.tensors["weight"].item()
        average.update(network)
        keep = min(0.5, (1 + average.updates - 1) / (10 + average.updates - 1))
        assert average.tensors["weight"].item() == pytest.approx(keep * before + (1 - keep) * value)
        if expected:
            assert average.tensors["weight"].item() == pytest.approx(expected)
    assert average.tensors["num_batches_tracked"].item() == 2
    for _ in range(60):
        average.update(network)
    assert average.tensors["weight"].item() == pytest.approx(20)
    other = AveragedWeights(torch.nn.BatchNorm1d(1), 0.5)
    other.load(average.tensors, average.updates)
    assert other.updates == 62 and torch.equal(other.tensors["weight"], average.tensors["weight"])


def test_momentum_reaches_every_optimizer() -> None:
    network = torch.nn.Linear(2, 1)
    for name, usual in (("sgd", 0.99), ("adam", 0.9), ("adamw", 0.9)):
        for asked, wanted in ((-1.0, usual), (0.5, 0.5)):
            group = make_optimizer(network, replace(ANY, optimizer=name, momentum=asked)).param_groups[0]
            assert (group["momentum"] if name == "sgd" else group["betas"][0]) == wanted
