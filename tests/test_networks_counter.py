"""Work done is counted by whoever works, and by none else."""

from __future__ import annotations

from reg_engine.networks.counter import Counter


def test_a_counter_begins_at_nothing_and_is_its_own() -> None:
    one, other = Counter(), Counter()
    one.forward += 3
    one.fallbacks.update({"addcmul": 2})
    one.fallbacks.update({"addcmul": 1})
    assert (one.forward, one.backward, dict(one.fallbacks)) == (3, 0, {"addcmul": 3})
    assert other == Counter(0, 0) and not other.fallbacks
