"""Section of `theory`: marginal against joint scaling in one dimension."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass

from ...oracles import one_d
from ..report import Report
from . import figures_1d as figures
from .chains import Chain, Gap, paper_levels, two_class_1d, vp_levels

__all__ = ["scaling"]

PAPER, OURS = "paper's 1-D", "two classes"
ENDS = ("unguided", "cfg", "reg", "golden")


@dataclass(frozen=True)
class Run:
    """What was found on one chain.

    Attributes:
        gaps: "cfg" and "golden" -> the gap of every step.
        closure: of `Chain.joint_run`.
        ends: total variation to the target of whole chains, in the order of ENDS; or none.
    """

    setting: str
    chain: Chain
    gaps: dict[str, list[Gap]]
    closure: tuple[float, float]
    ends: tuple[float, ...]

    @classmethod
    def of(cls, setting: str, chain: Chain, ends: bool) -> Run:
        """Measure a chain; `ends`: run it as a whole too."""
        gaps = {
            kind: [chain.gap(t, kind) for t in range(1, len(chain.levels))]
            for kind in ("cfg", "golden")
        }
        found = tuple(chain.distance(chain.run(kind)) for kind in ENDS) if ends else ()
        return cls(setting, chain, gaps, chain.joint_run(), found)

    @property
    def steps(self) -> int:
        """Of the chain."""
        return len(self.chain.levels) - 1

    def total(self, kind: str) -> float:
        """Mean mismatch summed over the steps, in nats."""
        return sum(gap.mean for gap in self.gaps[kind])

    def row(self) -> list[object]:
        """Of the table."""
        totals = [self.total(kind) for kind in ("cfg", "golden")]
        ends = self.ends or ("",) * len(ENDS)
        return [self.setting, self.chain.w, self.steps, *totals, self.closure[0], *ends]


def scaling(report: Report) -> None:
    """Implied next to demanded rewards, over steps and whole chains, with the claims."""
    paper = Run.of(PAPER, Chain(one_d(), 1.0, paper_levels(), -3.0, 5.0), ends=False)
    runs = [paper]
    for w in (2.0,) if report.quick else (1.0, 2.0, 4.0):
        for steps in (10, 20, 40) if report.quick else (10, 20, 40, 80):
            chain = Chain(two_class_1d(), w, vp_levels(steps), -7.0, 7.0)
            runs.append(Run.of(OURS, chain, ends=True))
        report.say(f"chains at w = {w:g}")
    shown = [run for run in runs if run.setting == OURS and run.chain.w == 2]
    ours = next(run for run in shown if run.steps == 20)
    gaps = {"paper": paper.gaps, "two classes": ours.gaps}
    sums = {kind: [(run.steps, run.total(kind)) for run in shown] for kind in paper.gaps}
    report.section(
        "Why CFG cannot be right: marginal against joint scaling",
        "CFG promises to scale *every* marginal: p(x_t given y) R_t at all t. But R_t fixes the "
        "kernel, and the kernel fixes R at the next step (REG, App. B); that *implied* R is not "
        "the one CFG demands there. Golden guidance asks for less: the path as a whole is scaled "
        "by R_0 of its end, so that the marginals are p(x_t given y) E_t, and E fits its kernels. "
        "In one dimension both are integrals on a grid. Settings: the paper's (20 steps, w = 1, "
        "one conditional class, a reference of its own), and two classes of two Gaussians with a "
        "schedule that reaches pure noise.",
    )
    report.figure(
        "scaling",
        figures.scaling(paper.chain, ours.chain, gaps, sums),
        "Top left and middle: what one step implies (dashed) is not what CFG demands (black; grey: "
        "where the density is). Top right: the mismatch of every single step, with CFG and with "
        "golden guidance (paper w = 1, two classes w = 2), whose rest is the step's Gaussian "
        "approximation. Bottom left: with more steps golden's sum goes to 0, CFG's does "
        "not move. Middle: where the whole chains end (number: total variation). Right: the part "
        "of log E_t that CFG leaves out.",
    )
    report.table(
        ["setting", "w", "steps", "CFG", "golden", "joint kernels"]
        + ["end: unguided", "end: CFG", "end: REG", "end: golden"],
        [run.row() for run in runs],
        "CFG, golden: mean |log(implied/demanded)| under the demanded density, its constant "
        "removed, summed over the steps (nats). Joint kernels: largest |integral - 1| of a kernel "
        "E_s/E_t p(x_s given x_t, y), E_s and E_t integrated independently: 0 if they fit "
        "together. End: total variation between the end of the chain and the target. The paper's "
        "levels stop at sigma = 0.43, where x_T is not noise yet, so whole chains are left out.",
    )
    report.numbers["chains"] = {
        "rows": [run.row() for run in runs],
        "paper_gaps": {kind: [asdict(gap) for gap in found] for kind, found in paper.gaps.items()},
        "joint_end": [run.closure[1] for run in runs],
    }
    _claims(report, runs)


def _claims(report: Report, runs: Sequence[Run]) -> None:
    worst, end = (max(run.closure[k] for run in runs) for k in (0, 1))
    report.claim(
        "joint_closes",
        "joint scaling closes: its kernels integrate to 1 and end in the target",
        worst < 1e-7 and end < 1e-7,
        f"largest deviation of a kernel {worst:.0e}, of the end {end:.0e}",
    )
    ratios: dict[str, list[float]] = {"cfg": [], "golden": []}
    ours = [run for run in runs if run.setting == OURS]
    for w in dict.fromkeys(run.chain.w for run in ours):
        same = [run for run in ours if run.chain.w == w]
        for kind, found in ratios.items():
            found.append(same[-1].total(kind) / same[0].total(kind))
    stays, shrinks = min(ratios["cfg"]), max(ratios["golden"])
    report.claim(
        "marginal_does_not",
        "marginal scaling does not: with more steps CFG's mismatch stays, golden's goes to 0",
        stays > 0.8 and shrinks < 0.5,
        f"from {ours[0].steps} to {ours[-1].steps} steps: CFG x {stays:.2f}, "
        f"golden x {shrinks:.2f}",
    )
