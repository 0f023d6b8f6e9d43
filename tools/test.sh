#!/usr/bin/env bash
# Sets the environment up, then runs the tests.
#
#   bash tools/test.sh [--active | --venv DIR] [arguments of pytest]
#
# Without arguments of pytest the whole suite, one process per core (about 15
# minutes on 2); with them one process, or -n NUMBER. Tests on real data are
# skipped unless MEDSSL_REALDATA names the folder that holds them.
set -euo pipefail

if [ "${1:-}" = -h ] || [ "${1:-}" = --help ]; then
    sed -n '2,/^set/{/^set/d;s/^# \{0,1\}//;p}' "${BASH_SOURCE[0]}"
    exit 0
fi
if [ -n "${MEDSSL_REALDATA:-}" ]; then
    MEDSSL_REALDATA="$(cd "$MEDSSL_REALDATA" && pwd -P)" || {
        echo "error: MEDSSL_REALDATA names no folder" >&2
        exit 1
    }
    export MEDSSL_REALDATA
fi
source "$(dirname "${BASH_SOURCE[0]}")/setup.sh"
setup_arguments=()
while [ $# -gt 0 ]; do
    case "$1" in
    --active | --venv=*) setup_arguments+=("$1") ;;
    --venv)
        setup_arguments+=("$1" "${2:-}")
        shift
        ;;
    *) break ;;
    esac
    shift
done
medssl_setup ${setup_arguments[@]+"${setup_arguments[@]}"}

cd "$MEDSSL_ROOT"
# Tests with two processes would fight over the cores with more threads.
export OMP_NUM_THREADS="${OMP_NUM_THREADS:-1}"
export MKL_NUM_THREADS="${MKL_NUM_THREADS:-$OMP_NUM_THREADS}"
export MPLBACKEND=Agg
[ $# -gt 0 ] || set -- -n "$(medssl_processes)" --dist worksteal
exec "$MEDSSL_VENV_PYTHON" -m pytest -q "$@"
