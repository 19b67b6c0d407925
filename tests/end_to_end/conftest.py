import shutil
import sys
from collections.abc import Iterator

import pytest
from playwright.sync_api import Browser, sync_playwright

from tests.conftest import make_database
from tests.end_to_end.running import Embedded, Service, digits_spec, running_embedded
from tests.end_to_end.visits import OPTIONS, Visit
from tests.servers import free_port


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


@pytest.fixture
def served(postgres_server, redis_url, embedded, first_search, tmp_path, request):
    """A service on both servers, with a home that has the base already; yields it and what workers need."""
    name = request.node.name[:40]
    environment = {
        "ESPALIER_HOME": str(embedded.home),
        "ESPALIER_DATABASE_URL": make_database(postgres_server, name),
        "ESPALIER_BROKER_URL": redis_url,
    }
    port = free_port()
    command = [sys.executable, "-m", "uvicorn", "service.app:create_app", "--factory", "--port", str(port)]
    return Service(f"http://127.0.0.1:{port}"), environment, command


@pytest.fixture(scope="module")  # while it is open no other test can run an event loop
def browser() -> Iterator[Browser]:
    chromium = shutil.which("chromium")
    assert chromium, "install the Debian package chromium"
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=chromium, args=OPTIONS)
        yield browser
        browser.close()


@pytest.fixture
def visit(browser: Browser, embedded: Embedded) -> Iterator[Visit]:
    page = browser.new_page(base_url=embedded.url)
    visit = Visit(page)
    yield visit
    page.close()
    assert visit.complaints == []
