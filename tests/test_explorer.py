"""The explorer's functions from choices to pictures and numbers, without a browser."""

from __future__ import annotations

import io
from pathlib import Path
from typing import Any

import pytest
import torch
from PIL import Image

pytest.importorskip("matplotlib", reason="matplotlib is not installed")

from reg_engine import Engine, InputError, oracles
from reg_engine.explorer import digits, methods, mixture, models, view
from reg_engine.explorer.digits import DigitChoices
from reg_engine.explorer.mixture import MIXTURE, MODEL, MixtureChoices
from reg_engine.explorer.models import ModelChoices
from reg_engine.explorer.view import Stale
from reg_engine.metrics import label_agreement
from reg_engine.models import WEIGHTS


def size_of(picture: view.Picture) -> tuple[int, int]:
    with Image.open(io.BytesIO(picture.data)) as image:
        image.load()
        return image.size


def no_longer(after: int) -> Any:
    """Wanted for `after` questions, and how often it was asked."""
    asked: list[int] = []

    def wanted() -> bool:
        asked.append(1)
        return len(asked) <= after

    return wanted, asked


def test_two_methods_on_the_mixture() -> None:
    choices = MixtureChoices(("CFG", "REG (vjp)"), scale=3.0, steps=18, seed=3)
    found = mixture.compare(choices)
    cfg, reg, floor = (dict(zip(found.head, row, strict=True)) for row in found.rows)
    engine = Engine(MODEL, scale=3.0, rectify=None, steps=18, dtype=torch.float64, progress=False)
    noise = mixture.sobol_noise(mixture.COUNT, 3)
    points = engine.sample(torch.zeros(len(noise), dtype=torch.long), noise=noise).samples
    draws = MIXTURE.target_sampler(2.0)(mixture.TARGET, torch.Generator().manual_seed(0))
    assert cfg["energy distance"] == f"{oracles.energy_distance(points, draws):.4f}"
    assert float(reg["energy distance"]) < float(cfg["energy distance"]) / 10
    assert float(floor["energy distance"]) < float(reg["energy distance"])
    assert (cfg["evaluations a sample"], cfg["backward passes"]) == ("70.0", "0")
    assert (reg["evaluations a sample"], reg["backward passes"]) == ("70.0", "35")
    left, right = found.pictures
    assert size_of(left) == size_of(right) and left.data != right.data
    assert left.alt.startswith("CFG: ") and cfg["energy distance"] in left.alt
    assert mixture.compare(choices).pictures == found.pictures


def test_the_arrows_are_the_guidance() -> None:
    """CFG's are w (cond - ref), REG's w K (cond - ref), from the closed forms."""
    for level in (0.1, 0.5, 2.0):
        choices = MixtureChoices(scale=2.5, level=level)
        feet, shift = mixture.run(choices, "CFG").arrows
        delta = MIXTURE.denoised(feet, 1.0, level, 0) - MIXTURE.denoised(feet, 1.0, level)
        assert (shift - 1.5 * delta).abs().max() < 1e-9
        again, rectified = mixture.run(choices, "REG (vjp)").arrows

        def total(x: torch.Tensor, level: float = level) -> torch.Tensor:
            return MIXTURE.denoised(x, 1.0, level, 0).sum(0)

        jacobian = torch.autograd.functional.jacobian(total, feet).transpose(0, 1)
        exact = 1.5 * torch.einsum("nij,nj->ni", jacobian, delta)
        assert torch.equal(again, feet) and (rectified - exact).abs().max() < 1e-9
        log = MIXTURE.log_prob(feet, 1.0, level, y=0)
        assert len(feet) > 40 and log.max() - log.min() < 4.7  # what is at all likely there
        assert feet.abs().max() < mixture.reach_of(level)


@pytest.mark.parametrize("method", methods.METHODS)
def test_every_method_runs_on_the_mixture(method: str) -> None:
    found = mixture.run(MixtureChoices(scale=2.0, steps=12), method)
    assert found.distance < 0.2 and found.arrows[1].isfinite().all()
    lone = method == "no guidance"
    assert (found.arrows[1].abs().max() < 1e-12) == lone


@pytest.mark.parametrize(
    "wrong",
    [
        {"scale": 0.5},
        {"scale": 1e9},
        {"scale": "3"},
        {"scale": None},
        {"level": 0.0},
        {"level": float("nan")},
        {"steps": 10**9},
        {"steps": 4.5},
        {"seed": -1},
        {"methods": ("CFG", "nonsense")},
    ],
)
def test_what_a_visitor_cannot_ask_for(wrong: dict[str, Any]) -> None:
    """The page's sliders hold the ranges, its socket does not."""
    with pytest.raises(InputError, match="seed" if "seed" in wrong else next(iter(wrong))[:6]):
        MixtureChoices(**wrong)
    if "level" not in wrong:
        with pytest.raises(InputError):
            DigitChoices(**wrong)
    if not {"level", "methods"} & set(wrong):
        with pytest.raises(InputError):
            ModelChoices("x", **wrong)


def test_other_choices_of_digits_and_models() -> None:
    for wrong in ({"each": 6}, {"each": 0}, {"model": "cifar10"}, {"model": "/etc/passwd"}):
        with pytest.raises(InputError):
            DigitChoices(**wrong)  # type: ignore[arg-type]
    for wrong in ({"count": 17}, {"method": "damping"}, {"prompt": "x" * 513}, {"prompt": 3}):
        with pytest.raises(InputError):
            ModelChoices("x", **wrong)  # type: ignore[arg-type]
    assert DigitChoices(steps=8.0).steps == 8  # a slider's  # type: ignore[arg-type]


