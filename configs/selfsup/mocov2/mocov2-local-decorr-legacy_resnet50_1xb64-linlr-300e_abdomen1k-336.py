# The released code of the method as it ran; see README.md for its quirks.
_base_ = [
    '../_base_/models/mocov2_resnet50.py',
    '../_base_/datasets/ct_two_views_legacy.py',
    '../../data/abdomen1k.py',
    '../_base_/schedules/sgd_linlr-300e_legacy.py',
    '../default_runtime.py',
]
model = dict(
    # IterNorm, 1 group and 5 steps, instead of the last bn3.
    decorrelation=dict(type='medssl_mm.DecorrelationHead', legacy='bn3'),
    multi_level_head=dict(
        levels=[
            dict(
                stage=1,
                # Logged, without a gradient.
                loss=dict(type='medssl_mm.ReleaseLocalLoss'),
                weight=0.5,
                name='local',
            )
        ]
    ),
)
