"""Adapters: their file, the model that they belong to, and sampling with them."""

from __future__ import annotations

import copy
import json
import warnings
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from adapter_cases import adapter, change, model

from reg_engine import (
    BadModel,
    Denoiser,
    Engine,
    Guidance,
    Guide,
    InputError,
    Plan,
    sample,
    schedules,
)
from reg_engine.networks.adapter import Adapter, belonging
from reg_engine.networks.lowrank import Worn
from reg_engine.resume import engine_key
from reg_engine.storage.weights import read, save_weights

LABELS = torch.tensor([0, 1, 0])
HOW = {"steps": 4, "solver": "euler", "progress": False}


def by_hand(denoiser: Denoiser, scale: float) -> Denoiser:
    """A denoiser of a network with the changed weights, made without an adapter."""
    net = copy.deepcopy(denoiser.net)
    found = change(denoiser)
    with torch.no_grad():
        for name, layer in (("enter", net.enter), ("time", net.time), ("out", net.out)):
            weight, bias = found.change(name, scale)
            layer.weight += weight
            if bias is not None:
                layer.bias += bias
    return Denoiser(net, "edm", denoiser.schedule, (2,), 2, num_classes=2)


def test_a_scale_is_in_the_weights_and_takes_one_evaluation() -> None:
    denoiser = model()
    for scale in (1.5, 3.0):
        ours = sample(denoiser.with_adapter(adapter(denoiser)), LABELS, scale=scale, **HOW)
        theirs = sample(by_hand(denoiser, scale), LABELS, scale=1.0, **HOW)
        torch.testing.assert_close(ours.samples, theirs.samples)
        assert ours.stats.nfe == 4 and ours.stats.backward == 0
        assert ours.stats.modes == {"cond": 4}
        words = f"the adapter holds guidance of scale {scale:g}: one evaluation a step"
        assert ours.stats.reason == words
    default = sample(denoiser.with_adapter(adapter(denoiser)), LABELS, **HOW)
    assert torch.equal(
        default.samples,
        sample(denoiser.with_adapter(adapter(denoiser)), LABELS, scale=2.0, **HOW).samples,
    )


def test_scale_one_is_the_model_bitwise() -> None:
    denoiser = model()
    plain = sample(denoiser, LABELS, scale=1.0, **HOW)
    ours = sample(denoiser.with_adapter(adapter(denoiser)), LABELS, scale=1.0, **HOW)
    assert torch.equal(plain.samples, ours.samples)
    sample(denoiser.with_adapter(adapter(denoiser)), LABELS, scale=3.0, **HOW)
    assert torch.equal(sample(denoiser, LABELS, scale=1.0, **HOW).samples, plain.samples)


def test_a_guide_and_other_schedules_take_it_too() -> None:
    denoiser = model()
    worn = denoiser.with_adapter(adapter(denoiser))
    x = torch.randn(3, 2)
    guide = Guide(worn, LABELS, scale=3.0)
    torch.testing.assert_close(guide(x, 2.0), by_hand(denoiser, 3.0)(x, 2.0, LABELS).detach())
    with pytest.raises(InputError, match="the network's weights hold it"):
        guide.weigh(2.0)
    other = schedules.VPLinear()
    ours = sample(worn, LABELS, scale=3.0, schedule=other, **HOW)
    theirs = sample(by_hand(denoiser, 3.0), LABELS, scale=1.0, schedule=other, **HOW)
    torch.testing.assert_close(ours.samples, theirs.samples)


def test_what_does_not_go_with_an_adapter_is_refused() -> None:
    denoiser = model()
    worn = denoiser.with_adapter(adapter(denoiser))
    for given, words in (
        ({"guidance": Guidance(2.0)}, "guidance: is given, and the adapter holds guidance"),
        ({"rectify": "vjp"}, "rectify: is given, and the adapter was trained with its own"),
        ({"plan": Plan.interval(0.1, 2.0)}, "plan: is given, and an adapter takes one evaluation"),
        ({"scale": 4.5}, "scale: is 4.5, which the adapter was not trained for. Give 1, or 1 to 4"),
        ({"scale": 0.5}, r"scale: is 0\.5. Give 1, or 1 to 4"),
        ({"scale": float("nan")}, "scale: is nan"),
        ({"scale": "much"}, "scale: is 'much'"),
    ):
        with pytest.raises(InputError, match=words):
            Engine(worn, **{**HOW, **given})
    with pytest.raises(InputError, match="plan: is given"):
        Guide(worn, LABELS, scale=2.0, plan=Plan.interval(0.1, 2.0))
    Engine(worn, scale=2.0, plan=Plan.full(), **HOW)
    low = denoiser.with_adapter(replace(adapter(denoiser), scales=(2.0, 4.0)))
    with pytest.raises(InputError, match=r"is 1\.5, which .* Give 1, or 2 to 4"):
        Engine(low, scale=1.5, **HOW)
    assert Engine(low, scale=1.0, **HOW).denoiser.holds == ""


