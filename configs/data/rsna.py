# RSNA pneumonia detection, chest X-rays at 256 px, lung opacity or none.
images = dict(
    type='medssl_mm.ClassificationImages', data_root='data/rsna', split='rsna-patients'
)
