# Montgomery, chest X-rays at 224 px, normal or tuberculosis.
images = dict(
    type='medssl_mm.ClassificationImages',
    data_root='data/montgomery',
    split='montgomery-patients',
)
