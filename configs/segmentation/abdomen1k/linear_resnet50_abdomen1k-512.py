# Linear decoder: AbdomenCT-1K, own hold-out split, 4 organs.
_base_ = [
    '../_base_/models/linear_resnet50.py',
    '../_base_/datasets/abdomen1k_512.py',
    '../_base_/schedules/sgd_40k.py',
]
model = dict(decode_head=dict(num_classes=5))
