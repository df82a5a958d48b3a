"""The templates of the pages."""

from jinja2 import Environment, PackageLoader, StrictUndefined


def templates() -> Environment:
    """Templates in which every text is escaped, and an unknown name is an error."""
    return Environment(
        loader=PackageLoader("wireheading.analysis.pages", "page"),
        undefined=StrictUndefined,
        autoescape=True,
        trim_blocks=True,
        lstrip_blocks=True,
        keep_trailing_newline=True,
    )
