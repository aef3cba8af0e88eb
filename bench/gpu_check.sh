#!/usr/bin/env bash
# Everything that needs a GPU, in one go, under 9 minutes:
#
#   bash bench/gpu_check.sh OUT        results go into OUT, eight files at most
#
# The tests marked gpu, the kernel benchmarks, a few guided steps of every model of the paper's
# table, and ncu on the fused step. No network is needed: the package is installed without its
# dependencies into a folder that is thrown away, for the Python that is there (3.11 or newer;
# PYTHON=python3.12 names another). A part that fails does not stop the others; the exit code is 1 then, and the last lines
# name what failed. What a missing package prevents is said and skipped.
#
# Measured rows: OUT/<device>.csv. Append them to bench/results/ and run `python -m bench.report`.
set -u

[ $# -eq 1 ] || { echo "usage: bash bench/gpu_check.sh OUT" >&2; exit 2; }
mkdir -p "$1" || exit 2
OUT=$(cd "$1" && pwd)
cd "$(dirname "${BASH_SOURCE[0]}")/.." || exit 2
SCRATCH=$(mktemp -d)
trap 'rm -rf "$SCRATCH"' EXIT
PYTHON=${PYTHON:-python3}
SUMMARY=$OUT/summary.txt
: >"$SUMMARY"
FAILED=""

# part NAME SECONDS FILE COMMAND...: run under a time limit, output into OUT/FILE.
part() {
    local name=$1 limit=$2 file=$OUT/$3 begun=$SECONDS code=0
    shift 3
    timeout -k 5 "$limit" "$@" >>"$file" 2>&1 </dev/null || code=$?
    [ $code -eq 0 ] || FAILED="$FAILED $name"
    [ $code -eq 124 ] && echo "$name: stopped after $limit s" >>"$SUMMARY"
    echo "$name: exit $code, $((SECONDS - begun)) s, $(tail -n 1 "$file")" | tee -a "$SUMMARY"
    return $code
}

say() { echo "$1" | tee -a "$SUMMARY"; }

describe() {
    nvidia-smi || echo "nvidia-smi: not there"
    command -v nvcc >/dev/null && nvcc --version | tail -n 2
    "$PYTHON" - <<'PY'
import importlib.util
import platform

print("python", platform.python_version())
import torch

print("torch", torch.__version__, "CUDA", torch.version.cuda)
for name in ("triton", "diffusers", "pytest", "pytest_benchmark", "setuptools"):
    there = importlib.util.find_spec(name) is not None
    print(name, getattr(__import__(name), "__version__", "there") if there else "MISSING")
if not torch.cuda.is_available():
    raise SystemExit("torch.cuda.is_available() is False: nothing here can run")
print(torch.cuda.get_device_name())
PY
}

# Into a folder of its own: the Python that is there stays as it is. Should the build fail, the Python
# part is put together by hand, so that everything but the C++ ops can still be checked.
install_package() {
    "$PYTHON" -m pip install --no-build-isolation --no-deps --no-index \
        --disable-pip-version-check --target "$SCRATCH/site" . && return 0
    mkdir -p "$SCRATCH/site"
    cp -r reg_engine "$SCRATCH/site/" && cp -r kernels "$SCRATCH/site/reg_engine/kernels"
    return 1
}

part environment 20 environment.txt bash -c "PYTHON='$PYTHON'; $(declare -f describe); describe" ||
    { say "failed:$FAILED"; exit 1; }
grep MISSING "$OUT/environment.txt" | tee -a "$SUMMARY"
export REG_ENGINE_BUILD=auto
part install 90 install.txt bash -c \
    "PYTHON='$PYTHON'; SCRATCH='$SCRATCH'; $(declare -f install_package); install_package"
# The checkout comes after the installed package: the latter has the kernels and the C++ ops.
export PYTHONPATH=$SCRATCH/site:$PWD${PYTHONPATH:+:$PYTHONPATH} PYTHONSAFEPATH=1

if "$PYTHON" -c "import pytest" 2>/dev/null; then
    part tests 75 tests.txt "$PYTHON" -m pytest -q -m gpu tests
    json=()
    "$PYTHON" -c "import pytest_benchmark" 2>/dev/null && json=(--benchmark-json "$OUT/bench.json")
    models="mnist or edm2-s-64 or edm2-s-512 or edm2-xxl-512 or dit-xl-2-256"
    models="$models or sd-1.4-512 or sd-2.1-768 or sd-xl-1024"
    # torch.compile takes seconds a shape: the largest shapes of the kernels stand for the others.
    part bench 285 bench.txt "$PYTHON" -m pytest -q -rs bench/ --benchmark --bench-device cuda \
        --bench-out "$OUT" --bench-steps 2 --bench-rounds 5 "${json[@]}" -k \
        "not planned and (not compile or latent-1024 or pixel-1024) and (test_combine or \
test_guided_step or test_reduce or test_probe or $models)"
else
    FAILED="$FAILED tests bench"
    say "tests, bench: pytest is missing"
fi

if command -v ncu >/dev/null; then
    part ncu 45 profile.txt ncu --clock-control none --target-processes all \
        --kernel-name "regex:guided" --launch-count 6 --section SpeedOfLight --section Occupancy \
        --section MemoryWorkloadAnalysis --section LaunchStats \
        "$PYTHON" -m bench.profile_step
else
    say "ncu: not there, no profile"
fi

if [ -n "$FAILED" ]; then
    say "failed:$FAILED"
    exit 1
fi
say "everything passed"
