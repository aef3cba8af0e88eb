#!/usr/bin/env bash
# Everything that needs a GPU, in one go of at most 560 seconds:
#
#   REG_ENGINE_COMMIT=$(git rev-parse HEAD) bash bench/gpu_check.sh OUT
#
# OUT gets state.txt (a line for each part: commit, part, state, seconds), a file for each part and
# <device>.csv with the measured rows: eight files. Run again on the same OUT it does what is red or
# missing: a part that is green, and a case of the table whose rows are there, stay as they are. Only
# a red line or a missing GPU makes the exit status 1; what a missing package prevents is skipped.
#
#   dist/*.whl           carry one, or nvcc builds the CUDA operations here: `make gpu-wheel`
#   PYTHON=python3.12    which interpreter; nothing is installed into it
#   REG_ENGINE_GPU_DEADLINE=560   seconds for all
#   REG_ENGINE_GPU_TABLE=240      seconds after which no new case of the table starts
#   REG_ENGINE_GPU_CASES="..."    which cases, in which order
#   REG_ENGINE_GPU_DRY=1          every part on the CPU at tiny sizes: a test of this script
#
# Append OUT/<device>.csv to bench/results/ and run `python -m bench.report`.
set -u

[ $# -eq 1 ] || { echo "usage: bash bench/gpu_check.sh OUT" >&2; exit 2; }
mkdir -p "$1" || exit 2
OUT=$(cd "$1" && pwd)
cd "$(dirname "${BASH_SOURCE[0]}")/.." || exit 2
SCRATCH=$(mktemp -d)
trap 'rm -rf "$SCRATCH"' EXIT
export PYTHON=${PYTHON:-python3} SCRATCH PYTHONUNBUFFERED=1
END=$((SECONDS + ${REG_ENGINE_GPU_DEADLINE:-560}))
DRY=${REG_ENGINE_GPU_DRY:-} TABLE=${REG_ENGINE_GPU_TABLE:-240}
COMMIT=${REG_ENGINE_COMMIT:-$(git rev-parse HEAD 2>/dev/null)}
COMMIT=${COMMIT:0:12}
export REG_ENGINE_COMMIT=$COMMIT
STATE=$OUT/state.txt
JOBS=8 DEVICE=cuda DRIED=()
[ -z "$DRY" ] || { JOBS=1 DEVICE=cpu DRIED=(--dry); export OMP_NUM_THREADS=${OMP_NUM_THREADS:-1}; }
RED=""

say() { echo "${COMMIT:-unknown} $*" | tee -a "$STATE"; }

green() { [ -n "$COMMIT" ] && grep -q "^$COMMIT $1 green" "$STATE" 2>/dev/null; }

# part NAME LIMIT FILE COMMAND...: under a time limit and the deadline, output into OUT/FILE.txt.
part() {
    local name=$1 limit=$2 file=$OUT/$3.txt begun=$SECONDS left=$((END - SECONDS - 2)) code=0
    shift 3
    ! green "$name" || { echo "$name: green before"; return 0; }
    [ $left -ge 5 ] || { say "$name missing 0 s, no time left"; return 1; }
    [ -z "$DRY" ] || limit=$((4 * limit)) # what is tested there is the parts, not a busy machine
    [ "$limit" -le $left ] || limit=$left
    echo "== $name, commit ${COMMIT:-unknown}" >>"$file"
    timeout -k 2 "$limit" "$@" >>"$file" 2>&1 </dev/null || code=$?
    if [ $code -eq 0 ]; then
        say "$name green $((SECONDS - begun)) s"
    else
        RED="$RED $name"
        say "$name red $((SECONDS - begun)) s, exit $code, $(tail -n 1 "$file")"
    fi
    return $code
}

there() { "$PYTHON" -c "import $1" 2>/dev/null; }

# Into a folder of its own. Without a wheel, and where the build fails, the Python part alone.
unpack() {
    local wheel
    wheel=$(ls dist/reg_engine-*.whl 2>/dev/null | head -n 1)
    if [ -n "$wheel" ]; then
        "$PYTHON" -m zipfile -e "$wheel" "$SCRATCH/site" && return
    fi
    if [ -z "$DRY" ] && command -v nvcc >/dev/null; then
        REG_ENGINE_BUILD=1 REG_ENGINE_CUDA=1 REG_ENGINE_CUDA_ARCHS=${REG_ENGINE_CUDA_ARCHS:-90-real} \
            timeout 100 "$PYTHON" -m pip install --no-build-isolation --no-deps --no-index \
            --disable-pip-version-check --target "$SCRATCH/site" . && return
        echo "the build failed: going on without csrc"
    fi
    mkdir -p "$SCRATCH/site" && cp -r reg_engine "$SCRATCH/site/" &&
        cp -r kernels "$SCRATCH/site/reg_engine/kernels"
}

# Named files, several at once; pytest's 5 is "nothing was collected".
pytests() {
    printf '%s\n' "$@" | xargs -P "$JOBS" -I{} sh -c \
        '"$PYTHON" -m pytest -q -p no:cacheprovider -m "$MARKS" {} || [ $? -eq 5 ]'
}

install() {
    unpack || return
    "$PYTHON" -c "import reg_engine; from reg_engine.ops import extension as e; print(reg_engine.__file__, e.load())"
}

export DRY JOBS
export -f unpack install pytests
# The checkout comes after the installed package: the latter has the kernels and the C++ operations.
export PYTHONPATH=$SCRATCH/site:$PWD${PYTHONPATH:+:$PYTHONPATH} PYTHONSAFEPATH=1

if green install; then
    unpack >>"$OUT/install.txt" 2>&1 # its folder went with the call before
else
    part install 110 install bash -c install
fi
# What cannot see the device has nothing to measure.
part environment 60 environment "$PYTHON" -m bench.gpu environment --out "$OUT" "${DRIED[@]}" || exit 1

part smoke 90 smoke "$PYTHON" -m bench.smoke --device $DEVICE
last() { grep "^$1: " "$OUT/smoke.txt" | tail -n 1 | grep -q green; }
eager=()
last capture || eager=(--eager)

# A process each, so that one that dies takes no other along; dry, two processes show as much.
cases="dit-xl-2-256 edm2-s-512 sd-1.4-512 edm2-s-64 sd-2.1-768 sd-xl-1024 edm2-xxl-512"
[ -z "$DRY" ] || cases="dit-xl-2-256 edm2-s-512,sd-1.4-512,edm2-s-64,sd-2.1-768,sd-xl-1024,edm2-xxl-512"
cases=${REG_ENGINE_GPU_CASES:-$cases}
BEGUN=$SECONDS
for case in $cases; do
    spent=$((SECONDS - BEGUN))
    [ $spent -lt "$TABLE" ] ||
        { green "table:$case" || say "table:$case missing 0 s, $TABLE s used"; continue; }
    part "table:$case" $((TABLE + 60 - spent)) table "$PYTHON" -m bench.gpu table ${case//,/ } \
        --out "$OUT" "${eager[@]}" "${DRIED[@]}"
done

export MARKS=gpu
if there pytest; then
    files=$(grep -l "mark\.gpu" tests/test_*.py)
    [ -z "$DRY" ] || files=tests/test_loop_graphs_gpu.py
    part tests 90 tests bash -c 'pytests $0' "$files"
else
    say "tests skipped 0 s, no pytest"
fi
if last kernels; then
    part kernels 40 kernels "$PYTHON" -m bench.gpu kernels --out "$OUT" "${DRIED[@]}"
else
    say "kernels missing 0 s, the smoke part has red kernels"
fi

if last kernels; then
    part duals 90 kernels "$PYTHON" -m bench.gpu duals --out "$OUT" "${DRIED[@]}"
else
    say "duals missing 0 s, the smoke part has red kernels"
fi

# What the time that is left, or a second call, is for.
export MARKS="not slow"
if there pytest; then
    files=$(ls tests/kernels/test_*.py)
    [ -z "$DRY" ] || files=tests/kernels/test_tuning.py
    [ -n "$DRY" ] || ! there xdist || export PYTEST_ADDOPTS="-n 3"
    part kernel-tests 150 tests bash -c 'pytests $0' "$files"
    unset PYTEST_ADDOPTS
fi
if last kernels; then
    part tune 100 kernels env ${DRY:+TRITON_INTERPRET=1} "$PYTHON" -m bench.tune "${DRIED[@]}"
else
    say "tune missing 0 s, the smoke part has red kernels"
fi
if [ -n "$DRY" ]; then
    part ncu 60 kernels "$PYTHON" -m bench.profile_step --dry
elif command -v ncu >/dev/null; then
    part ncu 60 kernels ncu --clock-control none --target-processes all --launch-count 40 \
        --kernel-name "regex:guided|step|combine|probe|chunk|reduce" --section SpeedOfLight \
        --section Occupancy --section MemoryWorkloadAnalysis --section LaunchStats \
        "$PYTHON" -m bench.profile_step
else
    say "ncu skipped 0 s, not there"
fi
part compile 120 kernels "$PYTHON" -m bench.gpu compile --out "$OUT" "${DRIED[@]}"

[ -z "$RED" ] || { echo "red:$RED"; exit 1; }
echo "nothing is red"
