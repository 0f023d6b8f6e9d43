# Fine-tuning as in the published code of "Intermediate Layers Matter":
# NIH ChestX-ray14, 512 px, fourteen findings.
_base_ = [
    '../_base_/models/resnet50.py',
    '../_base_/datasets/nih_cxr14_parity.py',
    '../_base_/schedules/adam_100e.py',
]
model = dict(head=dict(type='MultiLabelLinearClsHead', num_classes=14))
