"""How far engine and pipeline are apart, and every estimator from its statement in autograd.

`python tests/family_errors.py` prints the table of docs/pipelines.md.
"""

from __future__ import annotations

import copy
from typing import Any

import tiny_pipelines as tiny
import torch
from diffusers import DDIMScheduler
from family_cases import CASES, Case, differences, engine
from torch import Tensor
from torch.nn.attention import SDPBackend, sdpa_kernel

from reg_engine import Denoiser, Guide, denoiser_of
from reg_engine.adapters.family import Asked
from reg_engine.adapters.packed import pack
from reg_engine.networks.conditioning import each

STEPS = 4
SCALE = 3.0
LEVEL = 0.8  # sigma / alpha


def wide(model: Denoiser) -> Denoiser:
    """The same in float64."""
    asked = model.net
    assert isinstance(asked, Asked)
    net = copy.deepcopy(asked.net).double()
    again = Asked(net, asked.name, asked.family, asked.unit)
    return Denoiser(
        again,
        model.prediction,
        model.schedule,
        model.sample_shape,
        model.null_cond,
        num_classes=model.num_classes,
        learned_variance=model.learned_variance,
    )


def stated(model: Denoiser, cond: Any, null: Any, x: Tensor, t: float) -> dict[str, Tensor]:
    """REG's guided estimate, cond + w R: R of `paper`, K^T delta and K delta, by autograd."""
    alpha, _ = model.schedule(t)
    x = x.double().requires_grad_()
    with torch.enable_grad(), sdpa_kernel(SDPBackend.MATH):  # it has a second derivative
        found = model(x, t, cond)
        delta = (found - model(x.detach(), t, null)).detach()

        def pulled(cotangent: Tensor, **how: Any) -> Tensor:
            return alpha * torch.autograd.grad(found, x, cotangent, retain_graph=True, **how)[0]

        zeros = torch.zeros_like(delta, requires_grad=True)
        twice = pulled(zeros, create_graph=True)  # linear in zeros: its derivative there is K
        (along,) = torch.autograd.grad(twice, zeros, delta)
        products = {
            "paper": pulled(torch.ones_like(delta)) * delta,
            "vjp": pulled(delta),
            "jvp": along,
        }
    return {name: (found + (SCALE - 1) * R).detach() for name, R in products.items()} | {
        "cond": found.detach()
    }


def cases() -> dict[str, Any]:
    def labels() -> tuple[Denoiser, Any, Any]:
        scheduler = DDIMScheduler(clip_sample=False)
        model = denoiser_of(tiny.unet2d(), scheduler=scheduler, null_cond=10)
        return model, torch.tensor([3, 7]), torch.tensor([10, 10])

    def of(name: str) -> tuple[Denoiser, Any, Any]:
        case = CASES[name]
        model, cond = case.denoiser(case.build())
        if name == "dit":
            return model, torch.tensor(cond), torch.tensor([1000, 1000])
        rows = each(lambda v: v if len(v) > 1 else v.expand(2, *v.shape[1:]), cond)
        null = each(lambda v: v if len(v) > 1 else v.expand(2, *v.shape[1:]), model.null_cond)
        return model, rows, null

    return {"unet2d": labels} | {name: lambda name=name: of(name) for name in CASES}


ALL = cases()
BOUNDS = {"paper": 1e-4, "vjp": 1e-4, "jvp": 1e-4, "fd": 0.03, "fd_batched": 0.03}


def errors(name: str) -> dict[str, float]:
    """Of the rectified direction, by estimator, relative."""
    model, cond, null = ALL[name]()
    t = float(model.schedule.time_of(LEVEL))
    noise = torch.randn(2, *model.sample_shape, generator=torch.Generator().manual_seed(5))
    x = model.schedule(t)[1] * noise
    wanted = stated(wide(model), cond, null, x, t)
    found = {}
    for rectify in BOUNDS:
        guided = Guide(model, cond, scale=SCALE, rectify=rectify)(x, t).double()
        target = wanted["jvp" if rectify.startswith("fd") else rectify]
        found[rectify] = differences(guided - wanted["cond"], target - wanted["cond"])
    return found


def compared(case: Case, pipe: Any) -> tuple[float, float]:
    """Distances from the pipeline's latents: of CFG, and of no guidance at all."""
    wanted = case.latents(pipe, SCALE, STEPS)
    model, cond = case.denoiser(pipe)
    found = []
    for scale in (SCALE, 1.0):
        run = engine(pipe, model, STEPS, scale=scale, rectify=None)
        samples = run.sample(cond, noise=case.noise()).samples
        found.append(differences(pack(samples) if case.packs else samples, wanted))
    return found[0], found[1]


def evaluations(case: Case, rectify: str | None) -> float:
    """Network evaluations a sample."""
    pipe = case.build()
    model, cond = case.denoiser(pipe)
    run = engine(pipe, model, STEPS, scale=SCALE, rectify=rectify)
    return run.sample(cond, noise=case.noise()).stats.nfe


def main() -> None:
    names = ("vjp", "jvp", "fd")
    print("| model | scheduler | CFG | nfe | " + " | ".join(names) + " |")
    print("|---" * (4 + len(names)) + "|")
    for name, case in CASES.items():
        pipe, found = case.build(), errors(name)
        model, scheduler = (type(part).__name__ for part in (pipe, pipe.scheduler))
        error, _ = compared(case, pipe)
        nfe = ", ".join(f"{evaluations(case, r):g}" for r in (None, *names))
        cells = [f"{name}: {model}", scheduler, f"{error:.0e}", nfe]
        print("| " + " | ".join([*cells, *(f"{found[n]:.0e}" for n in names)]) + " |")


if __name__ == "__main__":
    main()
