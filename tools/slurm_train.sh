#!/usr/bin/env bash
# Train under Slurm: bash tools/slurm_train.sh PARTITION JOB_NAME CONFIG [options]
#
# Submits a job that survives preemption and its time limit: told to end, it writes a
# checkpoint, is put back into the queue, and goes on from there (--resume). Options
# are those of tools/train.py. Read from the environment:
#   GPUS (8; 0: CPUs only), GPUS_PER_NODE (at most 8), CPUS_PER_TASK (5)
#   TASKS (GPUS, or 1)      processes
#   TIME                    limit of one stretch, such as 04:00:00
#   WARNING (120)           seconds from the signal to the limit: must suffice for an
#                           iteration or a validation, and a checkpoint
#   LOG (JOB_NAME-%j.log)   output of all stretches
#   SBATCH_ARGS, SRUN_ARGS  further options, split into words
set -euo pipefail

if [ $# -lt 3 ]; then
    echo "usage: bash $0 PARTITION JOB_NAME CONFIG [options of tools/train.py]" >&2
    exit 2
fi
PARTITION=$1
JOB_NAME=$2
shift 2

TOOLS=$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)
GPUS=${GPUS:-8}
GPUS_PER_NODE=${GPUS_PER_NODE:-$((GPUS < 8 ? GPUS : 8))}
TASKS=${TASKS:-$((GPUS > 0 ? GPUS : 1))}
export PYTHONPATH=$TOOLS/..${PYTHONPATH:+:$PYTHONPATH}

request=(-p "$PARTITION" --job-name="$JOB_NAME" --ntasks="$TASKS"
    --cpus-per-task="${CPUS_PER_TASK:-5}" --requeue --open-mode=append
    --signal="USR1@${WARNING:-120}" --output="${LOG:-$JOB_NAME-%j.log}")
if [ "$GPUS" -gt 0 ]; then
    request+=(--gres="gpu:$GPUS_PER_NODE" --ntasks-per-node="$GPUS_PER_NODE")
fi
if [ -n "${TIME:-}" ]; then request+=(--time="$TIME"); fi
command=$(printf '%q ' "${PYTHON:-python}" -u "$TOOLS/train.py" "$@" --launcher slurm)
export MEDSSL_COMMAND=${MEDSSL_COMMAND:-$(printf '%q ' bash "$0" "$PARTITION" "$JOB_NAME" "$@")}

# The code is EXIT_PREEMPTED of medssl_mm/errors.py. A job that somebody cancels is not
# running any more, and one that Slurm preempts it puts back itself. One whose time is
# too short to begin must end some day.
# shellcheck disable=SC2086  # words on purpose
exec sbatch "${request[@]}" ${SBATCH_ARGS:-} <<JOB
#!/usr/bin/env bash
trap : TERM USR1
srun --kill-on-bad-exit=1 --cpus-per-task="\$SLURM_CPUS_PER_TASK" ${SRUN_ARGS:-} \\
    $command\${SLURM_RESTART_COUNT:+--resume}
code=\$?
if [ "\$code" = 75 ] && [ "\${SLURM_RESTART_COUNT:-0}" -lt 1000 ] &&
    [ "\$(squeue -h -j "\$SLURM_JOB_ID" -o %T)" = RUNNING ]; then
    scontrol requeue "\$SLURM_JOB_ID"
fi
exit "\$code"
JOB