def test_where_no_scale_is_said_it_is_not_left_out_silently() -> None:
    """A model with an adapter as somebody's reference, or asked by hand."""
    denoiser = model()
    worn = denoiser.with_adapter(adapter(denoiser))
    words = "model: has an adapter, and is asked without a scale here"
    with pytest.raises(InputError, match=words):
        worn(torch.zeros(3, 2), 2.0, LABELS)
    with pytest.raises(InputError, match=words):
        worn.on(schedules.VPLinear())(torch.zeros(3, 2), 20.0, LABELS)
    with pytest.raises(InputError, match=words):
        guidance = Guidance(2.0, reference=BadModel(worn), rectify=None)
        sample(denoiser, LABELS, guidance=guidance, **HOW)


def test_extrapolation_is_asked_for_and_said() -> None:
    denoiser = model()
    worn = denoiser.with_adapter(adapter(denoiser), extrapolate=True)
    with pytest.warns(UserWarning, match="scale 6 is beyond the adapter's 1 to 4") as said:
        out = sample(worn, LABELS, scale=6.0, **HOW)
    assert len(said) == 1
    assert out.stats.reason.endswith("; extrapolated from 1 to 4")
    torch.testing.assert_close(
        out.samples, sample(by_hand(denoiser, 6.0), LABELS, scale=1.0, **HOW).samples
    )
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        sample(worn, LABELS, scale=4.0, **HOW)


def test_a_file_holds_it_in_half_precision(tmp_path: Path) -> None:
    denoiser, path = model(), tmp_path / "a.safetensors"
    made = adapter(denoiser, (1.25, 4.0))
    made.save(path)
    found = Adapter.load(path)
    assert (found.scales, found.about, dict(found.model)) == ((1.25, 4.0), made.about, made.model)
    assert found.change.rank == made.change.rank and found.change.shapes == made.change.shapes
    for name, value in made.change.state_dict().items():
        assert torch.equal(found.change.state_dict()[name], value.half().float())
    worn = denoiser.with_adapter(path)
    assert worn.adapter is not None and denoiser.adapter is None
    weights, told = read(path)
    assert told["architecture"] == "adapter"
    assert {value.dtype for value in weights.values()} == {torch.float16}


def test_the_adapter_of_another_model_is_refused() -> None:
    denoiser = model()
    made = adapter(denoiser)
    other = schedules.EDM(sigma_max=40.0)
    for wrong, words in (
        (model(seed=3), "weights '"),
        (model(schedule=other), "schedule 'EDM "),
        (model(num_classes=3), "num_classes 2 and not 3"),
    ):
        with pytest.raises(InputError, match=f"adapter: belongs to another model: .*{words}"):
            wrong.with_adapter(made)
    grid = model(schedule=schedules.EDM(rho=5.0)).with_adapter(made)
    assert grid.adapter is not None, "the same alpha_t and sigma_t, other steps"
    old = replace(made, model={k: v for k, v in made.model.items() if k != "marginals"})
    assert denoiser.with_adapter(old).adapter is not None, "of a file that has none"
    for marginals in (None, 3, [["a", 1, 2]], made.model["marginals"][:-1]):
        told = {**made.model, "marginals": marginals}
        with pytest.raises(InputError, match="another model: schedule"):
            model(schedule=schedules.EDM(rho=5.0)).with_adapter(replace(made, model=told))
    trained = model()
    with torch.no_grad():
        trained.net.out.weight += 1e-3
    with pytest.raises(InputError, match="another model: weights"):
        trained.with_adapter(made)
    moved = model()
    moved.net.eval()
    assert moved.with_adapter(made).adapter is not None, "the mode is none of its business"


def cast(dtype: torch.dtype, seed: int = 0) -> Denoiser:
    found = model(seed)
    found.net.to(dtype)
    return found


