"""The compiled Gram matrices against sums in long double."""

from __future__ import annotations

import itertools

import numpy as np
import pytest
import torch
from csrc_cases import device
from kernel_cases import BF16, F16, F32, F64, FLOATS, LAYOUTS, SHAPE, SHAPES, bits, check, nan, rand
from torch import Tensor

from reg_engine.ops import extension, formulas

pytestmark = pytest.mark.usefixtures(device.__name__)

LARGE = (2, 5, 80, 90)  # several chunks of a sample
GIVEN = {"u": 1, "uv": 2, "uvw": 3}


def run(*vectors: Tensor) -> Tensor:
    k = 1 + len(vectors)
    out = nan((vectors[0].shape[0], k, k), F64)
    v, w = (*vectors[1:], None, None)[:2]
    extension.op("reduce")(vectors[0], v, w, out)
    return out


def exact_gram(*vectors: Tensor) -> Tensor:
    rows = [v.double().flatten(1).cpu().numpy().astype(np.longdouble) for v in vectors]
    stacked = np.stack([np.ones_like(rows[0]), *rows], 1)
    sums = np.einsum("bin,bjn->bij", stacked, stacked)
    return torch.from_numpy(sums.astype(np.float64)).to(vectors[0].device)


def verify(*vectors: Tensor) -> None:
    out = run(*vectors)
    check(out, formulas.reduce(*vectors), exact_gram(*vectors))
    assert torch.equal(out, out.mT)


@pytest.mark.parametrize("count", GIVEN.values(), ids=GIVEN)
@pytest.mark.parametrize("shape", [*SHAPES, (3, 0, 4), (300, 2)], ids=str)
@pytest.mark.parametrize("dtype", FLOATS, ids=str)
def test_vectors_and_shapes(dtype: torch.dtype, shape: tuple, count: int) -> None:
    verify(*(rand(shape, dtype) for _ in range(count)))


@pytest.mark.parametrize("dtypes", [*itertools.product(FLOATS, repeat=3)], ids=str)
def test_each_vector_has_its_own_dtype(dtypes: tuple[torch.dtype, ...]) -> None:
    verify(*(rand(SHAPE, dtype) for dtype in dtypes))


@pytest.mark.parametrize("name", LAYOUTS)
@pytest.mark.parametrize("place", [0, 1, 2])
def test_one_vector_lies_differently(place: int, name: str) -> None:
    vectors = [rand(SHAPE, dtype) for dtype in (F32, F16, BF16)]
    vectors[place] = LAYOUTS[name](SHAPE, vectors[place].dtype)
    verify(*vectors)


@pytest.mark.parametrize("name", LAYOUTS)
def test_all_vectors_lie_alike(name: str) -> None:
    verify(*(LAYOUTS[name](SHAPE, F32) for _ in range(3)))
    verify(*(LAYOUTS[name](LARGE, F32) for _ in range(2)))


def test_float32_is_summed_in_float64() -> None:
    """A sum that float32 cannot hold: 2^24 and then ones."""
    u = torch.ones_like(rand(LARGE))
    u[:, 0, 0, 0] = 2.0**24
    out = run(u)
    assert (out[:, 0, 1] == 2.0**24 + u[0].numel() - 1).all()
    assert (out[:, 1, 1] == 2.0**48 + u[0].numel() - 1).all()


@pytest.mark.parametrize("name", ["contiguous", "strided", "crop"])
def test_every_bit_is_the_same_each_time(name: str) -> None:
    """Whatever the number of threads: chunks are fixed, and added in order."""
    vectors = [LAYOUTS[name](LARGE, F32) for _ in range(3)]
    found = []
    for threads in (1, 2, 3, 1):
        torch.set_num_threads(threads)
        found.append(run(*vectors))
    for other in found[1:]:
        assert torch.equal(bits(other), bits(found[0]))


def test_a_sample_is_summed_alike_in_any_batch() -> None:
    vectors = [rand((4, *LARGE[1:])) for _ in range(2)]
    alone = torch.cat([run(*(v[b : b + 1] for v in vectors)) for b in range(4)])
    assert torch.equal(bits(run(*vectors)), bits(alone))
