# Fine-tuning as in the published code of "Intermediate Layers Matter":
# NIH ChestX-ray14, 512 px, fourteen findings.
_base_ = [
    '../_base_/models/resnet50.py',
    '../_base_/datasets/xray_512_parity.py',
    '../../data/nih_cxr14.py',
    '../_base_/schedules/adam_100e.py',
]
images = dict(split='nih-cxr14-lists')
