# BTCV: pretraining sees the training volumes of the 18/12 protocol.
_base_ = 'ct_two_views.py'
train_dataloader = dict(
    dataset=dict(type='medssl_mm.BTCVSlices', data_root='data/btcv', split='btcv-18-12')
)
