# Pretraining on the CT phantom, on two processes.
_base_ = '../../data/phantom.py'
train_cfg = dict(max_epochs=60)
train_dataloader = dict(batch_size=32)
