#!/usr/bin/env bash
# Test on N processes: bash tools/dist_test.sh CONFIG CHECKPOINT N [options]
#
# Options are those of tools/test.py; several nodes as in dist_train.sh.
set -euo pipefail

if [ $# -lt 3 ] || ! [[ $3 =~ ^[1-9][0-9]*$ ]]; then
    echo "usage: bash $0 CONFIG CHECKPOINT N [options of tools/test.py]" >&2
    exit 2
fi
TOOL=test.py
# CONFIG N CHECKPOINT ...: the order that dist_run.sh takes.
set -- "$1" "$3" "$2" "${@:4}"
source "$(dirname "${BASH_SOURCE[0]}")/dist_run.sh"
