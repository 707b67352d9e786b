"""MONAI's networks behind hilum's contract.

Comes in: nothing, or a MONAI network that may answer with several tensors. Goes out: ``monai.networks.nets``, loaded
when the first such network is built (it costs seconds and is an extra), and a module with the contract's answers.
"""

from __future__ import annotations

import warnings
from collections.abc import Sequence
from contextlib import AbstractContextManager
from typing import Any

import torch
from torch import nn

from hilum.errors import UsageError


def monai_nets() -> Any:
    """The module ``monai.networks.nets``.

    Raises:
        UsageError: it is installed and cannot be imported (``networks.build`` has refused before if it is not there).
    """
    with quiet():
        try:
            import monai.networks.nets as nets
        except ImportError as error:
            raise UsageError(
                f"this network is MONAI's, which cannot be imported ({error})",
                where="network.name",
                fix="pip install 'hilum[networks]'",
            ) from None
    return nets


def quiet() -> AbstractContextManager[None]:
    """A place where MONAI's own warnings (old names of NumPy, its optional parts) reach nobody."""
    return _Quiet()


class _Quiet(warnings.catch_warnings):
    def __enter__(self) -> None:
        super().__enter__()
        warnings.simplefilter("ignore")


class FinestFirst(nn.Module):
    """One tensor, or in training with deep supervision a list of them, finest first.

    Args:
        network: answers with a tensor, or with a sequence of them.
        deep_supervision: give all of them while training.
        backwards: the sequence begins with the coarsest.
    """

    def __init__(self, network: nn.Module, deep_supervision: bool, backwards: bool = False):
        super().__init__()
        self.network, self.deep_supervision, self.backwards = network, deep_supervision, backwards

    def forward(self, x: torch.Tensor) -> torch.Tensor | list[torch.Tensor]:
        """(B, C, ...) to logits (B, K, ...), or a list of them."""
        answer: torch.Tensor | Sequence[torch.Tensor] = self.network(x)
        if isinstance(answer, torch.Tensor):
            scales = [answer]
        else:
            scales = list(answer)[::-1] if self.backwards else list(answer)
        return scales if self.training and self.deep_supervision else scales[0]
