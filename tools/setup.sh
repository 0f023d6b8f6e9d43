#!/usr/bin/env bash
# Makes the virtual environment that the other commands use.
#
#   bash tools/setup.sh [--venv DIR | --active]
#
#   --venv DIR  where the environment lives (default: $MEDSSL_VENV or .venv)
#   --active    use the virtual or conda environment that is active now; only
#               what it lacks of requirements/*.txt is installed
#
# MEDSSL_PYTHON names the Python to make it with (3.10 to 3.14). Nothing is
# done while the requirements are unchanged, and the same command goes on after
# an interruption. Other scripts source this file and call medssl_setup, which
# leaves the environment's python first on PATH.

MEDSSL_ROOT="$(cd "$(dirname "${BASH_SOURCE[0]}")/.." && pwd -P)"
MEDSSL_NEEDED_GB=8
MEDSSL_NO_INDEX='dns error|error sending request|failed to fetch|connection|timed out|no matching distribution'

medssl_say() { printf '[setup] %s\n' "$*"; }
medssl_fail() { printf '[setup] error: %s\n' "$*" >&2; return 1; }

# Prints how many processes of tests there is room for: one per core, and not more
# than 8, which would need over 16 GB. nproc would say what OMP_NUM_THREADS says.
medssl_processes() {
    local cores
    cores="$(env -u OMP_NUM_THREADS -u OMP_THREAD_LIMIT nproc)"
    echo "$((cores < 8 ? cores : 8))"
}

