# Probes at 32 px by the labels of CIFAR images, the online one validated on random
# crops and mirror images, as InnerEye's, which differ from measurement to measurement.
_base_ = 'cifar_32.py'
cropped = _base_.default_hooks.online_probe.train_dataset.pipeline
default_hooks = dict(online_probe=dict(val_dataset=dict(pipeline=cropped)))
del cropped
