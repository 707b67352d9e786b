from __future__ import annotations

import errno
import json
import os
import subprocess
import sys
import textwrap
from pathlib import Path

import pytest
import torch

from hilum.config import TrainingOptions
from hilum.errors import OutputError, TrainingError
from hilum.training.checkpoint import (
    checkpoint_facts,
    load_checkpoint,
    remove_checkpoint,
    restore,
    save_checkpoint,
)
from hilum.training.optim import OPTIMIZERS, AveragedWeights, make_optimizer


def net() -> torch.nn.Module:
    torch.manual_seed(3)
    return torch.nn.Sequential(torch.nn.Conv2d(1, 4, 3), torch.nn.BatchNorm2d(4), torch.nn.Conv2d(4, 1, 3))


def learn(network: torch.nn.Module, optimizer: torch.optim.Optimizer, ema: AveragedWeights | None, steps: int) -> list:
    losses = []
    for _ in range(steps):
        loss = (network(torch.randn(2, 1, 8, 8)) - 1).square().mean()  # global generator: its state must travel too
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        if ema is not None:
            ema.update(network)
        losses.append(loss.item())
    return losses


@pytest.mark.parametrize("name", sorted(OPTIMIZERS))
@pytest.mark.parametrize("averaged", [True, False])
def test_what_is_restored_goes_on_exactly(tmp_path: Path, name: str, averaged: bool) -> None:
    def begin() -> tuple:
        network = net()
        options = TrainingOptions(optimizer=name, learning_rate=1e-2)
        return network, make_optimizer(network, options), AveragedWeights(network, 0.9) if averaged else None

    network, optimizer, ema = begin()
    learn(network, optimizer, ema, 3)
    save_checkpoint(tmp_path / "checkpoint", network, optimizer, ema, {"step": 3})
    losses = learn(network, optimizer, ema, 3)
    other, its_optimizer, its_ema = begin()
    checkpoint = load_checkpoint(tmp_path / "checkpoint")
    assert checkpoint is not None and checkpoint.facts["step"] == 3
    restore(checkpoint, other, its_optimizer, its_ema)
    assert learn(other, its_optimizer, its_ema, 3) == losses
    assert all(torch.equal(x, other.state_dict()[key]) for key, x in network.state_dict().items())
    if ema is not None and its_ema is not None:
        assert all(torch.equal(x, its_ema.tensors[key]) for key, x in ema.tensors.items())


def one(folder: Path, step: int = 1) -> None:
    network = net()
    save_checkpoint(folder, network, make_optimizer(network, TrainingOptions()), None, {"step": step})


def test_none_there(tmp_path: Path) -> None:
    assert load_checkpoint(tmp_path / "checkpoint") is None
    assert checkpoint_facts(tmp_path / "checkpoint") is None
    remove_checkpoint(tmp_path / "checkpoint")


def test_no_pickle_and_nothing_left_over(tmp_path: Path) -> None:
    for step in (1, 2):
        one(tmp_path / "checkpoint", step)
    assert [item.name for item in tmp_path.iterdir()] == ["checkpoint"]
    assert sorted(f.name for f in (tmp_path / "checkpoint").iterdir()) == ["state.json", "tensors.safetensors"]
    remove_checkpoint(tmp_path / "checkpoint")
    assert list(tmp_path.iterdir()) == []


def test_the_one_set_aside_counts_if_a_kill_fell_between_the_renames(tmp_path: Path) -> None:
    one(tmp_path / "checkpoint", 7)
    os.rename(tmp_path / "checkpoint", tmp_path / ".previous-checkpoint")
    (tmp_path / ".part-abcdefgh-checkpoint").mkdir()
    facts = checkpoint_facts(tmp_path / "checkpoint")
    assert facts is not None and facts["step"] == 7
    one(tmp_path / "checkpoint", 8)
    assert [item.name for item in tmp_path.iterdir()] == ["checkpoint"]


