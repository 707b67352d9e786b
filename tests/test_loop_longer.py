"""Runs that are longer than one go: epochs, accumulation, plateaus that are extended, locks, trackers, compiling."""

from __future__ import annotations

import signal
import subprocess
import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn

from hilum import device as devices
from hilum.datasets import Dataset
from hilum.errors import RecipeError, TrainingError, UsageError
from hilum.model import load_model
from hilum.patches.batches import Batch, Batches
from hilum.progress import SILENT
from hilum.training import run as runs
from hilum.training.checkpoint import checkpoint_facts
from hilum.training.compiling import try_compiling
from hilum.training.loop import train
from hilum.training.only_one import only_one
from hilum.training.optim import learning_rate, plateau
from hilum.training.setup import set_up
from hilum.training.trackers import numbers_of
from hilum.training.tracking import read_log
from hilum.training.trainer import Trainer
from making_runs import Interrupting, losses, make_cases, one_thread, recipe, same_weights

__all__ = ["one_thread"]  # a fixture that works by itself


@pytest.fixture(scope="module")
def cubes(tmp_path_factory: pytest.TempPathFactory) -> Dataset:
    return make_cases(tmp_path_factory.mktemp("cubes"))


def test_an_extension_that_was_stopped_can_end_where_it_stopped(tmp_path: Path, cubes: Dataset) -> None:
    """The model of the first end is not taken for that of the second."""
    out = tmp_path / "run"
    train(recipe(steps=2), cubes, out, device="cpu")
    before = load_model(out)
    with pytest.raises(TrainingError, match="after step 3 of 9"):
        train(recipe(steps=9), cubes, out, device="cpu", progress=Interrupting(3, signal.SIGTERM))
    ended = train(recipe(steps=3), cubes, out, device="cpu")
    after = load_model(out)
    assert ended.steps == after.card["steps"] == 3 and len(losses(out)) == 3
    assert any(not torch.equal(tensor, after.weights[0][key]) for key, tensor in before.weights[0].items())
    assert train(recipe(steps=3), cubes, out, device="cpu").was_finished


def test_epochs_end_a_run_and_more_of_them_extend_it(tmp_path: Path, cubes: Dataset) -> None:
    assert train(recipe(epochs=2, epoch_steps=2), cubes, tmp_path / "run", device="cpu").steps == 4
    assert train(recipe(epochs=3, epoch_steps=2), cubes, tmp_path / "run", device="cpu").steps == 6


def test_two_batches_accumulated_are_one_of_twice_the_size(tmp_path: Path, cubes: Dataset) -> None:
    """Cross-entropy is a mean over voxels, so that the mean of two means is the mean of all; Dice would differ."""
    asked = recipe(loss="ce", optimizer="sgd", learning_rate=0.1)
    setup = set_up(asked, cubes, tmp_path / "run", 0, 1, SILENT)
    with Batches(setup.store, setup.training, setup.plan, asked.patches, setup.scheme, "cpu", 0) as batches:
        one, two = batches.batch(0), batches.batch(1)
    both = Batch(torch.cat([one.images, two.images]), torch.cat([one.labels, two.labels]), one.names + two.names)
    weights = []
    for given in ([one, two], [both]):
        devices.seed_everything(0)
        trainer = Trainer(setup, asked, torch.device("cpu"))
        loss = trainer.learn(given, 0.0)
        weights.append((loss, trainer.weights))
    assert weights[0][0] == pytest.approx(weights[1][0], rel=1e-6)
    for key, value in weights[0][1].items():
        torch.testing.assert_close(value, weights[1][1][key], rtol=1e-4, atol=1e-6)


def test_an_interrupted_run_that_accumulates_takes_the_very_same_steps(tmp_path: Path, cubes: Dataset) -> None:
    asked = recipe(steps=4, accumulate=2, checkpoint_minutes=0.0)
    train(asked, cubes, tmp_path / "straight", device="cpu")
    with pytest.raises(KeyboardInterrupt):
        train(asked, cubes, tmp_path / "cut", device="cpu", progress=Interrupting(3))
    train(asked, cubes, tmp_path / "cut", device="cpu")
    assert losses(tmp_path / "cut") == losses(tmp_path / "straight")


def test_a_plateau_falls_at_its_end() -> None:
    assert [plateau(x, 0.2) for x in (0.0, 0.5, 0.8, 1.0)] == pytest.approx([1.0, 1.0, 1.0, 0.0], abs=1e-12)
    assert plateau(0.85, 0.2) == pytest.approx(1 - 0.25**0.5)
    options = recipe(schedule="plateau", cooldown=0.5, learning_rate=0.1).training
    assert learning_rate(options, 10, 0.5) == 0.1 and learning_rate(options, 10, 0.875) == pytest.approx(
        0.1 * 0.134, rel=0.01
    )


def test_an_extended_plateau_is_the_run_that_was_long_from_the_start(tmp_path: Path, cubes: Dataset) -> None:
    short, long = (recipe(steps=n, schedule="plateau", cooldown=0.25) for n in (8, 16))
    train(short, cubes, tmp_path / "grown", device="cpu")
    facts = checkpoint_facts(tmp_path / "grown" / runs.PLATEAU)
    assert facts is not None and facts["step"] == 7  # the first step whose rate is below 1
    train(long, cubes, tmp_path / "grown", device="cpu")
    train(long, cubes, tmp_path / "long", device="cpu")
    assert losses(tmp_path / "grown") == losses(tmp_path / "long") and len(losses(tmp_path / "long")) == 16
    assert same_weights(tmp_path / "grown", tmp_path / "long")


