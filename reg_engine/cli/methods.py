"""The methods that `evaluate` compares, as the command line names them."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from ..calibration.damping import Damping
from ..errors import InputError
from ..evaluation.methods import Method
from ..networks.adapter import Adapter
from ..plan import Plan
from ..solvers import Gibbs
from .options import adapter_file, damping_file, plan_of

__all__ = ["methods_of"]

REMEDY = (
    "Write, for example, cfg; vjp; interval=0.3:2.5; damping=FILE,skip=0.15@3,5; vjp,plan=FILE: "
    "each an estimator, cfg, adapter=FILE or damping=FILE, with interval=LO:HI, skip=, plan= or "
    "refine=LEVEL:ROUNDS, @ its own scales"
)


def methods_of(
    text: str, scales: Sequence[float], plan: Plan, adapter: str | None = None
) -> list[Method]:
    """The methods of a text like "cfg; interval=0.3:2.5; damping=FILE,skip=0.15@3,5".

    Args:
        scales: of a method that names none.
        plan: of an estimator that names none.
        adapter: file of one method more.

    Raises:
        InputError: something that is no method, an unknown estimator, a file that is not there,
            or two methods of one name.
    """
    found = [_method(part, tuple(scales), plan) for part in text.split(";") if part.strip()]
    if adapter is not None:
        loaded = Adapter.load(adapter_file(adapter))
        found.append(Method(_called(adapter), tuple(scales), adapter=loaded))
    if not found:
        raise InputError("--methods", "names none", REMEDY)
    for each in found:
        same = [other for other in found if other.file == each.file]
        if len(same) > 1:
            raise InputError("--methods", f"has {each.name} twice", "Name each once")
        for scale in each.scales:
            each.guidance(scale)
    return found


def _method(text: str, scales: tuple[float, ...], plan: Plan) -> Method:
    spec, at, own = text.partition("@")
    if at:
        scales = tuple(_number(text, part) for part in own.split(","))
    parts = [part.strip() for part in spec.split(",")]
    names = [part for part in parts if "=" not in part]
    pairs = [part.split("=", 1) for part in parts if "=" in part]
    given = {key.strip(): value.strip() for key, value in pairs}
    known = {"adapter", "interval", "damping", "skip", "plan", "refine"}
    if len(names) > 1 or len(given) < len(pairs) or set(given) - known or "" in names:
        raise InputError("--methods", f"{text.strip()!r} is no method", REMEDY)
    rectify = None if not names or names[0] in ("cfg", "none") else names[0]
    _fits(text, rectify, given)
    words = [f"REG ({rectify})"] if rectify else []
    interval, damping, adapter = None, None, None
    if "adapter" in given:
        adapter, plan = Adapter.load(adapter_file(given["adapter"])), Plan.full()
        words += [_called(given["adapter"])]
    if "damping" in given:
        damping = Damping.load(damping_file(given["damping"]))
        stem = Path(given["damping"]).stem
        words += ["damping" if stem == "damping" else f"damping {stem}"]
        words += [f"skip {_number(text, given['skip']):g}"] if "skip" in given else []
    if "interval" in given:
        low, colon, high = given["interval"].partition(":")
        interval = (_number(text, low), _number(text, high))
        words += [f"interval {interval[0]:g}-{interval[1]:g}"]
    if "plan" in given:
        plan, file = plan_of(given["plan"]), Path(given["plan"])
        words += [f"plan {file.stem if file.exists() else file}"]
    refine = _gibbs(text, given["refine"]) if "refine" in given else None
    if refine is not None:
        words = words or ["CFG"]
        words += [f"Gibbs {refine.level:g}, {refine.rounds}"]
    skip = _number(text, given["skip"]) if "skip" in given else 0.0
    name = ", ".join(words) or "CFG"
    return Method(name, scales, rectify, interval, damping, skip, plan, refine, adapter)


def _called(adapter: str) -> str:
    """`distill` writes FOLDER/adapter.safetensors: then the folder tells adapters apart."""
    path = Path(adapter)
    name = path.resolve().parent.name if path.stem == "adapter" else path.stem
    return f"adapter {name}".rstrip()


def _gibbs(text: str, given: str) -> Gibbs:
    level, colon, rounds = given.partition(":")
    count: Any = _number(text, rounds) if colon else 1.0
    return Gibbs(_number(text, level), int(count) if count.is_integer() else count)


def _fits(text: str, rectify: str | None, given: dict[str, str]) -> None:
    """Refuse parts that do not go together."""
    problem = None
    if "adapter" in given and (rectify or {"interval", "damping", "plan"} & set(given)):
        problem = "has an adapter, which holds guidance, beside another"
    elif "damping" in given and (rectify or "interval" in given):
        problem = "has a damping, which stands for the estimator, beside another"
    elif "skip" in given and "damping" not in given:
        problem = "has a skip without a damping"
    elif "plan" in given and not rectify:
        problem = "has a plan without an estimator"
    if problem:
        raise InputError("--methods", f"{text.strip()!r} {problem}", REMEDY)


def _number(text: str, part: str) -> float:
    try:
        return float(part)
    except ValueError as error:
        problem = f"{part.strip()!r} in {text.strip()!r} is no number"
        raise InputError("--methods", problem, REMEDY) from error
