"""A running network is where its states are."""

from __future__ import annotations

import torch
from torch import nn

from reg_engine import schedules
from reg_engine.integrations.running import Running


def test_its_device_is_that_of_the_states() -> None:
    net = nn.Linear(2, 2)
    running = Running(lambda x, t, cond: net(x), "sample", schedules.EDM(), (2,), modules=[net])
    running.place = torch.device("meta")
    assert running.device == torch.device("meta") and net.weight.device.type == "cpu"
