# SGD at a constant learning rate, 1000 epochs; not scaled with the batch.
_base_ = 'sgd_coslr-200e.py'
param_scheduler = []
train_cfg = dict(max_epochs=1000)
