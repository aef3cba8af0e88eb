"""Networks during a call: parameters frozen, evaluation mode, gradients only where they are asked
for."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from contextlib import ExitStack, contextmanager
from functools import partial

import torch
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint

from .errors import InputError

__all__ = ["Compiled", "SavedBytes", "checkpointed", "frozen", "recording"]


@contextmanager
def frozen(modules: Iterable[nn.Module]) -> Iterator[None]:
    """Parameters without gradients and modules in evaluation mode; both restored, also on an
    exception.

    Frozen parameters let autograd drop the inputs of linear layers: about half of what it saves.
    """
    modules = list(modules)
    parameters = [p for module in modules for p in module.parameters() if p.requires_grad]
    training = [m for module in modules for m in module.modules() if m.training]
    try:
        for parameter in parameters:
            parameter.requires_grad_(False)
        for module in training:
            module.training = False
        yield
    finally:
        for parameter in parameters:
            parameter.requires_grad_(True)
        for module in training:
            module.training = True


@contextmanager
def recording(x: Tensor) -> Iterator[Tensor]:
    """Yield a copy of x that records gradients, also inside torch.inference_mode."""
    with torch.inference_mode(False), torch.enable_grad():
        yield x.detach().clone().requires_grad_(True)


@contextmanager
def checkpointed(modules: Iterable[nn.Module]) -> Iterator[int]:
    """Recompute every block (member of an outermost nn.ModuleList) in the backward pass; yields
    how many.

    Memory falls to one block's activations plus one state a block, for one more forward pass.
    """
    blocks = [block for module in modules for block in _blocks(module)]
    with ExitStack() as stack:
        for block in blocks:
            own = block.__dict__.get("forward")  # somebody else's patch, to be put back
            block.__dict__["forward"] = partial(checkpoint, block.forward, use_reentrant=False)
            stack.callback(_restore, block, own)
        yield len(blocks)


class Compiled:
    """Context in which every block of `modules` runs through torch.compile; kept for later calls.

    Blocks of one class share a compilation (regional compilation), and graph capture and the
    rectifiers' gradients act on the compiled blocks as on plain ones. Restored at the end.

    Raises:
        InputError: no module has a nn.ModuleList of blocks.
    """

    def __init__(self, modules: Iterable[nn.Module]) -> None:
        self._blocks = [block for module in modules for block in _blocks(module)]
        if not self._blocks:
            raise InputError(
                "compile",
                "the network has no nn.ModuleList of blocks to compile",
                "Compile the network yourself and give the result to Denoiser",
            )
        self._forwards = [torch.compile(block.forward, dynamic=False) for block in self._blocks]
        self._stack = ExitStack()

    def __enter__(self) -> Compiled:
        import torch._dynamo.config as dynamo  # slow to import, and few compile

        # Blocks of one class share their compiled variants; beyond 8 Dynamo would run them eagerly.
        limit = dynamo.recompile_limit + len(self._blocks)
        self._stack.enter_context(dynamo.patch(recompile_limit=limit))
        for block, forward in zip(self._blocks, self._forwards, strict=True):
            own = block.__dict__.get("forward")
            block.__dict__["forward"] = forward
            self._stack.callback(_restore, block, own)
        return self

    def __exit__(self, *exc: object) -> None:
        self._stack.close()


def _blocks(module: nn.Module) -> Iterator[nn.Module]:
    for child in module.children():
        if isinstance(child, nn.ModuleList):
            yield from child
        else:
            yield from _blocks(child)


def _restore(block: nn.Module, own: object) -> None:
    del block.__dict__["forward"]  # the class's forward shows again
    if own is not None:
        block.__dict__["forward"] = own


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