def test_the_same_weights_in_half_precision_are_the_same_model() -> None:
    """Trained in float32, used in half, and the other way; not across the two kinds of half."""
    for half in (torch.float16, torch.bfloat16):
        whole, less = model(), cast(half)
        worn = less.with_adapter(adapter(whole))
        found = change(whole).change("out", 3.0)[0]
        wanted = (less.net.out.weight.double() + found.double()).to(half)
        got = Engine(worn, scale=3.0, **HOW).denoiser.net.out.weight
        assert got.dtype == half and torch.equal(got, wanted)
        assert not torch.equal(got, less.net.out.weight)
        rounded = cast(half)
        rounded.net.float()
        assert rounded.with_adapter(adapter(less)).adapter is not None
        assert whole.with_adapter(adapter(less)).adapter is not None
        for other in (cast(half, seed=3), model(seed=3)):
            with pytest.raises(InputError, match="another model: weights"):
                other.with_adapter(adapter(whole))
            with pytest.raises(InputError, match="another model: weights"):
                other.with_adapter(adapter(less))
    with pytest.raises(InputError, match="another model: weights"):
        cast(torch.bfloat16).with_adapter(adapter(cast(torch.float16)))
    told = belonging(model())
    for rounded in (None, 3, told["rounded"][0]):
        made = replace(adapter(model()), model={**told, "rounded": rounded})
        assert model().with_adapter(made).adapter is not None
        with pytest.raises(InputError, match="another model: weights"):
            cast(torch.float16).with_adapter(made)


def test_damaged_and_foreign_files_are_refused(tmp_path: Path) -> None:
    denoiser, path = model(), tmp_path / "a.safetensors"
    adapter(denoiser).save(path)
    weights, told = read(path)

    def written(name: str, tensors: dict, description: dict) -> Path:
        where = tmp_path / f"{name}.safetensors"
        save_weights(where, tensors, description)
        return where

    cut = tmp_path / "cut.safetensors"
    cut.write_bytes(path.read_bytes()[:-10])
    pickle = tmp_path / "a.pt"
    torch.save(weights, pickle)
    bare = dict(told)
    del bare["layers"]
    short = {name: value for name, value in weights.items() if not name.endswith("/C")}
    cases = {
        "no file": tmp_path / "none.safetensors",
        "damaged or no safetensors": cut,
        "is a pickle": pickle,
        "holds no adapter": written("other", weights, {**told, "architecture": "unet"}),
        "is damaged": written("bare", weights, bare),
        "not those of its layers": written("short", short, told),
        r"scales \[4": written("scales", weights, {**told, "scales": [4.0, 2.0]}),
        "rank 99999": written("rank", weights, {**told, "rank": 99999}),
    }
    for words, where in cases.items():
        with pytest.raises(InputError, match=f"^adapter: .*{words}"):
            denoiser.with_adapter(where)
    huge = json.loads(json.dumps(told))
    huge["layers"]["enter"] = [1 << 40, 1 << 40, 1]
    with pytest.raises(InputError, match="not those of its layers"):
        denoiser.with_adapter(written("huge", weights, huge))


def test_what_is_kept_tells_scales_and_adapters_apart() -> None:
    denoiser = model()
    worn = denoiser.with_adapter(adapter(denoiser))
    other = denoiser.with_adapter(replace(adapter(denoiser), change=change(denoiser, seed=9)))
    engines = [Engine(worn, scale=s, **HOW) for s in (1.0, 2.0, 3.0)]
    keys = [engine_key(engine) for engine in [*engines, Engine(other, scale=2.0, **HOW)]]
    assert len(set(keys)) == 4
    assert engine_key(Engine(worn, scale=2.0, **HOW)) == keys[1]


def test_what_it_belongs_to_is_plain_and_short() -> None:
    told = belonging(model())
    assert json.loads(json.dumps(told)) == told
    assert told["num_classes"] == 2 and told["sample_shape"] == [2]


def test_a_model_with_modules_of_its_own_name_keeps_them() -> None:
    net = model().net
    denoiser = Denoiser(
        net, "edm", schedules.EDM(), (2,), 2, num_classes=2, modules=[net], dtype=torch.float32
    )
    worn = denoiser.with_adapter(adapter(denoiser))
    engine = Engine(worn, scale=3.0, **HOW)
    assert engine.denoiser.modules == (engine.denoiser.net,)
    assert engine.denoiser.net is not net
    assert isinstance(Worn(net, [net]).modules[0], type(net))
