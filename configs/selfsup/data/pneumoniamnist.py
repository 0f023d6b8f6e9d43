# Pretraining on PneumoniaMNIST, which is five times as large as nih1000.
_base_ = '../../data/pneumoniamnist.py'
train_cfg = dict(max_epochs=15)
