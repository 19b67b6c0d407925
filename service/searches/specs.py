"""A search's spec as its trials are judged by it: with limits instead of budgets, as far as they are known."""

from __future__ import annotations

from collections.abc import Mapping

from search_spaces.budgets import Budget, settled, with_budgets
from search_spaces.spec import SearchSpec
from service.models import Search


def spec_of(search: Search) -> SearchSpec:
    """The spec with a limit for each budget that is known by now: after `prepare`, all of them."""
    return with_budgets(SearchSpec.model_validate(search.spec), budgets_of(search))


def budgets_of(search: Search) -> tuple[Budget, ...]:
    return tuple(Budget.model_validate(one) for one in search.budgets)


def settle_budgets(search: Search, measured: Mapping[str, float]) -> None:
    """Note what budgets come to that had to be measured; `measured` is of the base, by `Budget.key`."""
    search.budgets = [one.model_dump(mode="json") for one in settled(budgets_of(search), measured)]
