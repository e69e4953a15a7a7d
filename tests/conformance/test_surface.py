"""That the strict suites leave out no method of OpenAI's client: a new version with one that nobody calls fails here."""

import pytest

from surface import CALLED, NOT_SERVED, WAYS, methods, served

SUITES = {"test_strict.py", "test_strict_admin.py", "test_strict_files.py"}


@pytest.mark.parametrize("way", WAYS)
def test_every_method_of_the_surface_is_called(request, way):
    if request.config.option.keyword or not SUITES <= {item.path.name for item in request.session.items}:
        pytest.skip("only part of the suites runs")
    missing = sorted(set(served(way)) - CALLED[way])
    assert not missing


def test_the_list_of_what_is_not_served_names_methods_that_there_are(client):
    there = [path for group in {out.split(".")[0] for out in NOT_SERVED} for path in methods(getattr(client, group), (group,))]
    for out in NOT_SERVED:
        assert any(path == out or path.startswith(f"{out}.") for path in there), out
