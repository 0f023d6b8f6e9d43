# Breast histopathology of BreakHis, benign or malignant, 224 px.
images = dict(
    type='medssl_mm.ClassificationImages',
    data_root='data/breakhis',
    split='breakhis-patients',
)
