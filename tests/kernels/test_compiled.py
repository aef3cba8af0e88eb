"""What the compiler makes of the kernels, for a GPU that need not be there."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

pytest.importorskip("triton", reason="triton is not installed")

SCRIPT = Path(__file__).with_name("compile_kernels.py")


DUALS = {"attention_dual", "norm_dual", "activation_dual"}
CAPABILITIES = [
    pytest.param("80", id="sm_80", marks=pytest.mark.slow),
    pytest.param("90", id="sm_90", marks=pytest.mark.slow),
    pytest.param("90 few", id="sm_90 few"),  # the other dtypes and shapes: a minute more
]


@pytest.fixture(scope="module", params=CAPABILITIES)
def compiled(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> list:
    environment = {k: v for k, v in os.environ.items() if k != "TRITON_INTERPRET"}
    environment["TRITON_CACHE_DIR"] = str(tmp_path_factory.mktemp("triton"))
    command = [sys.executable, str(SCRIPT), *request.param.split()]
    done = subprocess.run(command, env=environment, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert "FP fusion" not in done.stderr
    return json.loads(done.stdout)


def chosen(compiled: list, name: str) -> list:
    found = [c for c in compiled if c["kernel"] == f"_{name}_kernel"]
    assert found
    return found


def test_every_kernel_compiles(compiled: list) -> None:
    names = {"combine", "guided_step", "probe", "reduce", "reduce_blocks", *DUALS}
    assert {c["kernel"] for c in compiled} == {f"_{name}_kernel" for name in names}
    assert all(c["cubin"] > 0 for c in compiled)


@pytest.mark.parametrize("name", ["combine", "guided_step", "probe", "reduce"])
def test_flat_tensors_move_16_bytes_at_a_time(compiled: list, name: str) -> None:
    loads = re.findall(r"ld\.global\S*\.v(\d)\.b(\d+)", chosen(compiled, name)[0]["ptx"])
    assert ("4", "32") in loads


def test_the_usual_step_needs_no_shared_memory(compiled: list) -> None:
    """The same lanes walk tensors of 16 and of 32 bits: nothing is exchanged between them.

    What is not finite takes a word of each warp.
    """
    for name in ("guided_step", "probe"):
        assert chosen(compiled, name)[0]["shared"] == 0
    assert 0 < chosen(compiled, "guided_step")[1]["shared"] <= 64


def test_the_weight_arrives_in_float64(compiled: list) -> None:
    assert all("fp64" in facts["types"] for facts in chosen(compiled, "combine"))


def test_no_multiply_add_is_fused(compiled: list) -> None:
    """Plain torch rounds each product; the integers' are exact. Attention is rounded otherwise."""
    found = {c["kernel"] for c in compiled if re.search(r"fma\.rn\S*\.f(32|64)", c["ptx"])}
    assert found <= {"_attention_dual_kernel", "_norm_dual_kernel", "_activation_dual_kernel"}


def test_attention_uses_tensor_cores_and_loads_ahead(compiled: list) -> None:
    """Heads of 64 channels, and of 72, whose last 16 columns are a narrow matrix."""
    wide, narrow, *_ = chosen(compiled, "attention_dual")
    for facts, sizes in ((wide, {"10"}), (narrow, {"10", "8"})):
        assert "wgmma.mma_async" in facts["ptx"] or "mma.sync" in facts["ptx"]
        found = re.findall(r"cp\.async\.c[ag]\S*[^;]*, 0x([0-9a-f]+)", facts["ptx"])
        assert found and set(found) <= sizes
        assert facts["shared"] <= 160 * 1024


def test_nothing_is_added_atomically(compiled: list) -> None:
    assert not any(re.search(r"\b(atom|red)\.", c["ptx"]) for c in compiled)
