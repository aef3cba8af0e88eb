"""The page of the `postprocess` experiment, from its numbers."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from torch import Tensor

from ...data.mnist import DATA_SETS
from ...evaluation.fronts import Difference
from ..image_runs import draw_samples, wrapped
from ..report import Report
from .claims import PAPER, PAPER_BEFORE, of, rises
from .figures import draw_few, draw_own

QUESTION = """Postprocessing moves guided samples to near real images by a second flow (arXiv
2503.10638). Two questions that the study answers by one table and one picture. Does the flow
gain from guidance of its own (App. B.2)? What does it do where there are few real images to move to
(Fig. S7)? Here on {title}, with what the study does not measure: recall, and whether samples become
copies of the images that the flow was trained towards."""
QUICK = """A quick run: it shows that everything runs; nothing is concluded from so few samples."""
STAND_INS = """It was given no {title} (`--data {file}`): samples of the packaged model stood in for
real images."""
SETTING = """The packaged {title} U-Net, {count:,} samples a point, as many of each label, the same
seeds before and after; {solver}, {base_steps} steps. Samples of CFG at scales {measured} are moved.
Each flow is trained on {pool_count:,} others, a third each at scales {pool} (the paper: 50,000, the
same scales), towards one of the {k} nearest real images in pixels, drawn anew at every step; it is
class-conditional and sees the null label for a tenth of its samples. U-Net {channels}, {steps:,}
steps of {batch_size}; {flow_solver}, {flow_steps} steps. (The paper: 400,000 steps of 512, on
CIFAR-10.) Real
images are drawn equally from all labels, fewer of them from among the more."""
MEASURES = """* **FID** (Heusel et al. 2017) and **recall** (Kynkaanniemi et al. 2019, k = 3,
  {count:,} test images) in the features of the packaged classifier, against the test set. It
  compares with no other FID.
* **Distance**: mean Euclidean distance in pixels to the nearest of the images that the flow was
  trained towards.
* **Nearer**: how often a sample is nearer to these images than an unseen one (of {count:,} test
  images) is; 0.5 for real data, towards 1 for copies (the statistic of Meehan et al. 2020).
* **Copies**: share of samples less than a third as far from the nearest of these images as from the
  second nearest.
* **Error bars** are 95 %, of paired differences: FID by a bootstrap over samples, within labels;
  recall over test images, the others over samples. The flow was trained once: what another training
  would change is not in them."""
OWN = """The flow towards all real images, on samples of CFG at {scale:g}. Its own scale is that of
CFG on its velocity, from the null label's; 1 = none, at half the evaluations."""
FEW = """Fig. S7 has pictures and no numbers, and its number of neighbours is not known. With {k}
neighbours and 100 real images, a fifth of them are neighbours of every sample, of any class.
Recall is a union of balls around the samples, as wide as these lie apart: samples that break apart
scatter, and it rises. Read it beside FID and the picture."""


def write(report: Report, sets: Mapping[str, Tensor]) -> None:
    """The page of report.numbers; `sets`: name -> samples of the picture."""
    numbers, images = report.numbers, DATA_SETS[report.data_set]
    parts = [QUESTION.format(title=images.title)]
    if report.quick:
        parts.append(QUICK)
        if not numbers["real_images"]:
            parts.append(STAND_INS.format(title=images.title, file=images.file))
    else:
        parts.append(summary(numbers))
    report.section("In short", wrapped("\n\n".join(parts)))
    _setting(report, images.title)
    _own(report)
    _few(report, sets)


def summary(numbers: Mapping[str, Any]) -> str:
    """What was found, as a list in Markdown."""
    own, few = numbers["own"], numbers["few"]
    first, last = own["after"][0], own["after"][-1]
    rise = Difference(**last["rise"])
    verdict = "rises" if rise.above else "falls" if rise.below else "does not change measurably"
    lines = [
        f"**The flow's own guidance.** CFG at {own['scale']:g} has FID {own['before']['fid']:.3f}; "
        f"after the flow {first['fid']:.3f} at its own scale 1, and {last['fid']:.3f} at "
        f"{last['own']:g}: FID {verdict} ({rise.text}; higher in {rises(own['after'])} of "
        f"{len(own['after']) - 1} steps). The paper: {PAPER_BEFORE:g} before, {PAPER[1.0]:g} at 1, "
        f"rising to {PAPER[3.0]:g} at 3.",
    ]
    for row in few:
        if row["scale"] == own["scale"]:
            words = [f"{name} {_arrow(row, key)}" for key, name in WORDS.items()]
            lines.append(f"**Towards {row['real']:,} real images**: {'; '.join(words)}.")
    held = [claim["holds"] for claim in numbers["claims"].values()]
    lines.append(f"{sum(held)} of {len(held)} claims hold (last table).")
    return "\n".join(f"* {line}" for line in lines)