def test_two_trainings_do_not_share_a_folder(tmp_path: Path, cubes: Dataset) -> None:
    with only_one(tmp_path / "run"), pytest.raises(UsageError, match="another training is at work"):
        train(recipe(steps=1), cubes, tmp_path / "run", device="cpu")
    assert train(recipe(steps=1), cubes, tmp_path / "run", device="cpu").steps == 1
    code = "import sys, pathlib, hilum.training.only_one as o\nwith o.only_one(pathlib.Path(sys.argv[1])): pass"
    held = [sys.executable, "-c", code, str(tmp_path / "other")]
    with only_one(tmp_path / "other"):
        assert subprocess.run(held, capture_output=True).returncode == 1
    assert subprocess.run(held, capture_output=True).returncode == 0


def test_numbers_for_trackers() -> None:
    line = {"epoch": 2, "step": 9, "loss": 0.5, "patch_dice": {"liver": 0.5, "tumour": None}, "ok": True, "name": "x"}
    assert numbers_of(line) == {"loss": 0.5, "patch_dice/liver": 0.5}


def test_unknown_trackers_are_refused(tmp_path: Path, cubes: Dataset) -> None:
    with pytest.raises(RecipeError, match="no tracker 'paper'"):
        train(recipe(track=["paper"]), cubes, tmp_path / "run", device="cpu")


def test_tensorboard_hears_every_epoch(tmp_path: Path, cubes: Dataset) -> None:
    pytest.importorskip("tensorboard", reason="the extra trackers is not installed")
    train(recipe(steps=3, track=["tensorboard"]), cubes, tmp_path / "run", device="cpu")
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    events = EventAccumulator(str(tmp_path / "run" / "tensorboard"))
    events.Reload()
    assert [(e.step, pytest.approx(e.value, rel=1e-5)) for e in events.Scalars("loss")] == list(
        zip([1, 2, 3], losses(tmp_path / "run"), strict=True)
    )


@pytest.mark.filterwarnings("ignore")  # mlflow's own, on whatever SQLAlchemy there is
def test_mlflow_hears_every_epoch_and_an_interrupted_run_goes_on_under_its_name(tmp_path: Path, cubes: Dataset) -> None:
    pytest.importorskip("mlflow", reason="the extra trackers is not installed")
    asked = recipe(steps=4, track=["mlflow"], checkpoint_minutes=0.0)
    with pytest.raises(KeyboardInterrupt):
        train(asked, cubes, tmp_path / "run", device="cpu", progress=Interrupting(2))
    train(asked, cubes, tmp_path / "run", device="cpu")
    from mlflow.tracking import MlflowClient

    client = MlflowClient(f"sqlite:///{tmp_path / 'run' / 'mlruns.db'}")
    (run,) = client.search_runs([client.get_experiment_by_name("hilum").experiment_id])
    points = {point.step: point.value for point in client.get_metric_history(run.info.run_id, "loss")}
    assert points == dict(zip([1, 2, 3, 4], losses(tmp_path / "run"), strict=True))
    assert run.info.status == "FINISHED" and run.data.params["network"] == "plain_unet"


def one_step(network: nn.Module) -> None:
    network(torch.ones(1, 2)).sum().backward()


def test_compiling_is_taken_where_it_pays(monkeypatch: pytest.MonkeyPatch) -> None:
    network, times = nn.Linear(2, 2), iter([2.0, 1.0, 2.0, 1.95])
    monkeypatch.setattr("hilum.training.compiling.compiled", lambda x: x)
    monkeypatch.setattr("hilum.training.compiling._fastest", lambda *_: next(times))
    found, said = try_compiling(network, one_step, 3600)
    assert found is network and said.endswith(": taken")
    found, said = try_compiling(network, one_step, 3600)  # a twentieth is not worth it
    assert found is None and said.endswith(": not taken")
    assert network.weight.grad is None  # measured on copies


def test_where_nothing_can_be_compiled_it_is_said(monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(_: nn.Module) -> nn.Module:
        raise RuntimeError("no compiler\nlong story")

    monkeypatch.setattr("hilum.training.compiling.compiled", fail)
    found, said = try_compiling(nn.Linear(2, 2), one_step, 3600)
    assert found is None and said == "torch.compile does not work here (no compiler)"


def test_a_run_that_compiles_learns_and_goes_on_compiled(
    tmp_path: Path, cubes: Dataset, monkeypatch: pytest.MonkeyPatch
) -> None:
    calls: list[Any] = []

    class Wrapped(nn.Module):
        def __init__(self, inner: nn.Module):
            super().__init__()
            self.inner = inner

        def forward(self, x: torch.Tensor) -> Any:
            calls.append(1)
            return self.inner(x)

    monkeypatch.setattr("hilum.training.trainer.compiled", Wrapped)
    asked = recipe(steps=4, compile="on", checkpoint_minutes=0.0)
    with pytest.raises(KeyboardInterrupt):
        train(asked, cubes, tmp_path / "run", device="cpu", progress=Interrupting(2))
    train(asked, cubes, tmp_path / "run", device="cpu")
    assert len(calls) >= 4
    first = read_log(tmp_path / "run" / "log.jsonl")[0]["facts"]
    assert first["compiled"] is True
    train(replace(asked, training=replace(asked.training, compile="off")), cubes, tmp_path / "plain", device="cpu")
    assert same_weights(tmp_path / "run", tmp_path / "plain")  # parameters keep their names
