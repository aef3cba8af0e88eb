"""Data, networks, samplers and postprocessing flows of the fractal experiment."""

from __future__ import annotations

from dataclasses import dataclass, replace
from functools import cached_property, partial
from typing import Any

import torch
from torch import Tensor, nn

from ...engine import Engine
from ...guidance.guidance import Guidance
from ...guidance.references import Classifier
from ...models.toy import FLOW_TIMES, ToyNet
from ...networks.denoisers import Denoiser
from ...oracles import GaussianMixture, fractal, fractal_points
from ...postprocess import Postprocess, pool, train_postprocess
from ...schedules import EDM, VP, VPLinear
from ..classifier_guidance import ClassifierNet, unlabelled
from ..report import Report
from ..toys import ToyClassifierTask, ToyTask, toy_denoiser, train_toy

SCHEDULE = EDM(sigma_min=0.002, sigma_max=5.0)  # the noise levels of Karras et al.'s toy
CHAIN = VPLinear()  # the classifier's: T = 1000, its time is the diffusion step, as in the paper
METHODS = ("cfg", "cg")
BLOCK = 256  # points at a time in the mixture's closed forms
CLEAN = 1e-4  # noise level that stands for none
NEAREST = 20  # real neighbours that flows lead to, as in the paper's tables
FLOW_STEPS = 16  # of flow_heun
LABELS = 3  # rows of a flow's label table: two classes, and the null label, which is not used
INPUT_SCALE = 200.0  # of a flow's ToyNet: the smallest branches are a twentieth of the data wide


@dataclass(frozen=True)
class Sizes:
    """How much of everything; pool, count and exact are samples of a class."""

    per_leaf: int  # draws from each of the smallest Gaussians (`fractal_points`)
    base: int  # steps of training
    classifier: int
    flow: int
    batch: int  # points a step
    flow_batch: int
    scales: tuple[float, ...]  # that flows are trained for
    large: tuple[float, ...]  # among them
    others: tuple[float, ...]  # at which the rest is measured too; 1 is the conditional model
    pool: int  # that a flow is trained on
    count: int  # that are measured
    exact: int  # with exact parts
    steps: int  # of the sampler
    more: int  # times the samples and steps of one more one-for-all flow (CG); 0: none


FULL = Sizes(
    per_leaf=8,
    base=4500,
    classifier=2000,
    flow=3000,
    batch=1024,
    flow_batch=512,
    scales=(4.0, 8.0, 16.0),
    large=(8.0, 16.0),
    others=(1.0, 2.0, 12.0),
    pool=5120,
    count=1500,
    exact=192,
    steps=32,
    more=3,
)
QUICK = replace(
    FULL,
    per_leaf=2,
    base=600,
    classifier=300,
    flow=250,
    batch=512,
    scales=(8.0, 16.0),
    others=(1.0,),
    pool=1024,
    count=300,
    exact=48,
    steps=16,
    more=0,
)


@dataclass(frozen=True)
class Data:
    """Three independent sets of real points, in random order: (classes, N, 2) each, float64."""

    mixture: GaussianMixture
    train: Tensor  # what networks and flows are trained on
    real: Tensor  # what samples are measured against; nothing was trained on it
    fresh: Tensor  # what the floor of each measure is taken from

    @cached_property
    def real_log_posterior(self) -> Tensor:
        """log p(y|x_0) of each class's `real` points for that class, (classes, N)."""
        return torch.stack([log_posterior(self.mixture, x)[:, y] for y, x in enumerate(self.real)])


def log_posterior(mixture: GaussianMixture, x: Tensor) -> Tensor:
    """log p(y | x_0), (B, classes), in blocks: there are 2032 Gaussians."""
    return torch.cat([mixture.class_posterior(part, 1.0, 0.0) for part in x.split(BLOCK)])


def points(sets: Tensor) -> Tensor:
    """(classes, N, 2) as (classes * N, 2)."""
    return sets.flatten(0, 1)


def labels_of(count: int) -> Tensor:
    """Of `points` with `count` points a class, (2 count,)."""
    return torch.arange(2).repeat_interleave(count)


def make_data(report: Report, sizes: Sizes) -> Data:
    """The mixture and its three sets of points."""
    mixture = fractal()
    sets = []
    for stream in range(3):
        generator = report.generator(stream)
        parts = [fractal_points(mixture, y, sizes.per_leaf, generator) for y in (0, 1)]
        order = torch.randperm(len(parts[0]), generator=generator)
        sets.append(torch.stack(parts)[:, order])
    return Data(mixture, *sets)


class SeenFromEDM(nn.Module):
    """A classifier of a variance preserving chain, asked at x_0 + sigma eps and sigma.

    Args:
        net: net(x_t, t) with x_t = alpha x_0 + sigma eps and t the step of `chain`.
        chain: its schedule. The same noise level sigma/alpha is the same point, rescaled by alpha.
    """

    def __init__(self, net: nn.Module, chain: VP) -> None:
        super().__init__()
        self.net, self.chain = net, chain

    def forward(self, x: Tensor, sigma: Tensor) -> Tensor:
        """Logits (B, classes) of x (B, dim) at one noise level, sigma (B,)."""
        t = self.chain.time_of(float(sigma[0]))
        found: Tensor = self.net(self.chain(t)[0] * x, torch.full_like(sigma, t))
        return found


