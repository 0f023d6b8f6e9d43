# DeepLabv3+ fine-tuning: BTCV, protocol btcv-24-6, 13 organs.
_base_ = [
    '../_base_/models/deeplabv3plus_resnet50.py',
    '../_base_/datasets/btcv_24-6_512.py',
    '../_base_/schedules/sgd_40k.py',
]
model = dict(decode_head=dict(num_classes=14), auxiliary_head=dict(num_classes=14))
# No validation volumes: the last checkpoint counts.
default_hooks = dict(checkpoint=dict(save_best=None))
