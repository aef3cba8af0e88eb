"""The published EDM2 networks and how their authors sample from them, as data.

Files, guidance scales, lengths of the EMA and the figures beside them are those of the release of
Karras et al. 2024 (arXiv 2312.02696) and Karras et al. 2024a (arXiv 2406.02507): the presets of
NVlabs/edm2, generate_images.py, which gives the one metric that a preset was tuned for. All sample
50,000 images with 32 steps of Heun, sigma 0.002 to 80, rho 7. A metric that the release does not
give is None.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from ..errors import choice

__all__ = ["CHANNELS", "PRESETS", "Checkpoint", "Preset", "preset"]

CHANNELS = {"xs": 128, "s": 192, "m": 256, "l": 320, "xl": 384, "xxl": 448}
CLASSES = 1000
RELEASE = "NVlabs/edm2, generate_images.py"
PAPER, AUTOGUIDANCE = "arXiv 2312.02696", "arXiv 2406.02507"
INTERVAL = "arXiv 2404.07724"


@dataclass(frozen=True)
class Checkpoint:
    """A published network.

    Args:
        data: "img512" (latents of 512x512 images, 4x64x64) or "img64" (images, 3x64x64).
        size: a key of CHANNELS.
        kimg: thousands of images that it was trained on, rounded down.
        ema: length of its exponential moving average, relative to the training's.
        labels: whether it was trained with labels.
    """

    data: str
    size: str
    kimg: int
    ema: float
    labels: bool = True

    def __post_init__(self) -> None:
        choice("data", self.data, ("img512", "img64"))
        choice("size", self.size, tuple(CHANNELS))

    @property
    def file(self) -> str:
        """The name of the published file."""
        unlabelled = "" if self.labels else "-uncond"
        return f"edm2-{self.data}-{self.size}{unlabelled}-{self.kimg:07d}-{self.ema:.3f}.pkl"

    @property
    def arguments(self) -> dict[str, Any]:
        """What `EDM2` takes to be this network."""
        return {
            "image_channels": 4 if self.data == "img512" else 3,
            "size": 64,
            "channels": CHANNELS[self.size],
            "num_labels": CLASSES + 1 if self.labels else 0,
        }


@dataclass(frozen=True)
class Preset:
    """A published way to sample.

    Args:
        net: the network.
        guide: the reference that it is guided away from: `BadModel` of a network with the same
            labels (autoguidance), or of one without labels (classifier-free guidance); None = none.
        scale: guidance scale, 1 = no guidance.
        fid, fd_dinov2: what was published for 50,000 images, the least of several draws; None =
            the source does not say.
        source: where the figures stand.
        interval: (lo, hi) noise levels within which guidance is on; None = everywhere.
    """

    net: Checkpoint
    guide: Checkpoint | None
    scale: float
    fid: float | None
    fd_dinov2: float | None
    source: str
    interval: tuple[float, float] | None = None


def preset(name: str) -> Preset:
    """The preset of a name, such as "edm2-img512-s-autog-fid".

    Raises:
        InputError: an unknown name.
    """
    return PRESETS[choice("preset", name, tuple(PRESETS))]


def _metrics(kind: str, value: float) -> tuple[float | None, float | None]:
    """(FID, FD-DINOv2), of which one is known."""
    return (value, None) if choice("kind", kind, ("fid", "dino")) == "fid" else (None, value)


# data, size, kimg; then metric, EMA length, what it gave. Tables 2 (FID), 5 (FD-DINOv2), 3 (64x64).
UNGUIDED: tuple[tuple[str, str, int, str, float, float], ...] = (
    ("img512", "xs", 2147483, "fid", 0.135, 3.53),
    ("img512", "xs", 2147483, "dino", 0.200, 103.39),
    ("img512", "s", 2147483, "fid", 0.130, 2.56),
    ("img512", "s", 2147483, "dino", 0.190, 68.64),
    ("img512", "m", 2147483, "fid", 0.100, 2.25),
    ("img512", "m", 2147483, "dino", 0.155, 58.44),
    ("img512", "l", 1879048, "fid", 0.085, 2.06),
    ("img512", "l", 1879048, "dino", 0.155, 52.25),
    ("img512", "xl", 1342177, "fid", 0.085, 1.96),
    ("img512", "xl", 1342177, "dino", 0.155, 45.96),
    ("img512", "xxl", 939524, "fid", 0.070, 1.91),
    ("img512", "xxl", 939524, "dino", 0.150, 42.84),
    ("img64", "s", 1073741, "fid", 0.075, 1.58),
    ("img64", "m", 2147483, "fid", 0.060, 1.43),
    ("img64", "l", 1073741, "fid", 0.040, 1.33),
    ("img64", "xl", 671088, "fid", 0.040, 1.33),
)
# size, kimg, metric, EMA length of both networks, scale, what it gave. Tables 2 and 5.
GUIDED: tuple[tuple[str, int, str, float, float, float], ...] = (
    ("xs", 2147483, "fid", 0.045, 1.4, 2.91),
    ("xs", 2147483, "dino", 0.150, 1.7, 79.94),
    ("s", 2147483, "fid", 0.025, 1.4, 2.23),
    ("s", 2147483, "dino", 0.085, 1.9, 52.32),
    ("m", 2147483, "fid", 0.030, 1.2, 2.01),
    ("m", 2147483, "dino", 0.015, 2.0, 41.98),
    ("l", 1879048, "fid", 0.015, 1.2, 1.88),
    ("l", 1879048, "dino", 0.035, 1.7, 38.20),
    ("xl", 1342177, "fid", 0.020, 1.2, 1.85),
    ("xl", 1342177, "dino", 0.030, 1.7, 35.67),
    ("xxl", 939524, "fid", 0.015, 1.2, 1.81),
    ("xxl", 939524, "dino", 0.015, 1.7, 33.09),
)
# data, labels, then size, kimg, EMA length of the network and of the guide, scale, metric, what it
# gave. Table 1 of the autoguidance paper.
Half = tuple[str, int, float]
AUTOGUIDED: tuple[tuple[str, bool, Half, Half, float, str, float], ...] = (
    ("img512", True, ("s", 2147483, 0.070), ("xs", 134217, 0.125), 2.10, "fid", 1.34),
    ("img512", True, ("s", 2147483, 0.120), ("xs", 134217, 0.165), 2.45, "dino", 36.67),
    ("img512", True, ("xxl", 939524, 0.075), ("m", 268435, 0.155), 2.05, "fid", 1.25),
    ("img512", True, ("xxl", 939524, 0.130), ("m", 268435, 0.205), 2.30, "dino", 24.18),
    ("img512", False, ("s", 2147483, 0.070), ("xs", 134217, 0.110), 2.85, "fid", 3.86),
    ("img512", False, ("s", 2147483, 0.090), ("xs", 134217, 0.125), 2.90, "dino", 90.39),
    ("img64", True, ("s", 1073741, 0.045), ("xs", 134217, 0.110), 1.70, "fid", 1.01),
    ("img64", True, ("s", 1073741, 0.105), ("xs", 134217, 0.175), 2.20, "dino", 31.85),
)


def _presets() -> dict[str, Preset]:
    found: dict[str, Preset] = {}
    for data, size, kimg, metric, ema, value in UNGUIDED:
        table = {"img64": "3"}.get(data, "2" if metric == "fid" else "5")
        found[f"edm2-{data}-{size}-{metric}"] = Preset(
            Checkpoint(data, size, kimg, ema),
            None,
            1.0,
            *_metrics(metric, value),
            f"{RELEASE}; {PAPER}, Table {table}",
        )
    for size, kimg, metric, ema, scale, value in GUIDED:
        found[f"edm2-img512-{size}-guid-{metric}"] = Preset(
            Checkpoint("img512", size, kimg, ema),
            Checkpoint("img512", "xs", 2147483, ema, labels=False),
            scale,
            *_metrics(metric, value),
            f"{RELEASE}; {PAPER}, Table {'2' if metric == 'fid' else '5'}",
        )
    for data, labels, net, guide, scale, metric, value in AUTOGUIDED:
        unlabelled = "" if labels else "-uncond"
        found[f"edm2-{data}-{net[0]}{unlabelled}-autog-{metric}"] = Preset(
            Checkpoint(data, *net, labels=labels),
            Checkpoint(data, *guide, labels=labels),
            scale,
            *_metrics(metric, value),
            f"{RELEASE}; {AUTOGUIDANCE}, Table 1",
        )
    # Its release guides both evaluations of the steps 17 to 22 of 32. Said in noise levels the last
    # evaluation of step 16 is guided, too, and that of step 22 is not.
    same = found["edm2-img512-xxl-guid-fid"]
    found["edm2-img512-xxl-interval-fid"] = Preset(
        same.net,
        same.guide,
        2.0,
        fid=1.40,
        fd_dinov2=None,
        source=f"{INTERVAL}, abstract; kynkaat/guidance-interval, README. Its networks are of XXL "
        "and XS without a name: those of edm2-img512-xxl-guid-fid stand here",
        interval=(0.28, 1.61),
    )
    return found


PRESETS: dict[str, Preset] = _presets()
