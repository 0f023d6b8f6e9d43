#!/usr/bin/env bash
# The whole job on made-up CT data, with the scripts of real work: import,
# pretraining (MoCo v2 with local contrast and decorrelation), linear decoder
# and DeepLabv3+ from the pretrained and from random weights, scores per
# volume, report.
#
#   bash tools/demo.sh [--short] [--fresh] [--out DIR] [--active | --venv DIR]
#
#   --short   a few iterations of everything: shows that it works, not how well
#   --fresh   repeat steps that are finished
#   --out     folder of the results (default: work_dirs/demo)
#
# 8 to 13 minutes on 2 cores once the environment is there (2 with --short).
# A second run goes on where the first stopped, or just shows the table.
set -eEuo pipefail

source "$(dirname "${BASH_SOURCE[0]}")/setup.sh"
short=false
fresh=false
out=
setup_arguments=()
while [ $# -gt 0 ]; do
    case "$1" in
    --short) short=true ;;
    --fresh) fresh=true ;;
    --out | --venv)
        [ $# -ge 2 ] || { echo "error: $1 needs a folder" >&2; exit 2; }
        if [ "$1" = --out ]; then out="$2"; else setup_arguments+=("$1" "$2"); fi
        shift
        ;;
    --out=*) out="${1#--out=}" ;;
    --active | --venv=*) setup_arguments+=("$1") ;;
    -h | --help)
        sed -n '2,/^set/{/^set/d;s/^# \{0,1\}//;p}' "${BASH_SOURCE[0]}"
        exit 0
        ;;
    *)
        echo "error: unknown option $1 (see bash tools/demo.sh --help)" >&2
        exit 2
        ;;
    esac
    shift
