# The local criterion of VICRegL on the last map: a quarter of the loss.
vicregl_levels = [
    dict(
        stage=4,
        neck=dict(type='medssl_mm.PlaceProjector'),
        key_neck='shared',
        loss=dict(type='medssl_mm.VICRegLocalLoss'),
        weight=1 / 3,
        name='local',
    )
]
# As in local_contrast.py: of a small view there are 4 places at stride 32.
vicregl_backbone = dict(type='medssl_mm.DilatedResNet', output_stride=16)
