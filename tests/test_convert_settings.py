"""What a snapshot says beside its tensors: other constants are refused, its encoder is read."""

from __future__ import annotations

import pickle
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from pickle_cases import kept, persistence
from test_convert_states import network, snapshot

from reg_engine.convert.records import Name, Record
from reg_engine.convert.settings import constants_of, latents_of_encoder
from reg_engine.models.latents import EDM2_LATENTS

KIND = Name("persistent", "x")


def settings(**attributes: Any) -> dict[str, Any]:
    """A network with a block that has these attributes."""
    block = Record(KIND, (), {"_modules": {}, **attributes})
    unet = Record(KIND, (), {"_modules": {"block": block}})
    return {"_modules": {"unet": unet}, "sigma_data": 0.5}


PUBLISHED = {
    "res_balance": 0.3,
    "attn_balance": 0.3,
    "clip_act": 256,
    "label_balance": 0.5,
    "concat_balance": 0.5,
}


def test_the_published_constants_are_taken() -> None:
    assert constants_of({}) == (0.5, 64)
    assert constants_of(settings(**PUBLISHED)) == (0.5, 64)
    assert constants_of(settings(out_channels=96, num_heads=3)) == (0.5, 32)
    assert constants_of(settings(out_channels=96, num_heads=0)) == (0.5, 64)
    assert constants_of({"sigma_data": 1.5}) == (1.5, 64)


@pytest.mark.parametrize("name", PUBLISHED)
def test_other_constants_are_refused(name: str) -> None:
    for value in (0.7, None, "0.3", True, Record(KIND)):
        with pytest.raises(ValueError, match=f"{name} is another than"):
            constants_of(settings(**{name: value}))


@pytest.mark.parametrize("value", [0.0, -1.0, float("nan"), float("inf"), 1, None, "x", 10**400])
def test_sigma_data_is_a_number(value: Any) -> None:
    with pytest.raises(ValueError, match="sigma_data"):
        constants_of({"sigma_data": value})


def test_heads_of_several_widths() -> None:
    found = settings(out_channels=96, num_heads=3)
    unet = found["_modules"]["unet"].state["_modules"]
    unet["other"] = Record(KIND, (), {"_modules": {}, "out_channels": 96, "num_heads": 2})
    with pytest.raises(ValueError, match="several widths"):
        constants_of(found)
    for channels in (None, 2, "x"):
        with pytest.raises(ValueError, match="several widths"):
            constants_of(settings(out_channels=channels, num_heads=3))


def test_modules_that_hold_each_other() -> None:
    state: dict[str, Any] = {}
    one = Record(KIND, (), state)
    state["_modules"] = {"a": one, "b": one}
    with pytest.raises(ValueError, match="more than"):
        constants_of(state)


@pytest.mark.parametrize("protocol", [3, 4, 5])
def test_the_encoder_of_a_snapshot(protocol: int, tmp_path: Path) -> None:
    with persistence() as persistent:
        data = snapshot(persistent, network(persistent))
        (tmp_path / "a.pkl").write_bytes(pickle.dumps(data, protocol))
        encoder = data["encoder"]
    found = latents_of_encoder(kept(tmp_path / "a.pkl").tree, 4)
    assert found is not None and found.value_range == (0.0, 1.0)
    assert found.scale == tuple(encoder.scale.tolist())
    assert found.scale == pytest.approx(EDM2_LATENTS.scale, rel=1e-6)
    assert found.shift == pytest.approx(EDM2_LATENTS.shift, rel=1e-6)
    x = np.linspace(-3, 3, 4)
    wanted = x * encoder.scale.astype(float) + encoder.bias.astype(float)
    shift = np.array(found.shift)
    np.testing.assert_allclose(np.array(found.scale) * (x - shift), wanted, rtol=1e-12)


def test_without_an_encoder() -> None:
    assert latents_of_encoder({}, 4) == EDM2_LATENTS
    assert latents_of_encoder({}, 3) is None
    assert latents_of_encoder(None, 3) is None
    rgb = {"encoder": Record(KIND, (), {})}
    assert latents_of_encoder(rgb, 3) is None


def array(values: Any, kind: str = "f4", order: str = "<") -> Record:
    dtype = Record(Name("numpy", "dtype"), (kind, False, True), (3, order, None))
    data = memoryview(np.array(values, f"{order}{kind}").tobytes())
    found = Record(Name("numpy._core.multiarray", "_reconstruct"))
    found.state = (1, (len(values),), dtype, False, data)
    return found


FOUR = [0.1, 0.2, 0.3, 0.4]


def test_arrays_of_numbers_are_read() -> None:
    held = {"scale": array(FOUR), "bias": array([1.0, 2, 3, 4])}
    found = latents_of_encoder({"encoder": Record(KIND, (), held)}, 4)
    assert found is not None and found.scale == tuple(float(np.float32(v)) for v in FOUR)


@pytest.mark.parametrize(
    ("changes", "says"),
    [
        ({"scale": array(FOUR, "f8")}, "float32"),
        ({"scale": array(FOUR, "i4")}, "float32"),
        ({"scale": array(FOUR, "f4", ">")}, "float32"),
        ({"scale": array([])}, "float32"),
        ({"scale": array([1.0] * 65)}, "float32"),
        ({"scale": array(FOUR[:3])}, "3 channels, the network has 4"),
        ({"bias": array(FOUR[:3])}, "the network has 4"),
        ({"scale": 3}, "no array"),
        ({"scale": Record(KIND)}, "float32"),
        ({"scale": Record(KIND, (), (1, 2, 3, 4, 5))}, "float32"),
        ({"scale": array([0.0, 1, 1, 1])}, "division|scale"),
        ({"scale": array([-1.0, 1, 1, 1])}, "scale"),
        ({"bias": array([float("nan"), 1, 1, 1])}, "shift"),
    ],
)
def test_other_encoders_are_refused(changes: Any, says: str) -> None:
    held = {"scale": array(FOUR), "bias": array(FOUR)} | changes
    with pytest.raises((ValueError, ZeroDivisionError), match=says):
        latents_of_encoder({"encoder": Record(KIND, (), held)}, 4)
