"""One recipe trained several times: with several seeds, or on the folds of a cross-validation.

OUTPUT/
  config.yaml       of the whole, with run.seeds or data.folds
  seed-42/, ...     or fold-1/, ... and all-rows/: each an ordinary run (`textune.run`), which can also be used alone
  data.json         as in a run
  summary.json      "kind": "seeds" or "folds"; figures of all runs together, in the form of a run's
  model/            of the seed chosen on validation, or trained on all rows
  report.html

and of a cross-validation

  predictions/out_of_fold.parquet   every training row, by the model that has not seen it
  predictions/SPLIT.parquet         further splits, by the model trained on all rows
  label_errors.csv                  rows whose label that model contradicts with confidence (single labels)

In summary.json a metric of several seeds is `{"value": mean, "interval": [low, high], "deviation": d, "values":
[...]}`; one of a cross-validation has the value of all rows together, and deviation and values of the folds.
"""
