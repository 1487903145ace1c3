"""The templates beside this file, with what all of them need: measures of a chart, colours and rules of a drawing."""

from pathlib import Path

from jinja2 import Environment, FileSystemLoader, StrictUndefined, Template
from markupsafe import Markup

from results.html import charts

FOLDER = Path(__file__).parent


def template(name: str) -> Template:
    """A template that escapes whatever it is given, as text comes from data, and refuses a name it is not given."""
    environment = Environment(
        loader=FileSystemLoader(FOLDER), autoescape=True, undefined=StrictUndefined, keep_trailing_newline=True
    )
    environment.globals |= {
        "width": charts.WIDTH,
        "height": charts.HEIGHT,
        "left": charts.LEFT,
        "right": charts.RIGHT,
        "bottom": charts.BOTTOM,
        "drawing_style": own("drawing.css"),
    }
    return environment.get_template(name)


def own(name: str) -> Markup:
    """A file of ours, which is no data and must not be escaped."""
    return Markup((FOLDER / name).read_text(encoding="utf-8"))
