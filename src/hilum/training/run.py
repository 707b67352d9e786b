"""THE STEPS OF A RUN: clock, log, checkpoints and signals around a trainer.

Comes in: a set-up run and perhaps a checkpoint. Goes out: ``RUN/log.jsonl``, ``RUN/checkpoint`` all along and
``RUN/model`` at the end. Knows no data set and no recipe file.
"""

from __future__ import annotations

import platform
import time
from contextlib import ExitStack
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch

from hilum import __version__
from hilum import device as devices
from hilum.config import Recipe, seconds_of, to_table, to_toml
from hilum.errors import RecipeError, TrainingError
from hilum.model import save_model
from hilum.patches.batches import Batches
from hilum.progress import Progress, clock
from hilum.training.checkpoint import Checkpoint, save_checkpoint
from hilum.training.setup import RunSetup
from hilum.training.stopping import StopSignals
from hilum.training.tracking import Epoch, Log, read_log
from hilum.training.trainer import Trainer

# held-out patches a look, as a share of an epoch's steps: nnU-Net's 50 of 250 would cost a CPU a tenth of its time
_LOOK_SHARE, _LOOK_MOST = 0.1, 25
_FORWARD_SHARE = 0.4  # what a look takes of a step's time
SYNTHETIC = "synthetic training data only: of no use on real scans"


