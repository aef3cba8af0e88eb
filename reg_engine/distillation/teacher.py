"""Who is learned from: a model under guidance of any scale."""

from __future__ import annotations

from collections.abc import Callable
from functools import lru_cache, partial
from typing import Any

from ..adapters import denoiser_of
from ..engine import Engine
from ..errors import InputError
from ..guidance import Guidance
from ..guide import Guide
from ..networks.denoisers import Denoiser
from ..resume import engine_key
from ..storage.digest import digest
from ..values import shown

__all__ = ["Teacher"]

Law = Callable[[float], "Guidance | Denoiser"]


class Teacher:
    """A model under a law of guidance.

    Args:
        model: what `denoiser_of` takes; without an adapter.
        law: an estimator's name ("vjp", "alternate", ...; "none" = CFG), or a function of the scale
            that returns a Guidance, or a Denoiser that is guided already (golden guidance, say).
        name: what people call the law; "" = the estimator's name.
        options: of every Engine and Guide, such as device.

    Raises:
        InputError: an unknown estimator; a model that has an adapter.
    """

    def __init__(self, model: Any, law: Any = "vjp", name: str = "", **options: Any) -> None:
        self.denoiser = denoiser_of(model)
        if self.denoiser.adapter is not None:
            raise InputError("model", "has an adapter", "Give the model without it")
        if not (isinstance(law, str) or callable(law)):
            remedy = "Give an estimator's name, or a function of the scale"
            raise InputError("guidance", f"is {shown(law)}", remedy)
        self.law: Law = partial(_rectified, name=law) if isinstance(law, str) else law
        self.name = name or (law if isinstance(law, str) else "a law of one's own")
        self.options = options
        self._at = lru_cache(maxsize=1)(self._asked)

    def key(self, scales: tuple[float, float]) -> str:
        """A digest of networks and law, as they are at some scales."""
        engines = (self.engine(scale, "euler", 4) for scale in (*scales, sum(scales) / 2))
        return digest([engine_key(engine) for engine in engines])

    def engine(self, scale: float, solver: str, steps: int) -> Engine:
        """It samples as the teacher does at a scale."""
        model, guidance = self._at(scale)
        own: dict[str, Any] = {"guidance": guidance} if guidance else {"scale": 1.0}
        chosen: dict[str, Any] = {"solver": solver, "steps": steps, "progress": False}
        return Engine(model, **own, **chosen, **self.options)

    def guide(self, scale: float, cond: Any, seeds: list[int], times: list[float]) -> Guide:
        """It answers along somebody's trajectories."""
        model, guidance = self._at(scale)
        own: dict[str, Any] = {"guidance": guidance} if guidance else {"scale": 1.0}
        return Guide(model, cond, seeds=seeds, times=times, **own, **self.options)

    def _asked(self, scale: float) -> tuple[Denoiser, Guidance | None]:
        found: Any = self.law(scale)
        if isinstance(found, Guidance):
            return self.denoiser, found
        if isinstance(found, Denoiser):
            return found, None
        remedy = "Return a Guidance, or a Denoiser that is guided"
        raise InputError("guidance", f"returned {shown(found)} for scale {scale:g}", remedy)


def _rectified(scale: float, name: str) -> Guidance:
    return Guidance(scale, rectify=None if name in ("none", "cfg") else name)