def test_digits_under_both_methods() -> None:
    choices = DigitChoices(scale=6.0, steps=4, each=1, seed=5)
    found = digits.compare(choices)
    model, judge = digits.model_of("mnist")
    for method, row, picture in zip(("CFG", "REG"), found.rows, found.pictures, strict=True):
        rectify = None if method == "CFG" else "auto"
        out = Engine(model, scale=6.0, rectify=rectify, steps=4, progress=False).sample(
            torch.arange(10), seeds=range(5, 15)
        )
        read = label_agreement(judge, out.samples, torch.arange(10))
        assert row[1].startswith(f"{read.share:.0%} ({read.low:.0%} to ")
        assert row[2] == f"{out.stats.nfe:.1f}"
        assert f"reads {round(10 * read.share)} as asked" in picture.alt
        assert size_of(picture)[0] > 500


def test_a_sheet_frames_what_is_read_otherwise() -> None:
    samples = torch.full((12, 1, 4, 4), -1.0)
    samples[7] = 1.0
    right = torch.ones(12, dtype=torch.bool)
    right[[0, 11]] = False
    page = digits.sheet(samples, right, columns=10)
    orange = (page == digits.FRAME).all(2)
    assert page.shape == (2 * 6 + 2, 10 * 6 + 2, 3)
    assert orange.sum() == 2 * (8 * 8 - 4 * 4) - 2 * 2  # their corners overlap
    assert orange[0, 0] and not orange[2, 2] and orange[6, 6] and orange[13, 13]
    assert (page[2:6, 2 + 7 * 6 : 6 + 7 * 6] == 0).all() and (page[2:6, 2:6] == 255).all()


def test_the_damping_curve_is_the_models() -> None:
    found = digits.curve("mnist", 5.0)
    weight = digits.damping_of("mnist")(5.0)
    assert f"below 0.15 above {weight.span(0.15)[1]:.2g}." in found.pictures[0].alt
    assert "At scale 5 the weight is 4 F." in found.notes[0] and size_of(found.pictures[0])
    with pytest.raises(InputError):
        digits.curve("other", 5.0)


def test_a_computation_is_given_up_within_a_step() -> None:
    for compute, choices in (
        (mixture.compare, MixtureChoices()),
        (digits.compare, DigitChoices(each=1)),
        (models.show, ModelChoices(str(WEIGHTS / "mnist.safetensors"), count=1)),
    ):
        wanted, asked = no_longer(after=2)
        with pytest.raises(Stale):
            compute(choices, wanted)  # type: ignore[operator]
        assert len(asked) == 3


def test_a_model_file_is_described_and_sampled(tmp_path: Path) -> None:
    path = tmp_path / "mine.safetensors"
    path.write_bytes((WEIGHTS / "mnist.safetensors").read_bytes())
    says = dict(models.describe(f"  {path} ").rows)
    assert says["labels"] == "0 to 9" and says["shape of a sample"] == "1 x 28 x 28"
    found = models.show(ModelChoices(str(path), "CFG", scale=3.0, steps=2, count=5))
    assert found.rows[0][:2] == ("CFG", "6.0")
    assert found.pictures[0].alt == "5 images of labels 0 to 4: CFG, scale 3."


def test_a_file_that_is_refused_says_so_in_words(tmp_path: Path) -> None:
    pickled = tmp_path / "model.pt"
    torch.save({"a": torch.zeros(2)}, pickled)
    damaged = tmp_path / "damaged.safetensors"
    damaged.write_bytes(b"\xff" * 64)
    empty = tmp_path / "folder"
    empty.mkdir()
    for path, words in (
        (str(pickled), "safetensors"),
        (str(damaged), "damaged"),
        (str(empty), "model_index.json"),
        ("owner/name", "nothing is at"),
        ("", "is empty"),
        ("a\0b", "is no path"),
        ("x" * 5000, "nothing is at"),
        (None, "is empty"),
    ):
        for ask in (models.describe, lambda p: models.show(ModelChoices(p))):
            with pytest.raises(InputError, match=words):
                ask(path)  # type: ignore[operator]


def test_latents_are_no_pictures() -> None:
    shape = (4, 8, 8)
    net = torch.nn.Flatten()
    from reg_engine import Denoiser, schedules

    latent = Denoiser(
        lambda x, t, label: x,
        prediction="epsilon",
        schedule=schedules.ScaledLinear(),
        sample_shape=shape,
        null_cond=10,
        num_classes=10,
        modules=[net],
    )
    with pytest.raises(InputError, match="latents.*--vae"):
        models._labelled(latent, ModelChoices("x"), None, view.always)


def test_folders_of_diffusers(tmp_path: Path) -> None:
    pytest.importorskip("diffusers", reason="diffusers is not installed")
    pytest.importorskip("transformers", reason="transformers is not installed")
    import tiny_pipelines

    tiny_pipelines.sd().save_pretrained(tmp_path / "sd")
    choices = {"path": str(tmp_path / "sd"), "steps": 2, "count": 2, "method": "CFG"}
    assert dict(models.describe(choices["path"]).rows)["labels"] == "told by texts"
    with pytest.raises(InputError, match="prompt: is empty"):
        models.show(ModelChoices(**choices))  # type: ignore[arg-type]
    found = models.show(ModelChoices(**choices, prompt="a cat"))  # type: ignore[arg-type]
    assert found.pictures[0].alt.startswith("2 images for 'a cat'")
