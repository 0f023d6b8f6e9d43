# ResNet-50 with a linear head, everything trained, grey images. Data sets set
# type and num_classes of the head, and backbone.in_channels for RGB.
model = dict(
    type='ImageClassifier',
    # Images are normalised by the transforms of the data set.
    data_preprocessor=dict(type='ClsDataPreprocessor'),
    backbone=dict(
        type='ResNet',
        depth=50,
        in_channels=1,
        # FILE: --cfg-options model.backbone.init_cfg.checkpoint=FILE
        init_cfg=dict(type='medssl_mm.PretrainedBackbone', checkpoint=None),
    ),
    neck=dict(type='GlobalAveragePooling'),
    head=dict(in_channels=2048),
)
sync_bn = 'torch'  # over several GPUs; CPUs and single GPUs keep plain BN
