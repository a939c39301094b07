"""The files of a prepared dataset.

Its folder holds `manifest.json`, the data card `card.html`, and for each split
`<split>-00000.parquet`, `<split>-00001.parquet` .., with the columns id, label, group, source,
image (PNG or JPEG), mask and neutral (PNG, or null where unknown), and `<split>-index.parquet` with
all but the pictures. Any Parquet reader opens them: `pandas.read_parquet("train-00000.parquet")`.
"""

from __future__ import annotations

import pyarrow as pa

ROW_GROUP = 100
"""Images written, read and cached together."""
COLUMNS = ("id", "label", "group", "source")
SCHEMA = pa.schema(
    [
        ("id", pa.string()),
        ("label", pa.int64()),
        ("group", pa.string()),
        ("source", pa.string()),
        ("image", pa.binary()),
        ("mask", pa.binary()),
        ("neutral", pa.binary()),
    ]
)
