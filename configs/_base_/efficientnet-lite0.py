# EfficientNet-Lite0 of timm, padded as its ImageNet weights were trained.
lite0 = dict(
    type='mmpretrain.TIMMBackbone',
    model_name='tf_efficientnet_lite0',
    features_only=True,
    # Strides 4 to 32: the stages 1 to 4.
    out_indices=(1, 2, 3, 4),
    # FILE: --cfg-options model.backbone.init_cfg.checkpoint=FILE
    init_cfg=dict(type='medssl_mm.PretrainedBackbone', checkpoint=None),
)
