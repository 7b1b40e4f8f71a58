"""All speed and memory tables, one after the other.

python tests/benchmarks [--quick]

Every line compares variants that ran side by side; run it on a quiet machine. `soak_store.py` (kills and resumes for
minutes) is called on its own.
"""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

HERE = Path(__file__).parent
QUICK = "--quick" in sys.argv[1:]
COMMANDS = (
    ("bench_capture.py", "--model", "minilm", *(["--quick"] if QUICK else [])),
    ("bench_capture.py", "--model", "smollm2", *(["--quick"] if QUICK else [])),
    ("bench_sweep.py", *(["--rounds", "1", "--skip-exact"] if QUICK else [])),
    ("bench_grid.py", *(["--quick"] if QUICK else [])),
    ("bench_layer_metrics.py", *(["--quick"] if QUICK else [])),
    ("bench_heads.py", *(["--quick"] if QUICK else [])),
    ("bench_translators.py", *(["--quick", "--limit", "400"] if QUICK else [])),
    ("bench_sae.py", *(["--quick"] if QUICK else [])),
    ("bench_csr.py", *(["--quick"] if QUICK else [])),
    ("bench_dashboard.py", *(["--quick"] if QUICK else [])),
)

failed: list[str] = []
for words in COMMANDS:
    print("\n==", *words, flush=True)
    done = subprocess.run([sys.executable, str(HERE / words[0]), *words[1:]], check=False)
    if done.returncode:
        failed.append(" ".join(words))
if failed:
    sys.exit(f"failed: {', '.join(failed)}")
