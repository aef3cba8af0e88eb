"""The page of the `cifar10` experiment: the paper's tables with a place for our numbers."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from ...pictures.plots import OKABE_ITO
from ..figures import figure
from ..report import Report, shown
from .models import Models, Sizes
from .sampling import EDM_SCALES, FLOW_SCALES, Row

if TYPE_CHECKING:
    from matplotlib.figure import Figure

__all__ = ["EMPTY", "TABLE2", "TABLE3", "classifier_table", "curves", "setting", "tables"]

EMPTY = "not measured"
# arXiv 2503.10638, Tab. 2: FID of rectified-flow samples; (postprocessing, space, k) -> columns.
TABLE2: dict[tuple[str, str, str], tuple[float, ...]] = {
    ("no", "-", "-"): (6.151, 13.10, 21.14, 35.77, 41.58, 46.37),
    ("yes", "pixel", "20"): (13.12, 13.49, 15.70, 22.55, 25.96, 28.95),
    ("yes", "DINOv2 CLS", "20"): (9.456, 9.851, 12.17, 19.37, 22.97, 26.48),
    ("yes", "DINOv2 patch", "20"): (6.961, 8.545, 11.22, 17.27, 20.19, 23.32),
    ("yes", "DINOv2 patch", "40"): (6.252, 8.035, 11.20, 17.48, 20.10, 22.69),
}
# Its Tab. 3: FID of EDM samples. The space of the neighbours is not known to us.
TABLE3: dict[tuple[str, str, str], tuple[float, ...]] = {
    ("no", "-", "-"): (5.096, 8.016, 9.402, 10.75, 13.23, 14.31, 15.37, 16.34),
    ("yes", "?", "?"): (5.718, 5.821, 5.936, 6.176, 6.675, 6.957, 7.202, 7.490),
}
SPACES = {"pixel": "pixel", "cls": "DINOv2 CLS", "patches": "DINOv2 patch"}
KEYS = {words: name for name, words in SPACES.items()}


def setting(report: Report, sizes: Sizes, models: Models, kind: str) -> None:
    """What the paper says of its setting, and what is ours."""
    flow, edm, post = sizes.solver_steps
    net = sizes.colour
    length = {
        name: f"AdamW, batch {sizes.batch_size}, "
        + (f"{sizes.steps} steps" if sizes.minutes is None else f"{sizes.minutes[name]:g} minutes")
        for name in ("flow", "edm")
    }
    rows: list[list[object]] = [
        ["data", "CIFAR-10", kind],
        ["network", "guided-diffusion U-Net, 34.10 M (flow)", _network(models, net.channels)],
        ["flow training", "Adam, batch 128, 400k steps", length["flow"]],
        ["EDM training", "with label dropout; ?", length["edm"]],
        ["sampling, flow", "dopri5 (adaptive)", f"Heun, {flow} steps"],
        ["sampling, EDM", "?", f"Heun, {edm} steps"],
        ["postprocessing pool", "50,000: CFG 1, 2, 3 (flow)", f"{3 * sizes.samples}: CFG 1, 2, 3"],
        ["postprocessing", "dopri5; 34.10 M (flow), 55.97 M (EDM)", f"Heun, {post} steps; as base"],
        ["FID", "features and split: ?", "against the test images"],
        ["samples a point", "?", sizes.samples],
    ]
    report.table(["", "paper (?: not known to us)", "this run"], rows)


def _network(models: Models, channels: int) -> str:
    found = sum(p.numel() for module in models.flow.modules for p in module.parameters())
    return f"diffusers' UNet2DModel, {channels} channels, {found / 1e6:.2f} M"


def tables(report: Report, rows: Sequence[Row] | None, spaces: Sequence[str]) -> None:
    """Tab. 2 and Tab. 3 with the paper's numbers and ours; `rows` None: ours are not measured.

    Args:
        rows: what evaluate found, of all bases.
        spaces: names of the flow's postprocessing rows, as Post.name.
    """
    kinds: list[tuple[str, str | None]] = [("no", None)]
    kinds += [("yes", name) for name in ("pixel-20", "cls-20", "patches-20", "patches-40")]
    report.section("Table 2 of the paper: rectified flow, FID by CFG scale")
    _table(report, "flow", TABLE2, FLOW_SCALES, rows, kinds)
    missing = [name for _, name in kinds if name and name not in spaces]
    if missing:
        report.text(
            "Rows with DINOv2 neighbours need its weights: `--set neighbours=FOLDER` (a folder "
            "that transformers saved, in safetensors)."
        )
    report.section("Table 3 of the paper: EDM, FID by CFG scale")
    best = "patches-20" if "patches-20" in spaces else "pixel-20"
    _table(report, "edm", TABLE3, EDM_SCALES, rows, [("no", None), ("yes", best)])


def _table(
    report: Report,
    base: str,
    paper: dict[tuple[str, str, str], tuple[float, ...]],
    scales: tuple[float, ...],
    rows: Sequence[Row] | None,
    kinds: list[tuple[str, str | None]],
) -> None:
    lines: list[list[object]] = []
    for key, values in paper.items():
        lines.append(["paper", "no", *key, *(f"{value:#.4g}" for value in values)])
    for rectify in (False, True):
        for post, name in kinds:
            space, _, k = (name or "-").partition("-")
            cells = [_cell(rows, base, scale, rectify, name) for scale in scales]
            label = SPACES.get(space, "-")
            lines.append(["ours", "yes" if rectify else "no", post, label, k or "-", *cells])
    report.table(["", "REG", "post", "NN space", "k", *(f"{s:.2f}" for s in scales)], lines)


def _cell(
    rows: Sequence[Row] | None, base: str, scale: float, rectify: bool, post: str | None
) -> object:
    for row in rows or ():
        same = (row.base, row.point.method, row.post) == (base, "vanilla", post)
        if same and row.point.scale == scale and row.point.rectified == rectify:
            return f"{shown(row.scores['fid'])} ± {shown(row.scores['fid_error'])}"
    return EMPTY


def classifier_table(report: Report, rows: Sequence[Row] | None) -> None:
    """Classifier guidance, which the paper does not show on CIFAR-10, and all other scores."""
    report.section(
        "Every score",
        "Classifier guidance (CG, weight w of Eq. 9; its classifier is not the judge) stands "
        "beside CFG; the paper has no CG on CIFAR-10, and FID alone. Agreement: the judge gives a "
        "sample its own label. Nearer: share of pairs (sample, unseen real image) in which the "
        "sample is nearer to its nearest training image; 0.5 is like real data, 1 is copying.",
    )
    columns = ["base", "guidance", "scale", "REG", "post", "FID", "±", "agreement", "confidence"]
    columns += ["precision", "recall", "nearer", "evaluations"]
    if rows is None:
        report.text(f"{EMPTY.capitalize()}.")
        return
    lines: list[list[object]] = []
    for row in rows:
        s = row.scores
        keys = ("fid", "fid_error", "agreement", "confidence", "precision", "recall", "nearer")
        method = "CG" if row.point.method == "cg" else "CFG"
        lines.append(
            [
                row.base,
                method,
                row.point.scale,
                "yes" if row.point.rectified else "no",
                row.post or "no",
                *(s[key] for key in keys),
                s["nfe"] + s["post_nfe"],
            ]
        )
    report.table(columns, lines)


def curves(rows: Sequence[Row] | None) -> Figure:
    """FID over the scale, a column a base: the paper's above; below ours, where there are any."""
    lines = 1 if rows is None else 2
    made, axes = figure(11, 4 * lines, lines, 2)
    bases: list[tuple[str, dict[tuple[str, str, str], tuple[float, ...]], tuple[float, ...]]]
    bases = [("flow", TABLE2, FLOW_SCALES), ("edm", TABLE3, EDM_SCALES)]
    names = {"flow": "rectified flow (Tab. 2)", "edm": "EDM (Tab. 3)"}
    for column, (base, paper, scales) in enumerate(bases):
        panel = axes[0, column]
        for key, values in paper.items():
            panel.plot(scales, values, **_look(KEYS.get(key[1]), key[0] == "yes", False, key[2]))
        panel.set_title(f"paper, {names[base]}")
        if rows is not None:
            _ours(axes[1, column], [row for row in rows if row.base == base])
            axes[1, column].set_title(f"ours, {names[base]}: other features, another copy")
    for panel in axes.flat:
        panel.set(xlabel="CFG scale", ylabel="FID, lower is better", ylim=(0, None))
        panel.grid(alpha=0.25)
        panel.legend(frameon=False, fontsize=8)
    return made


