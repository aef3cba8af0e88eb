"""Feature networks: any function of 8-bit images, with a fingerprint that its results carry."""

from __future__ import annotations

import hashlib
import importlib
import importlib.util
import inspect
from collections.abc import Callable, Sequence
from pathlib import Path
from types import ModuleType
from typing import Any

import torch
from torch import Tensor, nn

from ..errors import InputError
from ..models import PACKAGED, load_classifier
from ..storage.digest import digest
from ..storage.readers import open_regular, refusing
from ..values import shown, usable
from .known import KNOWN
from .network import Network
from .resize import Resize

__all__ = ["load_network"]

REMEDY = (
    f"Give {', '.join(PACKAGED)}, {', '.join(f'{name}:PATH' for name in KNOWN)}, package.module:"
    "name, file.py:name, a TorchScript file (.pt) or an .onnx"
)


def load_network(
    text: str, *, resize: Resize | None = None, device: str | torch.device = "cpu"
) -> Network:
    """A feature network by its name.

    Code that is named is run: a Python path is imported, and a TorchScript file is a program. Name
    what you trust. Nothing is downloaded and nothing unpickled.

    Args:
        text: `mnist` or `fashion`, the packaged classifiers, for grey images in their size;
            `inception:FILE` and `dinov2:FOLDER`, see known.py;
            `package.module:name` or `path/to/file.py:name`, a function or module called with
            (n, 3, H, W) uint8, or (n, 1, H, W) for grey arrays;
            a TorchScript file (.pt, .ts), called likewise;
            an .onnx, called with what its first input asks for, uint8 or float32 in [0, 255].
            It returns (n, F) floats, or a pair of these and of logits (n, C) for the inception
            score.
        resize: before the network; None: as the network is published, or not at all. Filters that
            do not round hand over float32 in [0, 255].
        device: where it runs.

    Raises:
        InputError: an unknown name; a file or a package that is missing; something that cannot be
            called.
    """
    device = usable(device)
    kind, colon, rest = text.partition(":")
    if text in PACKAGED:
        return _classifier(text, resize, device)
    if colon and kind in KNOWN:
        return KNOWN[kind](rest, resize, device)
    if text.endswith((".pt", ".ts")):
        return _scripted(text, resize, device)
    if text.endswith(".onnx"):
        return _onnx(text, resize, device)
    if colon and rest:
        return _named(text, resize, device)
    raise InputError("features", f"{shown(text)} is no feature network", REMEDY)


def _classifier(name: str, resize: Resize | None, device: str | torch.device) -> Network:
    classifier = load_classifier(name).to(device)

    def call(images: Tensor) -> tuple[Tensor, Tensor]:
        found = classifier.features(images.float() / 127.5 - 1.0)
        return found, classifier.head(found)

    return Network(name, call, digest(classifier), resize, device, channels=1)


def _scripted(text: str, resize: Resize | None, device: str | torch.device) -> Network:
    """A TorchScript file. Those that ask for `return_features`, as Inception networks that travel
    as TorchScript do, are told to."""
    with refusing("features", f"{text!r} is no readable TorchScript file", REMEDY):
        net = torch.jit.load(text, map_location=device).eval()
        names = [each.name for each in net.forward.schema.arguments]
    more = {"return_features": True} if "return_features" in names else {}
    return Network(text, lambda images: net(images, **more), _hash(text), resize, device)


def _onnx(text: str, resize: Resize | None, device: str | torch.device) -> Network:
    try:
        import onnxruntime
    except ImportError as error:
        raise InputError(
            "features", f"needs onnxruntime ({error})", "Run `pip install onnxruntime`"
        ) from error
    wanted = ["CUDAExecutionProvider"] if torch.device(device).type == "cuda" else []
    providers = [*wanted, "CPUExecutionProvider"]
    with refusing("features", f"{text!r} is no readable ONNX file", REMEDY):
        session = onnxruntime.InferenceSession(text, providers=providers)
        (asked, *_) = session.get_inputs()
    floats = asked.type == "tensor(float)"

    def call(images: Tensor) -> Any:
        values = images.float() if floats else images
        found = session.run(None, {asked.name: values.contiguous().cpu().numpy()})
        tensors = tuple(torch.from_numpy(each) for each in found)
        return tensors[0] if len(tensors) == 1 else tensors

    return Network(text, call, _hash(text), resize, device)


def _named(text: str, resize: Resize | None, device: str | torch.device) -> Network:
    """`package.module:name`, or `file.py:name`."""
    place, _, name = text.rpartition(":")
    with refusing("features", f"{place!r} cannot be imported", REMEDY):
        module = _file(place) if place.endswith(".py") else importlib.import_module(place)
    found = getattr(module, name, None)
    if not callable(found) or isinstance(found, type):
        raise InputError("features", f"{place!r} has no function {name!r}", REMEDY)
    if isinstance(found, nn.Module):
        found = found.eval().to(device)
    return Network(text, found, _fingerprint(found, module), resize, device)


def _file(place: str) -> ModuleType:
    name = Path(place).stem
    spec = importlib.util.spec_from_file_location(name, place)
    if spec is None or spec.loader is None:
        raise ImportError(f"no module can be made of {place}")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def _fingerprint(found: Callable[..., Any], module: ModuleType) -> str:
    """Of the function with all it holds, and of the text of its module, which it may use."""
    try:
        text = inspect.getsource(module)
    except (OSError, TypeError):  # compiled
        text = ""
    held: Sequence[object] = (found,)
    while True:
        try:
            return digest(text, *held)
        except TypeError:  # a lock or a generator: the text alone
            held = (module.__name__,)


def _hash(path: str) -> str:
    found = hashlib.sha256()
    with open_regular(path) as file:
        while piece := file.read(1 << 20):
            found.update(piece)
    return found.hexdigest()
