# Probes at 64 px by RSNA's labels of NIH images; pretraining leaves out the patients
# who are tested. The set: tools/prepare_data.py image-table, see data/README.md.
_base_ = 'images_64.py'
store = dict(
    data_root='data/rsna-of-nih1000', split='holdout-50-val-15-seed0-stratified'
)
learn = dict(**store, subset=['train', 'val'])
test = dict(**store, subset='test')
train_dataloader = dict(dataset=dict(without=[test]))
default_hooks = dict(
    online_probe=dict(class_weights='balanced', train_dataset=learn, val_dataset=test),
    knn_probe=dict(train_dataset=learn, val_dataset=test),
)
del store, learn, test
