# Chest X-rays of 256 px shown at 224 px, augmented as by InnerEye's linear head.
_base_ = ['images.py', '../../../_base_/pipelines/xray_head_224.py']
test_pipeline = [*_base_.whole_steps, dict(type='medssl_mm.PackImage')]
train_dataloader = dict(
    dataset=dict(
        pipeline=[*_base_.learning_steps, dict(type='medssl_mm.PackImage')],
    ),
)
val_dataloader = dict(dataset=dict(pipeline=test_pipeline))
test_dataloader = dict(dataset=dict(pipeline=test_pipeline))
