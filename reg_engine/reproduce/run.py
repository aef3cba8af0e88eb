"""A recipe run: its networks from files, its points sampled and scored, each kept as it is done."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import suppress
from dataclasses import asdict, dataclass, field
from functools import lru_cache
from pathlib import Path
from typing import Any, Protocol

import torch
from torch import Tensor

from ..engine import Engine
from ..errors import InputError
from ..guidance import Adjustment, BadModel, Guidance, GuidedChannels, Reference, Unconditional
from ..models import latents_of, load_model
from ..networks.denoisers import Denoiser
from ..scoring import Conventions, Extraction, Network, Statistics
from ..scoring.extract import Block, extract
from ..scoring.prompts import PromptScore, mean_score
from ..scoring.report import fitting, gather, needs, report
from ..scoring.statistics import described
from ..storage.digest import digest
from ..storage.shards import Shards
from ..values import as_int
from .points import RecipePoint
from .recipes import Recipe
from .sampled import Classes, Prompts

__all__ = ["Judge", "Models", "Reproduction"]

REMEDY = "Convert what its authors publish: reg-engine convert IN.pt OUT.safetensors"


@dataclass(frozen=True)
class Judge:
    """What scores the pictures.

    Args:
        network: makes features.
        metrics: of fid, is. statistics: of the real images, for fid.
        prompt_scores: of pictures beside their prompts.
        conventions: numbers that scores depend on.
    """

    network: Network
    metrics: tuple[str, ...]
    statistics: Statistics | None = None
    prompt_scores: tuple[PromptScore, ...] = ()
    conventions: Conventions = field(default_factory=Conventions)

    def described(self) -> dict[str, Any]:
        """What scores depend on, ready for JSON."""
        real = self.statistics
        return {
            "features": described(self.network),
            "reference": None if real is None else {**real.note, "source": real.name},
            "conventions": asdict(self.conventions),
        }


class Sampler(Protocol):
    """Gives the pictures of a point."""

    def __call__(self, point: RecipePoint) -> Classes | Prompts: ...


class Models:
    """The networks of a class-conditional recipe, from the files of a folder.

    Args:
        folder: files of `reg-engine convert`, named as published.
        count: pictures a point.
        decoder: makes pictures of latents, told the file of their model; None: none is needed.
        device, dtype: where and in what the networks compute; None = as they are.
    """

    def __init__(
        self,
        folder: Path,
        count: int,
        decoder: Callable[[Path], Callable[[Tensor], Tensor]] | None = None,
        device: str | None = None,
        dtype: torch.dtype | None = None,
    ) -> None:
        self.folder, self.count, self.decoder = folder, as_int("count", count), decoder
        self.device, self.dtype = device, dtype
        self._loaded = lru_cache(2)(self._load)  # a network and its reference

    def path(self, stem: str) -> Path:
        """Where a network's file must lie."""
        return self.folder / f"{stem}.safetensors"

    def __call__(self, point: RecipePoint) -> Classes:
        """The pictures of a point: labels 0, 1, ... in turn, as many of each class as can be."""
        files = point.files
        assert files is not None  # a recipe of classes
        denoiser = self._loaded(files.net)
        engine = Engine(
            denoiser,
            guidance=self._guidance(point),
            solver=point.recipe.solver or "heun",
            solver_options=dict(point.recipe.solver_options),
            steps=point.steps,
            device=self.device,
            progress=False,
        )
        if denoiser.num_classes is None:
            raise InputError("weights", f"{files.net} has no classes", REMEDY)
        labels = torch.arange(self.count) % denoiser.num_classes
        path = self.path(files.net)
        latents = latents_of(path)
        if latents is not None and self.decoder is None:
            raise InputError("vae", f"is needed: {files.net} makes latents", "Give its folder")
        if latents is None and self.decoder is not None:
            raise InputError("vae", f"is given, and {files.net} makes no latents", "Leave it out")
        decoder = None if self.decoder is None else self.decoder(path)
        return Classes(point.name, engine, labels, decoder)

    def _guidance(self, point: RecipePoint) -> Guidance:
        recipe, files = point.recipe, point.files
        assert files is not None
        if point.scale == 1:  # whatever the method: one guidance, one key
            return Guidance(1.0, rectify=None)
        reference: Reference = Unconditional()
        if files.reference is not None:
            bad = self._loaded(files.reference)
            reference = BadModel(bad, None if files.labels else bad.null_cond)
        adjust: tuple[Adjustment, ...] = ()
        if recipe.channels is not None:
            adjust = (GuidedChannels(recipe.channels),)
        rectify = None if point.rectify == "none" else point.rectify
        weight = recipe.weight(point.method, point.scale)
        return Guidance(weight, reference, rectify, adjust=adjust)

    def _load(self, stem: str) -> Denoiser:
        path = self.path(stem)
        if not path.is_file():
            raise InputError("weights", f"there is no {path}", REMEDY)
        denoiser = load_model(path)
        for module in denoiser.modules:
            module.to(device=self.device, dtype=self.dtype)
        return denoiser


