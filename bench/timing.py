"""Timing: seconds of single calls, the contenders interleaved round by round.

On CUDA a contender is a graph of many calls over inputs that together are larger than the L2 cache,
replayed between two events: neither the host nor a warm cache is measured. On a CPU it is
perf_counter around calls that rotate through the same inputs. Interleaving spreads what disturbs
the machine over all contenders; medians and percentiles 20 and 80 are reported.
"""

from __future__ import annotations

import gc
import itertools
import math
import time
from collections.abc import Callable, Mapping, Sequence

import torch

__all__ = ["Call", "copy_bandwidth", "in_turn", "interleaved", "percentiles", "sets_needed"]

Call = Callable[[], object]

ROTATED_PAST = 3  # times the size of the last cache
CPU_CACHE = 32 * 2**20  # bytes, where the machine does not say
MAX_SETS = 256
FEWEST = 3  # rounds, whatever the time
LEAST = 1e-3  # seconds that one timed stretch should take
AWAKE = 0.3  # seconds of work before a GPU's clocks are those of a long run


def cache_bytes(device: torch.device) -> int:
    """Size of the last cache before memory."""
    if device.type == "cuda":
        return int(torch.cuda.get_device_properties(device).L2_cache_size)
    return CPU_CACHE


def sets_needed(bytes_of_a_set: int, device: torch.device) -> int:
    """How many input sets together overflow the cache, at least 2 and at most MAX_SETS."""
    wanted = math.ceil(ROTATED_PAST * cache_bytes(device) / max(bytes_of_a_set, 1))
    return max(2, min(wanted, MAX_SETS))


def in_turn(
    contenders: Mapping[str, Call], device: torch.device, rounds: int, until: float = math.inf
) -> dict[str, list[float]]:
    """Wall seconds of long calls that have run before, one of each contender a round.

    The device is idle before and after each call. FEWEST rounds suffice past time.monotonic() =
    `until`.
    """
    found: dict[str, list[float]] = {name: [] for name in contenders}
    gc.collect()
    for number in range(rounds):
        if number >= FEWEST and time.monotonic() > until:
            break
        for name, call in contenders.items():
            found[name].append(_wall(call, device))
    return found


def _wall(call: Call, device: torch.device) -> float:
    _wait(device)
    begun = time.perf_counter()
    call()
    _wait(device)
    return time.perf_counter() - begun


def _wait(device: torch.device) -> None:
    if device.type == "cuda":
        torch.cuda.synchronize(device)


def interleaved(
    contenders: Mapping[str, Sequence[Call]],
    device: torch.device,
    rounds: int,
    until: float = math.inf,
) -> dict[str, list[float]]:
    """Seconds a call, `rounds` values for each contender, one round of each after the other.

    Args:
        contenders: name -> the same work on different inputs, one call each.
        until: as in_turn.
    """
    prepared = {}
    for name, calls in contenders.items():
        for call in (calls[0], calls[-1]):
            call()  # compiles and allocates
        prepared[name] = _on_cuda(calls) if device.type == "cuda" else _on_cpu(calls)
    found: dict[str, list[float]] = {name: [] for name in prepared}
    gc.collect()
    awake = time.monotonic() + AWAKE
    while device.type == "cuda" and time.monotonic() < awake:
        for stretch in prepared.values():
            stretch()
    gc.disable()
    try:
        for number in range(rounds):
            if number >= FEWEST and time.monotonic() > until:
                break
            for name, stretch in prepared.items():
                found[name].append(stretch())
    finally:
        gc.enable()
    return found


def _on_cpu(calls: Sequence[Call]) -> Callable[[], float]:
    """One stretch of calls that takes LEAST or longer; gives seconds a call."""
    turns = itertools.cycle(calls)
    begun = time.perf_counter()
    next(turns)()
    once = time.perf_counter() - begun
    count = max(1, math.ceil(LEAST / max(once, 1e-7)))

    def stretch() -> float:
        some = list(itertools.islice(turns, count))
        begun = time.perf_counter()
        for call in some:
            call()
        return (time.perf_counter() - begun) / count

    return stretch


def _on_cuda(calls: Sequence[Call]) -> Callable[[], float]:
    """A graph of all calls; one stretch replays it between two events."""
    stream, graph = torch.cuda.Stream(), torch.cuda.CUDAGraph()
    stream.wait_stream(torch.cuda.current_stream())
    with torch.cuda.stream(stream):
        for call in calls[:2]:
            call()
    torch.cuda.current_stream().wait_stream(stream)
    with torch.cuda.graph(graph):
        for call in calls:
            call()
    first, last = (torch.cuda.Event(enable_timing=True) for _ in range(2))

    def stretch() -> float:
        first.record()
        graph.replay()
        last.record()
        last.synchronize()
        return float(first.elapsed_time(last)) / 1e3 / len(calls)

    stretch()
    return stretch


def percentiles(values: Sequence[float]) -> tuple[float, float, float]:
    """The 20th, 50th and 80th percentile (linear between the ranks).

    Raises:
        ValueError: no values.
    """
    if not values:
        raise ValueError("no values were measured")
    found = torch.tensor(values, dtype=torch.float64).quantile(
        torch.tensor([0.2, 0.5, 0.8], dtype=torch.float64)
    )
    p20, p50, p80 = found.tolist()
    return p20, p50, p80


def copy_bandwidth(device: torch.device, rounds: int = 20) -> tuple[int, list[float]]:
    """(bytes read and written, seconds) of a copy far larger than the cache.

    A device's own copy need not be its fastest (an H200's, replayed: 2.7 TB/s, where an elementwise
    kernel moves 4.4): of the two the faster.
    """
    count = 2**28 if device.type == "cuda" else 2**24  # float32: 1 GiB and 64 MiB
    source, target = torch.rand(count, device=device), torch.empty(count, device=device)
    ways: dict[str, list[Call]] = {
        "copy": [lambda: target.copy_(source)],
        "negate": [lambda: torch.neg(source, out=target)],
    }
    found = interleaved(ways, device, rounds)
    return 2 * source.nbytes, min(found.values(), key=lambda seconds: percentiles(seconds)[1])
