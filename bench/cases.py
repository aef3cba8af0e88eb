"""What is measured, as data: models at their resolutions, shapes for the kernels."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, NamedTuple

__all__ = ["KERNEL_CASES", "MODEL_CASES", "SIZES", "KernelCase", "ModelCase", "Published"]

SIZES = ("tiny", "shrunk", "real")  # smoke test; --benchmark on a CPU; --benchmark on CUDA


class Published(NamedTuple):
    """REG over CFG as the paper reports it, one A40: times and peak memory."""

    time: float
    memory: float


@dataclass(frozen=True)
class ModelCase:
    """A model at a resolution.

    Args:
        key, title: its name in commands, and in tables.
        family: module of bench/models that builds it.
        resolution: of the picture, in pixels.
        sample: shape of one sample at real size.
        batch: the paper's.
        solver: the paper's.
        published: the paper's figures, where it has this row.
    """

    key: str
    title: str
    family: str
    resolution: int
    sample: tuple[int, int, int]
    batch: int
    solver: str
    published: Published | None = None

    @property
    def solver_options(self) -> dict[str, Any]:
        """Options of the solver, as the paper's models come with it."""
        return {"skip_prk": True} if self.solver == "pndm" else {}

    @property
    def name(self) -> str:
        """As in `pytest -k` and in the results."""
        return f"{self.key}-{self.resolution}"

    def shape(self, size: str) -> tuple[int, int, int]:
        """Shape of one sample at `size`; the MNIST model has but its own."""
        if size == "real" or self.family == "mnist":
            return self.sample
        side = {"tiny": 8, "shrunk": 16}[size]
        return self.sample[0], side, side

    def count(self, size: str) -> int:
        """Samples a batch at `size`."""
        if size == "tiny":
            return 2
        return self.batch if size == "real" or self.family == "mnist" else 2


def _latent(pixels: int) -> tuple[int, int, int]:
    return 4, pixels // 8, pixels // 8


def _case(
    key: str,
    title: str,
    family: str,
    solver: str,
    batch: int,
    resolutions: dict[int, Published | None],
) -> list[ModelCase]:
    return [
        ModelCase(key, title, family, pixels, _latent(pixels), batch, solver, published)
        for pixels, published in resolutions.items()
    ]


# The paper's runtime table (rebuttal of arXiv 2501.18865, one A40), and the same networks at other
# resolutions from 64 to 1024. EDM2 at 64 works on pixels, everything else on latents of an eighth.
MODEL_CASES: tuple[ModelCase, ...] = (
    ModelCase("mnist", "MNIST U-Net", "mnist", 28, (1, 28, 28), 16, "heun"),
    ModelCase("edm2-s", "EDM2-S", "edm2", 64, (3, 64, 64), 8, "heun", Published(1.66, 1.71)),
    ModelCase("edm2-s", "EDM2-S", "edm2", 128, (3, 128, 128), 8, "heun"),
    *_case("edm2-s", "EDM2-S", "edm2", "heun", 8, {512: Published(1.36, 1.52), 1024: None}),
    *_case("edm2-xxl", "EDM2-XXL", "edm2", "heun", 8, {512: Published(1.88, 1.59), 1024: None}),
    *_case(
        "dit-xl-2",
        "DiT-XL/2",
        "dit",
        "ddpm",
        8,
        {128: None, 256: Published(1.58, 1.21), 512: None, 1024: None},
    ),
    *_case(
        "sd-1.4",
        "SD 1.4",
        "unet",
        "pndm",
        4,
        {256: None, 512: Published(1.21, 1.61), 1024: None},
    ),
    *_case(
        "sd-2.1",
        "SD 2.1",
        "unet",
        "pndm",
        4,
        {512: None, 768: Published(1.64, 2.39), 1024: None},
    ),
    *_case("sd-xl", "SD-XL", "unet", "euler", 2, {512: None, 1024: Published(1.57, 2.82)}),
)


@dataclass(frozen=True)
class KernelCase:
    """A batch of states: (batch, channels, side, side), and the dtype of the predictions."""

    name: str
    shape: tuple[int, int, int, int]
    dtype: str  # of cond, ref and term; the state is float32

    @property
    def numel(self) -> int:
        """Elements of one tensor."""
        batch, channels, height, width = self.shape
        return batch * channels * height * width

    @property
    def itemsize(self) -> int:
        """Bytes of an element of the predictions."""
        return {"float32": 4, "bfloat16": 2}[self.dtype]


_LATENTS = {512: (8, 4, 64, 64), 1024: (8, 4, 128, 128)}
_PIXELS = {64: (64, 3, 64, 64), 128: (64, 3, 128, 128), 256: (64, 3, 256, 256)}
_BIG = {1024: (32, 3, 1024, 1024)}

KERNEL_CASES: dict[str, tuple[KernelCase, ...]] = {
    "tiny": (
        KernelCase("tiny-fp32", (2, 4, 8, 8), "float32"),
        KernelCase("tiny-bf16", (3, 3, 5, 7), "bfloat16"),
    ),
    "shrunk": tuple(
        KernelCase(f"{name}-{short}", shape, dtype)
        for name, shape in (
            ("latent-512", (8, 4, 64, 64)),
            ("latent-1024", (64, 4, 128, 128)),
            ("pixel-64", (256, 3, 64, 64)),
        )
        for short, dtype in (("fp32", "float32"), ("bf16", "bfloat16"))
    ),
    "real": tuple(
        KernelCase(f"{kind}-{pixels}-{short}", shape, dtype)
        for kind, group in (("latent", _LATENTS), ("pixel", _PIXELS), ("pixel", _BIG))
        for pixels, shape in group.items()
        for short, dtype in (("fp32", "float32"), ("bf16", "bfloat16"))
    ),
}
