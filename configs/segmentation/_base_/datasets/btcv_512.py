# BTCV, 18 training and 12 test volumes, scored on 8 organs: num_classes is 9.
# The protocol has no validation volumes: validation shows the test volumes,
# for watching; keep the last checkpoint, never the best one.
_base_ = 'ct_slices_512.py'
slices = dict(
    type='medssl_mm.BTCVSlices',
    data_root='data/btcv',
    split='btcv-18-12',
    metainfo=dict(
        classes=[
            'background',
            'spleen',
            'right kidney',
            'left kidney',
            'gallbladder',
            'liver',
            'stomach',
            'aorta',
            'pancreas',
        ]
    ),
)
train_dataloader = dict(dataset=slices)
val_dataloader = dict(dataset=dict(subset='test', **slices))
test_dataloader = dict(dataset=slices)
