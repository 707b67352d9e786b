"""Networks run by PyTorch: fp32 weights, short types by autocast between their ends, channels last on a processor.

Comes in: a Model with weights, a device, a precision. Goes out: an ``Engine``.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch

from hilum import device as devices
from hilum.inference.engines import Network
from hilum.inference.engines.ends import keep_ends
from hilum.inference.memory import give_back_memory
from hilum.inference.winograd import Store, compiled

if TYPE_CHECKING:
    from hilum.model import Model


class TorchEngine:
    """See ``engines.Engine``.

    On a CPU convolutions take 10 to 40 % less time with channels last (2D and 3D U-Net, fp32 and bf16). Planned U-Nets
    in 3D and fp32 go a way of their own there (``hilum.inference.winograd``), as fast as bf16. So fp32 is what "auto"
    takes on a CPU: bf16 costs Dice where a model is unsure (docs/log.md), though a network's ends stay in fp32
    (``ends``).
    """

    def __init__(self, model: Model, device: torch.device, precision: str = "auto"):
        if precision == "auto" and device.type == "cpu":
            precision = "fp32"
        dtype = devices.autocast_dtype(device, precision)
        self.precision = {torch.bfloat16: "bf16", torch.float16: "fp16", None: "fp32"}[dtype]
        self._device, self._wanted, self._short = device, precision, dtype is not None
        self._patch = model.plan.patch if device.type == "cpu" and dtype is None and model.plan.dims == 3 else None
        last = {2: torch.channels_last, 3: torch.channels_last_3d}[model.plan.dims]
        self._memory_format = last if device.type == "cpu" else None
        self._store = Store()
        self.networks = tuple(self._network(model, fold) for fold in range(model.folds))
        give_back_memory()

    def _network(self, model: Model, fold: int) -> Network:
        if self._patch is not None:
            let_go = getattr(model.weights[fold], "let_go", None)
            faster = compiled(model.network(fold, in_file=True), self._patch, self._store, let_go)
            if faster is not None:
                return faster
        network: torch.nn.Module = model.network(fold, self._device)
        if self._short:
            keep_ends(network, model.spec.in_channels, model.spec.out_channels)
        if self._memory_format is not None:
            network.to(memory_format=self._memory_format)  # type: ignore[call-overload]

        def forward(images: torch.Tensor) -> torch.Tensor:
            if self._memory_format is not None:
                images = images.contiguous(memory_format=self._memory_format)
            with devices.autocast(self._device, self._wanted):
                logits: torch.Tensor = network(images)
            return logits

        return forward
