"""References: what they evaluate, and that a classifier's gradient is Bayes' delta."""

from __future__ import annotations

import pytest
import torch
from nets import CLASSES, SHAPE, TinyNet, tiny
from rerun import Rerun

import reg_engine
from reg_engine import Guidance, InputError, Interval, oracles, schedules
from reg_engine.guidance.references import BadModel, Classifier, Unconditional
from reg_engine.loop.graphs import Graphs

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
        )
        for r in (classifier, Unconditional())
    ]
    tolerance = 1e-4 if rectify in ("fd", "fd_batched") else 1e-8
    assert torch.allclose(runs[0].samples, runs[1].samples, rtol=tolerance, atol=tolerance)
    more = runs[0].stats.backward - runs[1].stats.backward  # the classifier's own
    assert more == sum(runs[0].stats.modes.values()), "one a row and sample"


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


class Rows(TinyNet):
    """Moves by its two conditional numbers, sample by sample."""

    def forward(self, x: torch.Tensor, t: torch.Tensor, cond: torch.Tensor) -> torch.Tensor:
        return 0.1 * x + cond[:, :1, None, None] * cond[:, 1:, None, None]


ROWS = torch.tensor([[0.1, 1.0], [0.2, 0.5], [0.3, 2.0], [0.4, -1.0], [0.5, 0.3]])
NULLS = torch.tensor([[0.0, 0.1], [0.0, 0.2], [0.1, 0.3], [0.1, -0.2], [0.2, 0.0]])


def rows_model(null: object) -> reg_engine.Denoiser:
    return reg_engine.Denoiser(Rows().double(), "sample", schedules.EDM(), SHAPE, null)


def slope(x: torch.Tensor, t: torch.Tensor) -> torch.Tensor:
    return x.flatten(1)[:, :CLASSES] * 0.3


LABELS = torch.tensor([2, 0, 1, 1, 0])
DOUBLE = TinyNet().double()
PER_SAMPLE = {
    "null_cond": (rows_model(NULLS), Unconditional(), ROWS),
    "Unconditional": (rows_model(0.0), Unconditional(NULLS), ROWS),
    "BadModel": (rows_model(None), BadModel(rows_model(None), cond=NULLS), ROWS),
    "BadModel labels": (rows_model(None), BadModel(tiny(net=DOUBLE), cond=LABELS), ROWS),
    "Classifier": (rows_model(None), Classifier(slope, labels=LABELS), ROWS),
    "Classifier alone": (tiny(net=DOUBLE), Classifier(slope), LABELS),
}


@pytest.mark.usefixtures("alike")
@pytest.mark.parametrize("rectify", [None, "vjp", "fd_batched", "auto"])
@pytest.mark.parametrize("kind", PER_SAMPLE)
def test_what_a_reference_has_for_each_sample_goes_with_the_batch(
    kind: str, rectify: str | None
) -> None:
    model, reference, cond = PER_SAMPLE[kind]
    choices = {**CHOICES, "guidance": Guidance(3.0, reference, rectify), "steps": 3}
    whole = reg_engine.sample(model, cond, **choices).samples
    engine = reg_engine.Engine(model, **choices, batch_size=2)
    engine._graphs = Graphs(Rerun(), always=True)
    if not kind.startswith("Classifier"):  # which asks the host for its row
        recorded = engine.sample(cond)  # two batches of one recording, and a smaller one
        assert recorded.stats.capture == "captured"
        assert torch.allclose(whole, recorded.samples, rtol=1e-6, atol=1e-6)
    for batch_size in (1, 2, 4):
        parts = reg_engine.sample(model, cond, batch_size=batch_size, **choices).samples
        assert torch.allclose(whole, parts, rtol=1e-6, atol=1e-6)
    # Each sample by itself, with its own row alone.
    for k in range(5):
        one = slice(k, k + 1)
        alone = {
            "null_cond": (rows_model(NULLS[one]), Unconditional()),
            "Unconditional": (model, Unconditional(NULLS[one])),
            "BadModel": (model, BadModel(rows_model(None), cond=NULLS[one])),
            "BadModel labels": (model, BadModel(tiny(net=DOUBLE), cond=int(LABELS[k]))),
            "Classifier": (model, Classifier(slope, labels=int(LABELS[k]))),
            "Classifier alone": (model, Classifier(slope)),
        }[kind]
        choices["guidance"] = Guidance(3.0, alone[1], rectify)
        single = reg_engine.sample(alone[0], cond[one], seeds=[k], **choices).samples
        assert torch.allclose(single, whole[one], rtol=1e-6, atol=1e-6)


@pytest.mark.parametrize(
    ("reference", "argument"),
    [
        (Unconditional(NULLS[:3]), "null_cond"),
        (BadModel(tiny(), cond=[0, 1]), "cond"),
        (BadModel(tiny(), cond=7), "cond"),
        (Classifier(slope, labels=[0, 1]), "labels"),
        (Classifier(slope, labels=[0.5] * 5), "labels"),
        (Classifier(slope, labels="two"), "labels"),
        (Classifier(slope), "labels"),
    ],
)
def test_rows_that_do_not_fit_are_refused_before_sampling(reference: object, argument: str) -> None:
    net = Rows()
    net.register_forward_hook(lambda *args: pytest.fail("evaluated"))
    model = reg_engine.Denoiser(net, "sample", schedules.EDM(), SHAPE)
    for batch_size in (None, 2):
        with pytest.raises(InputError) as caught:
            reg_engine.sample(
                model, ROWS, guidance=Guidance(2.0, reference), batch_size=batch_size, **CHOICES
            )
        assert caught.value.argument == argument


