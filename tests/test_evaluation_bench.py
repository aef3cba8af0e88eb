"""The judge of samples and its bootstrap, against closed forms."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from reg_engine.evaluation.bench import Bench, judge, resamples
from reg_engine.evaluation.fronts import difference
from reg_engine.experiments.draws import Point


class Head(nn.Module):
    """A judge whose features are the four pixels and whose logits are twice those."""

    num_features = 4

    def __init__(self) -> None:
        super().__init__()
        self.head = nn.Linear(4, 4)
        nn.init.eye_(self.head.weight)
        self.head.weight.data.mul_(2.0)
        nn.init.zeros_(self.head.bias)

    def features(self, x: Tensor) -> Tensor:
        return x.flatten(1)


JUDGE: Any = Head()


def test_log_odds_are_exact_where_probabilities_are_one() -> None:
    images = torch.tensor([[1.0, -1, -1, -1], [0, 0, 0, 0], [-1, 1, -1, -1]]).reshape(3, 1, 2, 2)
    found = judge(JUDGE, images, torch.tensor([0, 3, 0]))
    # ln p/(1-p) = own logit - logsumexp of the others
    wanted = [2 - (-2 + math.log(3)), -math.log(3), -2 - math.log(math.exp(2) + 2 * math.exp(-2))]
    assert found.odds.tolist() == pytest.approx(wanted, rel=1e-12)
    assert found.chance[1] == pytest.approx(0.25)
    assert found.right.tolist() == [True, False, False]


def test_resamples_keep_the_number_of_each_label() -> None:
    labels = torch.arange(40) % 4
    rows = resamples(labels, 50, torch.Generator().manual_seed(0))
    assert torch.equal(labels[rows], labels.expand(50, -1))
    # With replacement: a share of 1 - (1 - 1/10)^10 of ten is drawn at least once.
    distinct = torch.tensor([len(row.unique()) for row in rows]).double().mean()
    assert float(distinct / 40) == pytest.approx(1 - 0.9**10, abs=0.03)


def test_the_bench_gives_intervals_that_hold_the_truth() -> None:
    """Samples of the real law have a small FID; the shifted ones have their shift squared more."""
    generator = torch.Generator().manual_seed(1)
    real = torch.randint(100, 156, (400, 2, 2), generator=generator, dtype=torch.uint8).numpy()
    labels = torch.arange(200) % 4
    bench = Bench(JUDGE, labels, real, 50, generator)
    cost = {"nfe": 7.0, "backward": 0.0}
    again = torch.from_numpy(real[:200].astype(np.float32) / 127.5 - 1)[:, None]
    same = bench(Point("vanilla", 1), again, cost)
    moved = bench(Point("vanilla", 2), again + 0.3, cost)
    assert same.row["fid"] < 0.01 and same.row["nfe"] == 7.0
    assert moved.row["fid"] - same.row["fid"] == pytest.approx(4 * 0.3**2, rel=0.1)
    apart = difference(moved.fids, same.fids)
    assert abs(apart.value - 0.36) < 0.36 / 10 + apart.error and apart.above
    right = judge(JUDGE, again, labels).right
    shares = [float(right[rows].double().mean()) for rows in bench.rows]
    assert same.agreements is not None and same.agreements.tolist() == pytest.approx(shares)
    assert same.row["agreement"] == shares[0] and len(set(shares)) > 10
    assert same.row["precision"] > 0.9 > 0.5 > moved.row["precision"]
    blind = Bench(JUDGE, labels, None, 5, generator)(Point("vanilla", 1), again, cost)
    assert "fid" not in blind.row and len(blind.fids) == 0
    assert blind.row["confidence"] == same.row["confidence"]
