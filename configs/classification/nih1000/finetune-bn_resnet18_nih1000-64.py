# The same with standardised features in front of the linear layer.
_base_ = 'finetune_resnet18_nih1000-64.py'
model = dict(
    neck=[
        dict(type='GlobalAveragePooling'),
        dict(type='ClsBatchNormNeck', input_features=512),
    ])
