"""Networks during a call: parameters frozen, evaluation mode, gradients only where they are asked
for."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from functools import partial
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint

from ..errors import InputError
from .sharing import LOCK, forward_of, held, rerouted

__all__ = [
    "Compiled",
    "SavedBytes",
    "checkpointed",
    "frozen",
    "over_the_same_memory",
    "recording",
]


@contextmanager
def frozen(modules: Iterable[nn.Module]) -> Iterator[None]:
    """Parameters without gradients and modules in evaluation mode; restored when the last of
    overlapping blocks ends, also on an exception.

    Frozen parameters let autograd drop the inputs of linear layers: about half of what it saves.
    Tensors made inside torch.inference_mode, which autograd cannot save, are replaced by ordinary
    ones over the same memory.
    """
    inside = list(dict.fromkeys(m for module in modules for m in module.modules()))
    with held([(module, "tensors", _ordinary(module)) for module in inside]):
        parameters = dict.fromkeys(p for module in inside for p in module.parameters(False))
        flags: list[tuple[object, str]] = [(module, "training") for module in inside]
        flags += [(p, "requires_grad") for p in parameters if not p.is_inference()]
        with held([(owner, name, _off(owner, name)) for owner, name in flags]):
            yield


def _off(owner: object, name: str) -> Callable[[], Callable[[], None] | None]:
    def make() -> Callable[[], None] | None:
        if not getattr(owner, name):
            return None
        setattr(owner, name, False)
        return partial(setattr, owner, name, True)

    return make


def _ordinary(module: nn.Module) -> Callable[[], Callable[[], None] | None]:
    def make() -> Callable[[], None] | None:
        stores: list[dict[str, Any]] = [module._parameters, module._buffers]
        before = [
            (store, name, tensor)
            for store in stores
            for name, tensor in store.items()
            if type(tensor) in (Tensor, nn.Parameter) and tensor.is_inference()
        ]
        if not before or isinstance(module, torch.jit.ScriptModule):
            return None
        made = [over_the_same_memory(tensor) for _, _, tensor in before]
        for (store, name, _), plain in zip(before, made, strict=True):
            store[name] = plain

        def undo() -> None:
            for (store, name, tensor), plain in zip(before, made, strict=True):
                if store.get(name) is plain:  # else somebody swapped the weights meanwhile
                    store[name] = tensor

        return undo

    return make


def over_the_same_memory(tensor: Tensor) -> Tensor:
    """An ordinary tensor over the memory of one made inside torch.inference_mode."""
    with torch.inference_mode(False):
        plain = torch.empty(0, dtype=tensor.dtype, device=tensor.device)
        plain.set_(tensor.untyped_storage(), tensor.storage_offset(), tensor.shape, tensor.stride())
        return nn.Parameter(plain, False) if isinstance(tensor, nn.Parameter) else plain


@contextmanager
def recording(x: Tensor) -> Iterator[Tensor]:
    """Yield a copy of x that records gradients, also inside torch.inference_mode."""
    with torch.inference_mode(False), torch.enable_grad():
        yield x.detach().clone().requires_grad_(True)


@contextmanager
def checkpointed(modules: Iterable[nn.Module]) -> Iterator[int]:
    """Recompute every block (member of an outermost nn.ModuleList) in the backward pass, of what
    this thread records; yields how many.

    Memory falls to one block's activations plus one state a block, for one more forward pass.
    """
    blocks = _all_blocks(modules)
    with rerouted(
        {block: partial(checkpoint, forward_of(block), use_reentrant=False) for block in blocks}
    ):
        yield len(blocks)


class Compiled:
    """`with compiled():` every block of `modules` runs through torch.compile, in this thread.

    Blocks of one class share a compilation (regional compilation), and graph capture and the
    rectifiers' gradients act on the compiled blocks as on plain ones. Kept for later calls.

    Raises:
        InputError: no module has a nn.ModuleList of blocks.
    """

    def __init__(self, modules: Iterable[nn.Module]) -> None:
        blocks = _all_blocks(modules)
        if not blocks:
            raise InputError(
                "compile",
                "the network has no nn.ModuleList of blocks to compile",
                "Compile the network yourself and give the result to Denoiser",
            )
        self._forwards: dict[nn.Module, Callable[..., Any]] = {
            block: torch.compile(forward_of(block), dynamic=False) for block in blocks
        }

    @contextmanager
    def __call__(self) -> Iterator[None]:
        """Run the blocks compiled; calls may overlap."""
        with _more_variants(len(self._forwards)), rerouted(self._forwards):
            yield


@contextmanager
def _more_variants(count: int) -> Iterator[None]:
    """Blocks of one class share their compiled variants; beyond 8 Dynamo would run them eagerly."""
    import torch._dynamo.config as dynamo  # slow to import, and few compile

    with LOCK:
        dynamo.recompile_limit += count
    try:
        yield
    finally:
        with LOCK:  # a difference, so that overlapping calls may leave in any order
            dynamo.recompile_limit -= count


def _all_blocks(modules: Iterable[nn.Module]) -> list[nn.Module]:
    return list(dict.fromkeys(block for module in modules for block in _blocks(module)))


def _blocks(module: nn.Module) -> Iterator[nn.Module]:
    for child in module.children():
        if isinstance(child, nn.ModuleList):
            yield from child
        else:
            yield from _blocks(child)


class SavedBytes:
    """Counts the bytes that autograd saves inside the block: each storage once, parameters not."""

    def __init__(self, modules: Iterable[nn.Module] = ()) -> None:
        self.total = 0
        self._seen = {
            tensor.untyped_storage().data_ptr() for m in modules for tensor in m.parameters()
        }
        self._hooks = torch.autograd.graph.saved_tensors_hooks(self._pack, lambda tensor: tensor)

    def _pack(self, tensor: Tensor) -> Tensor:
        storage = tensor.untyped_storage()
        if storage.data_ptr() not in self._seen:
            self._seen.add(storage.data_ptr())
            self.total += storage.nbytes()
        return tensor

    def __enter__(self) -> SavedBytes:
        self._hooks.__enter__()
        return self

    def __exit__(self, *exc: object) -> None:
        self._hooks.__exit__(*exc)
