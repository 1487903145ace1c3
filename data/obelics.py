"""The columns of OBELICS as published (HuggingFaceM4/OBELICS on the Hugging Face hub), for whoever writes them."""

import pyarrow as pa

_LIST = pa.list_(pa.string())
# At each place of a page one of `images` (addresses) and `texts` is null; the other two are JSON.
SCHEMA = pa.schema([("images", _LIST), ("texts", _LIST), ("metadata", pa.string()), ("general_metadata", pa.string())])
