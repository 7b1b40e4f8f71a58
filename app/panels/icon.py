"""The page's icon: five layers, darker with depth."""

from __future__ import annotations

_VIRIDIS = ("#fde725", "#5ec962", "#21918c", "#3b528b", "#440154")


def icon() -> str:
    """A square as SVG text. Streamlit puts that into the page itself; an image would become a file on the server,
    which a page that is just being rerun may ask for after it is gone."""
    bands = "".join(
        f'<rect y="{8 * row}" width="40" height="8" fill="{colour}"/>'
        for row, colour in enumerate(_VIRIDIS)
    )
    return f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 40 40">{bands}</svg>'
