# BACH, breast histology at 224 px, four classes. It names no patients.
images = dict(
    type='medssl_mm.ClassificationImages', data_root='data/bach', split='bach-patients'
)
