"""THE STEPS OF A RUN: clock, log, checkpoints and signals around a trainer.

Comes in: a set-up run and perhaps a checkpoint. Goes out: ``RUN/log.jsonl``, ``RUN/checkpoint`` all along and
``RUN/model`` at the end. Knows no data set and no recipe file.
"""

from __future__ import annotations

import time
from contextlib import ExitStack
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch

from hilum import device as devices
from hilum.config import Recipe, to_table, to_toml
from hilum.errors import RecipeError, TrainingError
from hilum.model import save_model
from hilum.patches.batches import Batch, Batches
from hilum.prepare.low_resolution import COVERED, patch_share
from hilum.progress import Progress, clock
from hilum.training.best import Best
from hilum.training.cards import epoch_sentence, model_card, run_facts
from hilum.training.checkpoint import Checkpoint, save_checkpoint
from hilum.training.compiling import LONG_RUN_S
from hilum.training.optim import DECIDED
from hilum.training.pace import Pace, Spikes, say_forecast
from hilum.training.ranks import Ranks
from hilum.training.setup import RunSetup
from hilum.training.stopping import StopSignals
from hilum.training.tracking import Epoch, Log, read_log
from hilum.training.trainer import Trainer
from hilum.training.two_stages import FOLDER, wants_locator
from hilum.training.validation import CaseValidation

