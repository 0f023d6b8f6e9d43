# EyePACS retina photographs at 299 px, referable retinopathy or not.
images = dict(
    type='medssl_mm.DiabeticRetinopathy',
    binary='referable',
    data_root='data/diabetic-retinopathy',
    split='diabetic-retinopathy-patients',
)
