# Linear decoder on the stages 1 to 4: AbdomenCT-1K, own hold-out split, 4 organs.
_base_ = [
    '../_base_/models/linear_resnet50.py',
    '../_base_/datasets/slices_512.py',
    '../../data/abdomen1k.py',
    '../_base_/schedules/sgd_40k.py',
]
