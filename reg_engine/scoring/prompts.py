"""How well images fit their prompts: CLIP score, ImageReward, HPSv2, from files at hand."""

from __future__ import annotations

import hashlib
import importlib
import inspect
import os
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image
from torch import Tensor

from ..errors import InputError, choice
from ..fidelity import Z
from ..storage.digest import digest
from ..storage.readers import open_regular, refusing
from ..values import usable
from .extract import Block
from .network import Vectors

__all__ = ["PROMPT_SCORES", "PromptScore", "load_prompt_score", "mean_score", "read_prompts"]

LONGEST = 1 << 26  # bytes of a file of prompts


@dataclass(frozen=True)
class PromptScore:
    """A score of an image beside its prompt.

    Args:
        name: what people call it.
        call: (images (n, 3, H, W) uint8 on the CPU, n prompts) -> (n,).
        fingerprint: another one for other weights.
        meaning: what its numbers are.
    """

    name: str
    call: Callable[[Tensor, Sequence[str]], Tensor]
    fingerprint: str
    meaning: str

    def asking(self, prompts: Sequence[str]) -> Callable[[Tensor, Sequence[int]], Vectors]:
        """As extract.extract asks it: image k has prompts[k]."""

        def ask(images: Tensor, numbers: Sequence[int]) -> Vectors:
            own = [prompts[number] for number in numbers]
            with torch.no_grad():
                found = self.call(images.expand(-1, 3, -1, -1), own).double().cpu()
            if found.shape != (len(own),) or not bool(found.isfinite().all()):
                problem = f"{self.name} made {tuple(found.shape)} of {len(own)} images, or NaN"
                raise InputError("prompt_score", problem, "Check its weights")
            return found[:, None], None

        return ask


def read_prompts(path: str | os.PathLike[str], count: int) -> list[str]:
    """Line k of a UTF-8 text file is the prompt of image k.

    Raises:
        InputError: it cannot be read, or has another number of lines than there are images.
    """
    remedy = "Give a text file with one prompt a line, in the order of the images"
    with refusing("prompts", f"{str(path)!r} cannot be read", remedy), open_regular(path) as file:
        data = file.read(LONGEST + 1)
        if len(data) > LONGEST:
            raise ValueError(f"it is larger than {LONGEST >> 20} MiB")
        lines = data.decode("utf-8").removesuffix("\n").split("\n")
    if len(lines) != count:
        raise InputError("prompts", f"are {len(lines)} for {count} images", remedy)
    return [line.removesuffix("\r") for line in lines]


def load_prompt_score(text: str, device: str | torch.device = "cpu") -> PromptScore:
    """`clip:FOLDER`, `imagereward:FILE` or `hpsv2:FILE`; nothing is downloaded by this package.

    Raises:
        InputError: another name; a package or a file that is missing.
    """
    kind, colon, path = text.partition(":")
    choice("prompt_score", kind, PROMPT_SCORES)
    if not colon or not Path(path).exists():
        problem = f"{text!r} names no file" if not colon else f"there is no {path!r}"
        raise InputError("prompt_score", problem, f"Write {kind}:PATH, the weights at hand")
    return PROMPT_SCORES[kind](path, usable(device))


def mean_score(blocks: Iterable[Block], score: PromptScore) -> dict[str, Any]:
    """The mean over images, with the half-width of its 95 % interval; images left out are counted.

    Raises:
        InputError: no image could be read.
    """
    values, bad = [], 0
    for block in blocks:
        values += [block.features[:, 0]] if len(block.features) else []
        bad += len(block.unreadable)
    if not values:
        raise InputError("images", "cannot be read, not one of them", "Give others")
    found = torch.cat(values)
    error = Z * float(found.std()) / len(found) ** 0.5 if len(found) > 1 else None
    return {
        "mean": float(found.mean()),
        "error": error,
        "error_is": "95 % half-width",
        "count": len(found),
        "unreadable": bad,
        "is": score.meaning,
        "fingerprint": score.fingerprint,
    }