class Run:
    """The state of a run: trainer, clock, log, checkpoint."""

    def __init__(
        self,
        recipe: Recipe,
        setup: RunSetup,
        out: Path,
        fold: str,
        device: torch.device,
        progress: Progress,
        commit: str,
    ):
        self.recipe, self.setup, self.out, self.fold = recipe, setup, out, fold
        self.options, self.device, self.progress, self.commit = recipe.training, device, progress, commit
        self.budget = seconds_of(self.options.budget)
        devices.seed_everything(self.options.seed)
        self.trainer = Trainer(setup, recipe, device)
        self.log, self.epoch = Log(out / "log.jsonl"), Epoch()
        self.seconds_before = self._longest = self._waited = self._loss = 0.0
        self._start = self._saved = time.monotonic()

    @property
    def seconds(self) -> float:
        """Time spent training, over all parts of the run."""
        return self.seconds_before + time.monotonic() - self._start

    @property
    def done(self) -> float:
        """How much of the run is over, 0 to 1: by steps or by budget, whichever is further."""
        by_time = self.seconds / self.budget if self.budget else 0.0
        return max(self.trainer.step / self.options.steps, by_time)

    @property
    def is_over(self) -> bool:
        """Whether the steps are taken, or another one and the last look might not end within the budget."""
        if self.trainer.step >= self.options.steps:
            return True
        look = _FORWARD_SHARE * self._longest * self._looks
        return self.budget is not None and self.seconds + self._longest + look >= self.budget

    @property
    def _looks(self) -> int:
        """Held-out batches for the end of an epoch: in proportion to its steps, so that their share of time holds."""
        return min(_LOOK_MOST, max(1, round(len(self.epoch.losses) * _LOOK_SHARE))) if self.setup.held_out else 0

    def begin(self, checkpoint: Checkpoint | None) -> None:
        """Start the log, or go on where the checkpoint was taken."""
        facts = self.facts()
        if checkpoint is None:
            _check_classes(self.setup, self.progress)
            self.log.begin(facts)
            return
        cases = {"training": list(self.setup.training), "held_out": list(self.setup.held_out)}
        if any(names != checkpoint.facts[key] for key, names in cases.items()):
            raise RecipeError(
                "the data set has other cases than when this run was begun",
                where=self.out,
                fix="restore it, choose another --out folder, or begin anew with --restart",
            )
        self.trainer.restore(checkpoint)
        self.seconds_before = float(checkpoint.facts["seconds"])
        self.epoch = Epoch(checkpoint.facts["epoch"])
        self.log.go_on(self.trainer.step, facts)
        self.progress.say(f"Going on after step {self.trainer.step} ({clock(self.seconds_before)} so far)")

    def go(self, stop: StopSignals) -> None:
        """All steps that are left.

        Raises:
            TrainingError: a signal asked to stop; a checkpoint is saved and the message says how to go on.
        """
        self._start = self._saved = time.monotonic()
        store, seed = self.setup.store, self.options.seed
        common = (self.setup.plan, self.recipe.patches, self.setup.scheme, self.device)
        with ExitStack() as stack:
            batches = stack.enter_context(Batches(store, self.setup.training, *common, seed))
            held_out = None
            if self.setup.held_out:
                unchanged = Batches(store, self.setup.held_out, *common, seed + 1, augmented=False, prefetch=1)
                held_out = stack.enter_context(unchanged)
            self._steps(batches, held_out, stop)
        self.save_checkpoint(finished=True)

    def _steps(self, batches: Batches, held_out: Batches | None, stop: StopSignals) -> None:
        bar = self.progress.stage("Training", round(self.budget or self.options.steps))
        over, shown = self.is_over, 0
        while not over:
            self._one_step(batches)
            over = self.is_over
            if self.trainer.step % self.options.epoch_steps == 0 or over:
                self._end_epoch(held_out)
            reached = round(min(self.budget, self.seconds)) if self.budget else self.trainer.step
            bar.step(reached - shown, f"loss {self._loss:.3f}")
            shown = reached
            if stop.asked and not over:
                self._stop(stop.asked)
            if time.monotonic() - self._saved >= 60 * self.options.checkpoint_minutes:
                self.save_checkpoint()

    def save_checkpoint(self, finished: bool = False) -> None:
        """Everything that is needed to go on."""
        facts = {
            **self.trainer.facts(),
            "seconds": self.seconds,
            "finished": finished,
            "epoch": self.epoch.to_json(),
            "recipe": to_table(self.recipe),
            "fold": self.fold,
            "training": list(self.setup.training),
            "held_out": list(self.setup.held_out),
        }
        trainer = self.trainer
        save_checkpoint(self.out / "checkpoint", trainer.network, trainer.optimizer, trainer.ema, facts)
        self._saved = time.monotonic()

    def save_model(self) -> None:
        """The model folder."""
        last: dict[str, Any] = next((x for x in reversed(read_log(self.log.path)) if "epoch" in x), {})
        card = {
            "description": self.recipe.description,
            "recipe": self.recipe.name,
            "trained_on": {"dataset": self.recipe.data.dataset, "cases": list(self.setup.training)},
            "held_out": list(self.setup.held_out),
            "fold": self.fold,
            "steps": self.trainer.step,
            "seconds": round(self.seconds, 1),
            "loss": last.get("loss"),
            "patch_dice": last.get("patch_dice"),
            "hilum": __version__,
            "commit": self.commit,
            "warning": "Research use only, not a medical device"
            + (f"; {SYNTHETIC}" if self.recipe.data.dataset == "phantom" else ""),
        }
        save_model(
            self.out / "model",
            self.setup.spec,
            self.trainer.weights,
            self.setup.plan,
            self.setup.scheme,
            self.recipe.inference,
            self.recipe.postprocess,
            card,
            to_toml(
                replace(self.recipe, data=replace(self.recipe.data, path=""))
            ),  # a model may travel; paths stay home
        )

    def facts(self) -> dict[str, Any]:
        """What the log begins with."""
        dtype = self.trainer.dtype
        return {
            "hilum": __version__,
            "commit": self.commit,
            "python": platform.python_version(),
            "torch": str(torch.__version__),
            "device": devices.describe(self.device),
            "precision": "fp32" if dtype is None else str(dtype).removeprefix("torch."),
            "recipe": self.recipe.name,
            "network": self.setup.spec.name,
            "parameters": sum(p.numel() for p in self.trainer.network.parameters()),
            "patch": list(self.setup.plan.patch),
            "batch": self.setup.plan.batch,
            "spacing_mm": list(self.setup.plan.spacing_mm),
            "steps": self.options.steps,
            "budget_s": self.budget,
            "fold": self.fold,
            "training": list(self.setup.training),
            "held_out": list(self.setup.held_out),
        }

    def _one_step(self, batches: Batches) -> None:
        begin, done = time.monotonic(), self.done
        batch = batches.batch(self.trainer.step)
        self._loss = self.trainer.learn(batch, done)
        seconds = time.monotonic() - begin
        self._longest = max(self._longest * 0.99, seconds)  # a slow first step is forgotten over the next hundred
        self.epoch.add(self._loss, seconds, batches.wait_seconds - self._waited)
        self._waited = batches.wait_seconds

    def _end_epoch(self, held_out: Batches | None) -> None:
        # a last epoch of a few steps gets few looks: a number that jumps says nothing and is left out
        short = 2 * len(self.epoch.losses) < self.options.epoch_steps < self.trainer.step
        scores = self.trainer.patch_dice(held_out, self._looks) if held_out is not None and not short else None
        peak = devices.peak_memory_gb(self.device)
        line = {
            "epoch": -(-self.trainer.step // self.options.epoch_steps),
            "step": self.trainer.step,
            **self.epoch.line(self.setup.plan.batch),
            "learning_rate": self.trainer.learning_rate,
            "seconds": round(self.seconds, 2),
            "patch_dice": scores,
            "peak_memory_gb": None if peak is None else round(peak, 3),
            "time_left_s": round(self._time_left(), 1),
        }
        self.log.write(line)
        self.epoch = Epoch()

    def _time_left(self) -> float:
        by_steps = self.epoch.seconds / len(self.epoch.losses) * (self.options.steps - self.trainer.step)
        return max(0.0, min(by_steps, self.budget - self.seconds) if self.budget else by_steps)

    def _stop(self, signal_name: str) -> None:
        self.save_checkpoint()
        raise TrainingError(
            f"stopped by {signal_name} after step {self.trainer.step} of {self.options.steps}, everything is saved",
            where=self.out,
            fix="run the same command again to go on",
        )


def _check_classes(setup: RunSetup, progress: Progress) -> None:
    """Refuse to train where nothing is labelled; say which labels never occur."""
    present = {k for name in setup.training for k, where in setup.store.case(name).locations.items() if len(where)}
    absent = [label.name for k, label in enumerate(setup.scheme.labels, 1) if k not in present]
    if len(absent) == len(setup.scheme.labels):
        raise TrainingError(
            f"no training case holds a voxel of {', '.join(absent)}",
            wanted=f"label maps of scheme {setup.scheme.name!r}",
            fix="choose the scheme that the label maps follow",
        )
    if absent:
        progress.say(f"No training case holds {', '.join(absent)}: the model will never predict it")
