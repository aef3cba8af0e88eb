"""References: what they evaluate, and that a classifier's gradient is Bayes' delta."""

from __future__ import annotations

import pytest
import torch
from nets import CLASSES, SHAPE, TinyNet, tiny

import reg_engine
from reg_engine import Guidance, oracles, schedules
from reg_engine.references import BadModel, Classifier, Unconditional

CHOICES = {"steps": 6, "dtype": torch.float64, "progress": False}


@pytest.mark.parametrize("rectify", [None, "paper", "vjp", "fd", "fd_batched", "jvp", "diagonal"])
def test_exact_classifier_is_cfg_by_bayes(rectify: str | None) -> None:
    """grad log p(c|x_t) = (alpha/sigma^2) (D_cond - D_uncond) on the mixture, so both guide
    alike."""
    mixture = oracles.two_class_2d()
    schedule = schedules.EDM(sigma_min=0.05, sigma_max=5.0)
    model = mixture.denoiser(schedule=schedule)
    classifier = Classifier(lambda x, t: mixture.class_posterior(x, 1.0, float(t[0])))
    runs = [
        reg_engine.sample(
            model, [0, 1, 0], seeds=range(3), guidance=Guidance(3.0, r, rectify), **CHOICES
        ).samples
        for r in (classifier, Unconditional())
    ]
    tolerance = 1e-4 if rectify in ("fd", "fd_batched") else 1e-8
    assert torch.allclose(runs[0], runs[1], rtol=tolerance, atol=tolerance)


def test_classifier_on_the_clean_scale_and_fixed_labels() -> None:
    mixture = oracles.two_class_2d()
    schedule = schedules.VPLinear()
    model = mixture.denoiser(schedule=schedule)
    runs = []
    for net, clean in (
        (lambda x, t: mixture.class_posterior(x, *schedule(float(t[0]))), False),
        (lambda x, t: mixture.class_posterior(x, 1.0, float(t[0])), True),
    ):
        reference = Classifier(net, labels=1, on_clean_scale=clean)
        runs.append(
            reg_engine.sample(
                model, [0, 1], solver="ddim", guidance=Guidance(2.0, reference, None), **CHOICES
            ).samples
        )
    assert torch.allclose(runs[0], runs[1], rtol=1e-9, atol=1e-9)


def test_a_float32_classifier_guides_a_float64_state() -> None:
    """The network's dtype holds at its call only: the state stays float64, the sample agrees."""
    torch.manual_seed(0)
    net = torch.nn.Sequential(torch.nn.Linear(2, 16), torch.nn.Tanh(), torch.nn.Linear(16, 2))

    class Steering(torch.nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.net = net

        def forward(self, x: torch.Tensor, t: torch.Tensor) -> torch.Tensor:
            assert x.dtype == t.dtype == net[0].weight.dtype
            return self.net(x)

    model = oracles.two_class_2d().denoiser(schedule=schedules.EDM(sigma_min=0.05, sigma_max=5.0))
    runs = []
    for dtype in (torch.float32, torch.float64):
        guidance = Guidance(3.0, Classifier(Steering().to(dtype)), "vjp")
        runs.append(reg_engine.sample(model, [0, 1], guidance=guidance, **CHOICES).samples)
    assert runs[0].dtype == torch.float64 and not torch.equal(runs[0], runs[1])
    assert torch.allclose(runs[0], runs[1], rtol=1e-5, atol=1e-5)


def test_bad_model_on_another_schedule_is_rescaled() -> None:
    """The same exact denoiser on VP, as the worse model of an EDM one, gives delta = 0."""
    mixture = oracles.two_class_2d()
    good = mixture.denoiser(schedule=schedules.EDM(sigma_min=0.05, sigma_max=5.0))
    bad = mixture.denoiser(schedule=schedules.VPLinear(), prediction="epsilon")
    guided = reg_engine.sample(good, [0, 1], guidance=Guidance(4.0, BadModel(bad), None), **CHOICES)
    plain = reg_engine.sample(good, [0, 1], scale=1.0, **CHOICES)
    assert torch.allclose(guided.samples, plain.samples, rtol=1e-8, atol=1e-8)


def test_negative_conditioning_replaces_the_null() -> None:
    model = tiny(net=TinyNet())
    reg_engine.sample(
        model,
        [0, 1],
        guidance=Guidance(2.0, Unconditional(null_cond=2), None),
        steps=2,
        progress=False,
    )
    assert [2, 2, 0, 1] in model.net.calls
    assert not any(CLASSES in labels for labels in model.net.calls)


def test_dict_conditioning_with_a_dict_null() -> None:
    class DictNet(TinyNet):
        def forward(self, x, t, cond):  # type: ignore[no-untyped-def]
            return super().forward(x, t, cond["label"]) * cond["gain"][:, None, None, None]

    net = DictNet()
    model = reg_engine.Denoiser(
        net, "edm", schedules.EDM(), SHAPE, null_cond={"label": CLASSES, "gain": 1.0}
    )
    cond = {"label": torch.tensor([0, 1]), "gain": torch.ones(2)}
    got = reg_engine.sample(model, cond, scale=2.0, rectify="fd", steps=3, progress=False)
    wanted = reg_engine.sample(
        tiny(net=TinyNet()), [0, 1], scale=2.0, rectify="fd", steps=3, progress=False
    )
    assert torch.equal(got.samples, wanted.samples)
