"""MANY PROCESSES, ONE RUN: ranks that ``torchrun`` starts, on one machine or several.

Comes in: ``RANK``, ``WORLD_SIZE``, ``LOCAL_RANK`` of the environment. Goes out: a group of processes, sums over it.
Without them there is one rank and nothing here does anything. Knows no data and no network.

Each rank computes the plan's batch, so that a step's batch is the plan's times the number of ranks. Items are drawn by
their place in that whole batch: two ranks see the very patches that one would see with twice the batch. Gradients are
averaged; sums of batch Dice run over all ranks, so that the loss is that of the whole batch as well (losses that weigh
voxels by class divide by their own rank's weights). Rank 0 alone writes, decides and tells.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import timedelta
from itertools import count
from typing import Any

import torch
from torch import distributed, nn

from hilum.errors import TrainingError, UsageError

_PATIENCE = timedelta(hours=6)  # rank 0 prepares cases and looks at whole scans while the others wait
_JOINING = timedelta(minutes=30)  # until all processes have started
_meetings: list[Any] = []  # where ranks find each other; one as long as the process lives
_groups = count()


@dataclass(frozen=True)
class Ranks:
    """Who this process is among those of a run.

    Attributes:
        rank: 0 to ``world - 1``.
        world: how many there are.
        local: number on this machine, which is its GPU's.
        here: how many there are on this machine.
    """

    rank: int = 0
    world: int = 1
    local: int = 0
    here: int = 1

    @property
    def is_first(self) -> bool:
        """Whether this one writes and tells."""
        return self.rank == 0

    def wait(self) -> None:
        """Until all are here.

        Raises:
            TrainingError: one has gone.
        """
        if self.world > 1:
            with _gone():
                distributed.barrier()

    def agree(self, *numbers: float) -> tuple[float, ...]:
        """Rank 0's numbers, for all."""
        if self.world == 1:
            return numbers
        tensor = torch.tensor(numbers, dtype=torch.float64, device=_device())
        with _gone():
            distributed.broadcast(tensor, 0)
        return tuple(tensor.tolist())

    def largest(self, number: float) -> float:
        """The largest of all ranks' numbers; NaN if one is."""
        if self.world == 1:
            return number
        tensor = torch.tensor([number, float(number != number)], dtype=torch.float64, device=_device())
        tensor[0] = 0.0 if number != number else number
        with _gone():
            distributed.all_reduce(tensor, distributed.ReduceOp.MAX)
        return float("nan") if tensor[1] else float(tensor[0])

    def mean(self, number: float) -> float:
        """The mean of all ranks' numbers."""
        if self.world == 1:
            return number
        tensor = torch.tensor(number, dtype=torch.float64, device=_device())
        with _gone():
            distributed.all_reduce(tensor)
        return float(tensor) / self.world

    def average_gradients(self, network: nn.Module) -> None:
        """Each gradient becomes the mean over all ranks; parameters without one have none on any rank."""
        if self.world == 1:
            return
        gradients = [p.grad for p in network.parameters() if p.grad is not None]
        with _gone():
            for start in range(0, len(gradients), 64):  # a few large messages
                part = gradients[start : start + 64]
                flat = torch.cat([x.reshape(-1) for x in part])
                distributed.all_reduce(flat)
                for x, values in zip(part, torch.split(flat.div_(self.world), [x.numel() for x in part]), strict=True):
                    x.copy_(values.view_as(x))


def from_environment() -> Ranks:
    """What ``torchrun`` says; one rank without it."""
    found = {key: os.environ.get(key, "") for key in ("RANK", "WORLD_SIZE", "LOCAL_RANK", "LOCAL_WORLD_SIZE")}
    if int(found["WORLD_SIZE"] or 1) < 2:
        return Ranks()
    rank, world, local = (int(found[key] or 0) for key in ("RANK", "WORLD_SIZE", "LOCAL_RANK"))
    return Ranks(rank, world, local, int(found["LOCAL_WORLD_SIZE"] or 1))


@contextmanager
def together(device_type: str) -> Iterator[Ranks]:
    """The group of this run, from its start to its end.

    Args:
        device_type: "cuda" talks by NCCL, "cpu" by Gloo.

    Raises:
        UsageError: the other processes cannot be reached.
    """
    ranks = from_environment()
    if ranks.world == 1 or distributed.is_initialized():
        yield ranks
        return
    try:
        if not _meetings:
            meetings = distributed.rendezvous("env://", timeout=_JOINING)  # type: ignore[attr-defined]
            _meetings.append(next(meetings)[0])
        # Each group has a place of its own there. Without it, a run of several trainings (a locator, then its network)
        # fails where one rank is a second late: the others meet in what is left of the group before.
        place = distributed.PrefixStore(f"hilum {next(_groups)}", _meetings[0])  # type: ignore[attr-defined]
        backend = "nccl" if device_type == "cuda" else "gloo"
        distributed.init_process_group(backend, store=place, rank=ranks.rank, world_size=ranks.world, timeout=_PATIENCE)
    except (RuntimeError, ValueError) as error:
        raise UsageError(
            f"the other {ranks.world - 1} processes cannot be reached ({str(error).splitlines()[0]})",
            wanted="processes that torchrun starts",
            fix="torchrun --nproc-per-node N -m hilum train ...",
        ) from error
    try:
        yield ranks
    finally:
        distributed.destroy_process_group()


def over_ranks(*sums_BK: torch.Tensor) -> tuple[torch.Tensor, ...]:
    """Sums (B, K) over the batch and all ranks: (K) each; ``average_gradients`` makes their gradients whole."""
    summed = [x.sum(0) for x in sums_BK]
    if not distributed.is_initialized() or distributed.get_world_size() == 1:
        return tuple(summed)
    return tuple(_Sum.apply(torch.stack([x.float() for x in summed])).unbind())  # type: ignore[no-untyped-call]


class _Sum(torch.autograd.Function):
    """All ranks' sum. Every rank computes the same loss from it; averaging gradients divides by their number."""

    @staticmethod
    def forward(ctx: Any, tensor: torch.Tensor) -> torch.Tensor:
        whole = tensor.clone()
        with _gone():
            distributed.all_reduce(whole)
        return whole

    @staticmethod
    def backward(ctx: Any, *gradients: torch.Tensor) -> torch.Tensor:
        whole = gradients[0].contiguous().clone()
        with _gone():
            distributed.all_reduce(whole)
        return whole


def _device() -> torch.device:
    on_gpu = distributed.get_backend() == "nccl"
    return torch.device("cuda", torch.cuda.current_device()) if on_gpu else torch.device("cpu")


@contextmanager
def _gone() -> Iterator[None]:
    try:
        yield
    except RuntimeError as error:
        raise TrainingError(
            f"another rank of this run has gone ({str(error).splitlines()[0][:120]})",
            fix="see what it said; the last checkpoint is kept, run the same command again to go on",
        ) from error
