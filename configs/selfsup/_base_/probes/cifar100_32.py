# Probes at 32 px by the labels of CIFAR-100, whatever is pretrained on.
_base_ = 'cifar_32.py'
cifar100 = dict(data_root='data/cifar100', split='cifar100-official')
default_hooks = dict(
    online_probe=dict(train_dataset=cifar100, val_dataset=cifar100),
    knn_probe=dict(train_dataset=cifar100, val_dataset=cifar100),
)
del cifar100
