"""Pictures for people: grids under titles, side by side."""

from __future__ import annotations

from pathlib import Path

from PIL import Image, ImageDraw, ImageFont
from torch import Tensor

from .files import replacing

__all__ = ["save_panels"]

_PAPER, _INK = (255, 255, 255), (20, 20, 20)


def save_panels(path: Path, panels: dict[str, Tensor], zoom: int = 2, gap: int = 24) -> None:
    """Write a PNG with every panel (uint8 (H, W, C)) under its title, `zoom` times enlarged.

    The file appears whole or not at all.
    """
    font = ImageFont.load_default(size=16)
    head = 36
    images = [_image(panel, zoom) for panel in panels.values()]
    titles = [_fit(title, image.width, font) for title, image in zip(panels, images, strict=True)]
    width = sum(image.width for image in images) + gap * (len(images) + 1)
    height = (
        max(image.height for image in images) + head * max(t.count("\n") + 1 for t in titles) + gap
    )
    page = Image.new("RGB", (width, height), _PAPER)
    draw = ImageDraw.Draw(page)
    left = gap
    top = height - gap - max(image.height for image in images)
    for title, image in zip(titles, images, strict=True):
        draw.multiline_text((left, 10), title, fill=_INK, font=font, spacing=6)
        page.paste(image, (left, top))
        left += image.width + gap
    with replacing(path) as file:
        page.save(file, format="PNG")


def _image(panel: Tensor, zoom: int) -> Image.Image:
    array = panel.numpy()
    picture = Image.fromarray(array[..., 0] if array.shape[2] == 1 else array).convert("RGB")
    return picture.resize((picture.width * zoom, picture.height * zoom), Image.Resampling.NEAREST)


def _fit(title: str, width: int, font: ImageFont.FreeTypeFont | ImageFont.ImageFont) -> str:
    """Break the title at commas so that every line fits into `width` pixels."""
    lines = [""]
    for part in title.split(", "):
        longer = f"{lines[-1]}, {part}" if lines[-1] else part
        if lines[-1] and font.getlength(longer) > width:
            lines.append(part)
        else:
            lines[-1] = longer
    return "\n".join(lines)
