#!/usr/bin/env bash
# Resolves requirements/lock.txt anew from requirements/lock.in, then checks that
# set-up will need no compiler: on every Python and machine all packages but the
# hosts, which are pure Python, have wheels for glibc 2.28.
#
#   bash tools/lock.sh [--upgrade | --upgrade-package NAME | ...of uv pip compile]
#
# Without options the locked versions are kept as far as the ranges allow.
set -euo pipefail

if [ "${1:-}" = -h ] || [ "${1:-}" = --help ]; then
    sed -n '2,/^set/{/^set/d;s/^# \{0,1\}//;p}' "${BASH_SOURCE[0]}"
    exit 0
fi
cd "$(dirname "${BASH_SOURCE[0]}")/.."
export UV_PYTHON_DOWNLOADS=never UV_CUSTOM_COMPILE_COMMAND='bash tools/lock.sh'
source tools/setup.sh
medssl_setup
uv pip compile -q --universal --python-version 3.10 --generate-hashes \
    --overrides requirements/overrides.txt requirements/lock.in \
    -o requirements/lock.txt "$@" >/dev/null

nowhere="$(mktemp -d)"
trap 'rm -rf "$nowhere"' EXIT
sources=()
for name in onedl-mmcv onedl-mmpretrain onedl-mmsegmentation; do
    sources+=(--no-binary "$name")
done
for version in 3.10 3.11 3.12 3.13 3.14; do
    for machine in x86_64 aarch64; do
        uv pip install -q --dry-run --target "$nowhere" --no-deps \
            --only-binary :all: "${sources[@]}" -r requirements/lock.txt \
            --python-version "$version" --python-platform "$machine-manylinux_2_28" ||
            { echo "error: no wheels for Python $version on $machine (see above)" >&2; exit 1; }
    done
done
echo 'requirements/lock.txt is complete; now: bash tools/setup.sh && bash tools/test.sh'
