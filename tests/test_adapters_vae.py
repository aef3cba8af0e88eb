"""Pictures of latents: beside the VAE's own call, from a folder, and from the command line."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from click.testing import CliRunner
from PIL import Image
from test_models_dit import small
from test_models_dit_guided import saved

pytest.importorskip("diffusers")

from tiny_parts import vae as tiny_vae

from reg_engine.adapters import Decoder, decoder_of
from reg_engine.cli import cli
from reg_engine.errors import InputError
from reg_engine.models.latents import EDM2_LATENTS, SD_LATENTS, Latents


@pytest.fixture(scope="module")
def vae() -> Any:
    torch.manual_seed(0)
    return tiny_vae()


@pytest.fixture(scope="module")
def folder(vae: Any, tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("vae") / "vae"
    vae.save_pretrained(path)
    return path


@pytest.mark.parametrize("latents", [SD_LATENTS, EDM2_LATENTS])
def test_pictures_are_the_vaes(vae: Any, latents: Latents) -> None:
    samples = 0.3 * torch.randn(5, 4, 8, 8)
    found = Decoder(vae, latents, batch_size=2)(samples)
    with torch.no_grad():
        pixels = vae.decode(latents.decoded(samples)).sample
    low, high = latents.value_range
    wanted = (2 * (pixels - low) / (high - low) - 1).clamp(-1, 1)
    torch.testing.assert_close(found, wanted, rtol=1e-4, atol=1e-5)
    assert found.shape == (5, 3, 16, 16) and found.std() > 0.05


def test_a_folder_and_its_configuration(folder: Path, vae: Any) -> None:
    decoder = decoder_of(folder)
    assert decoder.latents == SD_LATENTS
    assert decoder_of(tiny_vae(1.5305, 0.0609, quant=False)).latents == Latents(1.5305, 0.0609)
    samples = torch.randn(1, 4, 4, 4)
    assert torch.equal(decoder(samples), decoder_of(vae, SD_LATENTS)(samples))


def test_weights_and_mode_are_left_as_they_were(vae: Any) -> None:
    vae.train()
    Decoder(vae, SD_LATENTS)(torch.randn(1, 4, 4, 4))
    assert vae.training and all(p.requires_grad for p in vae.parameters())


def run(*arguments: str) -> Any:
    return CliRunner().invoke(cli, ["sample", "--no-progress", *arguments])


def test_the_command_draws_pictures(folder: Path, tmp_path: Path) -> None:
    model = saved(tmp_path / "dit.safetensors", small(), latents=SD_LATENTS.described())
    shared = ["--model", str(model), "--labels", "0-1", "--steps", "2", "--rectify", "none"]
    drawn = run(*shared, "--vae", str(folder), "--out", str(tmp_path / "a.png"))
    assert drawn.exit_code == 0, drawn.output
    with Image.open(tmp_path / "a.png") as picture:
        assert np.asarray(picture).std() > 1
    kept = run(*shared, "--out", str(tmp_path / "a.npz"))
    made = run(*shared, "--vae", str(folder), "--out", str(tmp_path / "b.npz"))
    assert kept.exit_code == made.exit_code == 0
    latents = torch.from_numpy(np.load(tmp_path / "a.npz")["samples"])
    pictures = torch.from_numpy(np.load(tmp_path / "b.npz")["samples"])
    torch.testing.assert_close(decoder_of(folder, SD_LATENTS)(latents), pictures)
    needed = run(*shared, "--out", str(tmp_path / "c.png"))
    assert "--vae: is needed" in str(needed.exception)
    other = run("--vae", str(folder), "--steps", "1", "--out", str(tmp_path / "d.png"))
    assert "makes no latents" in str(other.exception)


def test_errors(tmp_path: Path, folder: Path) -> None:
    (tmp_path / "empty").mkdir()
    broken = tmp_path / "broken"
    broken.mkdir()
    (broken / "config.json").write_text((folder / "config.json").read_text())
    for value in (str(tmp_path / "empty"), str(broken), folder / "config.json"):
        with pytest.raises(InputError) as caught:
            decoder_of(value)
        assert caught.value.argument == "vae"
    with pytest.raises(InputError, match="vae: is a int"):
        decoder_of(3, SD_LATENTS)
    with pytest.raises(InputError, match="latents"):
        decoder_of(torch.nn.Linear(1, 1))
    for shape in ((1, 3, 8, 8), (4, 8, 8), (1, 4, 2, 8, 8)):
        with pytest.raises(InputError, match="decodes no samples"):
            decoder_of(folder)(torch.zeros(shape))
    with pytest.raises(InputError, match="device"):
        decoder_of(folder, device="nowhere")
    with pytest.raises(InputError, match="batch_size"):
        decoder_of(folder, batch_size=0)


def test_a_decoder_goes_where_it_is_told(folder: Path) -> None:
    decoder = decoder_of(folder, device="cpu")
    assert {p.device.type for p in decoder.vae.parameters()} == {"cpu"}

    class Moving(torch.nn.Module):
        told: object = None

        def decode(self, latents: torch.Tensor) -> None: ...

        def to(self, place: object) -> Moving:  # type: ignore[override]
            self.told = place
            return self

    vae = Moving()
    assert decoder_of(vae, SD_LATENTS).vae.told is None
    assert decoder_of(vae, SD_LATENTS, device="cpu").vae.told == torch.device("cpu")


def test_the_command_refuses_another_vae_before_it_samples(folder: Path, tmp_path: Path) -> None:
    model = saved(
        tmp_path / "three.safetensors",
        small(image_channels=3, outputs=6),
        latents=SD_LATENTS.described(),
        sample_shape=[3, 8, 8],
    )
    given = ["--model", str(model), "--labels", "0", "--out", str(tmp_path / "x.png")]
    failed = run(*given, "--vae", str(folder))
    assert "decodes no samples of (3, " in str(failed.exception)
    assert not (tmp_path / "x.png.parts").exists()
