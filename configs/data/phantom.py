# CT phantom, 13 organs: 6 labelled training, 2 validation, 6 test patients;
# pretraining sees the 16 that are neither val nor test.
slices = dict(
    type='medssl_mm.PhantomSlices', data_root='data/phantom', split='phantom-24'
)
