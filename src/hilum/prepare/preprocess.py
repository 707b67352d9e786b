"""A scan made ready for the network, with what is needed to go back.

Comes in: a Volume in the file's own axis order and the plan. Goes out: a Case, int16 HU in SPL order at the plan's
spacing, and label maps prepared alike; ``undo_labels`` takes a label map back onto the scan's own grid. Reads no file.

Nothing is cropped: a scan's body fills most of it, and a crop that errs loses an organ for good. Normalising is the
network's business (``Plan.normalisation``), so that prepared cases stay HU. Models of other toolkits may want it
otherwise (``Plan.conventions``): their axes, their crop, their normalisation.
"""

from __future__ import annotations

from dataclasses import dataclass, fields, replace

import numpy as np

from hilum.errors import GeometryError
from hilum.prepare.conventions import box_to_look_at, inside_codes, nearest_axis, own_intensities
from hilum.prepare.normalisation import Normalisation
from hilum.prepare.plan import Plan, is_anisotropic
from hilum.prepare.resample import ImageSlabs, resample_labels
from hilum.volume import Grid, Volume, require_same_grid

AIR_HU = -1024.0


@dataclass(frozen=True, eq=False)
class Case:
    """A prepared scan.

    Attributes:
        image_DHW: int16 HU (float32 where the model wants fractions), SPL order, at the plan's spacing.
        grid: where ``image_DHW`` lies.
        source: the grid of the file, in its own axis order.
        source_inside: the same voxels in SPL order, or those of them that are looked at, in the order that the model
            wants; ``grid`` covers the same extent.
        name: the case's, for messages.
        separate_z: slices were resampled in plane only, nearest along D.
        nearest_axis: the axis along which logits are not blended on the way back, or None.
        normalisation: this scan's own where the model normalises each scan by itself, else None.
        padding_hu: what lies around it where it is smaller than a patch.
        earlier_DHW: of a cascade: what the model before this one found, uint8 class indices.
    """

    image_DHW: np.ndarray
    grid: Grid
    source: Grid
    source_inside: Grid
    name: str = ""
    separate_z: bool = False
    nearest_axis: int | None = None
    normalisation: Normalisation | None = None
    padding_hu: float = AIR_HU
    earlier_DHW: np.ndarray | None = None


def prepare_scan(volume: Volume, plan: Plan, name: str = "", *, threads: int = 0) -> Case:
    """A scan at the plan's spacing.

    Args:
        volume: HU in any axis order.
        plan: gives the spacing; a 2D plan leaves the slices where they are.
        name: for messages.
        threads: for resampling; 0 means one for each core.

    Returns:
        The case, rounded to whole HU and clipped to int16.
    """
    streamed = stream_scan(volume, plan, name)
    image = np.empty(streamed.grid.shape, streamed.slabs.dtype)
    streamed.slabs.fill(image, 0, threads)
    return Case(image, **{field.name: getattr(streamed, field.name) for field in fields(streamed)[1:]})


@dataclass(frozen=True, eq=False)
class StreamedCase:
    """A prepared scan whose slices are computed when they are asked for; the attributes are those of ``Case``.

    Attributes:
        slabs: gives any slices of what ``Case.image_DHW`` would hold, bit for bit.
        grid: where the prepared voxels lie.
        source: the grid of the file, in its own axis order.
        source_inside: the same voxels in SPL order.
        name: the case's, for messages.
        separate_z: slices are resampled in plane only, nearest along D.
    """

    slabs: ImageSlabs
    grid: Grid
    source: Grid
    source_inside: Grid
    name: str = ""
    separate_z: bool = False
    nearest_axis: int | None = None
    normalisation: Normalisation | None = None
    padding_hu: float = AIR_HU
    earlier_DHW: np.ndarray | None = None


def stream_scan(volume: Volume, plan: Plan, name: str = "") -> StreamedCase:
    """``prepare_scan`` without the prepared array: what comes out of it is computed slab by slab.

    Args:
        volume: HU in any axis order; kept.
        plan: gives the spacing.
        name: for messages.
    """
    inside = volume.oriented(inside_codes(volume.grid, plan.conventions))
    box = box_to_look_at(inside.array, plan.conventions)
    if box is not None:
        inside = inside.cropped([part.start for part in box], [part.stop for part in box])
    return _streamed(inside, volume.grid, plan, name)


def _streamed(inside: Volume, source: Grid, plan: Plan, name: str) -> StreamedCase:
    """What is looked at of a scan, in the order that the model wants."""
    wants = plan.conventions
    grid = prepared_grid(inside.grid, plan)
    normalisation, array, own = plan.normalisation, inside.array, None
    if wants.intensities != "plan":
        array, mean, std = own_intensities(array, wants)
        normalisation = own = replace(normalisation, mean=mean, std=std)
    nearest = nearest_axis(inside.spacing_mm, _target_mm(inside.grid, plan), wants)
    separate = wants.nearest == "own" and _separate_z(inside.grid, plan)
    slabs = ImageSlabs(
        array,
        grid.shape,
        order=wants.order,
        separate_z=separate,
        nearest_axis=nearest,
        clip=(normalisation.low, normalisation.high) if wants.clip_first else None,
        dtype=np.int16 if wants.rounded else np.float32,
    )
    padding = AIR_HU if wants.padding == "air" else float(normalisation.mean)
    return StreamedCase(slabs, grid, source, inside.grid, name, separate, nearest, own, padding)


