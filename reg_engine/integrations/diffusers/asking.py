"""What a pipeline's call is told, of prompts, seeds and the caller's own keywords."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from inspect import signature
from typing import Any

import torch

from ...errors import InputError
from ...values import as_int

__all__ = ["fitting", "listed", "seeds_of", "words_of"]

# What a pipeline's keywords are called here.
OWN = {
    "height": "size",
    "width": "size",
    "num_inference_steps": "steps",
    "negative_prompt": "negative",
}


def listed(
    prompt: Any, call: Mapping[str, Any], negative: Any, per_prompt: int
) -> tuple[list[Any], list[str] | None]:
    """What each picture is made for, and its negative prompt."""
    each = as_int("per_prompt", per_prompt)
    if prompt is None and each > 1:
        raise InputError("per_prompt", "is given beside embeddings", "Give them a row a picture")
    one = isinstance(prompt, (str, int))
    rows = len(call.get("prompt_embeds", ()))
    conds = [None] * rows if prompt is None else [prompt] if one else list(prompt)
    if not conds:
        raise InputError("prompt", "is empty", "Give a text, or a list of texts")
    if negative is not None:
        texts = [negative] * len(conds) if isinstance(negative, str) else list(negative)
        if len(texts) != len(conds):
            problem = f"are {len(texts)} for {len(conds)} prompts"
            raise InputError("negative", problem, "Give one a prompt, or one for all")
        negative = [text for text in texts for _ in range(each)]
    return [cond for cond in conds for _ in range(each)], negative


def seeds_of(seeds: Iterable[int] | None, count: int) -> list[int]:
    """One a picture; None = 0 .. count-1.

    Raises:
        InputError: another number of them.
    """
    chosen = list(range(count) if seeds is None else seeds)
    if len(chosen) != count:
        problem = f"are {len(chosen)} for {count} pictures"
        raise InputError("seeds", problem, "Give one a picture")
    return chosen


def words_of(
    pipe: Any, conds: list[Any], negative: list[str] | None, seeds: list[int]
) -> dict[str, Any]:
    """Keywords of the pipeline's call, which turn its guidance on."""
    takes = signature(type(pipe).__call__).parameters
    name = next((name for name in ("prompt", "class_labels") if name in takes), None)
    if name is None:
        problem = f"is a {type(pipe).__name__}, which takes neither prompts nor labels"
        raise InputError("pipe", problem, "Use `with reg(pipe): pipe(...)`")
    given: dict[str, Any] = {}
    if conds[0] is None:
        name = "prompt"
    elif name == "prompt" and not any("text_encoder" in part for part in _there(pipe)):
        problem = f"is a {type(pipe).__name__} without a text encoder"
        raise InputError("pipe", problem, "Give prompt_embeds= and negative_prompt_embeds=")
    elif (name == "prompt") != all(isinstance(cond, str) for cond in conds):
        wanted = "texts" if name == "prompt" else "labels"
        raise InputError("prompt", f"holds other than {wanted}", f"Give {wanted}")
    if conds[0] is not None:
        given[name] = conds
    given["generator"] = [torch.Generator().manual_seed(seed) for seed in seeds]
    if "true_cfg_scale" in takes:
        given["true_cfg_scale"] = 2.0
        negative = [""] * len(conds) if negative is None and conds[0] is not None else negative
    else:
        given["guidance_scale"] = 2.0
    if negative is not None:
        given["negative_prompt"] = negative
    return given


def _there(pipe: Any) -> list[str]:
    """Names of the parts that a pipeline has."""
    return [name for name, part in pipe.components.items() if part is not None]


def fitting(pipe: Any, given: dict[str, Any], call: dict[str, Any]) -> dict[str, Any]:
    """The caller's own keywords of the pipeline's call, which also takes what is given."""
    takes = signature(type(pipe).__call__).parameters
    for name in call:
        if name in given or name in ("output_type", "return_dict", "num_images_per_prompt"):
            remedy = "Leave it out: it has its own argument, or is chosen here"
            raise InputError(name, "is given as a keyword of the pipeline's call", remedy)
    for name in (*given, *call):
        if name not in takes:
            own = OWN.get(name, name)
            raise InputError(own, f"is not taken by a {type(pipe).__name__}", "Leave it out")
    return call
