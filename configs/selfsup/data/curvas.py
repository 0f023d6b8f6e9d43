# Pretraining on CURVAS. Fewer than 100 slices: small batches with lower rates (of
# Adam by the square root), and a queue below their number.
_base_ = '../../data/curvas.py'
settings_for = dict(
    MultiLevelMoCo=dict(
        model=dict(queue_len=64), optim_wrapper=dict(optimizer=dict(lr=0.015))
    ),
    MultiLevelSimCLR=dict(optim_wrapper=dict(optimizer=dict(lr=5e-4))),
    MultiLevelBYOL=dict(optim_wrapper=dict(optimizer=dict(lr=7.5e-3))),
)
train_cfg = dict(max_epochs=300)
train_dataloader = dict(batch_size=16)
auto_scale_lr = dict(base_batch_size=16)
