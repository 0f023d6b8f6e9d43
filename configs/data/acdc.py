# ACDC, cardiac MR: 20 training, 10 validation, 20 test patients; 3 structures.
slices = dict(type='medssl_mm.ACDCSlices', data_root='data/acdc', split='acdc-20')
