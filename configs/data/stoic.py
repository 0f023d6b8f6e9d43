# STOIC, the middle slice of chest CT at 224 px, COVID-19 or not.
images = dict(
    type='medssl_mm.ClassificationImages',
    data_root='data/stoic',
    split='stoic-patients',
)
