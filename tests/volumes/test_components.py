"""Connected pieces of each id, counted block by block."""

import numpy as np
from scipy import ndimage

from emsam_jax.volumes import box_of
from emsam_jax.volumes.verify.survey import Components


def test_components_agree_with_scipy_across_blocks():
    ids = np.random.default_rng(0).integers(0, 4, (13, 17, 19)).astype(np.uint64)
    components = Components()
    for box in box_of(ids.shape).tiles((5, 6, 7)):
        components.add(box, ids[box.slices])
    objects = components.objects()
    assert objects.ids.tolist() == [1, 2, 3]
    for number, size, pieces in zip(objects.ids, objects.sizes, objects.pieces, strict=True):
        assert size == (ids == number).sum()
        _, count = ndimage.label(ids == number)  # pyright: ignore[reportGeneralTypeIssues]
        assert pieces == count
