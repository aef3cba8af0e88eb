"""Small networks of random weights under the published names, and a small feature network."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch
from edm2_cases import SMALL, drawn
from test_models_dit import small as small_dit
from test_models_dit_guided import DESCRIPTION as GUIDED
from test_models_edm2 import DESCRIPTION as EDM
from torch import Tensor

from reg_engine.models.edm2 import EDM2
from reg_engine.models.latents import SD_LATENTS
from reg_engine.reproduce.points import RecipePoint
from reg_engine.scoring import Network, Statistics
from reg_engine.storage.weights import save_weights

DIT = {**GUIDED, "latents": SD_LATENTS.described()}
FEATURES = '''
"""Eight features and four logits of pictures."""

import torch


def network(images):
    flat = images.float().flatten(1) / 255
    grid = torch.arange(flat.shape[1], dtype=torch.float32)
    waves = torch.stack([torch.sin((k + 1) * 0.37 * grid) for k in range(8)])
    features = flat @ waves.T
    return features, features[:, :4]
'''


def weights(folder: Path, points: list[RecipePoint]) -> Path:
    """Every file that the points ask for, each network another one."""
    folder.mkdir(exist_ok=True)
    stems = {s for p in points if (f := p.files) for s in (f.net, f.reference) if s}
    for number, stem in enumerate(sorted(stems)):
        torch.manual_seed(number)
        if stem.startswith("DiT"):
            net: Any = small_dit()
            description = {**DIT, "arguments": net.arguments}
        else:
            labels = {} if "uncond" not in stem else {"num_labels": 0}
            net = drawn(EDM2(**{**SMALL, **labels}), number)
            told = {} if not labels else {"num_classes": None, "null_cond": None}
            description = {**EDM, **told, "arguments": net.arguments}
        save_weights(folder / f"{stem}.safetensors", net.state_dict(), description)
    return folder


def feature_file(folder: Path) -> Path:
    """A feature network as a user writes one."""
    path = folder / "features.py"
    path.write_text(FEATURES)
    return path


def statistics_of(network: Network, count: int = 64) -> Statistics:
    """Of noise pictures."""
    from reg_engine.scoring import Tensors, score

    generator = torch.Generator().manual_seed(3)
    images: Tensor = torch.randint(0, 256, (count, 3, 8, 8), generator=generator).to(torch.uint8)
    return score(Tensors(images), network, ()).statistics
