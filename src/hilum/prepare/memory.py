"""How much memory a training step takes, before there is a network.

Comes in: patch, batch, features, strides, the kind of encoder. Goes out: bytes. Builds nothing.

The outputs of all convolutions are summed (an encoder's stages, the decoder's, transposed convolutions, one prediction
a decoder stage) and multiplied by bytes an activation. That number is nnU-Net v2's calibration of its planners
(Isensee 2021; its ResEnc presets M, L and XL, arXiv 2404.09556): so many activations of one patch, at the
reference batch, stand for so many GB in mixed precision, weights and optimiser included.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

REFERENCE_BATCH = {2: 12, 3: 2}  # the batch for which a patch must fit


@dataclass(frozen=True)
class Encoder:
    """What a planned network costs.

    Attributes:
        convs: outputs of convolutions in each stage of the encoder, finest first; deeper stages repeat the last.
        decoder_convs: convolutions in each stage of the decoder.
        calibration: for 2D and 3D, (GB, activations of one patch at the reference batch), ascending.
        share: of all voxels of the data set that a batch may hold.
    """

    convs: tuple[int, ...]
    decoder_convs: int
    calibration: dict[int, tuple[tuple[float, float], ...]]
    share: float

    def activations(self, patch: Sequence[int], features: Sequence[int], strides: Sequence[Sequence[int]],
                    class_count: int) -> float:  # fmt: skip
        """Outputs of all convolutions for one patch."""
        voxels = np.prod(patch, dtype=float) / np.cumprod([np.prod(stride) for stride in strides])
        convs = np.array([self.convs[min(stage, len(self.convs) - 1)] for stage in range(len(features))])
        down = convs * voxels * np.array(features)
        up = voxels[:-1] * ((self.decoder_convs + 1) * np.array(features[:-1]) + class_count)
        return float(down.sum() + up.sum())

    def bytes_per_activation(self, dims: int, memory_gb: float) -> float:
        """Between two calibrated sizes what lies between them, beyond them what the nearer one says."""
        sizes = self.calibration[dims]
        each = [gb * 1e9 / (count * REFERENCE_BATCH[dims]) for gb, count in sizes]
        return float(np.interp(memory_gb, [gb for gb, _ in sizes], each))


# nnU-Net's plain U-Net: two convolutions a stage; a batch holds at most 5 % of the data set
PLAIN = Encoder((2,), 2, {3: ((8, 560e6),), 2: ((8, 85e6),)}, 0.05)
# its residual encoder: 1, 3, 4, 6, 6, ... blocks of two convolutions, and a stem or a widened skip in each stage
RESIDUAL = Encoder(
    (3, 7, 9, 13),
    1,
    {3: ((8, 680e6), (24, 2.1e9), (40, 3.6e9)), 2: ((8, 135e6), (24, 380e6), (40, 560e6))},
    1.0,
)
ENCODERS = {"residual_unet": RESIDUAL}  # every other network is taken to cost what the plain one does


def encoder_of(network: str) -> Encoder:
    """The kind of encoder that a network's name stands for."""
    return ENCODERS.get(network, PLAIN)


def memory_bytes(
    patch: Sequence[int],
    batch: int,
    features: Sequence[int],
    strides: Sequence[Sequence[int]],
    class_count: int,
    encoder: Encoder = PLAIN,
    memory_gb: float = 8.0,
) -> float:
    """About how much memory a training step takes. Grows with every axis of the patch.

    Args:
        patch: (D, H, W); D is 1 in 2D.
        batch: patches a step.
        features: channels a stage, finest first.
        strides: step into each stage.
        class_count: outputs.
        encoder: its kind.
        memory_gb: of the calibration, which the planned memory chooses.
    """
    dims = 2 if patch[0] == 1 else 3
    count = encoder.activations(patch, features, strides, class_count)
    return count * batch * encoder.bytes_per_activation(dims, memory_gb)
