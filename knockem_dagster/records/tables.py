"""The tables the assets store: for each its columns with units, its sort key and its version.

One row of TABLES per asset. The Parquet files, the exports, the documentation and
`Submission.open` all read this one declaration.
"""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Column:
    """A column: its pandas dtype, its unit ("" where there is none) and what it holds."""

    name: str
    dtype: str
    unit: str
    meaning: str


@dataclass(frozen=True, slots=True)
class Table:
    """A table's columns in order, the columns it is sorted by, and the version of its making."""

    name: str
    columns: tuple[Column, ...]
    sort_key: tuple[str, ...]
    version: str = "1"


_SCORE = Column("score", "float64", "1/update", "(fracAlpha - fracBeta) / updatesElapsed; missing where untestable")


def _effect(name: str, meaning: str, *, upper_end: str = "") -> tuple[Column, Column, Column]:
    """Return the columns of an effect and its interval."""
    unit = "detection thresholds"
    return (
        Column(name, "float64", unit, meaning),
        Column("low", "float64", unit, f"lower end of the {name}'s 95% interval"),
        Column("high", "float64", unit, upper_end or f"upper end of the {name}'s 95% interval"),
    )


_EFFECT = _effect("effect", "fitness effect of knocking out the site alone")
_DETECTED = Column("detected", "bool", "", "the score is above the detection threshold")
_SITE = Column("site", "int64", "site", "zero-based position in the genome")
_SKELETON = Column("skeleton", "int64", "", "number of the skeleton, from 0")
_DOSES = (
    Column("dose", "int64", "sites", "number of sites knocked out"),
    Column("replicate", "int64", "", "number of the replicate at this dose, from 0"),
    Column("knockout", "str", "", "the sites knocked out: base64 of little-endian bits, site 0 lowest"),
    _SCORE,
    _DETECTED,
)

QUANTITY = Column("quantity", "str", "", "what is estimated")
METHOD = Column("method", "str", "", "the procedure")
ESTIMATE = (
    Column("value", "float64", "as in `unit`", "the estimate; missing where there is none"),
    Column("low", "float64", "as in `unit`", "lower end of the interval; missing where there is none"),
    Column("high", "float64", "as in `unit`", "upper end of the interval"),
    Column("unit", "str", "", "unit of value, low and high; empty where it is not known"),
    Column("level", "float64", "probability", "nominal coverage of the interval"),
)
"""A number with its interval, as every table of estimates has it."""
_ESTIMATES = (QUANTITY, *ESTIMATE, METHOD, Column("n", "int64", "competitions", "competitions the estimate rests on"))

TABLES: dict[str, Table] = {
    table.name: table
    for table in (
        Table(
            "null_distribution",
            (
                Column("replicate", "int64", "", "number of the wild-type competition, from 0"),
                Column("updates", "float64", "updates", "updates elapsed"),
                Column("alpha", "int64", "individuals", "background individuals at the end"),
                Column("beta", "int64", "individuals", "challenger individuals at the end"),
                _SCORE,
            ),
            ("replicate",),
        ),
        Table(
            "screen",
            (
                _SITE,
                _SCORE,
                Column("p", "float64", "probability", "one-sided p value of the score under the null"),
                Column("q", "float64", "probability", "Benjamini-Hochberg adjusted p value"),
                Column("detected", "bool", "", "q is at most the false discovery rate"),
            ),
            ("site",),
        ),
        Table("calibration", _DOSES, ("dose", "replicate")),
        Table("titration", _DOSES, ("dose", "replicate")),
        Table(
            "skeletons",
            (
                _SKELETON,
                _SITE,
                Column("kept", "bool", "", "the site stays: its knockout was detectable or untestable"),
                Column("order", "int64", "", "when in this skeleton the site was tried, from 0; -1 never"),
            ),
            ("skeleton", "site"),
        ),
        Table(
            "weights",
            (
                _SITE,
                *_EFFECT,
                Column("error", "float64", "detection thresholds", "standard error of the effect"),
                Column("probability", "float64", "probability", "that the site has an effect of its own"),
                Column("tested", "bool", "", "competitions tell of the site; else all of these are missing"),
            ),
            ("site",),
        ),
        Table(
            "sets",
            (
                Column("set", "int64", "", "number of the set, from 0; a set of one cost something without a mate"),
                _SITE,
                *_effect("penalty", "what losing the whole set costs beyond its members"),
            ),
            ("set", "site"),
        ),
        Table(
            "prefix_skeletons",
            (
                _SKELETON,
                _SITE,
                Column("kept", "bool", "", "the site stays: its deletion cost something, or could not be tested"),
                Column("tested", "bool", "", "the site's deletion could be tested; else it is kept"),
                Column("order", "int64", "", "place of the site in the order of this skeleton's search, from 0"),
            ),
            ("skeleton", "site"),
        ),
        Table(
            "prefix_skeleton_summary",
            (
                _SKELETON,
                Column("kept", "int64", "sites", "sites that stay"),
                Column("untested", "int64", "sites", "sites that could not be tested; they are kept"),
                Column("competitions", "int64", "competitions", "what the skeleton took"),
                Column("beneficial", "int64", "competitions", "those that the deletion won, detectably"),
                Column("resolution", "float64", "detection thresholds", "smallest effect that keeps a site"),
                *_effect(
                    "residual",
                    "effect of all deletions together, if it is measured",
                    upper_end="upper end; without noise the limit it is below",
                ),
                Column("n", "int64", "competitions", "what measured the residual: 0 without noise"),
            ),
            ("skeleton",),
        ),
        Table("jackknife", (_SKELETON, _SITE, _SCORE, _DETECTED), ("skeleton", "site")),
        Table(
            "estimates",
            _ESTIMATES,
            ("quantity", "method"),
            version="2",
        ),
        Table("interim_estimates", _ESTIMATES, ("quantity", "method")),
        Table(
            "sites",
            (
                _SITE,
                *_EFFECT,
                Column(
                    "probability",
                    "float64",
                    "probability",
                    "that the site has an effect; without weighing, share of skeletons that kept it",
                ),
                Column("set", "int64", "", "number of the epistatic set the site belongs to; -1 none known"),
                Column("finding", "str", "", "what the site was found to be; else not resolved, or not tested"),
            ),
            ("site",),
            version="2",
        ),
        Table(
            "study",
            (
                Column("name", "str", "", "a fact about the study: what was studied, a setting, a result"),
                Column("value", "str", "as in `unit`", "its value; numbers with all their digits"),
                Column("unit", "str", "", "unit of the value"),
                Column("meaning", "str", "", "what the value is"),
            ),
            ("name",),
        ),
    )
}


def describe_tables() -> str:
    """Return the tables as Markdown: docs/tables.md is exactly this."""
    parts = [
        "# Tables\n\nThe Parquet files of a submission, at `submissions/<id>/tables/<name>.parquet` in the object "
        "store and in `./knockem export`.\nEach column's unit and meaning also stand in the file's schema.\n"
        "`interim_estimates` is there while a stage of a study is under way: what its assays, and the waves of its "
        "weighing,\ncome to so far. Look at it, and cite `estimates`.\n"
    ]
    for table in TABLES.values():
        parts.append(f"\n## {table.name}\n\nSorted by {', '.join(table.sort_key)}; version {table.version}.\n")
        parts.append("\n| column | type | unit | meaning |\n|---|---|---|---|\n")
        parts.extend(f"| {each.name} | {each.dtype} | {each.unit} | {each.meaning} |\n" for each in table.columns)
    return "".join(parts)
