"""BATCH -> A BETTER NETWORK: one training step, one look at held-out patches, and everything that must be saved.

Comes in: a set-up run and batches. Goes out: losses; weights. Knows no clock, no files and no log.

Short types are used for convolutions only (autocast): weights, their updates and the loss stay fp32.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch import nn
from torch.func import functional_call

from hilum import device as devices
from hilum.config import Recipe
from hilum.errors import TrainingError
from hilum.patches.batches import Batch, Batches
from hilum.training.checkpoint import Checkpoint, restore
from hilum.training.compiling import compiled, try_compiling
from hilum.training.losses import make_loss, region_table
from hilum.training.optim import AveragedWeights, learning_rate, make_optimizer, settled
from hilum.training.ranks import Ranks
from hilum.training.setup import RunSetup
from hilum.training.short_types import make_safe
from hilum.training.tracking import PatchDice, PatchRegionDice


class Trainer:
    """Network, optimiser, averaged weights and how many steps they have taken.

    Args:
        setup: what was decided before the first step.
        recipe: what a person chose.
        device: where to compute.
        ranks: who else trains the same network.

    Attributes:
        step: steps taken.

    Raises:
        RecipeError: a loss, optimiser or schedule that does not exist, or their options.
    """

    def __init__(self, setup: RunSetup, recipe: Recipe, device: torch.device, ranks: Ranks | None = None):
        self.options = settled(recipe.training, recipe.training.total_steps)
        self.setup, self.device, self.step = setup, device, 0
        self.ranks = ranks or Ranks()
        self.regions = region_table(setup.scheme) if setup.spec.head == "regions" else None
        classes, loss_options = setup.scheme.class_count, self.options.loss_options
        self.loss = make_loss(self.options.loss, loss_options, classes, setup.class_counts, self.regions)
        self.dtype = devices.autocast_dtype(device, self.options.precision)
        # On a CPU with AVX-512, channels last take 0.84 of the time of a step in fp32 and 0.91 in bf16.
        self.memory_format = {2: torch.channels_last, 3: torch.channels_last_3d}[setup.spec.dims]
        self.network = setup.spec.build().to(device=device, memory_format=self.memory_format)  # type: ignore[call-overload]
        if self.ranks.world > 1 and device.type == "cuda":  # on a CPU batch norm knows its own rank's batch only
            self.network = nn.SyncBatchNorm.convert_sync_batchnorm(self.network)  # type: ignore[no-untyped-call]
        if device.type == "cpu" and self.dtype is torch.bfloat16:
            make_safe(self.network)
        self.forward: nn.Module = self.network  # what is called; ``compile_network`` puts a compiled one here
        self.optimizer = make_optimizer(self.network, self.options)
        self.ema = AveragedWeights(self.network, self.options.ema) if self.options.ema else None
        # fp16's smallest number is 6e-8: gradients are scaled up for it; bf16 reaches as far as fp32 and needs none
        self.scaler = torch.amp.GradScaler(device.type, enabled=self.dtype is torch.float16)

    @property
    def weights(self) -> dict[str, torch.Tensor]:
        """The weights that a model is made of: averaged ones where the recipe wants them."""
        return self.ema.tensors if self.ema is not None else dict(self.network.state_dict())

    @property
    def learning_rate(self) -> float:
        """The rate of the last step."""
        return float(self.optimizer.param_groups[0]["lr"])

    def learn(self, batches: Sequence[Batch], done: float) -> float:
        """One step; returns its loss, the mean over the batches.

        Args:
            batches: what to learn from; gradients of several are averaged (accumulated).
            done: how much of the run is over, 0 to 1.

        Raises:
            TrainingError: the loss or the gradients are not finite, or memory does not suffice.
        """
        for group in self.optimizer.param_groups:
            group["lr"] = learning_rate(self.options, self.step, done)
        self.network.train()
        self.optimizer.zero_grad(set_to_none=True)
        total = 0.0
        try:
            for batch in batches:
                loss = self._forward(batch) / len(batches)
                value = self.ranks.mean(float(loss.detach()))  # NaN of one is NaN of all
                if not math.isfinite(value):
                    raise self._not_finite("the loss", value, [batch])
                self.scaler.scale(loss).backward()  # type: ignore[no-untyped-call]
                total += value
        except RuntimeError as error:
            # a CPU's allocator says "not enough memory" in some versions and "can't allocate memory" in others
            if isinstance(error, torch.OutOfMemoryError) or "DefaultCPUAllocator" in str(error):
                raise _no_memory(self.device) from error
            raise
        self.ranks.average_gradients(self.network)
        self.scaler.unscale_(self.optimizer)
        limit = self.options.clip_norm or math.inf
        norm = float(nn.utils.clip_grad_norm_(self.network.parameters(), limit))
        if not math.isfinite(norm) and not self.scaler.is_enabled():  # the scaler skips such steps and scales down
            raise self._not_finite("the gradients' norm", norm, batches)
        self.scaler.step(self.optimizer)
        self.scaler.update()
        if self.ema is not None:
            self.ema.update(self.network)
        self.step += 1
        return total

    @property
    def is_compiled(self) -> bool:
        """Whether the network runs compiled."""
        return self.forward is not self.network

    def compile(self) -> None:
        """Compile the network at its next step."""
        self.forward = compiled(self.network)

    def try_compiling(self, batch: Batch, seconds_left: float) -> str:
        """Compile if that pays; a sentence that says so. Weights, gradients and random numbers stay as they are."""

        def one_step(network: nn.Module) -> None:
            self._loss_of(network, batch).backward()  # type: ignore[no-untyped-call]

        found, said = try_compiling(self.network, one_step, seconds_left)
        self.forward = found or self.network
        return said

    @torch.no_grad()
    def patch_dice(self, batches: Batches, count: int) -> dict[str, float | None]:
        """Dice over ``count`` held-out batches (the same ones each time) of the weights that would be saved now."""
        scheme = self.setup.scheme
        pooled: PatchDice | PatchRegionDice = PatchDice([label.name for label in scheme.labels])
        if self.regions is not None:
            pooled = PatchRegionDice([region.name for region in scheme.regions], self.regions)
        self.network.eval()
        for index in range(count):
            batch = batches.batch(index)
            with devices.autocast(self.device, self.options.precision):
                logits = functional_call(self.network, self.weights, (batch.images,))
            pooled.add(batch.labels, logits.float())
        return pooled.scores()

    def facts(self) -> dict[str, Any]:
        """What a checkpoint needs besides tensors."""
        scaler = self.scaler.state_dict() if self.scaler.is_enabled() else None
        return {"step": self.step, "scaler": scaler, "compiled": self.is_compiled}

    def restore(self, checkpoint: Checkpoint) -> None:
        """Go on where a checkpoint was taken.

        Raises:
            TrainingError: it is another network's.
        """
        restore(checkpoint, self.network, self.optimizer, self.ema)
        self.step = int(checkpoint.facts["step"])
        scaler: Mapping[str, Any] | None = checkpoint.facts.get("scaler")
        if scaler and self.scaler.is_enabled():
            self.scaler.load_state_dict(dict(scaler))

    def _forward(self, batch: Batch) -> torch.Tensor:
        return self._loss_of(self.forward, batch)

    def _loss_of(self, network: nn.Module, batch: Batch) -> torch.Tensor:
        with devices.autocast(self.device, self.options.precision):
            logits = network(batch.images.contiguous(memory_format=self.memory_format))
        return self.loss(logits, batch.labels)

    def _not_finite(self, what: str, value: float, batches: Sequence[Batch]) -> TrainingError:
        names = dict.fromkeys(name for batch in batches for name in batch.names)
        return TrainingError(
            f"{what} is {value} at step {self.step + 1}, in patches of {', '.join(names)}",
            fix="look at those cases, lower training.learning_rate, or take training.precision = 'fp32'; "
            "the last checkpoint is kept",
        )


def _no_memory(device: torch.device) -> TrainingError:
    return TrainingError(
        f"the memory of {devices.describe(device)} does not suffice for a training step",
        fix="lower prepare.memory_gb, or set a smaller prepare.patch or prepare.batch, in a new --out folder",
    )
