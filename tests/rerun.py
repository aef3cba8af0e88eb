"""A recorder that needs no GPU: it warms up as CUDA does, and a replay runs the work again."""

from __future__ import annotations

from collections.abc import Callable

from reg_engine.loop.graphs import WARM_UP


class Rerun:
    """Runs the work for each warm-up and once more where CUDA would capture.

    Unlike on CUDA, a step past the end of the table raises here.
    """

    def __init__(self) -> None:
        self.recorded = self.replayed = 0

    def __call__(self, work: Callable[[], None], restore: Callable[[], None]) -> Callable[[], None]:
        self.recorded += 1
        for _ in range(WARM_UP):
            work()
            restore()
        work()

        def replay() -> None:
            self.replayed += 1
            work()

        return replay
