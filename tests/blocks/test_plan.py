"""Blocks cover a region once, in whole chunks; what lies outside a mask is known."""

import numpy as np
import pytest

from emsam_jax.blocks import check_room, is_masked, plan_blocks
from emsam_jax.errors import UserError
from emsam_jax.volumes import Box, Specimen, box_of, create_volume


def test_blocks_cover_the_region_once_and_share_no_chunk():
    volume, region = box_of((20, 50, 70)), Box((3, 10, 0), (20, 50, 61))
    plan = plan_blocks(volume, region, (8, 16, 24), (4, 16, 8))
    seen, chunks = np.zeros(volume.shape, int), {}
    for block in plan:
        seen[block.box.slices] += 1
        out = plan.output_box(block)
        for z, y, x in np.ndindex(out.shape):
            chunk = ((out.start[0] + z) // 4, (out.start[1] + y) // 16, (out.start[2] + x) // 8)
            assert chunks.setdefault(chunk, block.index) == block.index
    expected = np.zeros(volume.shape, int)
    expected[region.slices] = 1
    assert (seen == expected).all()
    assert len(plan) == len(list(plan)) == 3 * 3 * 3
    last = plan.at((2, 2, 2))
    assert last.box == Box((19, 42, 48), (20, 50, 61))
    assert plan.read_box(last, (2, 2, 2)) == Box((17, 40, 46), (20, 50, 63))


@pytest.mark.parametrize(
    ("region", "block", "message"),
    [
        (Box((0, 0, 0), (20, 50, 71)), (4, 16, 8), "within 0:20,0:50,0:70"),
        (box_of((20, 50, 70)), (6, 16, 8), r"whole chunks \(4, 16, 8\)"),
    ],
)
def test_says_what_does_not_fit(region: Box, block: tuple[int, int, int], message: str):
    with pytest.raises(UserError, match=message):
        plan_blocks(box_of((20, 50, 70)), region, block, (4, 16, 8))


def test_a_mask_of_another_resolution_tells_which_blocks_are_outside(tmp_path):
    raw = create_volume(tmp_path / "raw.zarr", (8, 32, 32), "uint8", (40, 4, 4))
    mask = create_volume(tmp_path / "mask.zarr", (4, 8, 8), "uint8", (80, 16, 16))
    mask[1, 5, 2] = 1  # the raw's 2:4, 20:24, 8:12
    specimen = Specimen(raw, mask=mask)
    inside = [box for box in raw.box.tiles((2, 4, 4)) if not is_masked(specimen, box)]
    assert inside == [Box((2, 20, 8), (4, 24, 12))]
    assert not is_masked(Specimen(raw), raw.box)


def test_blocks_that_no_memory_or_disk_can_list_are_refused(tmp_path):
    whole = box_of((10**5, 10**5, 10**5))
    message = r"100000 x 100000 x 100000 voxels \(z, y, x\) in blocks of 32 x 32 x 32 need .* but .* are free"
    with pytest.raises(UserError, match=message):
        check_room(plan_blocks(whole, whole, (32, 32, 32), (1, 1, 1)), str(tmp_path / "not/there"))
    check_room(plan_blocks(whole, whole, (1000, 10**5, 10**5), (1, 1, 1)), str(tmp_path / "not/there"))
