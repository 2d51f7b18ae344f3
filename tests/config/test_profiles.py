"""Oracle: the fingerprints of the rows under the profile of the paper."""

import pytest

from previts.config import paper
from previts.config.profiles import PROFILES
from previts.storage import fingerprints


@pytest.mark.parametrize("profile", list(PROFILES))
def test_a_profile_keeps_the_differences_between_rows(profile: str):
    by_paper = {name: fingerprints.fingerprint(paper.resolve(name, "paper", [])) for name in paper.ROWS}
    by_profile = {name: fingerprints.fingerprint(paper.resolve(name, profile, [])) for name in paper.ROWS}
    for one in paper.ROWS:
        for other in paper.ROWS:
            assert (by_paper[one] == by_paper[other]) == (by_profile[one] == by_profile[other])


def test_all_rows_of_a_profile_share_their_videos():
    for profile in PROFILES:
        stored = {paper.resolve(name, profile, []).experiment.video for name in paper.ROWS}
        assert len(stored) == 1
