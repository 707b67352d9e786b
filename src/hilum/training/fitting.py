"""DOES IT FIT: the memory of a training step against that of the device, before any case is prepared.

Comes in: a network's description, the plan, a device. Goes out: nothing, or a refusal. It computes nothing: the network
is run on shapes without memory, so that even a patch of a terabyte costs a second.
"""

from __future__ import annotations

import logging

import torch

from hilum import device as devices
from hilum.errors import HilumError, TrainingError
from hilum.model import NetworkSpec
from hilum.networks._costs import training_bytes
from hilum.prepare.plan import Plan

log = logging.getLogger(__name__)
# Short types halve what is kept at best. What remains is a bound from below: a step that is refused could not be taken.
_SHORT = 0.5


def check_memory(spec: NetworkSpec, plan: Plan, device: torch.device, precision: str = "auto") -> None:
    """Refuse a patch and batch whose training step needs more memory than the device has.

    Args:
        spec: the network.
        plan: patch and batch.
        device: where to train.
        precision: of convolutions.

    Raises:
        TrainingError: it does not fit.
    """
    have = devices.memory_bytes(device)
    if have is None:
        return
    try:
        with torch.device("meta"):
            network = spec.build()
        need = training_bytes(network, (plan.batch, spec.in_channels, *plan.patch[3 - spec.dims :]))
    except HilumError:
        raise
    except Exception as error:  # a network of one's own may look at numbers, which shapes alone do not have
        log.debug("the memory of a step of %s is not known (%s)", spec.name, error)
        return
    if devices.autocast_dtype(device, precision) is not None:
        need = int(_SHORT * need)
    if need > have:
        raise TrainingError(
            f"a training step of {plan.batch} patches of {list(plan.patch)} voxels needs at least {need / 1e9:.1f} GB, "
            f"and {devices.describe(device)} has {have / 1e9:.1f} GB",
            fix="lower prepare.memory_gb, or set a smaller prepare.patch or prepare.batch",
        )
