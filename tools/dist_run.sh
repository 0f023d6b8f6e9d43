# Common part of dist_train.sh and dist_test.sh, which source it: starts $TOOL
# by torchrun. Arguments: CONFIG, processes per node, further arguments.
CONFIG=$1
PROCESSES=$2
shift 2

TOOLS=$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)
PYTHON=${PYTHON:-python}
NNODES=${NNODES:-1}
NODE_RANK=${NODE_RANK:-0}
if [ "$NNODES" -gt 1 ]; then
    : "${MASTER_ADDR:?with NNODES > 1 set MASTER_ADDR to the first node}"
    PORT=${PORT:-29500}
else
    MASTER_ADDR=${MASTER_ADDR:-127.0.0.1}
    PORT=${PORT:-$("$PYTHON" -S -c 'import socket
s = socket.socket()
s.bind(("127.0.0.1", 0))
print(s.getsockname()[1])')}
fi

export PYTHONPATH=$TOOLS/..${PYTHONPATH:+:$PYTHONPATH}

# Otherwise torchrun takes one thread, or each process all cores.
THREADS=$("$PYTHON" -c 'import sys
from medssl_mm import cores
for item in cores.thread_environment(int(sys.argv[1]), cores.available()).items():
    print(*item, sep="=")' "$PROCESSES")
# shellcheck disable=SC2086,SC2163  # two words, NAME=NUMBER
export $THREADS

# How to go on, for the message of a run that was told to end.
if [ -z "${MEDSSL_COMMAND:-}" ] && [ "$TOOL" = train.py ]; then
    MEDSSL_COMMAND=$(printf '%q ' bash "$0" "$CONFIG" "$PROCESSES" "$@")
    export MEDSSL_COMMAND
fi

# torchrun, with which such a run ends in peace and with a code of its own.
exec "$PYTHON" -m medssl_mm.compat.torchrun \
    --nnodes="$NNODES" --node-rank="$NODE_RANK" \
    --master-addr="$MASTER_ADDR" --master-port="$PORT" \
    --nproc-per-node="$PROCESSES" \
    "$TOOLS/$TOOL" "$CONFIG" --launcher pytorch "$@"
