# BTCV, 18 training and 12 test volumes, scored on 8 of its 13 organs.
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
