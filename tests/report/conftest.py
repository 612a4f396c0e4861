from __future__ import annotations

from trained import in_empty_folder, multi_label_run, pair_run, quick, regression_run, text_run

__all__ = ["in_empty_folder", "multi_label_run", "pair_run", "quick", "regression_run", "text_run"]
