# NIH ChestX-ray14 at 512 px, fourteen findings; pretraining sees the official
# train_val list.
images = dict(
    type='medssl_mm.NIHChestXray14',
    data_root='data/nih-cxr14',
    split='nih-cxr14-official',
)