def test_a_full_disk_keeps_the_one_before(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    one(tmp_path / "checkpoint", 1)

    def full(*_: object) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr("hilum.training.checkpoint.write_tensors", full)
    with pytest.raises(OutputError, match="the disk is full"):
        one(tmp_path / "checkpoint", 2)
    facts = checkpoint_facts(tmp_path / "checkpoint")
    assert facts is not None and facts["step"] == 1
    assert [item.name for item in tmp_path.iterdir()] == ["checkpoint"]


def test_a_full_disk_in_safetensors_words(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from safetensors import SafetensorError

    def full(*_: object) -> None:
        raise SafetensorError("Error while serializing: I/O error: No space left on device (os error 28)")

    monkeypatch.setattr("hilum.model.tensors.save_file", full)
    with pytest.raises(OutputError, match="the disk is full"):
        one(tmp_path / "checkpoint")
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("file", ["tensors.safetensors", "state.json"])
@pytest.mark.parametrize("damage", ["cut", "gone", "bit"])
def test_damage_is_named(tmp_path: Path, file: str, damage: str) -> None:
    one(tmp_path / "checkpoint")
    path = tmp_path / "checkpoint" / file
    data = bytearray(path.read_bytes())
    if damage == "gone":
        path.unlink()
    elif damage == "cut":
        path.write_bytes(data[: len(data) // 2])
    else:
        data[0 if file == "state.json" else -1] ^= 1
        path.write_bytes(data)
    with pytest.raises(TrainingError, match=rf"{file}.*--restart"):
        load_checkpoint(tmp_path / "checkpoint")


def test_another_format_and_another_network(tmp_path: Path) -> None:
    one(tmp_path / "checkpoint")
    checkpoint = load_checkpoint(tmp_path / "checkpoint")
    assert checkpoint is not None
    other = torch.nn.Conv2d(1, 2, 3)
    with pytest.raises(TrainingError, match="does not fit this run"):
        restore(checkpoint, other, make_optimizer(other, TrainingOptions()), None)
    file = tmp_path / "checkpoint" / "state.json"
    file.write_text(json.dumps(json.loads(file.read_text()) | {"format": 99}))
    with pytest.raises(TrainingError, match="format 99"):
        checkpoint_facts(tmp_path / "checkpoint")


KILLS = """
    import os, random, signal, sys, time
    from pathlib import Path
    import torch
    from hilum.config import TrainingOptions
    from hilum.training.checkpoint import load_checkpoint, save_checkpoint
    from hilum.training.optim import make_optimizer

    torch.set_num_threads(1)
    folder, random = Path(sys.argv[1]), random.Random(0)
    network = torch.nn.Linear(300, 300)
    optimizer = make_optimizer(network, TrainingOptions())
    step, seen = 0, set()
    for _ in range(25):
        child = os.fork()
        if child == 0:
            while True:
                step += 1
                with torch.no_grad():
                    network.weight.fill_(step)
                save_checkpoint(folder, network, optimizer, None, {"step": step})
        time.sleep(0.03 + 0.15 * random.random())
        os.kill(child, signal.SIGKILL)
        os.waitpid(child, 0)
        seen |= {"-".join(sorted({"part" if ".part" in f.name else f.name for f in folder.parent.iterdir()}))}
        found = load_checkpoint(folder)
        now = found.facts["step"] if found else 0
        assert now >= step, (now, step)
        assert found is None or bool((found.group("model")["weight"] == now).all())
        step = now
    assert step > 5, step
    print(step, sorted(seen))
"""


@pytest.mark.skipif(not hasattr(os, "fork"), reason="needs fork and SIGKILL")
def test_kill_at_any_moment_leaves_a_whole_one(tmp_path: Path) -> None:
    done = subprocess.run(
        [sys.executable, "-c", textwrap.dedent(KILLS), str(tmp_path / "run" / "checkpoint")],
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert done.returncode == 0, done.stderr
