"""What a call is told: seeds, sizes, dtypes, devices, noise."""

from __future__ import annotations

import pytest
import torch
from nets import SHAPE, tiny

from reg_engine import Engine, InputError
from reg_engine.checks import as_batch_size, as_callback, as_device, as_dtype, as_noise, as_seeds


def test_seeds_default_to_the_rows() -> None:
    assert as_seeds(None, [3, 4, 5]) == [0, 1, 2]
    assert as_seeds(None, 3) == as_seeds(None, torch.tensor(3)) == [0]
    assert as_seeds(None, {"a": torch.zeros(4, 2)}) == [0, 1, 2, 3]
    assert as_seeds(torch.tensor([5, 6]), [0, 1]) == [5, 6]
    with pytest.raises(InputError, match="2\\^63"):
        as_seeds([2**63], [0])


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


def test_a_callback_sees_no_captured_batch() -> None:
    assert as_callback(None, captures=True) is None and as_callback(print, captures=False) is print
    with pytest.raises(InputError, match="callback: .*capture='auto'"):
        as_callback(print, captures=True)
