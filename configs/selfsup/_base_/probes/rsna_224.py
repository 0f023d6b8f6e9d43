# Probes at 224 px by the labels of RSNA, whatever is pretrained on. RSNA's images
# are images of NIH ChestX-ray14 under other names.
_base_ = 'xray_224.py'
rsna = dict(data_root='data/rsna', split='rsna-patients')
default_hooks = dict(
    online_probe=dict(train_dataset=rsna, val_dataset=rsna),
    knn_probe=dict(train_dataset=rsna, val_dataset=rsna),
)
del rsna