def restream(case: Case | StreamedCase, plan: Plan) -> StreamedCase:
    """The same scan for another plan, along that plan's axes: from the file's voxels where they are at hand, else from
    the prepared ones."""
    image = case.slabs.image if isinstance(case, StreamedCase) else case.image_DHW
    codes = inside_codes(case.source, plan.conventions)
    grid = case.source_inside if image.shape == case.source_inside.shape else case.grid
    made = _streamed(Volume.on(grid, image).oriented(codes), case.source, plan, case.name)
    return replace(made, source_inside=case.source_inside.oriented(codes))


def prepare_labels(volume: Volume, target: Case | Grid, plan: Plan, *, threads: int = 0) -> np.ndarray:
    """A label map prepared like its scan: by the largest linear share or the nearest voxel, as ``Plan.labels`` says.

    Args:
        volume: uint8 label values in any axis order.
        target: the prepared scan, or its grid.
        plan: the one that the scan was prepared with.
        threads: for resampling; 0 means one for each core.

    Returns:
        (D, H, W) uint8 label values on the prepared grid.

    Raises:
        GeometryError: the label map does not lie where the scan does.
    """
    inside = volume.oriented()
    if isinstance(target, Case):
        require_same_grid(_bare(target.source_inside, target.name), inside)
        target = target.grid
    wanted = prepared_grid(inside.grid, plan)
    require_same_grid(_bare(target, "the prepared scan"), _bare(wanted, volume.source))
    return resample_labels(
        inside.array.astype(np.uint8, copy=False),
        target.shape,
        nearest=plan.labels == "nearest",
        separate_z=_separate_z(inside.grid, plan),
        threads=threads,
    )


def undo_labels(labels_DHW: np.ndarray, case: Case, *, threads: int = 0) -> Volume:
    """A label map on the prepared grid taken back onto the scan's own grid, in the file's axis order.

    Exact wherever the spacing did not change: the voxels come back one to one. The affine is the file's own to the bit.

    Args:
        labels_DHW: uint8 label values, shape of ``case.image_DHW``.
        case: the prepared scan.
        threads: for resampling; 0 means one for each core.
    """
    if labels_DHW.shape != case.grid.shape:
        raise GeometryError(
            f"labels of shape {labels_DHW.shape}", where=case.name or None, wanted=f"{case.grid.shape} as prepared"
        )
    assert labels_DHW.dtype == np.uint8, labels_DHW.dtype
    inside = resample_labels(labels_DHW, case.source_inside.shape, separate_z=case.separate_z, threads=threads)
    source_axes, signs = case.source.turns_to("SPL")
    turned = inside[tuple(slice(None, None, sign) for sign in signs)].transpose(np.argsort(source_axes))
    return Volume.on(case.source, np.ascontiguousarray(turned), case.name)


def prepared_grid(inside: Grid, plan: Plan) -> Grid:
    """Where a scan's voxels will lie: the same extent at the plan's spacing, as near as whole voxels allow; or, where
    the plan says how many rows and columns, exactly these.

    Args:
        inside: the scan's grid in SPL order.
        plan: gives the spacing.
    """
    if plan.inplane:
        grid = inside.reshaped((inside.shape[0], *plan.inplane))
    else:
        grid = inside.respaced(_target_mm(inside, plan))
    return inside if grid.shape == inside.shape else grid


def placed(box: Volume, source: Grid) -> np.ndarray:
    """An array on ``Case.source_inside``, in whichever order, as one on the file's own grid; 0 outside the box.

    Args:
        box: voxels on ``Case.source_inside``.
        source: the grid of the file.
    """
    turned = box.oriented(source.codes)
    if turned.shape == source.shape:
        assert turned.grid.same_as(source), (turned.grid, source)
        return turned.array
    start = np.rint(source.index(turned.affine[:3, 3])).astype(int)
    stop = start + np.array(turned.shape)
    assert source.cropped(start, stop).same_as(turned.grid), (turned.grid, source)
    whole = np.zeros(source.shape, turned.array.dtype)
    whole[tuple(slice(a, b) for a, b in zip(start, stop, strict=True))] = turned.array
    return whole


def _target_mm(inside: Grid, plan: Plan) -> tuple[float, float, float]:
    """The plan's spacing; in 2D slices stay where they are."""
    return plan.spacing_mm if plan.dims == 3 else (inside.spacing_mm[0], *plan.spacing_mm[1:])


def _separate_z(inside: Grid, plan: Plan) -> bool:
    """As nnU-Net v2: thick slices, before or after, are not blended with each other."""
    return plan.separate_z or is_anisotropic(inside.spacing_mm)


def _bare(grid: Grid, source: str) -> Volume:
    """A volume that only has a place; takes no memory."""
    return Volume.on(grid, np.broadcast_to(np.uint8(0), grid.shape), source)
