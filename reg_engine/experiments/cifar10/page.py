"""The page of the `cifar10` experiment: the paper's tables with a place for our numbers."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

from ..figures import figure
from ..image_runs import marks, wrapped
from ..report import Report, shown
from .models import Models, Sizes
from .sampling import EDM_SCALES, FLOW_SCALES

if TYPE_CHECKING:
    from matplotlib.figure import Figure


EMPTY = "not measured"
Paper = dict[tuple[str, str, str], tuple[float, ...]]  # (postprocessing, space, k) -> columns
# arXiv 2503.10638, Tab. 2: FID of rectified-flow samples.
TABLE2: Paper = {
    ("no", "-", "-"): (6.151, 13.10, 21.14, 35.77, 41.58, 46.37),
    ("yes", "pixel", "20"): (13.12, 13.49, 15.70, 22.55, 25.96, 28.95),
    ("yes", "DINOv2 CLS", "20"): (9.456, 9.851, 12.17, 19.37, 22.97, 26.48),
    ("yes", "DINOv2 patch", "20"): (6.961, 8.545, 11.22, 17.27, 20.19, 23.32),
    ("yes", "DINOv2 patch", "40"): (6.252, 8.035, 11.20, 17.48, 20.10, 22.69),
}
# Its Tab. 3: FID of EDM samples. The space of the neighbours is not known to us.
TABLE3: Paper = {
    ("no", "-", "-"): (5.096, 8.016, 9.402, 10.75, 13.23, 14.31, 15.37, 16.34),
    ("yes", "?", "?"): (5.718, 5.821, 5.936, 6.176, 6.675, 6.957, 7.202, 7.490),
}
SPACES = {"pixel": "pixel", "cls": "DINOv2 CLS", "patches": "DINOv2 patch"}
LOOKS = {
    "no": ("vermillion", "o"),
    "pixel-20": ("green", "^"),
    "?-?": ("green", "^"),
    "cls-20": ("sky", "v"),
    "patches-20": ("blue", "s"),
    "patches-40": ("purple", "s"),
}
SCORES = """FID ± 95 % (bootstrap). Classifier guidance (CG, weight w of Eq. 9; its classifier is
not the judge) stands beside CFG; the paper has no CG on CIFAR-10, and FID alone. Agreement: the
judge gives a sample its own label. Confidence: mean log-odds that it gives to that label. Nearer:
share of pairs (sample, unseen real image) in which the sample is nearer to its nearest training
image; 0.5 is like real data, 1 is copying."""

Row = Mapping[str, Any]  # of Scored


def setting(report: Report, sizes: Sizes, models: Models, kind: str) -> None:
    """What the paper says of its setting, and what is ours."""
    flow, edm, post = sizes.solver_steps
    parameters = sum(p.numel() for module in models.flow.modules for p in module.parameters())
    network = f"diffusers' UNet2DModel, {sizes.colour.channels} channels, {parameters / 1e6:.2f} M"
    minutes = sizes.minutes or {}
    length = {
        name: f"AdamW, batch {sizes.batch_size}, "
        + (f"{minutes[name]:g} minutes" if minutes else f"{sizes.steps} steps")
        for name in ("flow", "edm")
    }
    rows: list[list[object]] = [
        ["data", "CIFAR-10", kind],
        ["network", "guided-diffusion U-Net, 34.10 M (flow)", network],
        ["flow training", "Adam, batch 128, 400k steps", length["flow"]],
        ["EDM training", "with label dropout; ?", length["edm"]],
        ["sampling, flow", "dopri5 (adaptive)", f"Heun, {flow} steps"],
        ["sampling, EDM", "?", f"Heun, {edm} steps"],
        ["postprocessing pool", "50,000: CFG 1, 2, 3 (flow)", f"{3 * sizes.samples}: CFG 1, 2, 3"],
        ["postprocessing", "dopri5; 34.10 M (flow), 55.97 M (EDM)", f"Heun, {post} steps; as base"],
        ["FID", "features and split: ?", "against the test images"],
        ["samples a point", "?", sizes.samples],
    ]
    report.section("Setting")
    report.table(["", "paper (?: not known to us)", "this run"], rows)


def tables(report: Report, rows: Sequence[Row] | None, names: Sequence[str]) -> None:
    """Tab. 2 and Tab. 3 with the paper's numbers and ours; `rows` None: ours are not measured.

    Args:
        rows: of all bases.
        names: of the flow's postprocessing flows.
    """
    posts = ["pixel-20", "cls-20", "patches-20", "patches-40"]
    report.section("Table 2 of the paper: rectified flow, FID by CFG scale")
    _table(report, "flow", rows, posts)
    if set(posts) - set(names):
        text = """Rows with DINOv2 neighbours need its weights: `--set neighbours=FOLDER` (a folder
            that transformers saved, in safetensors)."""
        report.text(wrapped(text))
    report.section("Table 3 of the paper: EDM, FID by CFG scale")
    _table(report, "edm", rows, ["patches-20" if "patches-20" in names else "pixel-20"])


PAPER = {"flow": (TABLE2, FLOW_SCALES), "edm": (TABLE3, EDM_SCALES)}


def _table(report: Report, base: str, rows: Sequence[Row] | None, posts: Sequence[str]) -> None:
    paper, scales = PAPER[base]
    lines: list[list[object]] = [
        ["paper", "no", *key, *(f"{value:#.4g}" for value in values)]
        for key, values in paper.items()
    ]
    for rectified in (False, True):
        for post in (None, *posts):
            own = {row["scale"]: row for row in _of(rows or (), base, rectified, post)}
            space, _, k = (post or "-").partition("-")
            cells = [
                f"{shown(own[s]['fid'])} ± {shown(own[s]['fid_error'])}" if s in own else EMPTY
                for s in scales
            ]
            kind = ["yes" if rectified else "no", "yes" if post else "no", SPACES.get(space, "-")]
            lines.append(["ours", *kind, k or "-", *cells])
    report.table(["", "REG", "post", "NN space", "k", *(f"{s:.2f}" for s in scales)], lines)


def _of(rows: Sequence[Row], base: str, rectified: bool, post: str | None) -> list[Row]:
    """Rows of CFG, of a base and a postprocessing flow, with REG or without."""
    kind = base, "vanilla", post
    own = [row for row in rows if (row["base"], row["method"], row["post"]) == kind]
    return [row for row in own if (row["estimator"] != "none") is rectified]


def scores_table(report: Report, rows: Sequence[Row] | None) -> None:
    """Every score, classifier guidance included, which the paper does not show on CIFAR-10."""
    report.section("Every score", wrapped(SCORES))
    if rows is None:
        report.text(f"{EMPTY.capitalize()}.")
        return
    keys = ("fid", "fid_error", "agreement", "confidence", "precision", "recall", "nearer", "nfe")
    lines = [
        [
            row["base"],
            "CG" if row["method"] == "cg" else "CFG",
            row["scale"],
            "no" if row["estimator"] == "none" else "yes",
            row["post"] or "no",
            *(row[key] for key in keys),
        ]
        for row in rows
    ]
    columns = ["base", "guidance", "scale", "REG", "post", "FID", "±", "agreement", "confidence"]
    report.table([*columns, "precision", "recall", "nearer", "evaluations"], lines)


def curves(rows: Sequence[Row] | None) -> Figure:
    """FID over the scale, a column a base: the paper's above; below ours, where there are any."""
    lines = 1 if rows is None else 2
    made, axes = figure(11, 4 * lines, lines, 2)
    titles = {"flow": "rectified flow (Tab. 2)", "edm": "EDM (Tab. 3)"}
    words = {space: name for name, space in SPACES.items()}
    for column, (base, (paper, scales)) in enumerate(PAPER.items()):
        panel = axes[0, column]
        for (post, space, k), values in paper.items():
            name = f"{words.get(space, space)}-{k}" if post == "yes" else None
            panel.errorbar(scales, values, **_look(name, False))
        panel.set_title(f"paper, {titles[base]}")
        if rows is None:
            continue
        panel = axes[1, column]
        for rectified in (False, True):
            for post in dict.fromkeys(row["post"] for row in rows if row["base"] == base):
                own = _of(rows, base, rectified, post)
                if rectified:  # scale 1 stands on both lines
                    own = [r for r in _of(rows, base, False, post) if r["scale"] == 1] + own
                panel.errorbar(
                    [row["scale"] for row in own],
                    [row["fid"] for row in own],
                    yerr=[row["fid_error"] for row in own],
                    **_look(post, rectified),
                )
        panel.set_title(f"ours, {titles[base]}: other features, another copy")
    for panel in axes.flat:
        panel.set(xlabel="CFG scale", ylabel="FID, lower is better", ylim=(0, None))
        panel.grid(alpha=0.25)
        panel.legend(frameon=False, fontsize=8)
    return made


def _look(post: str | None, rectified: bool) -> dict[str, Any]:
    """Colour by postprocessing, filled marks with REG."""
    space, _, k = (post or "").partition("-")
    label = "no postprocessing" if post is None else "postprocessed"
    label += f" ({SPACES[space]}, k = {k})" if space in SPACES else ""
    look = marks(*LOOKS.get(post or "no", ("orange", "D")), rectified)
    return look | {"label": label + (", REG" if rectified else "")}
