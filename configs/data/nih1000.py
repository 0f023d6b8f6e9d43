# 1000 chest X-rays of NIH ChestX-ray14 at 64 px, fourteen findings.
images = dict(
    type='medssl_mm.NIHChestXray14', data_root='data/nih1000', split='nih1000-patients'
)
