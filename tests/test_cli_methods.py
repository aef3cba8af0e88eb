"""Texts of methods: what each stands for, and what is refused before anything is sampled."""

from __future__ import annotations

from pathlib import Path

import pytest

from reg_engine import Gibbs, InputError, Plan
from reg_engine.calibration.damping import Damping
from reg_engine.cli.methods import methods_of
from reg_engine.evaluation.methods import Method
from reg_engine.models import packaged_damping

DAMPING = Damping("rayleigh", (0.1, 1.0), ((0.9, 0.2),))
PLAN = Plan.interval(0.1, 2.0)


@pytest.fixture
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    DAMPING.save("d.json")
    DAMPING.save("damping.json")
    PLAN.save("p.json")
    return tmp_path


def test_every_kind_of_method(here: Path) -> None:
    text = (
        "cfg; fd; interval=0.3:2.5 ;damping=d.json@3,5; damping=d.json,skip=0.15; "
        "vjp,plan=p.json; paper,interval=0.1:9,plan=0.1:2@2; cfg,refine=0.4; fd,refine=0.4:3"
    )
    scales = (1.0, 2.0)
    assert methods_of(text, scales, Plan.full()) == [
        Method("CFG", scales),
        Method("REG (fd)", scales, "fd"),
        Method("interval 0.3-2.5", scales, interval=(0.3, 2.5)),
        Method("damping d", (3.0, 5.0), damping=DAMPING),
        Method("damping d, skip 0.15", scales, damping=DAMPING, skip_below=0.15),
        Method("REG (vjp), plan p", scales, "vjp", plan=PLAN),
        Method("REG (paper), interval 0.1-9, plan 0.1:2", (2.0,), "paper", (0.1, 9.0), plan=PLAN),
        Method("CFG, Gibbs 0.4, 1", scales, refine=Gibbs(0.4)),
        Method("REG (fd), Gibbs 0.4, 3", scales, "fd", refine=Gibbs(0.4, 3)),
    ]
    assert [m.name for m in methods_of("damping=damping.json", scales, PLAN)] == ["damping"]
    (packaged,) = methods_of("damping=mnist", scales, Plan.full())
    own = Damping.load(packaged_damping("mnist"))
    assert packaged == Method("damping mnist", scales, damping=own)
    assert [m.plan for m in methods_of("none; fd", scales, PLAN)] == [PLAN, PLAN]


@pytest.mark.parametrize(
    ("text", "problem"),
    [
        ("", "names none"),
        (" ; ", "names none"),
        ("cfg; cfg", "has CFG twice"),
        ("damping=d.json; damping=sub/d.json", "has damping d twice"),
        ("cfg,fd", "'cfg,fd' is no method"),
        ("cfg,refine=x", "'x' in 'cfg,refine=x' is no number"),
        ("cfg,refine=0.4:0", "rounds: is 0"),
        ("cfg,refine=0.4:1.5", "rounds: is 1.5"),
        ("cfg,refine=-1", "level: is -1"),
        ("fd,,", "'fd,,' is no method"),
        ("fd,scale=3", "'fd,scale=3' is no method"),
        ("interval=1:2,interval=1:3", "is no method"),
        ("interval=1", "'' in 'interval=1' is no number"),
        ("interval=a:2", "'a' in 'interval=a:2' is no number"),
        ("interval=2:1", "hi: is 1"),
        ("cfg@2,x", "'x' in 'cfg@2,x' is no number"),
        ("cfg@-1", "scale: is -1"),
        ("damping=d.json,skip=2", "skip_below: is 2"),
        ("damping=d.json@0.5", "scale: is 0.5"),
        ("fd,damping=d.json", "stands for the estimator"),
        ("damping=d.json,interval=1:2", "stands for the estimator"),
        ("fd,skip=0.1", "a skip without a damping"),
        ("cfg,plan=p.json", "a plan without an estimator"),
        ("damping=absent.json", "absent.json"),
        ("fdd", "unknown name 'fdd'. Did you mean 'fd'"),
    ],
)
def test_what_is_no_method_is_refused(text: str, problem: str, here: Path) -> None:
    (here / "sub").mkdir()
    DAMPING.save(here / "sub" / "d.json")
    with pytest.raises(InputError, match=problem):
        methods_of(text, (2.0,), Plan.full())
