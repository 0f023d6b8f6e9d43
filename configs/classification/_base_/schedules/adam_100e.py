# Adam with a constant learning rate, 100 epochs, as in the published code of
# "Intermediate Layers Matter in Momentum Contrastive Self Supervised
# Learning".
_base_ = '../../default_runtime.py'
optim_wrapper = dict(type='OptimWrapper', optimizer=dict(type='Adam', lr=1e-3))
train_cfg = dict(type='EpochBasedTrainLoop', max_epochs=100)
auto_scale_lr = dict(enable=False, base_batch_size=16)