def test_no_reference_is_asked_for_what_scale_one_does_not_need() -> None:
    for reference in (Unconditional(), BadModel(tiny(), cond=99), Classifier(slope)):
        guidance = Guidance(1.0, reference)
        out = reg_engine.sample(rows_model(None), ROWS, guidance=guidance, **CHOICES)
        assert out.stats.modes == {"cond": 11}


def test_a_classifier_beside_an_unconditional_network() -> None:
    """Scale 1 is the network alone; at 2 the guided estimate is Bayes' posterior mean."""
    mixture = oracles.two_class_2d()
    model = mixture.denoiser(schedule=schedules.EDM(sigma_min=0.05, sigma_max=5.0))
    free = reg_engine.Denoiser(
        lambda x, t, cond: model.net(x, t, torch.full((len(x),), model.null_cond)),
        model.prediction, model.schedule, model.sample_shape, sigma_data=model.sigma_data,
    )  # fmt: skip

    def log_odds(x: torch.Tensor, t: torch.Tensor) -> torch.Tensor:
        return mixture.class_posterior(x, 1.0, float(t[0]))

    def run(scale: float, labels: object) -> torch.Tensor:
        guidance = Guidance(scale, Classifier(log_odds, labels=labels), None)
        return reg_engine.sample(free, None, seeds=range(4), guidance=guidance, **CHOICES).samples

    labels = [0, 1, 1, 0]
    null = [model.null_cond] * 4
    assert torch.allclose(
        run(1.0, labels), reg_engine.sample(model, null, scale=1.0, **CHOICES).samples
    )
    exact = reg_engine.sample(model, labels, scale=1.0, **CHOICES).samples
    assert torch.allclose(run(2.0, labels), exact, rtol=1e-6, atol=1e-6)
    assert not torch.allclose(run(2.0, 0), exact, rtol=1e-2, atol=1e-2)


def test_a_classifier_starts_where_the_flow_has_signal() -> None:
    """Flow begins at alpha = 0: refused with the ways out, each of which is the same samples."""
    model = tiny("flow", schedules.Flow())
    choices = {"steps": 4, "progress": False, "solver": "euler"}

    def run(weight: object = 3.0, **fields: object) -> torch.Tensor:
        guidance = Guidance(weight, Classifier(slope, **fields), None)
        return reg_engine.sample(model, [0, 1], guidance=guidance, **choices).samples

    with pytest.raises(InputError, match=r"start=80.*Interval\(scale, 0, 80\)"):
        run()
    started = run(start=80)
    assert torch.equal(started, run(Interval(3.0, 0, 80)))
    assert torch.equal(run(start=2.0), run(Interval(3.0, 0, 2.0)))
    assert not torch.equal(started, run(start=2.0))  # t = 3/4 has sigma/alpha = 3
    for bad in (0, -1, "x", None):
        with pytest.raises(InputError, match="^start: "):
            Classifier(slope, start=bad)


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


def test_networks_inside_functions_are_frozen_too() -> None:
    """Dropout of a classifier and of a worse model, in training mode behind a function."""

    class Judge(torch.nn.Module):
        def __init__(self) -> None:
            super().__init__()
            torch.manual_seed(0)
            self.layers = torch.nn.Sequential(torch.nn.Linear(16, CLASSES), torch.nn.Dropout(0.5))

        def forward(self, x: torch.Tensor, t: torch.Tensor) -> torch.Tensor:
            return self.layers(x.flatten(1))  # type: ignore[no-any-return]

    class Worse(TinyNet):
        def forward(self, x, t, cond):  # type: ignore[no-untyped-def]
            return torch.nn.functional.dropout(super().forward(x, t, cond), 0.5, self.training)

    def run(reference: object) -> torch.Tensor:
        guidance = Guidance(2.0, reference, "vjp")  # type: ignore[arg-type]
        out = reg_engine.sample(tiny(), [0, 1], guidance=guidance, steps=3, progress=False)
        return out.samples

    judge, worse = Judge().train(), Worse().train()
    hidden = Classifier(lambda x, t: judge(x, t))
    assert hidden.modules == (judge,)
    assert torch.equal(run(hidden), run(Classifier(Judge().eval())))
    assert all(p.requires_grad for p in judge.parameters()) and judge.training
    view = reg_engine.Denoiser(lambda x, t, y: worse(x, t, y), "edm", schedules.EDM(), SHAPE)
    assert torch.equal(run(BadModel(view)), run(BadModel(tiny(net=Worse().eval()))))
    assert worse.training


def test_a_classifier_computes_in_the_dtype_of_a_hidden_network() -> None:
    net = torch.nn.Linear(16, CLASSES).bfloat16()
    guidance = Guidance(2.0, Classifier(lambda x, t: net(x.flatten(1)).float()), None)
    out = reg_engine.sample(tiny(), [0, 1], guidance=guidance, steps=2, progress=False)
    assert out.samples.isfinite().all()