def _ours(panel: Any, rows: list[Row]) -> None:
    for rectify in (False, True):
        for post in dict.fromkeys(row.post for row in rows):
            own = [r for r in rows if r.post == post and r.point.method == "vanilla"]
            own = [r for r in own if r.point.rectified == rectify or r.point.scale == 1]
            space, _, k = (post or "").partition("-")
            panel.errorbar(
                [r.point.scale for r in own],
                [r.scores["fid"] for r in own],
                yerr=[r.scores["fid_error"] for r in own],
                **_look(space, post is not None, rectify, k),
            )


def _look(space: str | None, post: bool, rectify: bool, k: str) -> dict[str, Any]:
    """Colour by postprocessing, filled marks with REG, as in the page of `mnist`."""
    looks = {"pixel": ("green", "^"), "cls": ("sky", "v"), "patches": ("blue", "s")}
    colour, marker = looks.get(space or "", ("green", "^")) if post else ("vermillion", "o")
    colour = "purple" if k == "40" else colour
    name = "no postprocessing"
    if post:
        where = f" ({SPACES[space]}, k = {k})" if space in SPACES else ""
        name = f"postprocessed{where}"
    return {
        "color": OKABE_ITO[colour],
        "marker": marker,
        "linestyle": "-" if rectify else "--",
        "markerfacecolor": OKABE_ITO[colour] if rectify else "white",
        "label": name + (", REG" if rectify else ""),
    }
