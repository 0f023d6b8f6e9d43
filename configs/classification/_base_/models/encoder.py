# A pretrained encoder with a linear head, everything trained. It normalises the
# images itself.
model = dict(
    type='ImageClassifier',
    data_preprocessor=dict(type='ClsDataPreprocessor'),
    # One of configs/encoders: --cfg-options model.backbone.source=NAME:FILE
    backbone=dict(type='medssl_mm.EncoderBackbone', source='random:resnet18'),
    neck=dict(type='GlobalAveragePooling'),
    head=dict(),
)
sync_bn = 'torch'  # over several GPUs; CPUs and single GPUs keep plain BN
