# BTCV, 24 training and 6 test volumes, 13 organs. Pretrain on this split then:
# other protocols train on its test volumes.
slices = dict(
    type='medssl_mm.BTCVSlices', data_root='data/btcv', split='btcv-24-6'
)
