"""An export's report: one page that says what was decided, what it is worth, and where it comes from.

It needs nothing else: its style is in it, it loads nothing and runs nothing. Everything that comes from people, names
above all, is escaped by the template.
"""

from __future__ import annotations

from functools import lru_cache
from importlib.resources import files

from jinja2 import Environment, StrictUndefined, Template
from markupsafe import Markup

from workers.report.facts import Exported, facts_of


def render_report(exported: Exported) -> str:
    """The page as HTML text."""
    return _template().render(facts=facts_of(exported), style=_house_style())


@lru_cache(maxsize=1)
def _template() -> Template:
    environment = Environment(autoescape=True, undefined=StrictUndefined, trim_blocks=True, lstrip_blocks=True)
    return environment.from_string(files(__name__).joinpath("report.html").read_text(encoding="utf-8"))


def _house_style() -> Markup:
    """The sheet of the service's pages. It is ours, so it is not escaped."""
    return Markup(files("service").joinpath("web/static/style.css").read_text(encoding="utf-8"))
