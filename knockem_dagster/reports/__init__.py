"""Reports: tables in, figures and HTML out. No storage, no Dagster; values arrive as `inputs.ReportInputs`."""
