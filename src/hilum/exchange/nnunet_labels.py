"""What nnU-Net's ``dataset.json`` says of labels and regions, its ``postprocessing.json`` of cleaning.

Comes in: these files as tables. Goes out: a LabelScheme, the kind of head, post-processing steps. Reads no file.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import Any, Literal

from hilum.errors import HilumError, ModelError
from hilum.labels import SCHEMES, LabelScheme, Region, scheme_from

_LARGEST = "remove_all_but_largest_component_from_segmentation"


def head_of(dataset: Mapping[str, Any]) -> Literal["labels", "regions"]:
    """ "regions" where any label of ``dataset.json`` is a union of several, as nnU-Net v2 decides it."""
    labels = dataset.get("labels", {})
    unions = [value for value in labels.values() if isinstance(value, list) and len(value) > 1]
    return "regions" if unions else "labels"


def labels_of(dataset: Mapping[str, Any], where: str, name: str, given: LabelScheme | None = None) -> LabelScheme:
    """The label scheme of a data set.

    Args:
        dataset: ``dataset.json``.
        where: the file, for messages.
        name: of the data set.
        given: a scheme to take instead; checked to have the same labels (and regions, where the network predicts them).

    Raises:
        ModelError: labels that make no scheme, or other ones than those of ``given``.
    """
    table = dataset.get("labels")
    if not isinstance(table, dict) or table.get("background") not in (0, [0]):
        raise ModelError(f"has the labels {table!r}", where=where, wanted="names with numbers, background being 0")
    members = {
        str(key): tuple(int(v) for v in (value if isinstance(value, list) else [value]))
        for key, value in table.items()
        if key not in ("background", "ignore")
    }
    values = sorted({v for row in members.values() for v in row if v})
    regions = head_of(dataset) == "regions"
    if values != list(range(1, len(values) + 1)) or not values:
        raise ModelError(f"has the labels {values}", where=where, wanted="1, 2, 3, ... without a gap")
    try:
        own = _of_regions(members, dataset, name, where) if regions else scheme_from(
            {"name": name, "values": {key: row[0] for key, row in members.items()}}
        )  # fmt: skip
    except HilumError as error:
        raise ModelError(error.found, where=where, wanted=error.wanted) from None
    return own if given is None else _checked(given, own, regions, where)


def _of_regions(
    members: Mapping[str, tuple[int, ...]], dataset: Mapping[str, Any], name: str, where: str
) -> LabelScheme:
    """Regions in the order of the network's outputs, each with the label it writes; labels take the regions' names."""
    order = [int(v) for v in dataset.get("regions_class_order") or ()]
    if len(order) != len(members):
        raise ModelError(
            f"has regions_class_order {order} for {len(members)} regions", where=where, wanted="one label for each"
        )
    regions = tuple(Region(key, row, writes) for (key, row), writes in zip(members.items(), order, strict=True))
    for known in SCHEMES.values():  # a challenge's own scheme knows which label is the organ
        same = [set(region.labels) for region in known.regions] == [set(region.labels) for region in regions]
        if same and [value for _, value in known.writers()] == order:
            return replace(known, regions=regions)
    names = {writes: key for key, writes in zip(members, order, strict=True)}
    values = sorted({v for row in members.values() for v in row})
    made = scheme_from({"name": name, "values": {names.get(v, f"label {v}"): v for v in values}})
    return replace(made, regions=regions)


def _checked(given: LabelScheme, own: LabelScheme, regions: bool, where: str) -> LabelScheme:
    if given.values != own.values:
        raise ModelError(
            f"has the labels {list(own.values)}", where=where, wanted=f"{list(given.values)} of scheme {given.name!r}"
        )
    if not regions:
        return given
    if [set(r.labels) for r in given.regions] != [set(r.labels) for r in own.regions]:
        raise ModelError(
            f"has the regions {[list(r.labels) for r in own.regions]}",
            where=where,
            wanted=f"those of scheme {given.name!r} in its order: {[list(r.labels) for r in given.regions]}",
        )
    said = tuple(replace(a, writes=b.writes) for a, b in zip(given.regions, own.regions, strict=True))
    return replace(given, regions=said)


def steps_of(table: Mapping[str, Any], scheme: LabelScheme, where: str) -> tuple[dict[str, Any], ...]:
    """Post-processing steps from nnU-Net's ``postprocessing.json``.

    Raises:
        ModelError: a function other than keeping the largest component, or one that hilum cannot follow.
    """
    try:
        pairs = list(zip(table["postprocessing_fns"], table["postprocessing_kwargs"], strict=True))
        steps = []
        for function, options in pairs:
            if function != _LARGEST or int(options.get("background_label", 0)) != 0:
                raise ModelError(f"wants the step {function!r} with {options}", where=where, wanted=f"{_LARGEST!r}")
            given = options["labels_or_regions"]
            parts = given if isinstance(given, list) else [given]
            values = sorted({int(v) for part in parts for v in (part if isinstance(part, list) else [part])} - {0})
            steps.append({"step": "largest_component", "labels": [scheme.label(v).name for v in values]})
        return tuple(steps)
    except (KeyError, TypeError, ValueError, HilumError) as error:
        if isinstance(error, ModelError):
            raise
        raise ModelError(f"is no post-processing of nnU-Net v2 ({error!r})", where=where) from None
