#!/usr/bin/env bash
# Makes the virtual environment that the other commands use.
#
#   bash tools/setup.sh [--venv DIR | --active]
#
#   --venv DIR  where the environment lives (default: $MEDSSL_VENV or .venv)
#   --active    use the virtual or conda environment that is active now; only
#               what it lacks of requirements/*.txt is installed
#
# Idempotent: nothing is installed while the requirement files are unchanged,
# and an interrupted installation goes on where it stopped. tools/test.sh and
# tools/demo.sh source this file and call medssl_setup, which leaves the
# environment's python first on PATH.

MEDSSL_ROOT="$(cd "$(dirname "${BASH_SOURCE[0]}")/.." && pwd -P)"
MEDSSL_PIP_VERSION=26.3
# The finished environment takes 6.4 GB. Beside it lie, for a while, the wheel
# being unpacked and, where pip caches, all wheels (3 GB).
MEDSSL_NEEDED_KB=$((66 * 1024 * 1024 / 10))
MEDSSL_CACHE_KB=$((34 * 1024 * 1024 / 10))

medssl_say() { printf '[setup] %s\n' "$*"; }

medssl_fail() {
    printf '[setup] error: %s\n' "$1" >&2
    shift
    for medssl_line in "$@"; do printf '[setup]        %s\n' "$medssl_line" >&2; done
    return 1
}

# Prints the first Python of a usable version. A version manager's shim may
# stand on PATH for a version that is not installed, hence the trial run.
medssl_find_python() {
    local candidate
    for candidate in ${MEDSSL_PYTHON:-} python3.12 python3.11 python3.10 \
        python3 python; do
        command -v "$candidate" >/dev/null 2>&1 || continue
        if "$candidate" -c 'import sys
sys.exit(not (3, 10) <= sys.version_info[:2] <= (3, 12))' >/dev/null 2>&1; then
            # The real interpreter: an environment made from a shim would
            # follow the shim's choice of version later on.
            "$candidate" -c 'import sys; print(sys.executable)'
            return 0
        fi
    done
    return 1
}

medssl_require_python() {
    local found
    MEDSSL_FOUND_PYTHON="$(medssl_find_python)" && return 0
    found="$(python3 --version 2>&1 || true)"
    medssl_fail "no Python 3.10, 3.11 or 3.12 found (python3: ${found:-none})." \
        "Install one (Debian/Ubuntu: apt install python3 python3-venv) or name it:" \
        "MEDSSL_PYTHON=/path/to/python3.11 bash tools/setup.sh"
}

# A hash of all that decides what is installed.
medssl_stamp() {
    "$1" - "$MEDSSL_ROOT" "$MEDSSL_PIP_VERSION" "$2" <<'PYTHON'
import hashlib, pathlib, sys
root = pathlib.Path(sys.argv[1])
digest = hashlib.sha256(repr((sys.version_info[:3], sys.argv[1:])).encode())
names = ['setup.py', *sorted(
    str(path.relative_to(root)) for path in root.glob('requirements/*.txt')
    if path.name != 'optional.txt')]
for name in names:
    digest.update(name.encode() + b'\0' + (root / name).read_bytes())
print(digest.hexdigest())
PYTHON
}

# Free space in kB of the file system that will hold the given path.
medssl_free_kb() {
    local path="$1"
    while [ ! -e "$path" ]; do path="$(dirname "$path")"; done
    df -Pk "$path" | awk 'NR == 2 { print $4 }'
}

# Prints kB as GB.
medssl_gb() {
    awk -v kb="$1" 'BEGIN { printf "%.1f", kb / 1048576 }'
}

