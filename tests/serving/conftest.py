from __future__ import annotations

from trained import multi_label_run, pair_run, quick, regression_run, text_run

__all__ = ["multi_label_run", "pair_run", "quick", "regression_run", "text_run"]
