"""The watch for NaN, which never syncs a device before the loop ends."""

from __future__ import annotations

import pytest
import torch

from reg_engine import NumericalError, schedules
from reg_engine.loop.watch import Watch
from reg_engine.solvers import table


def test_watch_reports_the_first_bad_row_after_a_device_run() -> None:
    rows = table("euler", schedules.EDM(), 4)
    watch = Watch(rows, torch.zeros(3, 2), torch.zeros(4), at_once=False)  # as on a device
    watch.look()
    watch.finish()
    watch.nonfinite[1, 2] = 1  # as the guided step marks them
    watch.nonfinite[2] = 1
    watch.look()
    with pytest.raises(NumericalError, match=r"evaluation 1 .*samples \[2\]"):
        watch.finish()
