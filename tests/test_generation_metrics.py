"""The metrics file, as Prometheus's own parser reads it."""

from __future__ import annotations

from pathlib import Path

import pytest
from generation_cases import Numbers, made, opened

from reg_engine import InputError
from reg_engine.generation.metrics import Metrics


def values(path: Path) -> dict[str, float]:
    parser = pytest.importorskip("prometheus_client.parser")
    found = {}
    for family in parser.text_string_to_metric_families(path.read_text()):
        assert family.documentation and family.type in ("gauge", "counter")
        for sample in family.samples:
            assert set(sample.labels) == {"job_key", "rank"}
            found[sample.name.removeprefix("reg_engine_generate_")] = sample.value
    return found


def test_it_counts_what_the_run_does(tmp_path: Path) -> None:
    path, out = tmp_path / "m.prom", tmp_path / "o"
    made(out, part=(0, 4))
    records = opened(out)
    with Metrics(str(path), records, 3) as metrics:
        first = values(path)
        assert (first["running"], first["shards"], first["shards_done"]) == (1, 4, 1)
        assert first["left_seconds"] == float("inf") and first["images_total"] == 0
        metrics._written = -1e9
        for shard in made(out, Numbers([9]), on_error="skip"):
            metrics.count(shard)
        assert values(path)["images_total"] == 7  # the next ones came within the pause
    last = values(path)
    assert (last["running"], last["shards_done"], last["left_seconds"]) == (0, 4, 0)
    assert (last["images_total"], last["failed_images_total"]) == (17, 1)
    assert (last["shards_made_total"], last["batch_size"]) == (3, 4)
    assert metrics.failed == [9] and last["elapsed_seconds"] > 0


def test_files_that_no_collector_reads(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    made(tmp_path / "o")
    records = opened(tmp_path / "o")
    with pytest.raises(InputError, match="--metrics: is 'x.txt'"):
        Metrics("x.txt", records, 0)
    with pytest.raises(InputError, match="cannot be written"):
        Metrics("/proc/no/m.prom", records, 0)
    with Metrics(None, records, 0) as nowhere:
        assert nowhere.seconds_left == 0
    monkeypatch.setenv("RANK", "3")
    monkeypatch.setenv("WORLD_SIZE", "4")
    with Metrics(str(tmp_path / "m.prom"), records, 0):
        pass
    assert 'rank="3"' in (tmp_path / "m.3.prom").read_text()


def test_an_error_is_not_hidden_by_a_file_that_is_gone(tmp_path: Path) -> None:
    made(tmp_path / "o")
    folder = tmp_path / "metrics"
    with (
        pytest.raises(ZeroDivisionError),
        Metrics(str(folder / "m.prom"), opened(tmp_path / "o"), 0),
    ):
        (folder / "m.prom").unlink()
        folder.rmdir()
        raise ZeroDivisionError
