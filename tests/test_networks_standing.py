"""Where the loop stands: the row's numbers, on the host and on the device, and both spaces."""

from __future__ import annotations

from dataclasses import replace

import torch
from nets import flow_point

from reg_engine.ops.coefficients import COLUMNS


def test_predictions_and_back() -> None:
    p = flow_point()
    denoised = torch.randn_like(p.x)
    assert torch.allclose(p.from_prediction(p.to_prediction(denoised)), denoised, rtol=1e-10)
    delta = torch.randn_like(p.x)
    wanted = p.to_prediction(denoised + delta) - p.to_prediction(denoised)
    assert torch.allclose(p.delta_to_prediction(delta), wanted, rtol=1e-9)
    assert torch.allclose(p.delta_from_prediction(wanted), delta, rtol=1e-9)


def test_numbers_are_the_rows() -> None:
    p = flow_point()
    assert (p.alpha, p.sigma, p.number) == (p.row.alpha, p.row.sigma, p.index)
    assert p.place(p.denoiser) == p.denoiser.at(p.row.t)


def test_w_is_read_on_the_device_unless_a_term_has_its_own() -> None:
    p = flow_point()
    table = torch.zeros(3, len(COLUMNS), dtype=p.x.dtype)
    table[:, COLUMNS.index("w")] = torch.tensor([1.0, 2.0, 3.0])
    p = replace(p, table=table, step=torch.tensor(1))
    assert p.w == 2.0 and p.w.dtype == p.x.dtype
    assert replace(p, own_w=0.5).w == 0.5
    assert replace(p, index=object()).number == 1  # a captured row knows its number there alone


def test_a_branch_that_nobody_may_look_at_is_noted() -> None:
    p, yes = flow_point(), torch.tensor([False, True])
    assert p.any(yes) and not p.any(~yes & yes)
    missed = torch.zeros((), dtype=torch.bool)
    p = replace(p, missed=missed)
    assert not p.any(yes & ~yes) and not missed
    assert not p.any(yes) and missed
