"""The recipes as data: the paper's rows, the presets' files, the weights' conventions."""

from __future__ import annotations

import csv
from pathlib import Path

import pytest

from reg_engine import Constant, Cosine, Interval, Linear
from reg_engine.errors import InputError
from reg_engine.models.presets import PRESETS
from reg_engine.reproduce import RECIPES, recipe

ROWS = Path(__file__).resolve().parent.parent / "bench" / "results" / "nvidia_h200.csv"


def test_the_papers_rows_are_there() -> None:
    tables = {name: found.where for name, found in RECIPES.items()}
    first, second = "Table 2 and Fig. 3", "Table 3 and Fig. 4"
    assert tables == {
        **dict.fromkeys(("dit-xl-2-256", "edm2-s-64", "edm2-s-512", "edm2-xxl-512"), first),
        **dict.fromkeys(("sd-1.4", "sd-xl"), second),
    }
    with pytest.raises(InputError, match="recipe"):
        recipe("edm2-m-512")


def test_files_are_the_presets() -> None:
    found = RECIPES["edm2-s-512"]
    cfg, auto = PRESETS["edm2-img512-s-guid-fid"], PRESETS["edm2-img512-s-autog-fid"]
    for files, known in ((found.cfg, cfg), (found.autoguidance, auto)):
        assert files is not None and known.guide is not None
        assert (f"{files.net}.pkl", f"{files.reference}.pkl") == (known.net.file, known.guide.file)
    small = RECIPES["edm2-s-64"]
    assert small.cfg is not None and small.autoguidance is not None
    assert (small.cfg.labels, small.autoguidance.labels) == (False, True)
    assert small.cfg.reference == small.autoguidance.reference
    assert RECIPES["dit-xl-2-256"].autoguidance is None
    assert "autoguidance" not in RECIPES["dit-xl-2-256"].methods
    assert RECIPES["sd-xl"].methods == ("vanilla", "linear", "cosine")


def test_weights_follow_each_codes_convention() -> None:
    edm, dit, sd = (RECIPES[name] for name in ("edm2-s-512", "dit-xl-2-256", "sd-1.4"))
    assert edm.weight("vanilla", 2.0) == Constant(2.0) == edm.weight("autoguidance", 2.0)
    assert edm.weight("interval", 2.0) == Interval(2.0, 0.28, 2.90)
    assert edm.weight("linear", 2.0) == Linear(2.0, 1.0, "edm")
    assert dit.weight("cosine", 2.0) == Cosine(2.0, convention="dit")
    assert sd.weight("linear", 7.5) == Linear(7.5, 1.0, "diffusers")
    with pytest.raises(InputError, match="methods"):
        sd.weight("interval", 2.0)


def test_dits_interval_is_the_commands_times() -> None:
    """t from 205 to 502 of 1000, in noise levels."""
    from reg_engine.schedules import VPLinear

    ends = [float(VPLinear().noise_level(t)) for t in (205.0, 502.0)]
    assert RECIPES["dit-xl-2-256"].interval == pytest.approx(ends, rel=3e-3)


@pytest.mark.parametrize(
    ("name", "case"),
    [("dit-xl-2-256", "dit-xl-2-256"), ("edm2-s-64", "edm2-s-64"), ("edm2-s-512", "edm2-s-512"),
     ("sd-1.4", "sd-1.4-512")],
)  # fmt: skip
def test_times_are_the_measured_ones(name: str, case: str) -> None:
    with ROWS.open(newline="") as file:
        rows = [
            r for r in csv.DictReader(file) if (r["case"], r["provider"]) == (case, "cfg-captured")
        ]
    each = [float(r["p50"]) / (int(r["batch"]) * int(r["nfe"])) for r in rows]
    assert any(RECIPES[name].seconds == pytest.approx(one, rel=1e-3) for one in each), each
    assert not RECIPES[name].by_operations


def test_what_was_not_measured_says_so() -> None:
    assert [n for n, found in RECIPES.items() if found.by_operations] == ["edm2-xxl-512", "sd-xl"]
