"""Published presets: what stands in the release's table, and that the networks can be made."""

from __future__ import annotations

import re
from hashlib import sha256

import pytest
import torch
from edm2_cases import published

from reg_engine import Interval, schedules
from reg_engine.errors import InputError
from reg_engine.models import EDM2
from reg_engine.models.presets import CHANNELS, PRESETS, Checkpoint, preset
from reg_engine.solvers import table

# name: file, file of the guide, scale, metric; as the release's table has them. Read once more by
# eye, some of every kind.
LISTED = {
    "edm2-img512-xs-fid": ("edm2-img512-xs-2147483-0.135.pkl", None, 1, 3.53),
    "edm2-img512-l-dino": ("edm2-img512-l-1879048-0.155.pkl", None, 1, 52.25),
    "edm2-img512-xxl-fid": ("edm2-img512-xxl-0939524-0.070.pkl", None, 1, 1.91),
    "edm2-img64-s-fid": ("edm2-img64-s-1073741-0.075.pkl", None, 1, 1.58),
    "edm2-img64-xl-fid": ("edm2-img64-xl-0671088-0.040.pkl", None, 1, 1.33),
    "edm2-img512-s-guid-fid": (
        "edm2-img512-s-2147483-0.025.pkl",
        "edm2-img512-xs-uncond-2147483-0.025.pkl",
        1.4,
        2.23,
    ),
    "edm2-img512-m-guid-dino": (
        "edm2-img512-m-2147483-0.015.pkl",
        "edm2-img512-xs-uncond-2147483-0.015.pkl",
        2.0,
        41.98,
    ),
    "edm2-img512-xxl-guid-dino": (
        "edm2-img512-xxl-0939524-0.015.pkl",
        "edm2-img512-xs-uncond-2147483-0.015.pkl",
        1.7,
        33.09,
    ),
    "edm2-img512-s-autog-fid": (
        "edm2-img512-s-2147483-0.070.pkl",
        "edm2-img512-xs-0134217-0.125.pkl",
        2.1,
        1.34,
    ),
    "edm2-img512-xxl-autog-dino": (
        "edm2-img512-xxl-0939524-0.130.pkl",
        "edm2-img512-m-0268435-0.205.pkl",
        2.3,
        24.18,
    ),
    "edm2-img512-s-uncond-autog-fid": (
        "edm2-img512-s-uncond-2147483-0.070.pkl",
        "edm2-img512-xs-uncond-0134217-0.110.pkl",
        2.85,
        3.86,
    ),
    "edm2-img64-s-autog-fid": (
        "edm2-img64-s-1073741-0.045.pkl",
        "edm2-img64-xs-0134217-0.110.pkl",
        1.7,
        1.01,
    ),
}


@pytest.mark.parametrize("name", LISTED)
def test_presets_are_those_of_the_release(name: str) -> None:
    found, (net, guide, scale, value) = preset(name), LISTED[name]
    assert found.net.file == net
    assert (found.guide and found.guide.file) == guide
    assert found.scale == scale
    kinds = {"fid": found.fid, "dino": found.fd_dinov2}
    assert kinds.pop(name.rpartition("-")[2]) == value
    assert set(kinds.values()) == {None}  # the release gives one of the two


def test_every_row_is_the_releases() -> None:
    """The digest is of the release's own table, written as name, files, scale and metric."""
    rows = [
        f"{name} {p.net.file} {p.guide.file if p.guide else '-'} {p.scale:.2f} "
        f"{p.fid or p.fd_dinov2:.2f}"
        for name, p in PRESETS.items()
        if p.interval is None
    ]
    assert len(rows) == 36
    assert sha256("\n".join(sorted(rows)).encode()).hexdigest() == (
        "3a2fed84a568a0b78600eaceeb6a1a8fd3d917fe56bc68eebe3b97a2f8d6c282"
    )