# Prints the real path of the first usable Python among the arguments, else of
# MEDSSL_PYTHON, else on PATH. A version manager's shim may stand there for a
# version that is not installed, hence the trial run.
medssl_find_python() {
    local candidate
    [ $# -gt 0 ] || set -- ${MEDSSL_PYTHON:+"$MEDSSL_PYTHON"}
    [ $# -gt 0 ] || set -- python3.12 python3.13 python3.11 python3.14 python3.10 python3 python
    for candidate in "$@"; do
        "$candidate" -c 'import sys
sys.exit(not (3, 10) <= sys.version_info[:2] <= (3, 14) or print(sys.executable))' \
            2>/dev/null && return 0
    done
    medssl_fail "no Python 3.10 to 3.14 found (tried $*). Install one (Debian/Ubuntu:" \
        'apt install python3 python3-venv) or name it: MEDSSL_PYTHON=/path/to/python3.12'
}

# Runs a command that installs something; explains the common failures.
medssl_run() {
    local log="$MEDSSL_TMP/log" status
    "$@" 2>&1 | tee "$log" | sed -u '/^ [-+~] /d'
    status="${PIPESTATUS[0]}"
    if [ "$status" -eq 0 ]; then
        return 0
    elif grep -qiE 'no space left|quota exceeded' "$log"; then
        medssl_fail "the disk is full. Free some ($MEDSSL_NEEDED_GB GB in all; uv cache clean), or" \
            'choose another one (--venv DIR, UV_CACHE_DIR); the same command goes on.'
    elif grep -qiE 'permission denied|read-only file' "$log"; then
        medssl_fail 'no permission to write (see above). Choose another place with --venv DIR.'
    elif grep -qiE "$MEDSSL_NO_INDEX" "$log"; then
        medssl_fail 'the package index cannot be reached. Check the network, or name a mirror' \
            '(UV_DEFAULT_INDEX) or certificates (SSL_CERT_FILE); the same command goes on.'
    else
        medssl_fail "the installation failed, its message is above."
    fi
}

# Sets MEDSSL_UV: a new enough one on PATH or of the environment, or that of the
# lock, which pip installs. Debian's Python may lack ensurepip; its own pip ($1)
# does the same.
medssl_find_uv() {
    local pin="$MEDSSL_TMP/uv.txt" pip=("$MEDSSL_VENV_PYTHON" -m pip)
    sed -n '/^uv==/,/# via/p' "$MEDSSL_ROOT/requirements/lock.txt" >"$pin"
    for MEDSSL_UV in "$(command -v uv)" "$MEDSSL_VENV_PREFIX/bin/uv"; do
        { sed -n 's/^uv==\([0-9.]*\).*/uv \1/p' "$pin" && "$MEDSSL_UV" --version; } \
            2>/dev/null | sort -VC && [ -x "$MEDSSL_UV" ] && return 0
    done
    if ! "${pip[@]}" --version >/dev/null 2>&1 &&
        ! "$MEDSSL_VENV_PYTHON" -m ensurepip >/dev/null 2>&1; then
        pip=("$1" -m pip --python "$MEDSSL_VENV_PYTHON")
        "$1" -m pip --version >/dev/null 2>&1 ||
            medssl_fail "$1 has neither ensurepip nor pip (apt install python3-venv)." || return 1
    fi
    medssl_run env -u PIP_CONSTRAINT -u PIP_TARGET -u PIP_PREFIX PIP_USER=0 "${pip[@]}" \
        --disable-pip-version-check install --no-deps --require-hashes -r "$pin"
}

# uv pip COMMAND... for the environment, in this folder. uv does not know pip's
# variables for a mirror and its certificates.
medssl_uv() (
    cd "$MEDSSL_ROOT" || return 1
    if [ -z "${UV_DEFAULT_INDEX:-}${UV_INDEX_URL:-}" ] && [ -n "${PIP_INDEX_URL:-}" ]; then
        export UV_DEFAULT_INDEX="$PIP_INDEX_URL"
    fi
    if [ -z "${SSL_CERT_FILE:-}" ] && [ -n "${PIP_CERT:-}" ]; then
        export SSL_CERT_FILE="$PIP_CERT"
    fi
    medssl_run "$MEDSSL_UV" pip "$1" -p "$MEDSSL_VENV_PYTHON" "${@:2}"
)

# Installs this package, editable, unless it is, and loads what matters.
medssl_install_self() {
    (cd / && "$MEDSSL_VENV_PYTHON" -c 'import importlib.util as util, pathlib, sys
folder = pathlib.Path(util.find_spec("medssl_mm").origin).parent
sys.exit(not (folder.samefile(sys.argv[1]) and (folder / ".mim").exists()))' \
        "$MEDSSL_ROOT/medssl_mm" 2>/dev/null) && [ -x "$MEDSSL_VENV_PREFIX/bin/medssl" ] ||
        medssl_uv install -q --no-deps --no-build-isolation --reinstall-package medssl_mm -e . ||
        return 1
    (cd / && "$MEDSSL_VENV_PYTHON" -c 'import medssl_mm.registry, mmseg, torchvision') ||
        medssl_fail 'the installed packages do not load together (see above). Mend them, or' \
            'start from an empty environment: remove it or choose another with --venv DIR.'
}

medssl_setup_active() {
    local kept="$MEDSSL_TMP/kept.txt"
    local headless=(opencv-python-headless --overrides requirements/overrides.txt)
    MEDSSL_VENV_PREFIX="$(python -c 'import os, sys
base = sys.prefix == sys.base_prefix and "CONDA_PREFIX" not in os.environ
sys.exit(base or print(sys.prefix))' 2>/dev/null)" ||
        medssl_fail '--active was given, but no virtual environment is active.' \
            'Activate one first (. DIR/bin/activate), or leave --active out.' || return 1
    MEDSSL_VENV_PYTHON="$(medssl_find_python "$MEDSSL_VENV_PREFIX/bin/python")" &&
        medssl_find_uv "$MEDSSL_VENV_PYTHON" || return 1
    # Resolving must not replace a local build such as torch 2.11.0+cu128.
    "$MEDSSL_UV" pip freeze -q -p "$MEDSSL_VENV_PYTHON" |
        grep -E '^(torch|torchvision|opencv-python)==' >"$kept" || true
    if grep -q opencv "$kept"; then headless=(); fi
    medssl_uv install -r requirements.txt -c "$kept" ${headless[@]+"${headless[@]}"} &&
        medssl_install_self && medssl_say "using the active environment $MEDSSL_VENV_PREFIX"
}

# All that decides what is installed, after the environment's own path.
medssl_stamp() {
    printf '%s ' "$MEDSSL_VENV_PREFIX"
    { echo "$MEDSSL_ROOT" && "$MEDSSL_VENV_PYTHON" --version
        cd "$MEDSSL_ROOT" && cat pyproject.toml setup.py requirements/*; } 2>&1 | sha256sum
}

medssl_setup_venv() {
    local file stamp owner=setup python free started=$SECONDS
    MEDSSL_VENV_PREFIX="$(realpath -m -- "$1")"
    MEDSSL_VENV_PYTHON="$MEDSSL_VENV_PREFIX/bin/python"
    file="$MEDSSL_VENV_PREFIX/medssl-setup.stamp"
    stamp="$(cat "$file" 2>/dev/null)"
    if [ "${stamp#* }" = "$(medssl_stamp)" ] && [ -e "$MEDSSL_ROOT/medssl_mm/.mim" ]; then
        medssl_say "environment $MEDSSL_VENV_PREFIX is up to date"
        return 0
    elif [ -z "$stamp" ] && [ ! -e "$MEDSSL_VENV_PREFIX/pyvenv.cfg" ] &&
        [ -n "$(ls -A "$MEDSSL_VENV_PREFIX" 2>/dev/null)" ]; then
        medssl_fail "$MEDSSL_VENV_PREFIX exists and is no virtual environment. Move it" \
            'away, or choose another place with --venv DIR.' || return 1
    elif [[ $stamp = "setup $MEDSSL_VENV_PREFIX "* ]] &&
        python="$(medssl_find_python "$MEDSSL_VENV_PYTHON" 2>/dev/null)"; then
        : # finished once, with other requirements
    elif [[ $stamp != setup\ * ]] && [ -e "$MEDSSL_VENV_PREFIX/pyvenv.cfg" ]; then
        owner=user # nothing that it holds is removed
        python="$(medssl_find_python "$MEDSSL_VENV_PYTHON")" || return 1
    else
        # New, moved, or interrupted while files were being linked.
        python="$(medssl_find_python)" && medssl_run mkdir -p "$MEDSSL_VENV_PREFIX" || return 1
        free="$(df -Pk "$MEDSSL_VENV_PREFIX" | awk 'NR == 2 { print int($4 / 1048576) }')"
        if [ -z "$stamp" ] && [ "$free" -lt "$MEDSSL_NEEDED_GB" ]; then
            medssl_fail "only $free GB are free at $MEDSSL_VENV_PREFIX; $MEDSSL_NEEDED_GB GB are" \
                'needed. Free some space, or choose another place with --venv DIR.' || return 1
        fi
        medssl_say "making $MEDSSL_VENV_PREFIX with $("$python" --version) ($python)"
        medssl_run "$python" -m venv --clear --without-pip "$MEDSSL_VENV_PREFIX" &&
            echo 'setup unfinished' >"$file" || return 1
    fi
    medssl_find_uv "$python" || return 1
    medssl_say "installing the locked packages (3 GB to load once, $MEDSSL_NEEDED_GB GB on disk)"
    if [ "$owner" = user ]; then set -- install --no-deps -r; else set -- sync; fi
    medssl_uv "$@" requirements/lock.txt --require-hashes \
        --build-constraints requirements/lock.txt && medssl_install_self || return 1
    echo "$owner $(medssl_stamp)" >"$file.new" && mv "$file.new" "$file" &&
        medssl_say "environment $MEDSSL_VENV_PREFIX is ready after $((SECONDS - started)) s"
}

medssl_setup() {
    local venv="${MEDSSL_VENV:-$MEDSSL_ROOT/.venv}" setup=medssl_setup_venv status=0
    while [ $# -gt 0 ]; do
        case "$1" in
        --active) setup=medssl_setup_active ;;
        --venv) venv="${2:-}" && shift ;;
        --venv=*) venv="${1#--venv=}" ;;
        -h | --help)
            sed -n '2,/^$/{s/^# \{0,1\}//;p}' "$MEDSSL_ROOT/tools/setup.sh"
            exit 0
            ;;
        *) medssl_fail "unknown option $1 (see bash tools/setup.sh --help)." || return 1 ;;
        esac
        shift
    done
    [ -n "$venv" ] || medssl_fail '--venv needs a folder.' || return 1
    MEDSSL_TMP="$(mktemp -d)" || return 1
    # Two set-ups at once must wait for each other; the folder is the lock.
    exec 9<"$MEDSSL_ROOT"
    flock -n 9 || { medssl_say 'waiting for another set-up to end' && flock 9; } || true
    "$setup" "$venv" || status=1
    exec 9<&-
    rm -rf "$MEDSSL_TMP"
    [ "$status" -eq 0 ] || return 1
    export PATH="$MEDSSL_VENV_PREFIX/bin:$PATH"
    unset PYTHONHOME
}

if [ "${BASH_SOURCE[0]}" = "$0" ]; then
    set -euo pipefail
    medssl_setup "$@"
fi
