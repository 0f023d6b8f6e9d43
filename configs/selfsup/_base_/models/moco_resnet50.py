# MoCo with one linear layer as its projector, and ResNet-50.
_base_ = 'mocov2_resnet50.py'
model = dict(
    neck=dict(_delete_=True, type='LinearNeck', in_channels=2048, out_channels=128),
    head=dict(temperature=0.07),
)
