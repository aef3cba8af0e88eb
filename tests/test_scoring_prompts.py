"""Scores of images beside their prompts: CLIP's by hand and by torchmetrics; the others' doors."""

from __future__ import annotations

import json
import sys
import types
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from scoring_cases import pixels
from torch import Tensor

from reg_engine import InputError
from reg_engine.scoring import Extraction, Tensors
from reg_engine.scoring.extract import extract
from reg_engine.scoring.prompts import PromptScore, load_prompt_score, mean_score, read_prompts

IMAGES = pixels(5, side=30)
PROMPTS = ["a cat", "two dogs", "a", "cat dogs a two", "a cat " * 60]


def tiny_clip(folder: Path) -> Any:
    """A CLIPModel of random weights with its tokenizer and its preparation of images."""
    transformers = pytest.importorskip("transformers")
    words = ["a", "cat", "two", "dogs"]
    vocabulary = {"<|startoftext|>": 0, "<|endoftext|>": 1}
    letters = sorted(set("".join(words)))
    for token in (*letters, *(f"{x}</w>" for x in letters)):
        vocabulary.setdefault(token, len(vocabulary))
    folder.mkdir()
    (folder / "vocab.json").write_text(json.dumps(vocabulary))
    (folder / "merges.txt").write_text("#version: 0.2\n")
    transformers.CLIPTokenizer(
        str(folder / "vocab.json"), str(folder / "merges.txt")
    ).save_pretrained(folder)
    sizes = {"hidden_size": 16, "intermediate_size": 16, "num_hidden_layers": 1}
    text = {**sizes, "num_attention_heads": 2, "vocab_size": len(vocabulary), "eos_token_id": 1}
    vision = {**sizes, "num_attention_heads": 2, "image_size": 28, "patch_size": 14}
    torch.manual_seed(0)
    model = transformers.CLIPModel(
        transformers.CLIPConfig(text_config=text, vision_config=vision, projection_dim=8)
    )
    model.eval().save_pretrained(folder)
    size = {"size": {"shortest_edge": 28}, "crop_size": {"height": 28, "width": 28}}
    transformers.CLIPImageProcessor(**size).save_pretrained(folder)
    return model


def scored(judge: PromptScore, images: np.ndarray = IMAGES, **more: Any) -> dict[str, Any]:
    blocks = extract(Tensors(images), judge.asking(PROMPTS), Extraction(2, **more))
    return mean_score(blocks, judge)


def test_clip_score_by_hand(tmp_path: Path) -> None:
    """Pixels are at CLIP's size but for a centre crop, so that only its scaling is left."""
    images = np.ascontiguousarray(IMAGES[:, :28, :28])
    model = tiny_clip(tmp_path / "clip")
    import transformers

    tokens = transformers.AutoTokenizer.from_pretrained(tmp_path / "clip")
    judge = load_prompt_score(f"clip:{tmp_path / 'clip'}")
    mean = torch.tensor([0.48145466, 0.4578275, 0.40821073])
    deviation = torch.tensor([0.26862954, 0.26130258, 0.27577711])
    expected = []
    for image, prompt in zip(images, PROMPTS, strict=True):
        values = ((torch.from_numpy(image) / 255 - mean) / deviation).permute(2, 0, 1)[None]
        said = tokens(prompt, truncation=True, max_length=77, return_tensors="pt")
        with torch.no_grad():
            seen = model.visual_projection(model.vision_model(values).pooler_output)
            heard = model.text_projection(model.text_model(**said).pooler_output)
        expected.append(100 * max(0.0, float(torch.cosine_similarity(seen, heard))))
    found = scored(judge, images)
    assert any(expected) and found["mean"] == pytest.approx(np.mean(expected), rel=1e-5)
    half = 1.96 * np.std(expected, ddof=1) / 5**0.5
    assert found["error"] == pytest.approx(half, rel=1e-4)
    assert found["count"] == 5 and found["unreadable"] == 0 and "100 max(cosine" in found["is"]
    one = load_prompt_score(f"clip:{tmp_path / 'clip'}").fingerprint
    assert one == judge.fingerprint
    with pytest.raises(InputError, match="holds no CLIP"):
        load_prompt_score(f"clip:{tmp_path}")


