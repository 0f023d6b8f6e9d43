#!/usr/bin/env bash
# Runs the numeric tests as other processors would compute them.
#
#   bash tools/test_processors.sh [--short] [--repeat N] [--logs DIR]
#       [--active | --venv DIR] [TEST ...]
#
#   --short     every instruction set and every number of threads once instead of
#               each with each; without what tools/test.sh runs
#   --repeat N  how often every test must pass in a row under each setting, in one
#               process, and under how many other roundings (default: 1)
#   --logs DIR  where the logs of failed settings are kept
#               (default: work_dirs/test_processors)
#   TEST        files, folders or file::test (default: all that is named below)
#
# Prints one line per setting with result and seconds; ends with 1 if one
# failed.
#
# The settings: all instructions of this processor, AVX2 alone and none beyond
# the baseline, each with one and two threads, and "other rounding", where
# results of torch are moved in their last places as tests/rounding.py says: the
# only one that stands for instructions that this processor lacks.
# On processors without AVX2 the settings that ask for it repeat the others.
#
# Runs what is marked numeric (tests/conftest.py): what functional, models,
# evaluation, converters and a part of engine compare with a reference or within a
# tolerance. Left out: what compares a run with itself, or texts and files (marked
# exact: launching, resuming, messages, formats); data and tables, where nothing
# goes through a network.
set -euo pipefail

if [ "${1:-}" = -h ] || [ "${1:-}" = --help ]; then
    sed -n '2,/^set/{/^set/d;s/^# \{0,1\}//;p}' "${BASH_SOURCE[0]}"
    exit 0
fi
source "$(dirname "${BASH_SOURCE[0]}")/setup.sh"
repeat=1
short=
logs="$MEDSSL_ROOT/work_dirs/test_processors"
setup_arguments=()
tests=()
while [ $# -gt 0 ]; do
    case "$1" in
    --short) short=yes ;;
    --repeat) repeat="${2:-}" && shift ;;
    --repeat=*) repeat="${1#*=}" ;;
    --logs) logs="$(realpath -m -- "${2:-}")" && shift ;;
    --logs=*) logs="$(realpath -m -- "${1#*=}")" ;;
    --venv) setup_arguments+=("$1" "${2:-}") && shift ;;
    --active | --venv=*) setup_arguments+=("$1") ;;
    [^-]*) tests+=("$1") ;;
    *)
        echo "error: unknown option $1 (see bash tools/test_processors.sh --help)" >&2
        exit 2
        ;;
    esac
    shift || { echo 'error: the last option needs a value' >&2 && exit 2; }
done
[[ $repeat =~ ^[1-9][0-9]*$ ]] || {
    echo "error: --repeat must be a whole number from 1, got '$repeat'" >&2
    exit 2
}
medssl_setup ${setup_arguments[@]+"${setup_arguments[@]}"}

cd "$MEDSSL_ROOT"
[ ${#tests[@]} -gt 0 ] ||
    tests=(tests/functional tests/models tests/evaluation tests/converters tests/engine)
mkdir -p "$logs"
export MPLBACKEND=Agg
processes="$(medssl_processes)"
failed=0

# One setting: name, threads, repetitions, variables of the environment.
run() {
    local name="$1, $2 thread(s)" threads="$2" times="$3" started=$SECONDS
    local result=passed log
    log="$logs/$(printf '%s' "$name" | tr -cs '[:alnum:]\n' -).log"
    # Processes share the cores, so a thread that waits must not spin.
    env OMP_NUM_THREADS="$threads" MKL_NUM_THREADS="$threads" OMP_WAIT_POLICY=passive \
        MEDSSL_TEST_REPEAT="$times" "${@:4}" \
        "$MEDSSL_VENV_PYTHON" -m pytest -q -m numeric -p no:cacheprovider \
        -n "$processes" --dist worksteal "${tests[@]}" >"$log" 2>&1 || result=FAILED
    printf '%-34s %2d times  %s  %4d s' "$name" "$times" "$result" $((SECONDS - started))
    if [ "$result" = passed ]; then
        printf '  %s\n' "$(grep -oE '[0-9]+ passed.* in [^ ]+s' "$log" | tail -n 1)"
        rm "$log"
    else
        failed=1
        printf '  %s\n' "$log"
        grep -E '^(FAILED|ERROR)' "$log" || tail -n 5 "$log"
    fi
}

for threads in 1 2; do
    [ "$short$threads" = yes1 ] || run 'this processor' "$threads" "$repeat"
    [ "$short$threads" = yes2 ] ||
        run 'AVX2' "$threads" "$repeat" ONEDNN_MAX_CPU_ISA=AVX2 ATEN_CPU_CAPABILITY=avx2
    [ "$short$threads" = yes1 ] ||
        run 'baseline' "$threads" "$repeat" \
            ONEDNN_MAX_CPU_ISA=SSE41 ATEN_CPU_CAPABILITY=default
done
# Every seed is another processor.
for ((seed = 1; seed <= repeat; seed++)); do
    run "other rounding $seed" 1 1 MEDSSL_TEST_ROUNDING="$seed"
done
exit "$failed"
