"""transformers' tokenizers that also take a whole column of a data set, and the calls of earlier releases.

Since release 4 of `datasets`, `dataset["sentence1"]` is a `Column` that reads its rows when they are asked for, and no
longer a list; transformers 5.23 refuses it, and columns of pandas and NumPy as well. Each class here is a subclass of
the one that it is named after, made when it is first asked for. A process that unpickles such a tokenizer
(`map(..., num_proc=2)`) finds its class here again.
"""

from __future__ import annotations

import functools
import sys
from typing import Any


class _TakesColumns:
    """`__call__` with columns turned into the lists that transformers takes, and its names in transformers 4."""

    def __call__(self, *texts: Any, **options: Any) -> Any:
        parent: Any = super()
        return parent.__call__(*(_listed(value) for value in texts), **_current(options))

    def encode(self, *texts: Any, **options: Any) -> Any:
        parent: Any = super()
        return parent.encode(*texts, **_current(options))

    def encode_plus(self, text: Any, text_pair: Any = None, **options: Any) -> Any:
        return self(text, text_pair, **options)

    def batch_encode_plus(self, batch_text_or_text_pairs: Any, **options: Any) -> Any:
        return self(batch_text_or_text_pairs, **options)


def taking_columns(tokenizer: Any) -> Any:
    """Returns the same tokenizer, which now also takes columns; one of a class that transformers does not export
    stays as it is.
    """
    import transformers

    own = type(tokenizer)
    if getattr(transformers, own.__name__, None) is own:
        tokenizer.__class__ = _subclass(own)
    return tokenizer


@functools.cache
def _subclass(own: type) -> type:
    # The same name, for it is written to tokenizer_config.json.
    return type(own.__name__, (_TakesColumns, own), {"__module__": __name__, "__doc__": own.__doc__})


def _current(options: dict[str, Any]) -> dict[str, Any]:
    """Options as transformers 5 knows them; it takes no notice of `pad_to_max_length`."""
    options = {name: _listed(value) for name, value in options.items()}
    if options.pop("pad_to_max_length", False):
        options.setdefault("padding", "max_length")
    return options


def _listed(value: Any) -> Any:
    for module, kind in (("datasets", "Column"), ("pandas", "Series"), ("numpy", "ndarray")):
        # What has not been imported has made no column.
        if module in sys.modules and isinstance(value, getattr(sys.modules[module], kind)):
            return list(value[:])
    return value


def __getattr__(name: str) -> Any:
    if not name.startswith("_"):  # Python itself asks for `__path__` at every import
        import transformers

        own = getattr(transformers, name, None)
        if isinstance(own, type) and issubclass(own, transformers.PreTrainedTokenizerBase):
            return _subclass(own)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
