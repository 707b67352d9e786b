"""One HTML file, complete in itself: templates filled and written, readable on a phone and on paper.

Pictures and charts are inside (data: URIs and inline SVG), no script or font from elsewhere; a page opens without a
network. All text that comes from files is escaped by the templates.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from functools import cache
from pathlib import Path
from typing import Any

from jinja2 import Environment, FileSystemLoader, StrictUndefined

from hilum import __version__
from hilum.files import write_text
from hilum.pages import strings
from hilum.pages.figures import AGREED, INVENTED, MISSED, SWAPPED

AGREEMENT = (
    (AGREED, strings.TEXT["agreement"]),
    (MISSED, strings.TEXT["was_missed"]),
    (INVENTED, strings.TEXT["was_invented"]),
    (SWAPPED, strings.TEXT["swapped"]),
    ("#ffffff", strings.TEXT["truth_outline"]),
)


_UNTOUCHED = re.compile(r"(<script\b.*?</script>|<style\b.*?</style>|<[^>]*>)", re.DOTALL)
_UNIT = re.compile(r"(?<=\d) (?=(?:mm|mL|HU|cm²|cm|GB|s|h|min)\b|%)")


@cache
def _environment() -> Environment:
    """Templates beside this file; everything is escaped, and a name that was not given is an error, not a blank."""
    environment = Environment(
        loader=FileSystemLoader(Path(__file__).parent / "templates"),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.globals["words"] = strings.TEXT  # macros see globals only
    return environment


def write_page(path: Path, template: str, context: Mapping[str, Any]) -> Path:
    """Fill a template and write it beside, then rename; the path."""
    shared = {"version": __version__, "not_a_device": strings.NOT_A_DEVICE, "made": ""}
    write_text(path, unbroken(_environment().get_template(template).render({**shared, **context})))
    return Path(path)


def unbroken(html: str) -> str:
    """A page whose lines do not end between a number and its unit; scripts, styles and tags stay as they are."""
    parts = _UNTOUCHED.split(html)
    parts[::2] = [_UNIT.sub("\u00a0", text) for text in parts[::2]]
    return "".join(parts)
