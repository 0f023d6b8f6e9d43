#!/usr/bin/env bash
# Set-up, types and tests with several Pythons, each in an environment of its own
# under work_dirs/pythons, one after the other; one line of result each. Types differ
# because each Python has its own newest numpy.
#
#   bash tools/test_pythons.sh [--keep] [PYTHON ...] [-- arguments of pytest]
#
#   PYTHON  a version (3.13, 3.13.0) or the path of an interpreter; default: every
#           version from 3.10 to 3.14 that pyenv, uv or PATH has
#   --keep  leave the environments (6.4 GB each, shared with uv's cache where that
#           lies on the same disk)
#
# Example: bash tools/test_pythons.sh 3.10 3.13 -- tests/functional tests/models
set -uo pipefail

source "$(dirname "${BASH_SOURCE[0]}")/setup.sh"
keep=false
wanted=()
while [ $# -gt 0 ]; do
    case "$1" in
    -h | --help)
        sed -n '2,/^set/{/^set/d;s/^# \{0,1\}//;p}' "${BASH_SOURCE[0]}"
        exit 0
        ;;
    --keep) keep=true ;;
    --) shift && break ;;
    -*) echo "error: unknown option $1 (see bash tools/test_pythons.sh --help)" >&2; exit 2 ;;
    *) wanted+=("$1") ;;
    esac
    shift
done

# Prints the interpreter of a version: pyenv's newest, on PATH, or uv's.
interpreter_of() {
    local pyenv="${PYENV_ROOT:-$HOME/.pyenv}/versions" found
    found="$(ls -d "$pyenv/$1" "$pyenv/$1".* 2>/dev/null | sort -V | tail -n 1)"
    medssl_find_python "$found/bin/python" "python$1" \
        "$(uv python find --no-project --no-python-downloads "$1" 2>/dev/null)" 2>/dev/null
}

# check PYTHON ARGUMENT...: set-up and tests with one interpreter; prints the result.
check() {
    local python="$1" folder started=$SECONDS set_up status types
    shift
    folder="$MEDSSL_ROOT/work_dirs/pythons/$("$python" -c 'import platform
print(platform.python_version())')"
    printf '%s: ' "$(basename "$folder")"
    rm -rf "$folder" && mkdir -p "$folder" || return 1
    if ! MEDSSL_PYTHON="$python" bash "$MEDSSL_ROOT/tools/setup.sh" --venv "$folder" \
        >"$folder.log" 2>&1; then
        echo "set-up failed, see $folder.log"
        return 1
    fi
    set_up=$((SECONDS - started))
    types="$(cd "$MEDSSL_ROOT" && "$folder/bin/python" -m mypy 2>&1 | tee -a "$folder.log" |
        tail -n 1)"
    bash "$MEDSSL_ROOT/tools/test.sh" --venv "$folder" "$@" >>"$folder.log" 2>&1
    status=$?
    echo "set-up $set_up s, types: $types, tests: $(tail -n 1 "$folder.log") ($folder.log)"
    $keep || rm -rf "$folder"
    [[ "$types" = Success* ]] && return "$status"
}

failed=0
if [ "${#wanted[@]}" -eq 0 ]; then
    for name in 3.10 3.11 3.12 3.13 3.14; do
        if interpreter_of "$name" >/dev/null; then wanted+=("$name"); fi
    done
    echo "testing: ${wanted[*]}"
fi
for name in "${wanted[@]}"; do
    case "$name" in
    */*) python="$(medssl_find_python "$name" 2>/dev/null)" ;;
    *) python="$(interpreter_of "$name")" ;;
    esac || { echo "$name: not found, or not one of 3.10 to 3.14"; failed=1; continue; }
    check "$python" "$@" || failed=1
done
exit "$failed"