class Reproduction:
    """A recipe's points, sampled and scored one after the other.

    Args:
        recipe: what is reproduced.
        sampler: gives the pictures of a point.
        judge: scores them.
        folder: where blocks and finished points are kept.
        batch_size: pictures sampled together.
        progress: draw a bar.
    """

    def __init__(
        self,
        recipe: Recipe,
        sampler: Sampler,
        judge: Judge,
        folder: Path,
        batch_size: int = 8,
        progress: bool = False,
    ) -> None:
        self.recipe, self.sampler, self.judge = recipe, sampler, judge
        self.folder, self.batch_size, self.progress = folder, batch_size, progress
        # Points tell themselves apart by their own key: any recipe may go on in the same folder.
        self.rows = Shards(folder / "points", {"recipe": recipe.name})

    def measure(self, points: Sequence[RecipePoint]) -> Iterator[dict[str, Any]]:
        """The row of each point, as it is done; what is kept of an earlier run is not made again.

        Raises:
            InputError: what networks, sampler and scores refuse: what any point lacks before the
                first is sampled, what scores cannot use after its first batch.
        """
        for point in points:
            self.sampler(point)
        for point in points:
            source = self.sampler(point)
            judged = (self.judge.network.fingerprint, self.judge.statistics, self.judge.metrics)
            scores = [score.fingerprint for score in self.judge.prompt_scores]
            key = digest(source.fingerprint(), judged, scores, self.judge.conventions)
            place = f"{point.name}-{key[:16]}"  # other settings leave what is kept of these
            kept = self.rows.load(place)
            if kept is None or kept[1].get("key") != key:
                row = self._scored(point, source, key, place)
                self.rows.store(place, torch.zeros(1), {"key": key, "row": row})
            else:
                row = kept[1]["row"]
            yield {**row, **point.row}

    def remove(self) -> None:
        """Delete what was kept, and the folder unless something else lies in it."""
        self.rows.remove()
        with suppress(OSError):
            self.folder.rmdir()

    def _scored(
        self, point: RecipePoint, source: Classes | Prompts, key: str, place: str
    ) -> dict[str, Any]:
        """Scores and cost of a point; its blocks are kept until they are all there."""
        judge = self.judge
        blocks = Shards(self.folder / place, {"key": key})
        how = Extraction(self.batch_size, 0, shards=blocks, progress=self.progress)
        columns: list[Tensor] = []
        prompts = source.prompts if isinstance(source, Prompts) else []
        own = self._without(columns, extract(source, self._asking(prompts), how, point.name))
        gathered = gather(own, *needs(judge.metrics, judge.conventions))
        found = report(
            gathered, judge.network, judge.metrics, judge.conventions, judge.statistics, None,
            point.name,
        )  # fmt: skip
        row = dict(found["metrics"])
        for score, values in zip(judge.prompt_scores, torch.cat(columns).T, strict=True):
            row[score.name] = mean_score([Block(values[:, None], None)], score)
        row["cost"] = source.stats.as_dict() if source.stats.samples else None
        row["warning"] = found.get("warning")
        blocks.remove()
        return row

    def _asking(self, prompts: Sequence[str]) -> Any:
        """The network's features, and a column for each prompt score."""
        asks = [score.asking(prompts) for score in self.judge.prompt_scores]
        network = fitting(self.judge.network, self.judge.metrics, self.judge.statistics)

        def ask(images: Tensor, numbers: Sequence[int]) -> tuple[Tensor, Tensor | None]:
            features, logits = network(images)
            found = [one(images, numbers)[0].to(features.dtype) for one in asks]
            return torch.cat([features, *found], 1), logits

        return ask

    def _without(self, columns: list[Tensor], blocks: Iterator[Block]) -> Iterator[Block]:
        """The blocks' features alone; the other columns go into `columns`."""
        for block in blocks:
            width = block.features.shape[1] - len(self.judge.prompt_scores)
            columns.append(block.features[:, width:])
            yield block._replace(features=block.features[:, :width])