def _clip(path: str, device: torch.device) -> PromptScore:
    """Hessel et al. 2021 (arXiv 2104.08718), with the factor 100 in place of their 2.5."""
    transformers = _package("transformers", "transformers")
    with refusing("prompt_score", f"{path!r} holds no CLIP", "Give a folder of CLIPModel"):
        options = {"local_files_only": True}
        net = transformers.CLIPModel.from_pretrained(path, use_safetensors=True, **options)
        tokens = transformers.AutoTokenizer.from_pretrained(path, **options)
        pictures = transformers.CLIPImageProcessor.from_pretrained(path, **options)
    net.eval().to(device)
    most = net.config.text_config.max_position_embeddings

    def call(images: Tensor, prompts: Sequence[str]) -> Tensor:
        seen = pictures(images=_pictures(images), return_tensors="pt")
        said = tokens(
            list(prompts), padding=True, truncation=True, max_length=most, return_tensors="pt"
        )
        found = net(**seen.to(device), **said.to(device))
        cosine = (found.image_embeds.double() * found.text_embeds.double()).sum(1)
        return 100 * cosine.clamp(min=0)

    meaning = "100 max(cosine, 0) of the embeddings, a mean over images; longer prompts are cut"
    key = digest(net.config.to_json_string(), net.state_dict())
    return PromptScore("clip", call, key, meaning)


def _imagereward(path: str, device: torch.device) -> PromptScore:
    """Xu et al. 2023 (arXiv 2304.05977), by their package; med_config.json lies beside the file."""
    package = _package("ImageReward", "image-reward")
    folder = Path(path).parent
    config = folder / "med_config.json"
    options: dict[str, Any] = {"download_root": str(folder)}
    if config.is_file() and "med_config" in inspect.signature(package.load).parameters:
        options["med_config"] = str(config)
    with refusing("prompt_score", f"{path!r} holds no ImageReward", "Give ImageReward.pt"):
        net = package.load(path, device=device, **options)

    def call(images: Tensor, prompts: Sequence[str]) -> Tensor:
        pairs = zip(prompts, _pictures(images), strict=True)
        return torch.tensor([float(net.score(prompt, picture)) for prompt, picture in pairs])

    return PromptScore("imagereward", call, _file_key(path), "ImageReward, no unit")


def _hpsv2(path: str, device: torch.device) -> PromptScore:
    """Wu et al. 2023 (arXiv 2306.09341), by their package, on the device of its choice."""
    score = _package("hpsv2.img_score", "hpsv2").score

    def call(images: Tensor, prompts: Sequence[str]) -> Tensor:
        pairs = zip(prompts, _pictures(images), strict=True)
        return torch.tensor([float(score(picture, said, cp=path)[0]) for said, picture in pairs])

    return PromptScore("hpsv2", call, _file_key(path), "cosine of the embeddings")


PROMPT_SCORES: dict[str, Callable[[str, torch.device], PromptScore]] = {
    "clip": _clip,
    "imagereward": _imagereward,
    "hpsv2": _hpsv2,
}


def _package(module: str, package: str) -> Any:
    try:
        return importlib.import_module(module)
    except ImportError as error:
        problem = f"needs {package} ({error})"
        raise InputError("prompt_score", problem, f"Run `pip install {package}`") from error


def _pictures(images: Tensor) -> list[Image.Image]:
    arrays = images.permute(0, 2, 3, 1).cpu().numpy()
    return [Image.fromarray(np.ascontiguousarray(each)) for each in arrays]


def _file_key(path: str) -> str:
    """Name, size and time: such files have gigabytes."""
    status = os.stat(path)
    text = f"{Path(path).name} {status.st_size} {status.st_mtime_ns}"
    return hashlib.sha256(text.encode()).hexdigest()
