# The released code of the method as it ran, for comparison only. Its quirks:
# - The local term has no gradient. It is logged and teaches nothing.
# - Decorrelation is IterNorm, 1 group and 5 steps, instead of the last bn3:
#   before the residual sum, which correlates again; dropped downstream.
# - The learning rate falls to a third at epoch 5 and then rises to the end.
# - Slices come in file order, neighbours in one batch.
# Not kept: 3 equal channels; grey values beyond their range; RandAugment, for
# which turns and jitter stand in. Weights to start from, ImageNet MoCo v2:
# --cfg-options model.backbone.init_cfg.checkpoint=FILE
_base_ = [
    '../_base_/models/mocov2_resnet50.py',
    '../_base_/datasets/abdomen1k_two_views_legacy.py',
    '../_base_/schedules/sgd_linlr-300e_legacy.py',
    '../default_runtime.py',
]
model = dict(
    decorrelation=dict(
        type='medssl_mm.DecorrelationHead', num_channels=2048, legacy='bn3'
    ),
    multi_level_head=dict(
        levels=[
            dict(
                stage=1,
                loss=dict(type='medssl_mm.LocalInfoNCELoss', legacy='release'),
                weight=0.5,
                name='local',
            )
        ]
    ),
)
