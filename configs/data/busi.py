# BUSI, breast ultrasound at 224 px, three classes. It names no patients.
images = dict(
    type='medssl_mm.ClassificationImages', data_root='data/busi', split='busi-patients'
)