# held-out patches a look, as a share of an epoch's steps: nnU-Net's 50 of 250 would cost a CPU a tenth of its time
_LOOK_SHARE, _LOOK_MOST = 0.1, 25
_FORWARD_SHARE = 0.4  # what a look takes of a step's time
PLATEAU = "checkpoint_plateau"  # where the rate began to fall: an extended run goes on from here


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
        ranks: Ranks,
    ):
        self.ranks = ranks
        self.recipe, self.setup, self.out, self.fold = recipe, setup, out, fold
        self.options, self.device, self.progress, self.commit = recipe.training, device, progress, commit
        devices.seed_everything(self.options.seed)
        self.trainer, self.pace, self.spikes = (
            Trainer(setup, recipe, device, ranks),
            Pace(recipe, setup.first_networks),
            Spikes(),
        )
        self.log, self.epoch = Log(out / "log.jsonl", self.options.track, silent=not ranks.is_first), Epoch()
        held_out = [setup.cases[name] for name in setup.held_out]
        self.validation = CaseValidation(
            held_out,
            self.options.validation_cases,
            setup.store,
            setup.spec,
            setup.plan,
            recipe,
            device,
            setup.earlier,
        )
        self.best = Best(out / "best", self.options)
        self._waited = self._loss = 0.0
        self._saved, self._compile_tried = time.monotonic(), self.options.compile == "off"

    @property
    def is_over(self) -> bool:
        """Whether the steps are taken, the budget is spent, or nothing has got better for too long."""
        look = _FORWARD_SHARE * self.pace.longest * self._looks
        return self.best.is_enough or self.pace.is_over(self.trainer.step, look)

    @property
    def _looks(self) -> int:
        """Held-out batches for the end of an epoch: in proportion to its steps, so that their share of time holds."""
        return min(_LOOK_MOST, max(1, round(len(self.epoch.losses) * _LOOK_SHARE))) if self.setup.held_out else 0

    def begin(self, checkpoint: Checkpoint | None) -> None:
        """Start the log, or go on where the checkpoint was taken."""
        if checkpoint is None:
            _check_classes(self.setup, self.progress)
            _say_what_patches_see(self.setup, self.recipe, self.progress)
            if self.options.warmup_steps >= self.options.total_steps:
                self.progress.say(
                    f"training.warmup_steps = {self.options.warmup_steps}: the learning rate is still warming up when "
                    f"the run ends after {self.options.total_steps} steps"
                )
            if self.ranks.is_first:
                self.best.forget()
            if self.options.compile == "on":
                self.trainer.compile()
            self.log.begin(self.facts())
            return
        saved = checkpoint.facts
        cases = {"training": list(self.setup.training), "held_out": list(self.setup.held_out)}
        if any(names != saved[key] for key, names in cases.items()):
            raise RecipeError(
                "the data set has other cases than when this run was begun",
                where=self.out,
                fix="restore it, choose another --out folder, or begin anew with --restart",
            )
        self.trainer.restore(checkpoint)
        self.pace.before = float(saved["seconds"])
        self.epoch = Epoch(saved["epoch"])
        self.best.restore(saved.get("best"))
        self.validation.spent = float(saved.get("validation_seconds", 0.0))
        self._compile_tried = self._compile_tried or bool(saved.get("compile_tried"))
        if saved.get("compiled") or self.options.compile == "on":
            self.trainer.compile()
        self.log.go_on(self.trainer.step, self.facts())
        self.progress.say(f"Going on after step {self.trainer.step} ({clock(self.pace.before)} so far)")

    def go(self, stop: StopSignals) -> None:
        """All steps that are left.

        Raises:
            TrainingError: a signal asked to stop; a checkpoint is saved and the message says how to go on.
        """
        self.pace.start()
        self._saved = time.monotonic()
        store, seed, earlier = self.setup.store, self.options.seed, self.setup.earlier
        common = (self.setup.plan, self.recipe.patches, self.setup.scheme, self.device)
        with ExitStack() as stack:
            stack.enter_context(self.log)
            ranks = self.ranks
            share: dict[str, Any] = {"rank": ranks.rank, "world": ranks.world}
            batches = stack.enter_context(Batches(store, self.setup.training, *common, seed, earlier=earlier, **share))
            held_out = None
            if self.setup.held_out and self.ranks.is_first:
                as_cut: dict[str, Any] = {"augmented": False, "prefetch": 1, "earlier": earlier}
                held_out = stack.enter_context(Batches(store, self.setup.held_out, *common, seed + 1, **as_cut))
            self._steps(batches, held_out, stop)
        self.save_checkpoint(finished=True)

    def _steps(self, batches: Batches, held_out: Batches | None, stop: StopSignals) -> None:
        bar = self.progress.stage("Training", round(self.pace.budget or self.pace.steps))
        (over,), shown = self.ranks.agree(self.is_over), 0
        while not over:
            self._one_step(batches)
            (over,) = self.ranks.agree(self.is_over)
            ended = self.trainer.step % self.options.epoch_steps == 0 or bool(over)
            if ended:
                self._end_epoch(held_out, bool(over))
                (over,) = self.ranks.agree(self.is_over)
            if not over:
                self._forecast(ended)
            reached = round(min(self.pace.budget, self.pace.seconds)) if self.pace.budget else self.trainer.step
            bar.step(reached - shown, f"loss {self._loss:.3f}")
            shown = reached
            if self.ranks.largest(float(bool(stop.asked))) and not over:
                self._stop(stop.asked or "a signal to another rank")
            if time.monotonic() - self._saved >= 60 * self.options.checkpoint_minutes:
                self.save_checkpoint()

    def save_checkpoint(self, finished: bool = False, name: str = "checkpoint") -> None:
        """Everything that is needed to go on; rank 0 has it all."""
        if not self.ranks.is_first:
            return
        facts = {
            **self.trainer.facts(),
            "seconds": self.pace.seconds,
            "finished": finished,
            "epoch": self.epoch.to_json(),
            "best": self.best.to_json(),
            "validation_seconds": self.validation.spent,
            "compile_tried": self._compile_tried,
            "recipe": to_table(self.recipe),
            "fold": self.fold,
            "training": list(self.setup.training),
            "held_out": list(self.setup.held_out),
        }
        trainer = self.trainer
        save_checkpoint(self.out / name, trainer.network, trainer.optimizer, trainer.ema, facts)
        if name == "checkpoint":
            self.best.forget_older()
            self._saved = time.monotonic()

    def save_model(self) -> None:
        """The model folder."""
        more = {
            "steps": self.trainer.step,
            "seconds": round(self.pace.seconds, 1),
            "weights": self.best.describe(self.trainer.step),
        }
        save_model(
            self.out / "model",
            self.setup.spec,
            self.best.weights() or self.trainer.weights,
            self.setup.plan,
            self.setup.scheme,
            self.recipe.inference,
            self.recipe.postprocess,
            model_card(self.recipe, self.setup, self.fold, self.commit, read_log(self.log.path), more),
            # a model may travel; paths stay home
            to_toml(replace(self.recipe, data=replace(self.recipe.data, path=""))),
            first=self.setup.first,
            locator=self.out / FOLDER / "model" if wants_locator(self.recipe) else None,
        )

    def facts(self) -> dict[str, Any]:
        """What the log begins with."""
        dtype = self.trainer.dtype
        more = {
            "device": devices.describe(self.device),
            "precision": "fp32" if dtype is None else str(dtype).removeprefix("torch."),
            "memory_format": str(self.trainer.memory_format).removeprefix("torch."),
            "compiled": self.trainer.is_compiled,
            "parameters": sum(p.numel() for p in self.trainer.network.parameters()),
            "optimizer": {key: getattr(self.trainer.options, key) for key in DECIDED},
            "budget_s": self.pace.budget,
            "ranks": self.ranks.world,
        }
        return run_facts(self.recipe, self.setup, self.fold, self.commit, more)

    def _one_step(self, batches: Batches) -> None:
        begin = time.monotonic()
        (done,) = self.ranks.agree(self.pace.done(self.trainer.step))
        self._keep_plateau(done)
        count = self.options.accumulate
        several = [batches.batch(self.trainer.step * count + k) for k in range(count)]
        self._loss = self.trainer.learn(several, done)
        seconds = time.monotonic() - begin
        self.pace.took(seconds)
        self.epoch.add(self._loss, seconds, batches.wait_seconds - self._waited)
        self._waited = batches.wait_seconds
        self._watch(several)
        if not self._compile_tried and self.trainer.step >= 3 and self.ranks.world == 1:
            self._try_compiling(several[0])

    def _keep_plateau(self, done: float) -> None:
        """Before the rate falls, everything as it is, for a run that is extended later."""
        falls = self.options.schedule == "plateau" and done > 1 - self.options.cooldown
        if falls and not (self.out / PLATEAU).is_dir() and self.trainer.step:
            self.save_checkpoint(name=PLATEAU)

    def _watch(self, batches: list[Batch]) -> None:
        jump = self.spikes.add(self._loss)
        if jump is not None:
            names = sorted({name for batch in batches for name in batch.names})
            spike = {"loss": self._loss, "deviations": round(jump, 1), "cases": names}
            self.log.write({"step": self.trainer.step, "spike": spike})
            self.progress.say(
                f"Step {self.trainer.step}: the loss jumped to {self._loss:.3f} in patches of {', '.join(names)}"
            )

    def _try_compiling(self, batch: Batch) -> None:
        left = self.pace.left(self.trainer.step, self.pace.longest)
        self._compile_tried = True
        if left > LONG_RUN_S:
            said = self.trainer.try_compiling(batch, left)
            self.log.write({"step": self.trainer.step, "compile": said})
            self.progress.say(said)

    def _forecast(self, epoch_ended: bool) -> None:
        forecast = self.pace.forecast(self.trainer.step, epoch_ended)
        if forecast is not None:
            self.log.write({"step": self.trainer.step, "forecast": forecast})
            self.progress.say(say_forecast(forecast))

    def _end_epoch(self, held_out: Batches | None, over: bool) -> None:
        if not self.ranks.is_first:
            self.epoch = Epoch()
            return
        # a last epoch of a few steps gets few looks: a number that jumps says nothing and is left out
        short = 2 * len(self.epoch.losses) < self.options.epoch_steps < self.trainer.step
        scores = self.trainer.patch_dice(held_out, self._looks) if held_out is not None and not short else None
        true = None
        step_seconds = self.epoch.seconds / len(self.epoch.losses)
        # at the end all held-out cases are segmented anyway, by whoever called
        if self.best.wants_scores or (not over and self.validation.is_due(self.pace.seconds, step_seconds)):
            true = self.validation.score(self.trainer.weights)
            self.best.take(true.mean, self.trainer.step, self.trainer.weights)
        peak = devices.peak_memory_gb(self.device)
        line = {
            "epoch": -(-self.trainer.step // self.options.epoch_steps),
            "step": self.trainer.step,
            **self.epoch.line(self.setup.plan.batch * self.options.accumulate * self.ranks.world),
            "learning_rate": self.trainer.learning_rate,
            "seconds": round(self.pace.seconds, 2),
            "patch_dice": scores,
            "true_dice": None if true is None else true.to_json(),
            "peak_memory_gb": None if peak is None else round(peak, 3),
            "time_left_s": round(self.pace.left(self.trainer.step, step_seconds), 1),
        }
        self.log.write(line)
        self.progress.say(epoch_sentence(line))
        self.epoch = Epoch()

    def _stop(self, signal_name: str) -> None:
        self.save_checkpoint()
        raise TrainingError(
            f"stopped by {signal_name} after step {self.trainer.step} of {self.pace.steps}, everything is saved",
            where=self.out,
            fix="run the same command again to go on",
        )


def _say_what_patches_see(setup: RunSetup, recipe: Recipe, progress: Progress) -> None:
    """Where nnU-Net would train a cascade, say that there is one."""
    share, stages = patch_share(setup.plan), recipe.cascade.use != "never" or wants_locator(recipe)
    if setup.plan.dims == 3 and share < COVERED and not stages:
        progress.say(
            f"A patch covers {100 * share:.2g} % of the median case, less than a quarter: "
            "by nnU-Net's rule a cascade may do better (--cascade planned)"
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
