# MoCo on MIMIC-CXR and CheXpert, learning rate 0.01.
_base_ = '_base_/mimic-chexpert.py'
encoder = dict(
    title='MIMIC-CheXpert, rate 0.01',
    file_names=['mimic-chexpert_lr_0.01_bs_128_fd_128_qs_65536.pt'],
)
