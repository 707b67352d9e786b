"""A batch of tiles to mean logits: all folds and mirrored copies of one model, in one pass over the tiles.

Comes in: a Model, a device, a precision. Goes out: logits of int16 tiles, and how far the folds contradict each other.
It knows no scan and no geometry, and leaves the network's forward pass to an engine (``engines``).

Shapes: B tiles at a time, C=1 channel, K outputs; d, h, w of a patch. Logits are averaged, not probabilities, over
mirrored copies and folds alike, as nnU-Net v2 does.
"""

from __future__ import annotations

from collections.abc import Sequence
from itertools import combinations
from typing import TYPE_CHECKING

import torch

from hilum.inference.engines import Network, open_engine

if TYPE_CHECKING:
    from hilum.model import Model
    from hilum.prepare.normalisation import Normalisation


class Folds:
    """The networks of a model.

    Args:
        model: from ``hilum.model.load_model``.
        device: where they compute.
        precision: "auto", "fp32", "bf16", "fp16" (``engines.open_engine``).
        mirror: average over mirrored copies of every tile.

    Attributes:
        networks: one a fold: images to logits.
        precision: the type in which convolutions run: "bf16", "fp16", "fp32" or "int8".
        flips: the axes to flip for each copy, the first being none.
    """

    def __init__(self, model: Model, device: torch.device, precision: str = "auto", mirror: bool = False):
        self.plan, self.device, self.regions = model.plan, device, model.spec.head == "regions"
        engine = open_engine(model, device, precision)
        self.networks: list[Network] = list(engine.networks)
        self.precision = engine.precision
        self.flips = mirror_axes(self.plan.dims, model.scheme.sided, model.inference.mirror_axes) if mirror else [()]
        self._earlier = model.spec.in_channels - model.plan.channels

    def logits(
        self,
        tiles_Bdhw: torch.Tensor,
        *,
        disagreement: bool = False,
        first_only: bool = False,
        normalisation: Normalisation | None = None,
        earlier_Bdhw: torch.Tensor | None = None,
    ) -> torch.Tensor:
        """Mean logits over folds and mirrored copies.

        Args:
            tiles_Bdhw: HU of any number type on the networks' device; in 2D, d is a slice with its neighbours.
            disagreement: also how far the folds contradict each other, as one more output (``_contradiction``).
            first_only: ask one fold and no mirrored copy, to find where organs are.
            normalisation: the scan's own instead of the plan's.
            earlier_Bdhw: of a cascade: class indices that the model before found; each class is one more channel.

        Returns:
            float32 (B, K, d, h, w), or (B, K+1, d, h, w).
        """
        images = (normalisation or self.plan.normalisation).apply(tiles_Bdhw[:, None].float())
        if self._earlier:
            assert earlier_Bdhw is not None, "a cascade is asked with what the model before it found"
            found = [earlier_Bdhw[:, None] == index for index in range(1, self._earlier + 1)]
            images = torch.cat([images, *(there.to(images.dtype) for there in found)], dim=1)
        if self.plan.dims == 2:
            images = images.flatten(1, 2)  # neighbouring slices are channels
        flips, networks = (self.flips[:1], self.networks[:1]) if first_only else (self.flips, self.networks)
        total: torch.Tensor | None = None
        each: list[torch.Tensor] = []
        for network in networks:
            own: torch.Tensor | None = None
            for axes in flips:
                out = network(images.flip(axes) if axes else images)
                out = (out.flip(axes) if axes else out).float()
                total = out.clone() if total is None else total.add_(out)
                if disagreement:
                    own = out if own is None else own.add_(out)
            if own is not None:
                each.append(own / len(flips))
        assert total is not None
        mean = total / (len(networks) * len(flips))
        if disagreement:
            mean = torch.cat([mean, self._contradiction(each)], dim=1)
        return mean[:, :, None] if self.plan.dims == 2 else mean

    def _contradiction(self, logits: list[torch.Tensor]) -> torch.Tensor:
        """(B, 1, ...): the mean distance of the folds' probabilities from their mean, 0 to below 1.

        The distance is the total variation, half the sum of absolute differences: the probability that would have to
        move. For a network of regions it is that of the region where it is largest.
        """
        shares = [x.sigmoid() if self.regions else x.softmax(1) for x in logits]
        mean = torch.stack(shares).mean(0)
        off = torch.stack([(share - mean).abs() for share in shares]).mean(0)
        return off.amax(1, keepdim=True) if self.regions else off.sum(1, keepdim=True) / 2


def mirror_axes(dims: int, sided: bool, chosen: Sequence[int] = ()) -> list[tuple[int, ...]]:
    """The combinations of tensor axes to flip, beginning with none: 8 in 3D, 4 in 2D; half of that for sided schemes.

    Axes count from the end (-1 is W, left-right), so that they hold with and without a batch. ``chosen`` are the only
    ones that a model was trained to bear, counted from the front: then they alone say it, whatever the scheme.
    """
    axes = [axis for axis in range(-dims, 0) if (axis + dims in chosen if chosen else not (sided and axis == -1))]
    return [some for count in range(len(axes) + 1) for some in combinations(axes, count)]
