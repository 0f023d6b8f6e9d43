# iChallenge-AMD, fundus photographs at 224 px, macular degeneration or none.
images = dict(
    type='medssl_mm.ClassificationImages',
    data_root='data/ichallenge-amd',
    split='ichallenge-amd-patients',
)
