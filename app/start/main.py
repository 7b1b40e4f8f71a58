"""The dashboard: `fathometer dashboard` serves this file. It reads run folders, and loads no model.

It does not lie beside `pages/`: Streamlit takes a folder of that name next to the served script for its older kind of
multipage app, and would run a page alone when a deep link is the first request.
"""

from __future__ import annotations

import sys
from pathlib import Path

import streamlit as st

APP = Path(__file__).resolve().parents[1]
if str(APP) not in sys.path:
    sys.path.insert(0, str(APP))

from panels.figures import room_to_scroll  # noqa: E402
from panels.icon import icon  # noqa: E402
from panels.sidebar import sidebar  # noqa: E402

st.set_page_config(
    page_title="Fathometer",
    page_icon=icon(),  # drawn here: a named icon would be fetched from a font host
    layout="wide",
    menu_items={"Get help": None, "Report a bug": None, "About": None},
)
pages = APP / "pages"
page = st.navigation(
    [
        st.Page(
            pages / "overview.py", title="Overview", icon=":material/straighten:", default=True
        ),
        st.Page(
            pages / "concepts.py",
            title="Concepts",
            icon=":material/stacked_line_chart:",
            url_path="concepts",
        ),
        st.Page(
            pages / "collapse.py",
            title="Collapse",
            icon=":material/compress:",
            url_path="collapse",
        ),
        st.Page(pages / "heads.py", title="Heads", icon=":material/grid_on:", url_path="heads"),
        st.Page(
            pages / "circuits.py",
            title="Circuits",
            icon=":material/account_tree:",
            url_path="circuits",
        ),
        st.Page(pages / "sae.py", title="Features", icon=":material/scatter_plot:", url_path="sae"),
        st.Page(pages / "runs.py", title="Runs", icon=":material/folder_open:", url_path="runs"),
    ]
)
room_to_scroll()
st.session_state["choice"] = sidebar()
page.run()
