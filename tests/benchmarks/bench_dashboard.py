"""Server time of the Overview page: a cold start, and a rerun after the budget slider moved.

    python tests/benchmarks/bench_dashboard.py [--quick]

The aim is a rerun with p95 below 50 ms (what the browser adds is not in it). Printed, never asserted.
"""

from __future__ import annotations

import argparse
import importlib.util
import os
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import numpy as np
from streamlit.runtime.scriptrunner.script_cache import ScriptCache
from streamlit.testing.v1 import AppTest, app_test

ROOT = Path(__file__).parents[2]


def synthetic() -> Any:
    spec = importlib.util.spec_from_file_location(
        "synthetic_runs", ROOT / "tests" / "report" / "synthetic.py"
    )
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules[spec.name] = module
    spec.loader.exec_module(module)
    return module


def milliseconds(page: AppTest) -> tuple[float, float]:
    """Wall and processor time of one run of the page."""
    wall, used = time.perf_counter(), time.process_time()
    page.run()
    return 1000 * (time.perf_counter() - wall), 1000 * (time.process_time() - used)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--quick", action="store_true", help="5 reruns instead of 40")
    reruns = 5 if parser.parse_args().quick else 40
    with tempfile.TemporaryDirectory() as folder:
        os.environ["FATHOMETER_RUNS"] = folder
        synthetic().make_run(Path(folder), "bench", n_layers=30, d=576)
        compiled = (
            ScriptCache()
        )  # a server keeps it; AppTest would compile every file at every rerun
        app_test.ScriptCache = lambda: compiled
        page = AppTest.from_file(str(ROOT / "app" / "start" / "main.py"), default_timeout=120)
        cold = milliseconds(page)
        times = []
        for number in range(reruns):
            page.slider[0].set_value(80 + number / 2)  # a budget not seen before, every time
            times.append(milliseconds(page))
        assert not page.exception
    wall, used = np.array(times).T
    print(f"{'Overview, 31 layers':28}{'wall ms':>10}{'CPU ms':>10}")
    print(f"{'cold':28}{cold[0]:10.0f}{cold[1]:10.0f}")
    for name, q in (("rerun, median", 50), ("rerun, p95", 95)):
        print(f"{name:28}{np.percentile(wall, q):10.0f}{np.percentile(used, q):10.0f}")


if __name__ == "__main__":
    main()
