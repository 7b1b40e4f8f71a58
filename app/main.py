"""The dashboard: `fathometer dashboard` serves this file. It reads run folders, and loads no model."""

from __future__ import annotations

import sys
from pathlib import Path

import streamlit as st

HERE = Path(__file__).resolve().parent
if str(HERE) not in sys.path:
    sys.path.insert(0, str(HERE))

from panels.icon import icon  # noqa: E402
from panels.sidebar import sidebar  # noqa: E402

st.set_page_config(
    page_title="Fathometer",
    page_icon=icon(),  # drawn here: a named icon would be fetched from a font host
    layout="wide",
    menu_items={"Get help": None, "Report a bug": None, "About": None},
)
page = st.navigation(
    [
        st.Page("pages/overview.py", title="Overview", icon=":material/straighten:", default=True),
        st.Page("pages/runs.py", title="Runs", icon=":material/folder_open:"),
    ]
)
st.session_state["choice"] = sidebar()
page.run()
