# MoCo on MIMIC-CXR and CheXpert, learning rate 1.0.
_base_ = '_base_/mimic-chexpert.py'
encoder = dict(
    title='MIMIC-CheXpert, rate 1.0',
    file_names=['mimic-chexpert_lr_1.0_bs_128_fd_128_qs_65536.pt'],
)