done
case "$out" in
'') if $short; then out=work_dirs/demo-short; else out=work_dirs/demo; fi ;;
/*) ;;
*) out="$PWD/$out" ;;
esac
medssl_setup ${setup_arguments[@]+"${setup_arguments[@]}"}
cd "$MEDSSL_ROOT"
mkdir -p "$out"
export MPLBACKEND=Agg PYTHON="$MEDSSL_VENV_PYTHON"

processes=2
# Half the time where the processor computes in bfloat16.
amp=()
if grep -qE 'avx512_bf16|amx_bf16' /proc/cpuinfo 2>/dev/null; then amp=(--amp); fi
data=data/phantom
pretrain_config=configs/selfsup/mocov2/mocov2-local-decorr_resnet18_1xb64-coslr-150e_acdc-64.py+phantom
linear_config=configs/segmentation/phantom/linear_resnet18_phantom-128.py+stage4
deeplab_config=configs/segmentation/phantom/deeplabv3plus_resnet18_phantom-128.py
# iterations KIND N BATCH: shortens the schedule of a segmentation config.
iterations() {
    local options=(train_cfg.max_iters="$2" train_cfg.val_interval="$2"
        default_hooks.checkpoint.interval="$2"
        train_dataloader.batch_size="$3")
    if [ "$1" = linear ]; then
        options+=(param_scheduler.0.end="$2")
    else
        options+=(param_scheduler.0.end=$(($2 / 10 + 1))
            param_scheduler.1.begin=$(($2 / 10 + 1)) param_scheduler.1.end="$2")
    fi
    echo "${options[@]}"
}

# Sized for 2 cores: the configs themselves train longer.
if $short; then
    pretrain_options=(train_cfg.max_epochs=1)
    linear_options="$(iterations linear 10 4)"
    deeplab_options="$(iterations deeplabv3plus 10 4)"
else
    pretrain_options=(train_cfg.max_epochs=30)
    linear_options="$(iterations linear 200 8)"
    deeplab_options="$(iterations deeplabv3plus 200 4)"
fi

number=0
total=10
started=$SECONDS
trap 'echo "demo: step $number failed; the same command goes on from there" >&2' ERR

clock() { printf '%d:%02d' $(($1 / 60)) $(($1 % 60)); }

# step TITLE FOLDER COMMAND...: runs the command unless it was finished with
# the same sources; FOLDER/done says so.
step() {
    local title="$1" folder="$2" stamp began=$SECONDS
    shift 2
    number=$((number + 1))
    stamp="$sources $*"
    if ! $fresh && [ -f "$folder/done" ] && [ "$(cat "$folder/done")" = "$stamp" ]; then
        printf '\n== %d/%d %s: finished before\n' "$number" "$total" "$title"
        return 0
    fi
    printf '\n== %d/%d %s (%s since the start)\n   %s\n' "$number" "$total" \
        "$title" "$(clock $((SECONDS - started)))" "$*"
    # Results of other sources must not be resumed; an interrupted run of the
    # same ones must.
    if $fresh || [ "$(cat "$folder/begun" 2>/dev/null)" != "$stamp" ]; then
        rm -rf "$folder"
    fi
    mkdir -p "$folder"
    printf '%s' "$stamp" >"$folder/begun"
    "$@"
    printf '%s' "$stamp" >"$folder/done"
    printf '== %d/%d done in %s\n' "$number" "$total" "$(clock $((SECONDS - began)))"
}

checkpoint() { cat "$1/last_checkpoint"; }

# evaluate KIND WEIGHTS CONFIG OPTION...: trains a decoder, then scores it.
evaluate() {
    local kind="$1" weights="$2" config="$3" folder="$out/$1-$2"
    shift 3
    step "train: $kind, $weights weights" "$folder" \
        bash tools/dist_train.sh "$config" "$processes" --resume \
        ${amp[@]+"${amp[@]}"} --work-dir "$folder" --cfg-options "$@" randomness.seed=0
    step "score per volume: $kind, $weights weights" "$folder/test" \
        bash tools/dist_test.sh "$config" "$(checkpoint "$folder")" \
        "$processes" --work-dir "$folder/test" --cfg-options \
        test_evaluator.out_dir="$folder/test" \
        test_evaluator.save_predictions=True
}

number=$((number + 1))
printf '\n== %d/%d make and import the CT phantom\n' "$number" "$total"
"$PYTHON" tools/prepare_data.py phantom --out "$data" --jobs "$processes"
# Everything that a finished step depends on besides its own command.
sources="$(find configs medssl_mm -name '*.py' | LC_ALL=C sort | xargs cat | cksum)"
sources="$sources $(cksum <"$data/dataset.json")"

step 'pretrain: MoCo v2 + local contrast + decorrelation, 2 processes' "$out/pretrain" \
    bash tools/dist_train.sh "$pretrain_config" "$processes" --resume \
    ${amp[@]+"${amp[@]}"} --work-dir "$out/pretrain" --cfg-options randomness.seed=0 \
    "${pretrain_options[@]}"
pretrained=model.backbone.init_cfg.checkpoint="$(checkpoint "$out/pretrain")"

# The options hold no blanks: they are meant to be split.
# shellcheck disable=SC2086
evaluate linear random "$linear_config" $linear_options \
    model.backbone.init_cfg.checkpoint=None
evaluate linear pretrained "$linear_config" $linear_options \
    "$pretrained"
evaluate deeplabv3plus random "$deeplab_config" $deeplab_options \
    model.backbone.init_cfg.checkpoint=None
evaluate deeplabv3plus pretrained "$deeplab_config" $deeplab_options \
    "$pretrained"

lead='Procedural CT phantom, ResNet-18 on a CPU: pretraining by MoCo v2 with
local contrast and decorrelation against random initialisation. It shows the job, not an effect: one seed, and another processor gives other differences.'
if $short; then lead="$lead Shortened run: the scores mean nothing."; fi
printf '\n== report (%s since the start)\n' "$(clock $((SECONDS - started)))"
"$PYTHON" tools/make_report.py --out "$out/report.html" \
    --title 'Demo: self-supervised pretraining for CT segmentation' \
    --lead "$lead" \
    --run "Linear decoder/random=$out/linear-random/test" \
    --run "Linear decoder/pretrained=$out/linear-pretrained/test" \
    --run "DeepLabv3+/random=$out/deeplabv3plus-random/test" \
    --run "DeepLabv3+/pretrained=$out/deeplabv3plus-pretrained/test" \
    --baseline random \
    --curve "Pretraining=$out/pretrain" \
    --curve "Linear, random=$out/linear-random" \
    --curve "Linear, pretrained=$out/linear-pretrained" \
    --curve "DeepLabv3+, random=$out/deeplabv3plus-random" \
    --curve "DeepLabv3+, pretrained=$out/deeplabv3plus-pretrained" \
    --command "bash tools/dist_train.sh $pretrain_config $processes" \
    --command "bash tools/dist_train.sh $linear_config $processes --cfg-options model.backbone.init_cfg.checkpoint=CHECKPOINT" \
    --command "bash tools/dist_train.sh $deeplab_config $processes --cfg-options model.backbone.init_cfg.checkpoint=CHECKPOINT"
printf '\nDemo finished after %s.\n' "$(clock $((SECONDS - started)))"
