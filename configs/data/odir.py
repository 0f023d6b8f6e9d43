# ODIR, fundus photographs of both eyes at 224 px, three classes.
images = dict(
    type='medssl_mm.ClassificationImages', data_root='data/odir', split='odir-patients'
)
