"""Seeds, and the watch for NaN that never syncs a device before the loop ends."""

from __future__ import annotations

import pytest
import torch
from nets import SHAPE, tiny

from reg_engine import Engine, InputError, NumericalError, schedules
from reg_engine.checks import Watch, as_batch_size, as_device, as_dtype, as_noise, as_seeds
from reg_engine.solvers import table


def test_seeds_default_to_the_rows() -> None:
    assert as_seeds(None, [3, 4, 5]) == [0, 1, 2]
    assert as_seeds(None, 3) == as_seeds(None, torch.tensor(3)) == [0]
    assert as_seeds(None, {"a": torch.zeros(4, 2)}) == [0, 1, 2, 3]
    assert as_seeds(torch.tensor([5, 6]), [0, 1]) == [5, 6]
    with pytest.raises(InputError, match="2\\^63"):
        as_seeds([2**63], [0])


def test_watch_reports_the_first_bad_row_after_a_device_run() -> None:
    rows = table("euler", schedules.EDM(), 4)
    watch = Watch(rows, torch.zeros(3, 2), torch.zeros(4), at_once=False)  # as on a device
    good, bad = torch.zeros(3, 2), torch.zeros(3, 2)
    bad[2, 1] = float("inf")
    nan = torch.full((3, 2), torch.nan)
    for index, x in enumerate((good, bad, nan, good)):
        watch.observe(torch.tensor(index), x)
    with pytest.raises(NumericalError, match=r"evaluation 1 .*samples \[2\]"):
        watch.finish()


def test_values_pass_through() -> None:
    assert as_batch_size(None) is None and as_batch_size(3) == 3
    assert as_dtype(None) == torch.float32 and as_dtype(torch.float64) == torch.float64
    noise = as_noise(torch.ones(1, 2).half(), (1, 2), torch.device("cpu"), torch.float64)
    assert noise.dtype == torch.float64


def test_a_device_is_where_its_tensors_are() -> None:
    """'cuda' and 'cuda:0' are one place; 'cpu:0', which torch tells apart, stands for it."""
    assert torch.device("cpu:0") != torch.device("cpu")
    place = as_device("cpu:0", None, (), torch.float32)
    assert place == torch.empty(0, device="cpu:0").device
    engine = Engine(tiny(), rectify=None, steps=2, device="cpu:0", progress=False)
    noise = torch.ones(1, *SHAPE, device=torch.device("cpu:0"))
    assert engine.device == noise.device
    assert engine.sample([1], noise=noise).samples.device == noise.device
