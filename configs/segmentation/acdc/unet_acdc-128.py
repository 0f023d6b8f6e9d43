# 2D U-Net from scratch: ACDC, protocol acdc-20, 3 structures.
_base_ = [
    '../_base_/models/unet.py',
    '../_base_/datasets/slices_128.py',
    '../../data/acdc.py',
    '../_base_/schedules/sgd_scratch_2000.py',
]
steps = _base_.train_dataloader.dataset.pipeline
# As often as nnU-Net; on the scale of percentiles, where a slice has an SD near 0.25.
noise = dict(type='medssl_mm.NoiseJitter', std=(0.0, 0.08), prob=0.1)
blur = dict(type='medssl_mm.BlurJitter', sigma=(0.5, 1.0), prob=0.2)
train_dataloader = dict(
    batch_size=8, dataset=dict(pipeline=[*steps[:-1], noise, blur, steps[-1]])
)
