"""The kernel of the Gram matrix against exact sums."""

from __future__ import annotations

import itertools
import math
from fractions import Fraction

import pytest
import torch
from kernel_cases import (
    BF16,
    DEVICE,
    F16,
    F32,
    F64,
    FLOATS,
    LAYOUTS,
    SHAPES,
    bits,
    check,
    nan,
    rand,
)
from torch import Tensor

from reg_engine.ops import formulas

pytest.importorskip("triton", reason="triton is not installed")

from reg_engine.kernels import strides  # noqa: E402
from reg_engine.kernels.reduce import reduce  # noqa: E402
from reg_engine.kernels.tuning import launch_parameters  # noqa: E402

GIVEN = {"u": (), "uv": (1,), "uw": (2,), "uvw": (1, 2)}


def run(u: Tensor, v: Tensor | None, w: Tensor | None) -> Tensor:
    k = 1 + sum(t is not None for t in (u, v, w))
    out = nan((u.shape[0], k, k), F64)
    reduce(u, v, w, out)
    return out


def exact_gram(*tensors: Tensor | None) -> Tensor:
    """The Gram matrix in rational arithmetic, rounded once."""
    given = [t.double().flatten(1).tolist() for t in tensors if t is not None]
    samples = []
    for rows in zip(*given, strict=True):
        vectors = [[Fraction(1)] * len(rows[0]), *([Fraction(a) for a in row] for row in rows)]
        samples.append([[float(_dot(a, b)) for b in vectors] for a in vectors])
    k = 1 + len(given)
    return torch.tensor(samples, dtype=F64).reshape(-1, k, k)


def _dot(a: list[Fraction], b: list[Fraction]) -> Fraction:
    return sum((x * y for x, y in zip(a, b, strict=True)), Fraction(0))


def verify(u: Tensor, v: Tensor | None = None, w: Tensor | None = None) -> Tensor:
    out = run(u, v, w)
    exact = exact_gram(u, v, w).to(out.device)
    check(out, formulas.reduce(u, v, w), exact)
    assert torch.equal(out, out.mT)
    assert (out[:, 0, 0] == math.prod(u.shape[1:])).all()
    return out


@pytest.mark.parametrize("given", GIVEN.values(), ids=GIVEN)
@pytest.mark.parametrize("shape", SHAPES, ids=str)
def test_vectors_and_shapes(shape: tuple[int, ...], given: tuple[int, ...]) -> None:
    tensors = [rand(shape) if place in (0, *given) else None for place in range(3)]
    verify(*tensors)


@pytest.mark.parametrize("dtypes", [*itertools.product(FLOATS, FLOATS)], ids=str)
def test_each_vector_has_its_own_dtype(dtypes: tuple[torch.dtype, ...]) -> None:
    verify(*(rand((3, 5, 7), dtype) for dtype in dtypes))


@pytest.mark.parametrize(("place", "name"), [*itertools.product(range(3), LAYOUTS)])
def test_one_vector_lies_differently(place: int, name: str) -> None:
    makes = [rand] * 3
    makes[place] = LAYOUTS[name]
    verify(*(make((3, 5, 4, 6), F32) for make in makes))


@pytest.mark.parametrize("name", LAYOUTS)
def test_all_vectors_lie_alike(name: str) -> None:
    verify(*(LAYOUTS[name]((3, 5, 4, 6), F16) for _ in range(3)))


def test_many_blocks() -> None:
    """More chunks of a sample than the second stage takes at once."""
    u = rand((1, 3, 600, 600), BF16)
    stages = [launch_parameters(op, u.device) for op in ("reduce", "reduce_blocks")]
    assert u.numel() > math.prod(stage["BLOCK"] * stage.get("PARTS", 1) for stage in stages)
    out = run(u, None, None)
    for power, found in ((0, out[0, 0, 0]), (1, out[0, 0, 1]), (2, out[0, 1, 1])):
        terms = u.double().flatten() ** power
        # Each term takes part in PARTS + log2(block) + chunks / block + log2(block) additions.
        allowed = 2**-53 * 30 * float(terms.abs().sum())
        assert abs(float(found) - math.fsum(terms.tolist())) <= allowed


def test_large_and_small_do_not_drown() -> None:
    """Sums in float32 would lose the ones beside 1e8; these are exact."""
    u = torch.ones(1, 1, 5000, device=DEVICE)
    u[0, 0, 0] = 1e8
    assert float(verify(u)[0, 0, 1]) == 1e8 + 4999


def test_bitwise_the_same_on_every_call() -> None:
    tensors = [rand((3, 4, 40, 41)) for _ in range(3)]
    first = run(*tensors)
    for _ in range(3):
        assert torch.equal(bits(run(*tensors)), bits(first))
    # A sample's result does not depend on the others of its batch either.
    alone = run(*(t[1:2] for t in tensors))
    assert torch.equal(bits(alone), bits(first[1:2]))


def test_empty_samples_have_empty_sums() -> None:
    empty = rand((2, 0, 4))
    assert torch.equal(run(empty, empty, None), torch.zeros_like(run(empty, empty, None)))
    assert run(rand((0, 3, 4)), None, None).shape == (0, 2, 2)


def test_not_a_number_stays_in_its_sample() -> None:
    u, v = rand((3, 4, 5)), rand((3, 4, 5))
    u[1, 2, 3] = math.nan
    out = run(u, v, None)
    assert torch.isfinite(out[[0, 2]]).all()
    assert out[1].isnan().sum() == 5  # everything that u takes part in


@pytest.mark.usefixtures("wide_indices")
@pytest.mark.parametrize("name", ["contiguous", "channels_last"])
def test_indices_of_64_bits(name: str) -> None:
    u = LAYOUTS[name]((3, 5, 4, 6), F32)
    assert strides.lay_out([u]).wide
    verify(u, rand((3, 5, 4, 6)))


@pytest.mark.gpu
def test_more_than_2_31_elements_a_sample() -> None:
    u = torch.ones((1, 1, 2**31 + 4096), dtype=F16, device=DEVICE)
    out = run(u, None, None)
    assert (out == u.numel()).all()
