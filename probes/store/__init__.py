"""Activation stores: verified safetensors shards that survive a kill at any moment and resume.

```
<store>/store.json      identity, shard plan, fingerprint; written once
        rows.parquet    row -> text, label, shard, token offset
        shards/000012-<sha16>.safetensors   one tensor per (site, layer)
        shards/000012.json                  the commit record: only what it names counts
        manifest.json   written when complete: all records and a root hash
        LOCK            held by the one driver
```
"""

from probes.store.identity import fingerprint
from probes.store.layers import Layers
from probes.store.record import Record
from probes.store.store import Store, open_store
from probes.store.verify import Problem, Report

__all__ = [
    "Layers",
    "Problem",
    "Record",
    "Report",
    "Store",
    "fingerprint",
    "open_store",
]
