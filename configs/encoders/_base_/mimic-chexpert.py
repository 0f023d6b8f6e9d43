# MoCo on MIMIC-CXR and CheXpert; grey values of each picture spread over 0 to 255.
_base_ = 'densenet121.py'
encoder = dict(
    preprocessing=dict(normalisation='histogram'),
    converter='mimic-chexpert',
    source='facebookresearch/CovidPrognosis, pretrained models',
    trained_on=['mimic-cxr', 'chexpert'],
    group='medical ssl',
)
