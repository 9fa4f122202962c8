"""The desk that the tests of this folder share."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from aftertone.web import passwords
from tests.unit.web.visitor import Visitor
from tests.unit.web.world import BEARER, HERE, PASSWORD, World, make_world


@pytest.fixture(autouse=True)
def _cheap_hashing(monkeypatch: pytest.MonkeyPatch) -> None:
    from argon2 import PasswordHasher

    monkeypatch.setattr(passwords, "_hasher", PasswordHasher(time_cost=1, memory_cost=64, parallelism=1))


@pytest.fixture(scope="session")
def empty_catalog(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A catalog with the mailbox ``main``, made once and copied."""
    folder = tmp_path_factory.mktemp("catalog")
    with make_world(folder):
        pass
    return folder / "aftertone.db"


@pytest.fixture
def world(tmp_path: Path, empty_catalog: Path) -> Iterator[World]:
    with make_world(tmp_path, empty_catalog) as made:
        yield made


@pytest.fixture
def stranger(world: World) -> Iterator[Visitor]:
    """A client that is not signed in."""
    with world.client() as client:
        yield client


@pytest.fixture
def api(world: World) -> Iterator[Visitor]:
    """A client with the bearer token."""
    with world.client() as client:
        client.headers.update(BEARER)
        yield client


@pytest.fixture
def browser(world: World) -> Iterator[Visitor]:
    """A client that has signed in by a link and set the password; ``X-CSRF-Token`` and origin are sent along."""
    with world.client() as client:
        assert client.post(f"/login/{world.login_link()}", headers=HERE).status_code == 303
        csrf = client.get("/api/v1/session").json()["csrf_token"]
        form = {"csrf_token": csrf, "password": PASSWORD, "again": PASSWORD}
        assert client.post("/password", data=form, headers=HERE).status_code == 303
        client.headers.update(HERE)
        client.headers["X-CSRF-Token"] = client.get("/api/v1/session").json()["csrf_token"]
        yield client
