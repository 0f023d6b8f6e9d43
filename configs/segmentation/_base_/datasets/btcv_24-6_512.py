# BTCV, 24 training and 6 test volumes, 13 organs: num_classes is 14. Pretrain
# with train_dataloader.dataset.split=btcv-24-6 then: other protocols train on
# its test volumes.
_base_ = 'btcv_512.py'
slices = dict(split='btcv-24-6', metainfo=None)
train_dataloader = dict(dataset=slices)
val_dataloader = dict(dataset=slices)
test_dataloader = dict(dataset=slices)
