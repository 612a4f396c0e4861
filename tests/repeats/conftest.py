from __future__ import annotations

from trained import quick

__all__ = ["quick"]
