"""What images are held against: statistics of a file, or those of other images, kept for reuse."""

from __future__ import annotations

import os
from dataclasses import replace
from pathlib import Path
from typing import NamedTuple

from ..errors import InputError
from ..storage.digest import digest
from ..storage.files import check_writable
from .extract import Extraction, extract
from .network import Network
from .report import Gathered, gather
from .source import Source
from .statistics import Statistics, described, load_statistics

__all__ = ["Reference", "cache_folder", "file_reference", "image_reference"]


class Reference(NamedTuple):
    """The statistics, and the vectors where KID, precision and recall ask for them."""

    statistics: Statistics | None
    vectors: Gathered | None = None


def cache_folder() -> Path:
    """Where statistics of reference images are kept: REG_ENGINE_CACHE, or a folder in the user's
    own cache."""
    chosen = os.environ.get("REG_ENGINE_CACHE")
    return Path(chosen) if chosen else Path.home() / ".cache" / "reg_engine"


def file_reference(path: str, network: Network) -> Statistics:
    """Statistics of a file, made by the network; of EDM2's .pkl those of DINOv2's features where
    the network is that, else those of Inception's.

    Raises:
        InputError: see load_statistics and Statistics.check.
    """
    found = load_statistics(path, "fd_dinov2" if network.name == "dinov2" else "fid")
    found.check(network)
    return found


def image_reference(
    source: Source,
    network: Network,
    how: Extraction,
    *,
    vectors: bool,
    cache: Path | None,
) -> Reference:
    """Statistics of reference images, and their vectors where asked for.

    Statistics alone are read from `cache` where they are kept: known by the images' names, sizes
    and times, the network and its resize.

    Raises:
        InputError: as extract; fewer than two images.
    """
    key = digest(source.fingerprint(), described(network), len(source))
    place = None if cache is None else cache / f"statistics-{key[:32]}.npz"
    kept = None if place is None or vectors else _kept(place, key)
    if kept is not None:
        return Reference(replace(kept, name=source.name))
    gathered = gather(extract(source, lambda images, _: network(images), how, "reference"), vectors)
    found = gathered.statistics(network, source.name, key)
    if place is not None:
        found.save(check_writable(place, "cache"), "cache")
    return Reference(found, gathered if vectors else None)


def _kept(place: Path, key: str) -> Statistics | None:
    """None: there is none, or something else."""
    if not place.is_file():
        return None
    try:
        found = load_statistics(place)
    except InputError:
        return None
    images = found.note.get("images")
    return found if isinstance(images, dict) and images.get("key") == key else None
