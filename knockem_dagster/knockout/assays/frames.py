"""Tables with declared columns: what every assay result keeps its rows in."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence

import pandas as pd


def typed_frame(
    dtypes: Mapping[str, str], columns: Mapping[str, Iterable[object]], *, sort_by: Sequence[str]
) -> pd.DataFrame:
    """Return a table with exactly these columns in this order and these pandas dtypes, sorted, also when empty."""
    frame = pd.DataFrame({name: pd.Series(list(columns[name]), dtype=dtype) for name, dtype in dtypes.items()})
    return frame.sort_values(list(sort_by), kind="stable", ignore_index=True)


def checked_frame(dtypes: Mapping[str, str], table: pd.DataFrame, *, sort_by: Sequence[str]) -> pd.DataFrame:
    """Return a stored table as it was made. Raises ValueError naming the columns that are missing."""
    missing = [name for name in dtypes if name not in table.columns]
    if missing:
        raise ValueError(f"the table lacks {', '.join(missing)}; make the asset that holds it again")
    return table[list(dtypes)].astype(dict(dtypes)).sort_values(list(sort_by), kind="stable", ignore_index=True)
