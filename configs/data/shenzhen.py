# Shenzhen, chest X-rays at 224 px, normal or tuberculosis.
images = dict(
    type='medssl_mm.ClassificationImages',
    data_root='data/shenzhen',
    split='shenzhen-patients',
)
