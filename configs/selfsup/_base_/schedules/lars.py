# To be put on a config: CONFIG.py+configs/selfsup/_base_/schedules/lars.py.
# LARS in place of Adam, for large batches; 0.3 for each 256 images.
optim_wrapper = dict(
    optimizer=dict(_delete_=True, type='LARS', lr=0.6, momentum=0.9, weight_decay=1e-6)
)
auto_scale_lr = dict(base_batch_size=512)
