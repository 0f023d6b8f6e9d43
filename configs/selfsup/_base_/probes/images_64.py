# Probes at 64 px by the labels of the images that are pretrained on: add this
# file to _base_, or to the command line as CONFIG.py+THIS_FILE. data_root and split
# of the four data sets put them on other images.
whole_image = [
    dict(type='medssl_mm.NormalizeByStore'),
    dict(type='medssl_mm.ResizeAndPad', size=64),
    dict(type='medssl_mm.PackViews'),
]
probe_train = dict(
    type='medssl_mm.ClassificationImages',
    subset='train',
    labelled=True,
    pipeline=whole_image,
)
probe_val = dict(
    type='medssl_mm.ClassificationImages',
    subset='val',
    labelled=True,
    test_mode=True,
    pipeline=whole_image,
)
default_hooks = dict(
    online_probe=dict(
        type='medssl_mm.OnlineProbeHook',
        train_dataset=probe_train,
        val_dataset=probe_val,
    ),
    knn_probe=dict(
        type='medssl_mm.NearestNeighbourProbeHook',
        train_dataset=probe_train,
        val_dataset=probe_val,
    ),
)
del whole_image, probe_train, probe_val
