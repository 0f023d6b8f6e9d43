# 2D U-Net from scratch: ACDC, protocol acdc-20, 3 structures.
_base_ = [
    '../_base_/models/unet.py',
    '../_base_/datasets/slices_128.py',
    '../../data/acdc.py',
    '../_base_/schedules/sgd_scratch_2000.py',
]
train_dataloader = dict(batch_size=8)
