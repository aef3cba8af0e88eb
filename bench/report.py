"""`python -m bench.report` writes docs/performance.md and its figures from bench/results/*.csv.

Ratios are taken between medians of one run. Of every case the latest run that holds its baseline is
shown; what nobody measured stays empty.
"""

from __future__ import annotations

import argparse
import textwrap
from collections.abc import Iterable, Sequence
from pathlib import Path

from bench import records
from bench.cases import MODEL_CASES, ModelCase
from bench.contenders import CONTENDERS, Contender
from bench.ratios import latest, number, ratios
from bench.records import Row
from reg_engine.storage.files import write_whole

__all__ = ["lines", "page", "write"]

DOCS = records.ROOT / "docs"

INTRO = """# Performance

Written by `python -m bench.report` from the rows in `bench/results/`; do not edit.

- Times are medians of one run; ratios are taken within that run. On a CPU all contenders of a case
  are timed in turn, so that what disturbs the machine disturbs them alike. Memory is the peak apart
  from weights and inputs. A cell that is empty was not measured; words in it say why.
- Networks have random weights at the size that stands beside them, apart from the trained MNIST
  model: pictures are noise, but time and memory do not depend on the values. Calibrated plans do:
  on random weights `planned` shows what planning costs and saves there, not what it saves on a
  trained model.
- `plain-cfg` is classifier-free guidance in plain torch, the baseline. `authors` is REG at the
  cost of the released code, `forward-ad` K delta by PyTorch's forward AD. Everything else is this
  engine: `eager`, `captured` in CUDA graphs, `compiled` (and captured), or with a calibrated plan
  (`planned`, captured where there is CUDA); `student` is the model with guidance in an adapter
  (random numbers in it, as many as distillation trains), which takes one evaluation.
- The paper reports, on one A40, REG at 1.21 to 1.88 times the time and 1.21 to 2.82 times the
  memory of CFG. Its figure stands above each table of a model that it has; numbers of steps and
  dtype are not stated there, and its EDM code asks a second network for the reference in a call
  of its own: those ratios are not comparable one to one.
"""


def lines(rows: Sequence[Row]) -> list[str]:
    """The figures as plain text, for a terminal."""
    out = []
    for row in rows:
        p50 = number(row.p50)
        time = f"{1e3 * p50:12.4f} ms" if p50 is not None else f"{'':15}"
        figures = " ".join(f"{k} {v:.3g}" for k, v in ratios(row, rows).items())
        peak = row.memory
        memory = f" {peak / 2**20:.1f} MiB" if peak is not None else ""
        name = f"{row.case} {row.shape} {row.dtype} {row.provider}"
        out.append(f"{name:58s}{time}{memory} {figures}{row.note}")
    return out


def page(rows: Sequence[Row], figures: Iterable[str] = ()) -> str:
    """The whole of docs/performance.md.

    Args:
        rows: of all devices.
        figures: names of the pictures in docs/images that were drawn for these rows.
    """
    shown = latest(rows)
    pictures = list(figures)
    parts = [INTRO]
    if not shown:
        parts.append("Nothing has been measured yet.\n")
    for device in dict.fromkeys(row.device for row in shown):
        own = [row for row in shown if row.device == device]
        parts.append(f"## {device}\n")
        parts += [_where(own)]
        slug = records.device_slug(device)
        parts += [_picture(name) for name in pictures if slug in name]
        parts += _sampling(own)
        parts += _kernels(own)
    parts.append(_missing(shown))
    return "\n".join(parts)


CAPTIONS = {
    "ratios": "Time and peak memory over those of plain CFG in the same run. A mark is a model, a "
    "grey stroke the median of a method; the line at 1 is plain CFG. The tables below have the "
    "numbers, and the compiled forms.",
    "bandwidth": "Bandwidth of the kernels: bytes read and written in a second, over how many "
    "bytes that were. The dashed line is a plain copy that is larger than the cache; what fits "
    "into a cache can be faster.",
}


def _picture(name: str) -> str:
    """A figure of bench/figures.py with the words below it."""
    text = next(text for kind, text in CAPTIONS.items() if name.endswith(f"{kind}.png"))
    title = text.partition(":")[0].partition(" over")[0]
    return f"![{title}](images/{name})\n\n{_wrapped(f'*{text}*')}"


def _wrapped(text: str) -> str:
    """A paragraph in lines of at most 100 columns."""
    return textwrap.fill(text, 100, break_on_hyphens=False) + "\n"


def _where(rows: Sequence[Row]) -> str:
    """What the figures of a device were measured with."""
    runs: dict[str, list[str]] = {}
    for run in dict.fromkeys(row.run for row in rows):
        row = next(r for r in rows if r.run == run)
        software = [f"torch {row.torch}", f"triton {row.triton}" if row.triton else "no triton"]
        if row.driver:
            software.append(f"driver {row.driver}")
        state = " with uncommitted changes" if row.dirty else ""
        where = (
            f"commit {row.commit or 'unknown'}{state}: {', '.join(software)}, "
            f"Python {row.python}, {row.threads} CPU thread(s)"
        )
        runs.setdefault(where, []).append(f"{row.run} ({row.date})")
    out = []
    for where, found in runs.items():
        many = "Runs" if len(found) > 1 else "Run"
        out.append(_wrapped(f"{many} {', '.join(found)}, {where}."))
    note = ""
    if any(row.size == "shrunk" for row in rows):
        note = _wrapped(
            "**Sizes are shrunk** here, to what a CPU runs in minutes: narrow networks of the "
            "same kind on states of the shape that is given. Only rows marked `real` have the "
            "model's own size."
        )
    return "\n".join([*out, note])