medssl_make_venv() {
    local venv="$1" python="$2" parent free log
    if [ -x "$venv/bin/python" ] && "$venv/bin/python" -c 'import sys
sys.exit(not (3, 10) <= sys.version_info[:2] <= (3, 12))' >/dev/null 2>&1; then
        return 0
    fi
    if [ -e "$venv" ] && [ ! -f "$venv/pyvenv.cfg" ] &&
        [ -n "$(ls -A "$venv" 2>/dev/null)" ]; then
        medssl_fail "$venv exists and is no virtual environment." \
            'Move it away, or choose another place with --venv DIR.'
        return 1
    fi
    parent="$venv"
    while [ ! -e "$parent" ]; do parent="$(dirname "$parent")"; done
    if [ ! -w "$parent" ]; then
        medssl_fail "no permission to write to $parent." \
            'Choose another place with --venv DIR (or MEDSSL_VENV).'
        return 1
    fi
    medssl_say "making $venv with $("$python" --version 2>&1) ($python)"
    log="$(mktemp)"
    if "$python" -m venv --clear "$venv" >"$log" 2>&1; then
        rm -f "$log"
        return 0
    fi
    # Debian ships Python without ensurepip: an environment without pip, into
    # which the outer pip installs one.
    if "$python" -m venv --clear --without-pip "$venv" >>"$log" 2>&1 &&
        "$python" -m pip --python "$venv/bin/python" install -q \
            "pip==$MEDSSL_PIP_VERSION" >>"$log" 2>&1; then
        rm -f "$log"
        return 0
    fi
    tail -n 5 "$log" >&2
    rm -f "$log"
    rm -rf "$venv"
    medssl_fail "$python cannot make a virtual environment (see above)." \
        'Debian/Ubuntu: apt install python3-venv, then run this command again.'
}

# A wheel whose unpacking was killed leaves a distribution without its RECORD,
# which pip would take for installed.
medssl_drop_half_installed() {
    "$1" - <<'PYTHON'
import pathlib, shutil, sysconfig
for name in {sysconfig.get_path('purelib'), sysconfig.get_path('platlib')}:
    for info in pathlib.Path(name).glob('*.dist-info'):
        if not (info / 'RECORD').exists():
            print(f'[setup] {info.name} is incomplete: installing it again')
            shutil.rmtree(info)
    for rest in pathlib.Path(name).glob('~*'):
        shutil.rmtree(rest, ignore_errors=True)
PYTHON
}

medssl_explain_pip() {
    local log="$1" venv="$2"
    if grep -qiE 'No space left|Errno 28' "$log"; then
        medssl_fail "the disk is full ($(medssl_free_kb "$venv") kB free at $venv)." \
            'Free some (6.6 GB are needed at the least, up to 10 GB where pip caches what it' \
            'loads: pip cache purge, or PIP_NO_CACHE_DIR=1) and run this again:' \
            'the installation goes on where it stopped.'
    elif grep -qiE 'NewConnectionError|NameResolutionError|ConnectTimeout|ReadTimeout|Max retries|Temporary failure in name|Connection (refused|reset|broken)|ProxyError|SSLError|Network is unreachable' "$log"; then
        medssl_fail 'the Python package index cannot be reached.' \
            'Check the network, or point pip at a mirror (PIP_INDEX_URL), and run this' \
            'again: the installation goes on where it stopped.'
    elif grep -qiE 'Permission denied|Errno 13' "$log"; then
        medssl_fail "no permission to write to $venv." \
            'Choose another place with --venv DIR (or MEDSSL_VENV).'
    else
        medssl_fail 'pip failed; its last lines are above.'
    fi
    printf '[setup]        Full log: %s\n' "$log" >&2
    return 1
}

medssl_pip() {
    local venv="$1"
    shift
    "$MEDSSL_VENV_PYTHON" -m pip --disable-pip-version-check \
        --log "$MEDSSL_PIP_LOG" install "$@" && return 0
    medssl_explain_pip "$MEDSSL_PIP_LOG" "$venv"
}

# Prints the requirements that the environment does not meet, one a line.
medssl_unmet() {
    "$1" - "$MEDSSL_ROOT" <<'PYTHON'
import importlib.metadata, pathlib, re, sys
try:
    from packaging.requirements import Requirement
except ImportError:
    from pip._vendor.packaging.requirements import Requirement
twins = {'opencv-python': 'opencv-python-headless'}
for name in ('runtime', 'tests'):
    path = pathlib.Path(sys.argv[1], 'requirements', f'{name}.txt')
    for line in path.read_text().splitlines():
        line = line.split('#')[0].strip()
        if not line:
            continue
        need = Requirement(line)
        for candidate in filter(None, (need.name, twins.get(need.name))):
            try:
                found = importlib.metadata.version(candidate)
            except importlib.metadata.PackageNotFoundError:
                continue
            # A local build such as 2.11.0+cu128 meets >=2.6.
            if need.specifier.contains(found, prereleases=True):
                break
        else:
            print(line)
PYTHON
}

