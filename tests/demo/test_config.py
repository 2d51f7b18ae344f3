from dataclasses import replace

import pytest

from previts.demo import TINY


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"background_correlation": 1.2}, "background_correlation"),
        ({"in9_correlation": -0.1}, "in9_correlation = -0.1"),
        ({"width": 225}, "even"),
        ({"action_classes": 9}, "action_classes"),
        ({"in9_val": 1}, "in9_val at least 2"),
        ({"ucf_clips": 2}, "ucf_clips"),
        ({"jhmdb_clips": 3}, "jhmdb_clips = 3"),
    ],
)
def test_unusable_sizes_are_refused_with_the_name_of_the_field(change, message):
    with pytest.raises(ValueError, match=message):
        replace(TINY, **change)
