"""Weights files that ask for more than they hold: refused before anything is built or allocated."""

from __future__ import annotations

import json
import re
import resource
import struct
import time
from pathlib import Path
from typing import Any

import pytest
import torch
from file_cases import DESCRIPTIONS, JUDGE, NET, saved, with_description

from reg_engine import InputError
from reg_engine.models import EDM2, NoisyClassifier, UNet, UNet2D, load_classifier, load_model
from reg_engine.models.checkpoint import ARCHITECTURES
from reg_engine.models.dit import DiT, SiT
from reg_engine.postprocess import load_postprocess

LOADERS = {"model": load_model, "classifier": load_classifier, "flow": load_postprocess}


def refused(path: Path, kind: str) -> str:
    """The one error, within a second and 100 MB."""
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    begun = time.process_time()
    with pytest.raises(InputError) as caught:
        LOADERS[kind](path)
    assert time.process_time() - begun < 1
    assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before < 100_000  # kB
    assert len(str(caught.value)) < 1000 and "\n" not in str(caught.value)
    return str(caught.value)


def test_the_files_themselves_are_taken(tmp_path: Path) -> None:
    for kind, load in LOADERS.items():
        (tmp_path / f"{kind}.safetensors").write_bytes(saved(kind, tmp_path))
        load(tmp_path / f"{kind}.safetensors")


ARGUMENTS: list[tuple[str, dict[str, Any], str]] = [
    ("model", {**NET, "blocks": [10**6, 1, 1, 1]}, "blocks are .* tensors"),
    ("model", {**NET, "blocks": [17, 1, 1, 1]}, "missing"),
    ("model", {**NET, "blocks": [1] * 17}, "blocks is"),
    ("model", {**NET, "blocks": []}, "not enough values|out of range"),
    ("model", {**NET, "heads": 0}, "heads: is 0"),
    ("model", {**NET, "heads": -1}, "heads: is -1"),
    ("model", {**NET, "heads": 3}, "multiples"),
    ("model", {**NET, "channels": [1 << 19, 1 << 19]}, "the network has"),
    ("model", {**NET, "channels": [1 << 40, 16]}, "channels is"),
    ("model", {**NET, "channels": [10**400, 16]}, "channels is"),
    ("model", {**NET, "channels": "16"}, "channels is"),
    ("model", {**NET, "channels": {"16": 16}}, "channels is"),
    ("model", {**NET, "embedding": 1 << 20}, "the network has"),
    ("model", {**NET, "num_labels": 1 << 20}, "the network has"),
    ("model", {**NET, "num_labels": True}, "num_labels is"),
    ("model", {**NET, "image_channels": float("nan")}, "image_channels is"),
    ("classifier", {**JUDGE, "blocks": 10**6}, "blocks are"),
    ("classifier", {**JUDGE, "sigma_data": 0}, "sigma_data: is 0"),
    ("classifier", {**JUDGE, "num_classes": 0}, "num_classes: is 0"),
    ("flow", {**NET, "blocks": [1, 1, 1, 60]}, "missing|blocks are"),
]


@pytest.mark.parametrize(("kind", "arguments", "problem"), ARGUMENTS)
def test_a_network_larger_than_its_weights_is_not_built(
    kind: str, arguments: Any, problem: str, tmp_path: Path
) -> None:
    path = tmp_path / "a.safetensors"
    path.write_bytes(saved(kind, tmp_path, arguments=arguments))
    assert re.search(problem, refused(path, kind))


@pytest.mark.parametrize("levels", [16, 3])
def test_levels_count_as_blocks(levels: int, tmp_path: Path) -> None:
    arguments = {"channels": 32, "multipliers": [1] * levels, "blocks": 60, "size": 1 << 15}
    path = tmp_path / "a.safetensors"
    path.write_bytes(saved("model", tmp_path, architecture="unet2d", arguments=arguments))
    assert "blocks are 60" in refused(path, "model")


@pytest.mark.parametrize("architecture", ["dit", "sit", "edm2"])
def test_no_table_is_made_before_the_comparison(architecture: str, tmp_path: Path) -> None:
    """Places of 2^38 patches 2^20 wide would be a table of 2^60 bytes."""
    arguments = {"size": 1 << 20, "patch": 2, "width": 1 << 20, "blocks": 1, "heads": 1}
    if architecture == "edm2":
        arguments = {"size": 1 << 20, "channels": 1 << 18, "blocks": 1, "num_labels": 1 << 20}
    path = tmp_path / "a.safetensors"
    path.write_bytes(saved("model", tmp_path, architecture=architecture, arguments=arguments))
    assert "do not fit the network" in refused(path, "model")


