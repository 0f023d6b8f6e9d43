# DeepLabv3+ fine-tuning: BTCV, protocol btcv-18-12, 8 organs.
_base_ = [
    '../_base_/models/deeplabv3plus_resnet50.py',
    '../_base_/datasets/btcv_512.py',
    '../_base_/schedules/sgd_40k.py',
]
model = dict(decode_head=dict(num_classes=9), auxiliary_head=dict(num_classes=9))
# No validation volumes: the last checkpoint counts.
default_hooks = dict(checkpoint=dict(save_best=None))
