# DeepLabv3+ fine-tuning: AbdomenCT-1K, own hold-out split, 4 organs.
_base_ = [
    '../_base_/models/deeplabv3plus_resnet50.py',
    '../_base_/datasets/abdomen1k_512.py',
    '../_base_/schedules/sgd_40k.py',
]
model = dict(decode_head=dict(num_classes=5), auxiliary_head=dict(num_classes=5))
