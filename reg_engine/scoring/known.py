"""Feature networks that papers use, from files at hand: Inception-v3 of FID, DINOv2."""

from __future__ import annotations

import io
from collections.abc import Callable
from pathlib import Path

import torch
from torch import Tensor

from ..errors import InputError
from ..storage.digest import digest
from ..storage.readers import refusing
from .network import Network
from .resize import Resize

__all__ = ["KNOWN", "dinov2", "inception"]

MEAN, DEVIATION = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)  # of ImageNet


def inception(path: str, resize: Resize | None, device: str | torch.device) -> Network:
    """The Inception-v3 of FID (Szegedy et al. 2015, TensorFlow's weights of 2015-12-05), built by
    torch-fidelity: 2048 features, and the logits without bias for the inception score.

    It resizes to 299 by itself, by `tf-bilinear`.

    Args:
        path: weights-inception-2015-12-05-6726825d.pth, or others for the same network; read with
            weights_only=True.

    Raises:
        InputError: torch-fidelity is missing, or the file does not fit.
    """
    try:
        from torch_fidelity.feature_extractor_inceptionv3 import FeatureExtractorInceptionV3
    except ImportError as error:
        problem, remedy = f"inception needs torch-fidelity ({error})", "Run `pip install "
        raise InputError("features", problem, f"{remedy}torch-fidelity`") from error
    with refusing("features", f"{path!r} holds no weights of Inception", "Give torch-fidelity's"):
        weights = torch.load(path, map_location="cpu", weights_only=True)
        clean = io.BytesIO()  # torch-fidelity would unpickle the file itself
        torch.save(weights, clean)
        clean.seek(0)
        names = ["2048", "logits_unbiased"]
        net = FeatureExtractorInceptionV3("inception", names, feature_extractor_weights_path=clean)
    net.to(device)

    def call(images: Tensor) -> tuple[Tensor, Tensor]:
        features, logits = net(images.round().to(torch.uint8))
        return features, logits

    return Network("inception", call, digest(net.state_dict()), resize, device)


def dinov2(path: str, resize: Resize | None, device: str | torch.device) -> Network:
    """DINOv2 (Oquab et al. 2023): the normalised class token, as FD-DINOv2 takes it.

    Stein et al. 2023 (arXiv 2306.04675) resize to 224 by Pillow's bicubic, EDM2 (Karras et al.
    2024) by torch's antialiased one, which is the default here; both then scale by ImageNet's mean
    and deviation. Published values are of ViT-L/14 without registers.

    Args:
        path: the folder of a transformers model, with safetensors.

    Raises:
        InputError: transformers is missing, or the folder holds no such model.
    """
    try:
        from transformers import AutoModel
    except ImportError as error:
        problem = f"dinov2 needs transformers ({error})"
        raise InputError("features", problem, "Run `pip install transformers`") from error
    remedy = "Give the folder of facebook/dinov2-large, as save_pretrained writes it"
    with refusing("features", f"{path!r} holds no DINOv2", remedy):
        if not Path(path).is_dir():
            raise OSError("it is no folder")
        net = AutoModel.from_pretrained(path, local_files_only=True, use_safetensors=True)
        if not net.config.model_type.startswith("dinov2"):
            raise ValueError(f"it is a {net.config.model_type}")
    net.eval().to(device)
    mean = torch.tensor(MEAN, device=device)[:, None, None]
    deviation = torch.tensor(DEVIATION, device=device)[:, None, None]

    def call(images: Tensor) -> Tensor:
        values = (images.float() / 255 - mean) / deviation
        found: Tensor = net(pixel_values=values).last_hidden_state[:, 0]
        return found

    fingerprint = digest(net.config.to_json_string(), net.state_dict())
    chosen = resize or Resize(224, "torch-bicubic")
    return Network("dinov2", call, fingerprint, chosen, device)


KNOWN: dict[str, Callable[[str, Resize | None, str | torch.device], Network]] = {
    "inception": inception,
    "dinov2": dinov2,
}
