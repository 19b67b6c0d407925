from collections.abc import Iterator

import pytest

from tests.end_to_end.running import Embedded, digits_spec, running_embedded


@pytest.fixture(scope="session")
def embedded(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Embedded]:
    """`espalier up` on a fresh home, shared by all tests, so that the base is trained once."""
    with running_embedded(tmp_path_factory.mktemp("embedded")) as embedded:
        yield embedded


@pytest.fixture(scope="session")
def first_search(embedded: Embedded) -> str:
    """The id of a search that has succeeded; its base is in the home's cache."""
    search_id = embedded.submit(digits_spec())
    search = embedded.await_end(search_id, 240)
    assert search["state"] == "succeeded", search
    return search_id
