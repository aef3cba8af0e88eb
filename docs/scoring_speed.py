"""FID of 50,000 images of 32x32 beside torchmetrics: images a second, equality, memory.

    python docs/scoring_speed.py

Both take the same .npz, network, batch size and thread, one after the other in each round; all that
they do counts, from the open file to the distance: seconds of the clock, and those of the
processor, which other work on the machine disturbs less. Memory is the process's resident set while
ours runs, taken after every block.
"""

from __future__ import annotations

import argparse
import tempfile
import time
from pathlib import Path

import numpy as np
import torch
from torch import Tensor, nn
from torchmetrics.image.fid import FrechetInceptionDistance

from reg_engine.scoring import Extraction, Network, open_images, score
from reg_engine.scoring.extract import extract
from reg_engine.scoring.report import gather

SIDE, BATCH = 32, 256


class Small(nn.Module):
    """Two strided convolutions and a mean: (n, 3, H, W) uint8 -> (n, 64)."""

    num_features = 64

    def __init__(self) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.first = nn.Conv2d(3, 16, 3, stride=2, padding=1)
        self.second = nn.Conv2d(16, 64, 3, stride=2, padding=1)

    @torch.no_grad()
    def forward(self, images: Tensor) -> Tensor:
        values = self.first(images.float() / 127.5 - 1).relu()
        return self.second(values).relu().mean((2, 3))


def write(path: Path, count: int, high: int) -> None:
    """Blocks of 4x4 pixels below `high`."""
    coarse = np.random.default_rng(high).integers(0, high, (count, 8, 8, 3), dtype=np.uint8)
    np.savez(path, coarse.repeat(SIDE // 8, 1).repeat(SIDE // 8, 2))


def clocks() -> np.ndarray:
    """Seconds of the clock, and of the processor."""
    return np.array([time.perf_counter(), time.process_time()])


def theirs(path: Path, real: Path, net: nn.Module) -> tuple[float, np.ndarray]:
    """(distance, seconds of the images at `path`, see clocks)."""
    metric = FrechetInceptionDistance(feature=net, normalize=False)
    begun = clocks()
    for file, is_real in ((real, True), (path, False)):
        begun = clocks()
        images = torch.from_numpy(np.load(file)["arr_0"]).permute(0, 3, 1, 2)
        for part in images.split(BATCH):
            metric.update(part.contiguous(), real=is_real)
    return float(metric.compute()), clocks() - begun


def ours(path: Path, real: Path, net: Network, workers: int) -> tuple[float, np.ndarray]:
    """As `theirs`."""
    how = Extraction(BATCH, workers)
    reference = score(open_images(real), net, [], extraction=how).statistics
    begun = clocks()
    found = score(open_images(path), net, statistics=reference, extraction=how).result
    return found["metrics"]["fid"]["value"], clocks() - begun


def resident() -> int:
    """Bytes."""
    return int(Path("/proc/self/statm").read_text().split()[1]) * 4096


def growth(path: Path, net: Network, workers: int) -> tuple[int, int]:
    """(resident bytes after the fifth block, the most after it)."""
    seen = []
    for block in extract(open_images(path), lambda part, _: net(part), Extraction(BATCH, workers)):
        gather([block])
        seen.append(resident())
    return seen[4], max(seen[4:])


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--count", type=int, default=50_000)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--workers", type=int, default=1)
    options = parser.parse_args()
    torch.set_num_threads(1)
    module = Small().eval()
    net = Network("small", module, "small")
    with tempfile.TemporaryDirectory() as folder:
        path, real = Path(folder, "images.npz"), Path(folder, "real.npz")
        write(path, options.count, 256)
        write(real, 5000, 200)
        start, most = growth(path, net, options.workers)
        size = path.stat().st_size
        print(f"{size / 1e6:.0f} MB of images; resident {start / 1e6:.0f} MB after 5 blocks,")
        print(f"at most {(most - start) / 1e6:+.1f} MB more until the last")
        ratios = []
        for _ in range(options.rounds):
            mine, seconds = ours(path, real, net, options.workers)
            other, other_seconds = theirs(path, real, module)
            ratios.append(other_seconds / seconds)
            print(
                f"ours {options.count / seconds[0]:7.0f} images/s, torchmetrics "
                f"{options.count / other_seconds[0]:7.0f}, ratio {ratios[-1][0]:.2f} (of processor "
                f"time {ratios[-1][1]:.2f}); FID {mine:.9f}, apart by {abs(mine / other - 1):.1e}"
            )
        wall, cpu = np.median(ratios, 0)
        print(f"median ratio {wall:.2f}, of processor time {cpu:.2f}")


if __name__ == "__main__":
    main()