@pytest.mark.parametrize(
    ("kind", "changed", "problem"),
    [
        ("model", {"null_cond": 99}, "null_cond is 99, the network has 3 labels"),
        ("model", {"null_cond": 3}, "null_cond is 3"),
        ("model", {"null_cond": -1}, "null_cond is -1"),
        ("model", {"null_cond": [2]}, "null_cond is"),
        ("model", {"num_classes": 4}, "num_classes is 4"),
        ("model", {"num_classes": True}, "num_classes is True"),
        ("model", {"sample_shape": [3, 8, 8]}, "takes no samples"),
        ("model", {"sample_shape": [1, 9, 8]}, "takes no samples"),
        ("model", {"sample_shape": [1, 8]}, "takes no samples"),
        ("model", {"sample_shape": [1, 1 << 20, 1 << 20]}, "takes no samples"),
        ("model", {"sample_shape": "188"}, "incomplete"),
        ("model", {"sample_shape": []}, "takes no samples|incomplete"),
        ("model", {"sigma_data": "x"}, "sigma_data|incomplete"),
        ("model", {"schedule": {"name": ["edm"]}}, "schedule"),
        ("model", {"schedule": [1]}, "incomplete"),
        ("model", {"prediction": ["edm"] * 1000}, "prediction"),
        ("flow", {"num_classes": 3}, "null_cond is 3"),
        ("flow", {"sample_shape": [1, 6, 6]}, "takes no samples"),
        ("flow", {"flow": {**DESCRIPTIONS["flow"]["flow"], "steps": 10**9}}, "steps are"),
        ("flow", {"flow": {**DESCRIPTIONS["flow"]["flow"], "solver": 3}}, "solver"),
        ("flow", {"flow": [1]}, "describes no postprocessing flow"),
        ("flow", {"use": "model"}, "use is 'model'"),
    ],
)
def test_what_the_network_cannot_do_is_refused(
    kind: str, changed: dict[str, Any], problem: str, tmp_path: Path
) -> None:
    path = tmp_path / "a.safetensors"
    path.write_bytes(saved(kind, tmp_path, **changed))
    assert re.search(problem, refused(path, kind))


@pytest.mark.parametrize("kind", LOADERS)
@pytest.mark.parametrize("text", ["[" * 200_000, '{"a":' * 100_000, "9" * 5000, "null", '"a"'])
def test_nested_descriptions(kind: str, text: str, tmp_path: Path) -> None:
    path = tmp_path / "a.safetensors"
    path.write_bytes(with_description(saved(kind, tmp_path), text))
    assert "description" in refused(path, kind)


def test_long_headers_and_other_dtypes(tmp_path: Path) -> None:
    path = tmp_path / "a.safetensors"
    path.write_bytes(struct.pack("<Q", 2 << 20) + b" " * (2 << 20))
    assert "header of 2097152 bytes" in refused(path, "model")
    path.write_bytes(struct.pack("<Q", 2**63))
    assert "header of" in refused(path, "model")
    content = saved("model", tmp_path)
    length = int.from_bytes(content[:8], "little")
    header = json.loads(content[8 : 8 + length])
    for entry in (header["stem.bias"], header["stem.weight"]):
        entry["dtype"] = "I16"
    text = json.dumps(header).encode()
    path.write_bytes(struct.pack("<Q", len(text)) + text + content[8 + length :])
    assert "'stem.bias' is I16" in refused(path, "model")


MADE = [UNet, NoisyClassifier, UNet2D, EDM2, DiT, SiT]


@pytest.mark.parametrize("make", MADE)
def test_sizes_below_one_are_refused_by_name(make: Any) -> None:
    with torch.device("meta"):
        arguments = make().arguments
    for name, value in arguments.items():
        if name in ("dropout", "num_labels", "time_scale", "sigma_data"):
            continue
        for bad in (0, -1, 1.5, True):
            wrong = [bad] * len(value) if isinstance(value, list) else bad
            with pytest.raises(InputError, match=f"{name}: is"):
                make(**{**arguments, name: wrong})
    assert set(ARCHITECTURES.values()) == set(MADE)