def test_every_family_is_there() -> None:
    sizes = "{xs,s,m,l,xl,xxl}"
    families = {
        f"edm2-img512-{sizes}-fid": 6,
        f"edm2-img512-{sizes}-dino": 6,
        f"edm2-img512-{sizes}-guid-fid": 6,
        f"edm2-img512-{sizes}-guid-dino": 6,
        "edm2-img64-{s,m,l,xl}-fid": 4,
        "edm2-img512-{s,xxl}-autog-{fid,dino}": 4,
        "edm2-img512-s-uncond-autog-{fid,dino}": 2,
        "edm2-img64-s-autog-{fid,dino}": 2,
        "edm2-img512-xxl-interval-fid": 1,
    }
    counted = 0
    for family, count in families.items():
        pattern = re.sub(r"\{([^}]*)\}", lambda m: f"({m[1].replace(',', '|')})", family)
        assert sum(bool(re.fullmatch(pattern, name)) for name in PRESETS) == count, family
        counted += count
    assert counted == len(PRESETS)
    for name, found in PRESETS.items():
        assert f"-{found.net.data}-{found.net.size}" in name and found.source
        assert (found.fid is None) != (found.fd_dinov2 is None)
        if "-guid-" in name:
            assert found.guide and not found.guide.labels and found.guide.size == "xs"
            assert found.guide.ema == found.net.ema
        if "-autog-" in name:
            assert found.guide and found.guide.labels == found.net.labels == ("uncond" not in name)
            assert found.guide.kimg < found.net.kimg


@pytest.mark.parametrize(
    ("name", "source"),
    [
        ("edm2-img512-s-fid", "arXiv 2312.02696, Table 2"),
        ("edm2-img512-s-dino", "arXiv 2312.02696, Table 5"),
        ("edm2-img64-s-fid", "arXiv 2312.02696, Table 3"),
        ("edm2-img512-m-guid-fid", "arXiv 2312.02696, Table 2"),
        ("edm2-img512-m-guid-dino", "arXiv 2312.02696, Table 5"),
        ("edm2-img64-s-autog-dino", "arXiv 2406.02507, Table 1"),
    ],
)
def test_each_figure_names_its_table(name: str, source: str) -> None:
    assert preset(name).source == f"NVlabs/edm2, generate_images.py; {source}"


def test_each_metric_falls_with_the_size_and_with_guidance() -> None:
    """No figure stands in another's place: larger networks are better, and so are guided ones."""
    for metric in ("fid", "dino"):
        rows = [
            [preset(f"edm2-img512-{size}{kind}-{metric}") for size in CHANNELS]
            for kind in ("", "-guid")
        ]
        values = [[p.fid or p.fd_dinov2 or 0.0 for p in row] for row in rows]
        assert all(row == sorted(row, reverse=True) for row in values)
        assert all(guided < plain for plain, guided in zip(*values, strict=True))


def test_the_networks_of_a_preset_can_be_made() -> None:
    made = {p for found in PRESETS.values() for p in (found.net, found.guide) if p}
    for data, size, labels in {(p.data, p.size, p.labels) for p in made}:
        arguments = Checkpoint(data, size, 1, 0.1, labels).arguments
        with torch.device("meta"):
            net = EDM2(**arguments)
        shapes = {name: tuple(value.shape) for name, value in net.state_dict().items()}
        channels, image = CHANNELS[size], {"img512": 4, "img64": 3}[data]
        assert shapes == published(channels, image, 1000 if labels else 0)


def test_the_interval_is_steps_17_to_22_of_32() -> None:
    found = preset("edm2-img512-xxl-interval-fid")
    assert found.interval and (found.scale, found.fid) == (2.0, 1.4)
    steps = table("heun", schedules.EDM(sigma_min=0.002, sigma_max=80.0), 32)
    weight = Interval(found.scale, *found.interval)
    rows = {row.noise_level: row for row in steps.rows}
    levels = sorted(rows, reverse=True)
    assert len(levels) == 32  # of each step's first evaluation
    guided = [n for n, level in enumerate(levels) if weight(rows[level], steps)]
    assert guided == list(range(17, 23))


def test_unknown_names_are_refused() -> None:
    with pytest.raises(InputError, match=r"preset: unknown name 'edm2-img512-s-fd'.*-s-fid"):
        preset("edm2-img512-s-fd")
    with pytest.raises(InputError, match="size: unknown name 'xxs'"):
        Checkpoint("img512", "xxs", 1, 0.1)
    with pytest.raises(InputError, match="data: unknown name 'img256'"):
        Checkpoint("img256", "xs", 1, 0.1)
