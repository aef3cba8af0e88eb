"""Guidance from an adapter in a pipeline's own call: one evaluation a step.

An enabled pipeline is of a class of its own, a subclass of the same name. Its call takes the scale
from the pipeline's own argument and tells the pipeline 1 instead, at which it asks for one
prediction a step; while it runs, the network's layers hold the weights of the scale.
"""

from __future__ import annotations

import math
import time
import warnings
from collections.abc import Mapping
from functools import wraps
from inspect import signature
from typing import Any

from torch import Tensor, nn

from ...errors import InputError
from ...loop.stats import Stats
from ...networks.adapter import Adapter
from ...networks.lowrank import wearing
from ...values import as_float
from .belongs import adapted_network
from .calls import Call
from .enabled import Rectified, networks_of
from .hook import Hook, halves, pair

__all__ = ["Student"]

# What pipelines call the scale of u + s (c - u). Where there are both, the second is a number that
# the network is told.
SCALES = ("true_cfg_scale", "guidance_scale")
BESIDE = ("guidance_rescale", "skip_guidance_layers")  # do something to guidance alone


class Student(Rectified):
    """A pipeline whose calls take guidance from an adapter.

    Args:
        pipe: the pipeline.
        adapter: of its network.
        scale: of every call; None = the pipeline's own counts.

    Raises:
        InputError: the adapter of another network or chain; a scale that it was not trained for; a
            pipeline that takes no scale.
    """

    def __init__(self, pipe: Any, adapter: Adapter, scale: Any = None) -> None:
        super().__init__([])
        self.pipe, self.adapter, self.kind = pipe, adapter, type(pipe)
        self.form = signature(self.kind.__call__)
        named = [name for name in SCALES if name in self.form.parameters]
        if not named:
            problem = f"is a {self.kind.__name__}, whose call takes no guidance scale"
            raise InputError("pipe", problem, "Sample with reg_engine.sample and a Denoiser of it")
        adapted_network(pipe, adapter)
        self.argument = named[0]
        self.own = None if scale is None else adapter.holding(scale)
        self.cost: Stats | None = None

    @property
    def stats(self) -> Stats | None:
        """What the pipeline's last call cost; None: nothing was guided."""
        return self.cost

    @property
    def networks(self) -> list[nn.Module]:
        """See Rectified."""
        return networks_of(self.pipe)

    def on(self) -> None:
        """Give the pipeline its class."""
        self.pipe.__class__ = _class_of(self)

    def off(self) -> None:
        """Give it back its own."""
        self.pipe.__class__ = self.kind

    def called(self, *args: Any, **kwargs: Any) -> Any:
        """The pipeline's call."""
        bound = self.form.bind(self.pipe, *args, **kwargs)
        given = bound.arguments
        self.cost = None
        scale, holds = self._scale(given) if self.own is None else self.own
        if holds or self.own is not None:  # else the pipeline's own scale says that nothing guides
            given[self.argument] = 1.0
        if not holds:
            return self.kind.__call__(*bound.args, **bound.kwargs)
        self._refuse(given)
        network = adapted_network(self.pipe, self.adapter)  # it may have changed since
        device = next(network.parameters()).device
        counted = _Counted(self.pipe, self.networks[0], holds)
        with wearing([network], self.adapter.change.to(device), scale), counted:
            found = self.kind.__call__(*bound.args, **bound.kwargs)
        self.cost = counted.cost
        return found

    def _scale(self, given: Mapping[str, Any]) -> tuple[float, str]:
        """That of the pipeline; of 1 and less it makes nothing."""
        name = self.argument
        value = given.get(name, self.form.parameters[name].default)
        remedy = "Give a number, or reg(pipe, adapter=..., scale=...)"
        if as_float(name, value, remedy, lambda v: 0 <= v < math.inf) > 1:
            return self.adapter.holding(value, name)
        if name not in given:
            warnings.warn(
                f"{name} of the {self.kind.__name__} is {value:g} where nobody gives it, so nothing"
                f" is guided: give {name}, or reg(pipe, adapter=..., scale=...)",
                RuntimeWarning,
                stacklevel=5,
            )
        return 1.0, ""

    def _refuse(self, given: Mapping[str, Any]) -> None:
        """What the call says to guidance that the adapter does not know of."""
        for name, value in given.items():
            if not name.startswith("negative_") and name not in BESIDE:
                continue
            default = self.form.parameters[name].default
            if not _empty(value) and (isinstance(value, Tensor) or value != default):
                problem = "is given, and the adapter was trained with a reference of its own"
                raise InputError(name, problem, "Leave it out, or use the pipeline without adapter")


def _empty(value: Any) -> bool:
    """None, 0, an empty text or list, or a list of such."""
    if isinstance(value, (list, tuple)):
        return all(map(_empty, value))
    return not isinstance(value, Tensor) and not value


class _Counted(Hook):
    """The network of a pipeline that asks for one prediction a step, and what it costs.

    Args:
        holds: what is said of the network.
    """

    def __init__(self, pipe: Any, module: nn.Module, holds: str) -> None:
        super().__init__(pipe, module, {}, own=True)
        self.holds, self.cost = holds, Stats(solver="your own")
        self._before_it: Call | None = None

    def __enter__(self) -> None:
        self.place()

    def __exit__(self, *_: object) -> None:
        self.lift()

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        call = Call.of(self._form, self.module, args, kwargs)
        last, self._before_it = self._before_it, call
        twice = last is not None and (pair(last, call) or halves(self.pipe, call) is not None)
        if twice or getattr(self.pipe, "do_classifier_free_guidance", False):
            problem = f"is a {type(self.pipe).__name__} that asks for two predictions at scale 1"
            raise InputError("pipe", problem, "Sample with reg_engine.sample and a Denoiser of it")
        began = time.perf_counter()
        output = self._plainly(*args, **kwargs)
        cost, rows = self.cost, len(call.x)
        cost.samples, cost.reason = rows, self.holds
        cost.beside(rows)
        cost.seconds += time.perf_counter() - began
        cost.modes = {"cond": cost.modes.get("cond", 0) + 1}
        return output


def _new(kind: Any) -> Any:
    return kind.__new__(kind)


def _class_of(student: Student) -> type:
    """A subclass of the pipeline's class that goes by its name; copies are of the class itself."""
    kind = student.kind

    @wraps(kind.__call__)
    def call(self: Any, *args: Any, **kwargs: Any) -> Any:
        return student.called(*args, **kwargs)

    def reduce(self: Any, protocol: Any) -> Any:
        plainly: Any = kind.__reduce_ex__
        return (_new, (kind,), *plainly(self, protocol)[2:])

    held = {"__call__": call, "__reduce_ex__": reduce, "__doc__": kind.__doc__}
    held |= {name: getattr(kind, name) for name in ("__module__", "__qualname__")}
    own = type(kind.__name__, (kind,), held)
    return own
