"""Recipes of prompts: a pipeline's folder, FID and CLIP score of one pass."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

pytest.importorskip("diffusers")
pytest.importorskip("transformers")

import tiny_pipelines as tiny
from reproduce_cases import feature_file, statistics_of
from test_scoring_prompts import tiny_clip

from reg_engine import Cosine, Guidance
from reg_engine.integrations.diffusers import sample
from reg_engine.reproduce import RECIPES, Reproduction
from reg_engine.reproduce.pipelines import Pipelines
from reg_engine.reproduce.points import points_of
from reg_engine.reproduce.run import Judge
from reg_engine.scoring import load_network, score
from reg_engine.scoring.prompts import load_prompt_score

PROMPTS = ["a cat", "two dogs", "a cat two", "a"]
SD = RECIPES["sd-1.4"]


def test_a_row_is_the_scores_of_the_pipelines_pictures(tmp_path: Path) -> None:
    tiny.sd().save_pretrained(tmp_path / "sd")
    tiny_clip(tmp_path / "clip")
    network = load_network(f"{feature_file(tmp_path)}:network")
    clip = load_prompt_score(f"clip:{tmp_path / 'clip'}")
    judge = Judge(network, ("fid",), statistics_of(network), (clip,))
    (point,) = points_of(SD, ["cosine"], ["fd"], [3.0], steps=2)
    sampler = Pipelines(str(tmp_path / "sd"), PROMPTS)
    work = Reproduction(SD, sampler, judge, tmp_path / "parts", batch_size=2)
    (row,) = work.measure([point])
    parts = [
        sample(
            sampler.pipe,
            PROMPTS[k : k + 2],
            seeds=[k, k + 1],
            guidance=Guidance(Cosine(3.0), rectify="fd"),
            steps=2,
            progress=False,
        ).images.permute(0, 3, 1, 2)
        for k in (0, 2)
    ]
    alone = score(parts, network, ["fid"], judge.conventions, statistics=judge.statistics)
    assert row["fid"]["value"] == pytest.approx(alone.result["metrics"]["fid"]["value"], rel=1e-9)
    said = clip.call(torch.cat(parts), PROMPTS)
    assert row["clip"]["mean"] == pytest.approx(float(said.double().mean()), rel=1e-5)
    assert row["clip"]["count"] == 4 and row["cost"]["estimator"] == "fd"


def test_without_guidance_one_prediction_a_step() -> None:
    sampler = Pipelines(tiny.sd(), PROMPTS)
    (point,) = points_of(SD, ["vanilla"], ["paper"], [1.0], steps=2)
    source = sampler(point)
    source.read(range(2))
    assert source.stats.nfe == 2 and source.stats.backward == 0
    for point in points_of(SD, None, ["none", "paper"], [1.0], steps=2):
        assert sampler(point).fingerprint() == source.fingerprint()
