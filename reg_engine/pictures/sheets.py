"""Pictures for people: grids under titles, side by side, with the settings that made them."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

from PIL import Image, ImageDraw, ImageFont
from PIL.PngImagePlugin import PngInfo
from torch import Tensor

from ..storage.files import replacing

__all__ = ["MOST_PIXELS", "save_panels"]

MOST_PIXELS = 10**8  # of a page: more is no picture for people, and readers refuse it
_PAPER, _INK = (255, 255, 255), (20, 20, 20)
_SIZE, _LINE, _LEAST = 16, 22, 260  # of the font; of a line; of a title's width: pixels


def save_panels(
    path: Path,
    panels: dict[str, Tensor],
    zoom: int = 2,
    gap: int = 24,
    notes: Mapping[str, str] | None = None,
) -> None:
    """Write a PNG with every panel (uint8 (H, W, C)) under its title, `zoom` times enlarged.

    A title is broken at commas and spaces to the width of its panel, or to 260 pixels under a
    narrower one. The file appears whole or not at all.

    Args:
        notes: text that the file carries unseen (PNG's tEXt): keyword -> text.
    """
    font = ImageFont.load_default(size=_SIZE)
    images = [_image(panel, zoom) for panel in panels.values()]
    titles = [
        _broken(title, max(image.width, _LEAST), font)
        for title, image in zip(panels, images, strict=True)
    ]
    widths = [
        max([image.width, *(int(font.getlength(line)) + 1 for line in lines)])
        for lines, image in zip(titles, images, strict=True)
    ]
    top = gap // 2 + _LINE * max(map(len, titles)) + gap // 3
    height = top + max(image.height for image in images) + gap
    page = Image.new("RGB", (sum(widths) + gap * (len(images) + 1), height), _PAPER)
    draw = ImageDraw.Draw(page)
    left = gap
    for lines, image, width in zip(titles, images, widths, strict=True):
        start = top - gap // 3 - _LINE * len(lines)  # titles end on one line, above their panels
        for number, line in enumerate(lines):
            draw.text((left, start + _LINE * number), line, fill=_INK, font=font)
        page.paste(image, (left, top))
        left += width + gap
    info = PngInfo()
    for key, text in (notes or {}).items():
        info.add_text(key, text)
    with replacing(path) as file:
        page.save(file, format="PNG", pnginfo=info)


def _image(panel: Tensor, zoom: int) -> Image.Image:
    array = panel.numpy()
    picture = Image.fromarray(array[..., 0] if array.shape[2] == 1 else array).convert("RGB")
    return picture.resize((picture.width * zoom, picture.height * zoom), Image.Resampling.NEAREST)


def _broken(
    title: str, width: int, font: ImageFont.FreeTypeFont | ImageFont.ImageFont
) -> list[str]:
    """The title in lines of at most `width` pixels: whole parts between commas where they fit."""
    lines: list[str] = []
    for part in title.split(", "):
        if lines and font.getlength(f"{lines[-1]}, {part}") <= width:
            lines[-1] += f", {part}"
            continue
        if lines:
            lines[-1] += ","
        lines.append("")
        for word in part.split(" "):
            if lines[-1] and font.getlength(f"{lines[-1]} {word}") > width:
                lines.append(word)
            else:
                lines[-1] = f"{lines[-1]} {word}".strip()
    return lines