def _sampling(rows: Sequence[Row]) -> list[str]:
    parts = []
    for case in MODEL_CASES:
        own = [r for r in rows if r.suite == "sampling" and r.case == case.name]
        for shape in dict.fromkeys((r.size, r.shape, r.dtype) for r in own):
            some = [r for r in own if (r.size, r.shape, r.dtype) == shape]
            parts.append(_sampling_table(case, some))
    return parts


def _sampling_table(case: ModelCase, rows: Sequence[Row]) -> str:
    first = rows[-1]
    option = " --bench-device cpu" if first.device.startswith("CPU") else ""
    heading = f"### {case.title}, {case.resolution} pixels\n"
    setting = (
        f"Size `{first.size}`, state {first.shape}, {first.dtype}, {first.solver} in {first.steps} "
        f"steps.\n\n```\npytest bench/bench_sampling.py --benchmark{option} "
        f"--bench-steps {first.steps} -k {case.name}\n```\n"
    )
    if case.published:
        paper = case.published
        setting += f"\nPaper (A40): time {paper.time:.2f}, memory {paper.memory:.2f} of CFG.\n"
    table = [
        "| provider | nfe | ms an image | time / CFG | time / captured CFG | MiB | memory / CFG |",
        "|---|---|---|---|---|---|---|",
    ]
    last = {row.provider: row for row in rows}
    names = [contender.name for contender in CONTENDERS]
    table += [_sampling_line(last[name], rows) for name in names if name in last]
    absent = _absent([c for c in CONTENDERS if c.name not in last])
    nobody = "\n" + _wrapped(f"Not measured: {', '.join(absent)}.") if absent else ""
    return "\n".join([heading, setting, *table, nobody])


def _absent(contenders: Sequence[Contender]) -> list[str]:
    """Names, those of a whole mode as one."""
    names = []
    for contender in contenders:
        same = [c for c in CONTENDERS if c.guide is None and c.mode == contender.mode]
        several = contender.guide is None and len(same) > 1
        whole = several and all(c in contenders for c in same)
        names.append(f"everything {contender.mode}" if whole else f"`{contender.name}`")
    return list(dict.fromkeys(names))


def _sampling_line(row: Row, rows: Sequence[Row]) -> str:
    name = row.provider
    if row.note and not row.p50:
        return f"| `{name}` | | – {row.note} | | | | |"
    found = ratios(row, rows)
    peak = row.memory
    cells = [
        row.nfe,
        _shown(1e3 * found["seconds_per_image"] if found else None, "{:.4g}"),
        _shown(found.get("time_to_cfg"), "{:.2f}"),
        _shown(found.get("time_to_captured_cfg"), "{:.2f}"),
        _shown(None if peak is None else peak / 2**20, "{:.1f}"),
        _shown(found.get("memory_to_cfg"), "{:.2f}"),
    ]
    return f"| `{name}` {row.note} | ".replace("`  |", "` |") + " | ".join(cells) + " |"


def _kernels(rows: Sequence[Row]) -> list[str]:
    parts = []
    for kernel in dict.fromkeys(r.case for r in rows if r.suite == "kernel"):
        own = [r for r in rows if r.suite == "kernel" and r.case == kernel]
        option = " --bench-device cpu" if own[0].device.startswith("CPU") else ""
        table = [
            f"### Kernel `{kernel}`\n",
            f"```\npytest bench/bench_{kernel}.py --benchmark{option}\n```\n",
            "| state | predictions | provider | us | over eager | GB/s | of copy |",
            "|---|---|---|---|---|---|---|",
        ]
        for row in own:
            found = ratios(row, rows)
            p50 = number(row.p50)
            cells = [
                row.shape,
                row.dtype,
                f"`{row.provider}`",
                _shown(None if p50 is None else 1e6 * p50, "{:.4g}"),
                _shown(found.get("speedup"), "{:.2f}"),
                _shown(found.get("gb_s"), "{:.4g}"),
                _shown(found.get("share_of_copy"), "{:.0%}"),
            ]
            table.append("| " + " | ".join(cells) + " |")
        parts.append("\n".join([*table, ""]))
    return parts


def _missing(rows: Sequence[Row]) -> str:
    """The models at real size that nobody measured."""
    there = {r.case for r in rows if r.suite == "sampling" and r.size == "real" and r.p50}
    absent = [case.name for case in MODEL_CASES if case.name not in there]
    if not absent:
        return ""
    return "## Not measured\n\n" + _wrapped(
        f"At real size nobody has measured: {', '.join(absent)}."
    )


def _shown(value: float | None, form: str) -> str:
    return "" if value is None else form.format(value)


def write(results: Path, docs: Path) -> Path:
    """Read every CSV in `results`, write the page and its figures into `docs`; the page's path."""
    from bench.figures import draw

    rows = [row for path in sorted(results.glob("*.csv")) for row in records.read(path)]
    figures = draw(latest(rows), docs / "images")
    target = docs / "performance.md"
    write_whole(target, page(rows, figures).encode())
    return target


def main() -> None:
    """The command."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--results", type=Path, default=records.RESULTS)
    parser.add_argument("--docs", type=Path, default=DOCS)
    given = parser.parse_args()
    print(write(given.results, given.docs))


if __name__ == "__main__":
    main()
