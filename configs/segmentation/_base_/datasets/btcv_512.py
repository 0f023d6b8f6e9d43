# BTCV, 18 training and 12 test volumes, scored on 8 organs: num_classes is 9.
# The protocol has no validation volumes: validation shows the test volumes,
# for watching; keep the last checkpoint, never the best one.
_base_ = ['slices_512.py', '../../../_base_/intensity/ct_window.py']
slices = dict(
    type='medssl_mm.BTCVSlices',
    data_root='data/btcv',
    split='btcv-18-12',
    metainfo=dict(classes=[
        'background', 'spleen', 'right kidney', 'left kidney', 'gallbladder',
        'liver', 'stomach', 'aorta', 'pancreas'
    ]))
test_pipeline = [
    dict(type='medssl_mm.LoadSlice'),
    _base_.normalize,
    _base_.resize,
    # After the resize: the label keeps the original grid.
    dict(type='medssl_mm.LoadSliceLabel'),
    dict(type='medssl_mm.PackSlice'),
]
train_dataloader = dict(
    dataset=dict(
        pipeline=[
            dict(type='medssl_mm.LoadSlice'),
            dict(type='medssl_mm.LoadSliceLabel'),
            _base_.normalize,
            *_base_.augment,
            dict(type='medssl_mm.PackSlice'),
        ],
        **slices))
val_dataloader = dict(
    dataset=dict(subset='test', pipeline=test_pipeline, **slices))
test_dataloader = dict(dataset=dict(pipeline=test_pipeline, **slices))
