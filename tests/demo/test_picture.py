"""Labels of the picture."""

import pytest

from swaa_convert.demo.picture import spread


def test_labels_far_apart_stay() -> None:
    assert spread([0.2, 0.9, 0.5]) == pytest.approx([0.2, 0.9, 0.5])


@pytest.mark.parametrize("heights", [[0.0] * 5, [1.0] * 4, [0.5, 0.51, 0.55, 0.9], [0.44, 0.4, 0.42]])
def test_labels_do_not_touch_and_keep_their_order(heights: list[float]) -> None:
    placed = spread(heights)
    ordered = sorted(placed)
    assert min(b - a for a, b in zip(ordered, ordered[1:], strict=False)) > 0.06
    assert -0.1 < ordered[0] and ordered[-1] < 1.12
    assert sorted(placed, key=lambda y: (heights[placed.index(y)], y)) == ordered