class Package(types.ModuleType):
    """Stands for image-reward, and for hpsv2.img_score: what their documentation says they do."""

    def __init__(self) -> None:
        super().__init__("package")
        self.asked: list[Any] = []

    def load(self, name: str, device: Any, download_root: str, med_config: str = "") -> Any:
        """ImageReward.load"""
        self.asked.append((name, download_root, med_config))
        return types.SimpleNamespace(score=lambda said, image: float(len(said) + image.width))

    def score(self, image: Any, prompt: str, cp: str) -> list[np.float16]:
        """hpsv2.img_score.score"""
        self.asked.append(cp)
        return [np.float16(len(prompt) / 4)]


def test_imagereward_is_asked_through_its_package(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    package = Package()
    monkeypatch.setitem(sys.modules, "ImageReward", package)
    (tmp_path / "ImageReward.pt").write_bytes(b"weights")
    (tmp_path / "med_config.json").write_text("{}")
    found = scored(load_prompt_score(f"imagereward:{tmp_path}/ImageReward.pt"))
    assert found["mean"] == np.mean([len(p) + 30 for p in PROMPTS])
    paths = f"{tmp_path}/ImageReward.pt", str(tmp_path), f"{tmp_path}/med_config.json"
    assert package.asked == [paths]


def test_hpsv2_is_asked_through_its_package(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    package = Package()
    monkeypatch.setitem(sys.modules, "hpsv2", types.ModuleType("hpsv2"))
    monkeypatch.setitem(sys.modules, "hpsv2.img_score", package)
    (tmp_path / "hps.pt").write_bytes(b"weights")
    found = scored(load_prompt_score(f"hpsv2:{tmp_path}/hps.pt"))
    assert found["mean"] == np.mean([len(p) / 4 for p in PROMPTS])
    assert package.asked == [f"{tmp_path}/hps.pt"] * 5


def test_what_is_missing_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "w.pt").write_bytes(b"")
    for name, package in (("ImageReward", "image-reward"), ("hpsv2.img_score", "hpsv2")):
        monkeypatch.setitem(sys.modules, name, None)
        kind = "hpsv2" if package == "hpsv2" else "imagereward"
        with pytest.raises(InputError, match=f"pip install {package}"):
            load_prompt_score(f"{kind}:{tmp_path}/w.pt")
    for bad in ("clip", "clip:", "clip:missing", "aesthetic:w.pt"):
        with pytest.raises(InputError, match="prompt_score"):
            load_prompt_score(bad)


def test_a_score_that_is_none_is_refused() -> None:
    for made in (torch.zeros(5, 1), torch.full((2,), torch.nan)):

        def call(images: Tensor, prompts: Any, made: Tensor = made) -> Tensor:
            return made

        with pytest.raises(InputError, match="prompt_score"):
            scored(PromptScore("s", call, "s", "nothing"))


def test_prompts_are_lines(tmp_path: Path) -> None:
    path = tmp_path / "p.txt"
    path.write_bytes("a cat\r\n\nzwei Hünde\n".encode())
    assert read_prompts(path, 3) == ["a cat", "", "zwei Hünde"]
    with pytest.raises(InputError, match="are 3 for 4 images"):
        read_prompts(path, 4)
    path.write_bytes(b"\xff\xfe")
    with pytest.raises(InputError, match="prompts"):
        read_prompts(path, 1)
    with pytest.raises(InputError, match="missing"):
        read_prompts(tmp_path / "missing", 1)


def test_prompts_stay_with_their_images_where_some_are_left_out() -> None:
    class Holey(Tensors):
        def read(self, numbers: range) -> Any:
            part = super().read(numbers)
            rows = [n for n in numbers if n != 1]
            left = tuple("1 (broken)" for n in numbers if n == 1)
            return part._replace(
                images=part.images[[n - numbers.start for n in rows]], numbers=rows, unreadable=left
            )

    judge = PromptScore("s", lambda _, prompts: torch.tensor([len(p) for p in prompts]), "s", "n")
    blocks = extract(Holey(IMAGES), judge.asking(PROMPTS), Extraction(2, on_error="skip"))
    found = mean_score(blocks, judge)
    assert found["mean"] == np.mean([len(PROMPTS[n]) for n in (0, 2, 3, 4)])
    assert (found["count"], found["unreadable"]) == (4, 1)
    with pytest.raises(InputError, match="not one of them"):
        mean_score([], judge)
