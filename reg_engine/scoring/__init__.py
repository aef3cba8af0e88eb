"""Images scored as papers do: any feature network, named conventions, FID and its relatives."""

from __future__ import annotations

from .extract import Extraction
from .features import load_network
from .images import Tensors, open_images
from .job import Scored, score
from .network import Network
from .resize import Resize
from .scores import Conventions
from .statistics import Statistics, load_statistics

__all__ = [
    "Conventions",
    "Extraction",
    "Network",
    "Resize",
    "Scored",
    "Statistics",
    "Tensors",
    "load_network",
    "load_statistics",
    "open_images",
    "score",
]
