#!/usr/bin/env bash
# Train on N processes per node: bash tools/dist_train.sh CONFIG N [options]
#
# Several nodes: run it on each one with NNODES, NODE_RANK, MASTER_ADDR and
# PORT set. Options are those of tools/train.py.
set -euo pipefail

if [ $# -lt 2 ] || ! [[ $2 =~ ^[1-9][0-9]*$ ]]; then
    echo "usage: bash $0 CONFIG N [options of tools/train.py]" >&2
    exit 2
fi
TOOL=train.py
source "$(dirname "${BASH_SOURCE[0]}")/dist_run.sh"
