"""Pictures for a paper: CT, truth, prediction and overlay of one case on one sheet.

Comes in: rows of Pictures. Goes out: PNG at 300 dpi, and SVG with the pictures in it and words that stay words.
"""

from __future__ import annotations

import base64
import io
from collections.abc import Sequence
from html import escape
from pathlib import Path

from PIL import Image, ImageDraw, ImageFont

from hilum.files import write_text, written
from hilum.pages.charts import DPI
from hilum.pages.figures import Row

_GAP, _HEAD = 16, 60


def write_panels(rows: Sequence[Row], folder: Path, name: str) -> list[Path]:
    """``FOLDER/NAME.png`` and ``FOLDER/NAME.svg``: a row a plane, a column a kind of picture."""
    images = [[Image.open(io.BytesIO(picture.data)).convert("RGB") for picture in row.pictures] for row in rows]
    widths = [max(row[k].width for row in images) for k in range(len(images[0]))]
    left = [sum(widths[:k]) + _GAP * k for k in range(len(widths))]
    top = [_HEAD + sum(max(i.height for i in row) + _GAP for row in images[:k]) for k in range(len(images))]
    size = left[-1] + widths[-1], top[-1] + max(image.height for image in images[-1])
    titles = [picture.title for picture in rows[0].pictures]
    paths = [folder / f"{name}.png", folder / f"{name}.svg"]
    sheet = Image.new("RGB", size, (255, 255, 255))
    draw, font = ImageDraw.Draw(sheet), ImageFont.load_default(size=36)
    for x, title in zip(left, titles, strict=True):
        draw.text((x, 8), title, fill=(17, 17, 17), font=font)
    for y, row in zip(top, images, strict=True):
        for x, image in zip(left, row, strict=True):
            sheet.paste(image, (x, y))
    with written(paths[0]) as part, part.open("wb") as stream:
        sheet.save(stream, "PNG", dpi=(DPI, DPI))
    words = [
        f'<text x="{x}" y="44" font-family="sans-serif" font-size="36" fill="#111">{escape(title)}</text>'
        for x, title in zip(left, titles, strict=True)
    ]
    panels = [
        f'<image x="{x}" y="{y}" width="{picture.width}" height="{picture.height}" '
        f'href="data:{picture.media};base64,{base64.b64encode(picture.data).decode("ascii")}"/>'
        for y, row in zip(top, rows, strict=True)
        for x, picture in zip(left, row.pictures, strict=True)
    ]
    head = f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {size[0]} {size[1]}">'
    write_text(paths[1], "\n".join([head, *words, *panels, "</svg>", ""]))
    return paths