WORDS = {
    "fid": "FID",
    "recall": "recall",
    "nearer": "nearer than unseen images",
    "copies": "copies",
}


def _arrow(row: Mapping[str, Any], key: str) -> str:
    """Before and after, and whether they can be told apart."""
    if key == "copies":
        return f"{row[key]['before']:.1%} → {row[key]['after']:.1%}"
    return f"{row[key]['before']:.3f} → {row[key]['after']:.3f} (± {row[key]['error']:.3f})"


def _setting(report: Report, title: str) -> None:
    s, sampling, flow = (report.numbers[key] for key in ("settings", "sampling", "flow"))
    count = s["sampling"]["count"]
    said = SETTING.format(
        title=title,
        count=count,
        solver=sampling["solver"],
        base_steps=len(s["times"]) - 1,
        measured=_and(sampling["measured"]),
        pool=_and(sampling["pool"]),
        pool_count=count * len(sampling["pool"]),
        k=flow["k"],
        channels=tuple(s["channels"]),
        steps=s["steps"],
        batch_size=s["batch_size"],
        flow_solver=flow["solver"],
        flow_steps=flow["steps"],
    )
    report.section("Setting", wrapped(said) + "\n\n" + wrapped(MEASURES.format(count=count)))


def _and(values: list[float]) -> str:
    *first, last = (f"{value:g}" for value in values)
    return f"{', '.join(first)} and {last}"


def _own(report: Report) -> None:
    """Table and figure of App. B.2."""
    own = report.numbers["own"]
    report.section(
        "The flow's own guidance scale (App. B.2)", wrapped(OWN.format(scale=own["scale"]))
    )
    keys = ("agreement", "precision", "recall")
    before = own["before"]
    start = ["before", f"{PAPER_BEFORE:g}", f"{before['fid']:.3f}", "–", "–"]
    rows = [[*start, *(f"{before[key]:.3f}" for key in keys), "–"]]
    for row in own["after"]:
        change, rise = Difference(**row["change"]).text, Difference(**row["rise"]).text
        paper = f"{PAPER[row['own']]:g}"
        cells = [f"{row['own']:.2f}", paper, f"{row['fid']:.3f}", change, rise]
        rows.append([*cells, *(f"{row[key]:.3f}" for key in keys), f"{row['nfe']:g}"])
    columns = ["own scale", "paper's FID (CIFAR-10)", "FID", "against before", "against scale 1"]
    report.table([*columns, *keys, "evaluations of the flow"], rows)
    caption = "Dashed: before the flow. Bars: 95 % of the difference from the flow's own scale 1."
    report.figure("own_scale", draw_own(own), caption)


def _few(report: Report, sets: Mapping[str, Tensor]) -> None:
    """Table and figures of Fig. S7."""
    few = report.numbers["few"]
    k = report.numbers["flow"]["k"]
    report.section("Few real images (Fig. S7)", wrapped(FEW.format(k=k)))
    keys = ("fid", "recall", "distance", "unseen", "nearer", "copies")
    rows = []
    for row in few:
        cells = []
        for key in keys:
            found = of(row, key)
            text = f"{row[key]['before']:.3f} → {row[key]['after']:.3f}"
            sure = "**" if found.below or found.above else ""
            cells.append(f"{text} ({sure}{found.text}{sure})")
        rows.append([f"{row['scale']:g}", f"{row['real']:,}", *cells])
    columns = ["CFG", "real images", "FID", "recall", "distance to these", "to test images"]
    caption = "Before → after, and the paired difference; bold: beyond its error bar."
    report.table([*columns, "nearer", "copies"], rows, caption)
    caption = "Open: before the flow, filled: after it, with the 95 % bar of the difference."
    report.figure("few_real", draw_few(few), caption)
    names = DATA_SETS[report.data_set].classes
    caption = """The same twenty seeds of CFG at the larger scale in every row, and of each moved
        sample the nearest image among those that its flow was trained towards."""
    report.figure("samples", draw_samples(sets, names=names), wrapped(caption))
