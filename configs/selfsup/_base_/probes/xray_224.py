# Probes at 224 px by the labels of chest X-rays, see images_64.py. The online probe
# learns from images augmented as by InnerEye's linear head, each class weighted by
# its frequency; validation is on whole images.
_base_ = ['images_64.py', '../../../_base_/pipelines/xray_head_224.py']
whole = [*_base_.whole_steps, dict(type='medssl_mm.PackViews')]
augmented = [*_base_.learning_steps, dict(type='medssl_mm.PackViews')]
default_hooks = dict(
    online_probe=dict(
        class_weights='balanced',
        train_dataset=dict(pipeline=augmented),
        val_dataset=dict(pipeline=whole),
    ),
    knn_probe=dict(
        train_dataset=dict(pipeline=whole), val_dataset=dict(pipeline=whole)
    ),
)
del whole, augmented
