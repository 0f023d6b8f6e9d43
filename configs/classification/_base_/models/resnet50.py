# ResNet-50 with a linear head, everything trained.
model = dict(
    type='ImageClassifier',
    # Images are normalised by the transforms of the data set.
    data_preprocessor=dict(type='ClsDataPreprocessor'),
    backbone=dict(
        type='ResNet',
        depth=50,
        # FILE: --cfg-options model.backbone.init_cfg.checkpoint=FILE
        init_cfg=dict(type='medssl_mm.PretrainedBackbone', checkpoint=None),
    ),
    neck=dict(type='GlobalAveragePooling'),
    # One class an image or several, as the data has it.
    head=dict(),
)
sync_bn = 'torch'  # over several GPUs; CPUs and single GPUs keep plain BN