# Installs the lock; see its header for why nothing is resolved. The largest
# wheels come one by one: pip unpacks nothing before it has loaded all that
# one call names, and the space that these take twice may be lacking.
medssl_install_lock() {
    local venv="$1" lock="$MEDSSL_ROOT/requirements/lock.txt" large
    for large in $(grep -oE '^(torch|triton|nvidia-[a-z0-9-]+)==[^ ;]+' "$lock"); do
        medssl_pip "$venv" --no-deps "$large" || return 1
    done
    medssl_pip "$venv" --no-deps --build-constraint "$lock" -r "$lock"
}

medssl_install_self() {
    # The package is importable from this very folder: nothing to do.
    if (cd / && "$MEDSSL_VENV_PYTHON" -c 'import pathlib, sys, importlib.util
spec = importlib.util.find_spec("medssl_mm")
here = pathlib.Path(sys.argv[1], "medssl_mm", "__init__.py").resolve()
linked = (here.parent / ".mim" / "configs").exists()
sys.exit(not (linked and spec and spec.origin
              and pathlib.Path(spec.origin).resolve() == here))' \
        "$MEDSSL_ROOT" 2>/dev/null); then
        return 0
    fi
    medssl_say 'installing medssl_mm itself, editable'
    medssl_pip "$1" -q --no-deps --no-build-isolation -e "$MEDSSL_ROOT"
}

medssl_setup_active() {
    local prefix unmet
    MEDSSL_VENV_PYTHON="$(command -v python || command -v python3 || true)"
    if [ -z "$MEDSSL_VENV_PYTHON" ] ||
        ! "$MEDSSL_VENV_PYTHON" -c 'import os, sys
sys.exit(sys.prefix == sys.base_prefix and "CONDA_PREFIX" not in os.environ)'; then
        medssl_fail '--active was given, but no virtual environment is active.' \
            'Activate one first (. DIR/bin/activate), or leave --active out.'
        return 1
    fi
    if ! "$MEDSSL_VENV_PYTHON" -c 'import sys
sys.exit(not (3, 10) <= sys.version_info[:2] <= (3, 12))'; then
        medssl_fail "the active environment has $("$MEDSSL_VENV_PYTHON" --version 2>&1);" \
            'Python 3.10, 3.11 or 3.12 is needed.'
        return 1
    fi
    prefix="$("$MEDSSL_VENV_PYTHON" -c 'import sys; print(sys.prefix)')"
    MEDSSL_PIP_LOG="$prefix/medssl-setup.log"
    unmet="$(medssl_unmet "$MEDSSL_VENV_PYTHON")" || return 1
    if [ -n "$unmet" ]; then
        medssl_say "the active environment $prefix lacks:"
        printf '%s\n' "$unmet" | sed 's/^/[setup]   /'
        : >"$MEDSSL_PIP_LOG"
        # One line a requirement; none of them holds a blank.
        # shellcheck disable=SC2086
        medssl_pip "$prefix" $unmet || return 1
    fi
    medssl_install_self "$prefix" || return 1
    medssl_say "using the active environment $prefix"
}

medssl_setup_venv() {
    local venv="$1" stamp started free present needed
    venv="$(mkdir -p "$(dirname "$venv")" 2>/dev/null &&
        cd "$(dirname "$venv")" && pwd -P)/$(basename "$venv")" || true
    case "$venv" in
    /*/*) ;;
    *)
        medssl_fail "cannot make a folder for $1: no write permission?" \
            'Choose another place with --venv DIR (or MEDSSL_VENV).'
        return 1
        ;;
    esac
    MEDSSL_VENV_PYTHON="$venv/bin/python"
    MEDSSL_PIP_LOG="$venv/medssl-setup.log"
    if [ -f "$venv/medssl-setup.stamp" ] && [ -x "$MEDSSL_VENV_PYTHON" ] &&
        stamp="$(medssl_stamp "$MEDSSL_VENV_PYTHON" "$venv" 2>/dev/null)" &&
        [ "$stamp" = "$(cat "$venv/medssl-setup.stamp")" ]; then
        medssl_install_self "$venv" || return 1
        medssl_say "environment $venv is up to date"
        return 0
    fi
    started=$SECONDS
    medssl_require_python || return 1
    if ! "$MEDSSL_VENV_PYTHON" -c 'import torch' >/dev/null 2>&1; then
        free="$(medssl_free_kb "$venv")"
        # What an interrupted installation left counts.
        present="$({ du -sk "$venv" 2>/dev/null || true; } | cut -f1)"
        needed=$((MEDSSL_NEEDED_KB - ${present:-0}))
        if [ "$free" -lt "$needed" ]; then
            medssl_fail "only $(medssl_gb "$free") GB are free at $venv; $(medssl_gb "$needed") GB are needed." \
                'Free some space, or choose another place with --venv DIR (or MEDSSL_VENV).'
            return 1
        elif [ "$free" -lt $((needed + MEDSSL_CACHE_KB)) ]; then
            medssl_say "note: $(medssl_gb "$free") GB are free at $venv, which may not do if pip caches"
            medssl_say '      what it loads (3 GB); PIP_NO_CACHE_DIR=1 prevents that'
        fi
    fi
    medssl_make_venv "$venv" "$MEDSSL_FOUND_PYTHON" || return 1
    rm -f "$venv/medssl-setup.stamp"
    : >"$MEDSSL_PIP_LOG" || return 1
    medssl_drop_half_installed "$MEDSSL_VENV_PYTHON" || return 1
    medssl_say "installing the pinned packages (about 3 GB to load, 6 GB on disk, minutes)"
    medssl_pip "$venv" -q "pip==$MEDSSL_PIP_VERSION" || return 1
    medssl_install_lock "$venv" || return 1
    medssl_install_self "$venv" || return 1
    medssl_say 'checking that the packages load'
    if ! (cd / && "$MEDSSL_VENV_PYTHON" -c 'import medssl_mm.registry, mmseg, torchvision'); then
        medssl_fail 'the installed packages do not load (see above).' \
            "Remove $venv and run this command again."
        return 1
    fi
    medssl_stamp "$MEDSSL_VENV_PYTHON" "$venv" >"$venv/medssl-setup.stamp.new" &&
        mv "$venv/medssl-setup.stamp.new" "$venv/medssl-setup.stamp" || return 1
    medssl_say "environment $venv is ready after $((SECONDS - started)) s"
}

medssl_setup() {
    local venv="${MEDSSL_VENV:-$MEDSSL_ROOT/.venv}" active=false
    while [ $# -gt 0 ]; do
        case "$1" in
        --active) active=true ;;
        --venv)
            [ $# -ge 2 ] || { medssl_fail '--venv needs a folder.'; return 1; }
            venv="$2"
            shift
            ;;
        --venv=*) venv="${1#--venv=}" ;;
        -h | --help)
            sed -n '2,/^$/{s/^# \{0,1\}//;p}' "$MEDSSL_ROOT/tools/setup.sh"
            exit 0
            ;;
        *)
            medssl_fail "unknown option $1 (see bash tools/setup.sh --help)."
            return 1
            ;;
        esac
        shift
    done
    if $active; then
        medssl_setup_active || return 1
    elif command -v flock >/dev/null 2>&1 &&
        { : >>"$MEDSSL_ROOT/.venv.setup.lock"; } 2>/dev/null; then
        # Two commands started at once must not install into one environment.
        exec 9>>"$MEDSSL_ROOT/.venv.setup.lock"
        flock -n 9 || medssl_say 'waiting for another set-up to end'
        flock 9
        medssl_setup_venv "$venv" || { exec 9>&-; return 1; }
        exec 9>&-
    else
        medssl_setup_venv "$venv" || return 1
    fi
    PATH="$(dirname "$MEDSSL_VENV_PYTHON"):$PATH"
    export PATH
    unset PYTHONHOME
}

if [ "${BASH_SOURCE[0]}" = "$0" ]; then
    set -euo pipefail
    medssl_setup "$@"
fi