@dataclass(frozen=True)
class Models:
    """What is sampled from."""

    conditional: Denoiser  # of labels 0, 1 and the null label 2
    classifier: ClassifierNet  # net(x, sigma) -> logits, for classifier guidance
    batch_size: int = 2048  # exact parts are fastest in small batches

    def logits(self, x: Tensor) -> Tensor:
        """The classifier's logits (B, classes) of clean points (B, 2)."""
        device = self.conditional.device
        with torch.no_grad():
            clean = torch.full((len(x),), CLEAN, device=device)
            return self.classifier(x.to(device, torch.float32), clean).cpu()

    def boundary(self, method: str) -> Tensor:
        """Two points (2, 2) of the line where both classes are equally probable, for clean data.

        CFG: the data's own, the falling diagonal, by the trees' symmetry. CG: the classifier's.
        """
        x = torch.tensor([-4.0, 4.0], dtype=torch.float64)
        if method == "cfg":
            return torch.stack([x, -x], 1)
        logits = self.logits(torch.tensor([[0.0, 0.0], [1.0, 0.0], [0.0, 1.0]]))
        offset, along_x, along_y = (logits[:, 1] - logits[:, 0]).double()
        return torch.stack([x, -(offset + (along_x - offset) * x) / (along_y - offset)], 1)

    def engine(self, method: str, scale: float, rectify: str | None, steps: int) -> Engine:
        """CFG ("cfg"), or classifier guidance ("cg") of the unconditional model, at `scale`.

        Both scales mean the same: eps_u + scale (eps_c - eps_u), and
        eps_u - scale sigma grad log p(c|x_t) (arXiv 2503.10638, Eqs. 9 and 10).
        """
        shared: dict[str, Any] = {"steps": steps, "batch_size": self.batch_size, "progress": False}
        if method == "cfg":
            return Engine(self.conditional, scale=scale, rectify=rectify, **shared)
        # guided = cond + w delta, where cond is the unconditional model: w is the whole scale.
        guidance = Guidance(scale + 1, Classifier(self.classifier), rectify=rectify)
        return Engine(unlabelled(self.conditional), guidance=guidance, **shared)

    def draw(
        self,
        method: str,
        scale: float,
        count: int,
        *,
        first_seed: int = 0,
        rectify: str | None = None,
        steps: int = 32,
    ) -> Tensor:
        """`count` samples of each class, (2, count, 2) float64, of seeds from `first_seed` on."""
        seeds = range(first_seed, first_seed + 2 * count)
        engine = self.engine(method, scale, rectify, steps)
        samples = engine.sample(labels_of(count), seeds).samples
        return samples.double().cpu().unflatten(0, (2, count))


def train_models(report: Report, sizes: Sizes, data: Data) -> Models:
    """One network for CFG and for the unconditional model, and the paper's linear classifier."""
    shared = points(data.train), labels_of(data.train.shape[1])
    task = ToyTask(
        *shared,
        SCHEDULE,
        "edm",
        num_classes=2,
        label_dropout=0.2,
        log_sigma=(-2.3, 1.5),
        name="base",
    )
    net = train_toy(task, report, steps=sizes.base, batch_size=sizes.batch, lr=2e-3)
    linear = ToyClassifierTask(*shared, CHAIN, "linear", name="linear")
    classifier = train_toy(linear, report, steps=sizes.classifier, batch_size=1024, lr=1e-2)
    return Models(toy_denoiser(net, task), SeenFromEDM(classifier, CHAIN).eval())


def one_pool(sets: list[Tensor], count: int, generator: torch.Generator) -> Tensor:
    """`count` samples of each class, equal shares of several sets (2, n, 2): (2, count, 2)."""
    both = [pool([each[y] for each in sets], count, generator)[0] for y in (0, 1)]
    return torch.stack(both)


def train_flow(report: Report, name: str, samples: Tensor, data: Data, sizes: Sizes) -> Postprocess:
    """A class-conditional flow from samples (2, n, 2) to near real points of the same class."""
    report.say(f"training the flow {name}: {sizes.flow} steps of {sizes.flow_batch} points")
    return train_postprocess(
        points(samples),
        points(data.train),
        report.work / f"flow-{name}",
        steps=sizes.flow,
        batch_size=sizes.flow_batch,
        lr=4e-3,
        labels=labels_of(samples.shape[1]),
        real_labels=labels_of(data.train.shape[1]),
        num_classes=2,
        label_dropout=0.0,
        k=NEAREST,
        within_class=True,
        net=partial(ToyNet, 2, LABELS, time_scale=FLOW_TIMES, input_scale=INPUT_SCALE),
        seed=report.seed,
        device=report.device,
        show=False,
        ema_half_life=0.02 * sizes.flow * sizes.flow_batch,
        flow={"solver": "flow_heun", "steps": FLOW_STEPS, "batch_size": 2048},
    )


def apply(flow: Postprocess, samples: Tensor) -> Tensor:
    """The flow's image of samples (2, n, 2)."""
    count = samples.shape[1]
    return flow(points(samples), labels_of(count)).unflatten(0, (2, count))
