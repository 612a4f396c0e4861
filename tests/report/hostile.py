"""Texts that would do harm, or break the page, if they were taken for anything but text; and a run full of them."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet

HOSTILE = (
    "<script>window.pwned = 1</script>",
    "<SCRIPT SRC=//example.invalid/x.js></SCRIPT>",
    "</script><script>window.pwned = 1</script>",
    "</style><script>window.pwned = 1</script>",
    "</title><script>window.pwned = 1</script>",
    "</textarea><script>window.pwned = 1</script>",
    "</svg><script>window.pwned = 1</script>",
    "<img src=x onerror=window.pwned=1>",
    "<img src='http://example.invalid/pixel.png'>",
    "<svg onload=window.pwned=1>",
    "<svg><script>window.pwned = 1</script></svg>",
    "<svg><animate onbegin=window.pwned=1 attributeName=x dur=1s>",
    "<svg><use href='data:image/svg+xml,<svg id=x xmlns=http://www.w3.org/2000/svg/>#x'/></svg>",
    "<math><mtext></mtext><mglyph><style><img src=x onerror=window.pwned=1></style></mglyph></math>",
    "<iframe src=javascript:window.pwned=1></iframe>",
    "<iframe srcdoc='<script>parent.pwned=1</script>'></iframe>",
    "<object data=javascript:window.pwned=1>",
    "<embed src=javascript:window.pwned=1>",
    "<link rel=stylesheet href=http://example.invalid/x.css>",
    "<meta http-equiv=refresh content='0;url=http://example.invalid'>",
    "<base href=http://example.invalid/>",
    "<form action=http://example.invalid><button>go</button></form>",
    "<input autofocus onfocus=window.pwned=1>",
    "<details open ontoggle=window.pwned=1>",
    "<body onload=window.pwned=1>",
    "<video><source onerror=window.pwned=1></video>",
    "<a href=javascript:window.pwned=1>click</a>",
    '"><script>window.pwned = 1</script>',
    "'><script>window.pwned = 1</script>",
    '" onmouseover="window.pwned=1',
    "' onmouseover='window.pwned=1",
    "` onmouseover=`window.pwned=1",
    "javascript:window.pwned=1",
    "{{ 7 * 7 }}",
    "{% for x in range(3) %}x{% endfor %}",
    "{{ ''.__class__.__mro__[1].__subclasses__() }}",
    "{# comment #}",
    "${7*7} #{7*7} <%= 7*7 %>",
    "<!-- <script>window.pwned = 1</script>",
    "--><script>window.pwned = 1</script><!--",
    "<![CDATA[<script>window.pwned = 1</script>]]>",
    "]]><script>window.pwned = 1</script>",
    "<?xml version='1.0'?><!DOCTYPE x [<!ENTITY e SYSTEM 'file:///etc/passwd'>]><x>&e;</x>",
    "&lt;script&gt;window.pwned=1&lt;/script&gt; &amp;amp; &#60;",
    "<style>*{display:none}</style>",
    "color:red;background:url(http://example.invalid/x)",
    "</td></tr></table><h1>broken</h1>",
    "expression(window.pwned=1)",
    "before\x00after",
    "bell\x07 escape\x1b[31m backspace\x08 delete\x7f next\x85",
    "\u202eoverride\u202c \u2066isolate\u2069",
    "\ufeffmark of byte order, \ufffe and \uffff",
    "line\u2028separator\u2029paragraph",
    "x" * 5000,
    "e\u0301" + "\u0300" * 200,
    "\U0001f469\u200d\U0001f469\u200d\U0001f467 \U0001f3f3\ufe0f\u200d\U0001f308 \U0001f600",
    "\u0645\u0631\u062d\u0628\u0627 \u05e9\u05dc\u05d5\u05dd",
    "\ud55c\uad6d\uc5b4 \u65e5\u672c\u8a9e \u4e2d\u6587",
    "   blanks  \t tab \n new line   ",
    "$x^2$ \\frac{1}{2} $unclosed",
    "=HYPERLINK(\"http://example.invalid\",\"x\")",
    "%s %(name)s {0} {name!r}",
)  # fmt: skip
NAME = "<script>window.pwned=1<\u2215script> \"' {{ 7 * 7 }} \u202e $x$ &amp;"
"""A name of a run's folder; a folder's name has no slash."""


def write_hostile_run(folder: Path) -> Path:
    """Writes a finished run whose texts, labels, columns, source and name are hostile; returns its folder."""
    run = folder / NAME
    (run / "predictions").mkdir(parents=True)
    labels = [HOSTILE[0], HOSTILE[29]]
    values: dict[str, Any] = {
        "data.json": {
            "source": HOSTILE[6],
            "name": HOSTILE[4],
            "max_length": 128,
            "notes": [HOSTILE[7]],
            "schema": {"problem_type": "single_label_classification", "label_names": labels, "text_pair": HOSTILE[8]},
            "splits": {"train": _split(), "validation": _split()},
        },
        "environment.json": {
            "textune": "0", "python": "3", "packages": {"torch": HOSTILE[9]}, "platform": HOSTILE[10],
            "processor": HOSTILE[11], "cores": 2, "threads": 2, "device": "cpu", "arithmetic": {"reason": HOSTILE[12]},
            "command": ["textune", "train", "--data", HOSTILE[13]], "engine": [HOSTILE[14]],
        },
        "summary.json": {
            "selected": {
                "weights": "best", "step": 8, "split": "validation", "metric": "accuracy", "note": HOSTILE[15],
            },
            "validation": {
                "accuracy": {"value": 0.5, "interval": [0.4, 0.6]},
                "per_class": {
                    label: {"precision": 0.5, "recall": None, "f1": 0.5, "support": 2, "intervals": {}}
                    for label in labels
                },
                "num_rows": 4,
            },
            "training": {
                "steps": 8, "epochs": 1.0, "stop_reason": HOSTILE[16], "seconds": 1.0, "seconds_in_all": 2.0,
                "samples_per_second": 3.0, "tokens_per_second": 4.0, "peak_memory_mib": 5.0, "precision": HOSTILE[17],
            },
        },
        "analysis.json": {"validation": _analysis(labels)},
        "audit.json": {
            "findings": [
                {"severity": HOSTILE[18], "split": HOSTILE[19], "message": HOSTILE[20], "advice": "", "rows": [1]}
            ]
        },
    }  # fmt: skip
    for name, value in values.items():
        (run / name).write_text(json.dumps(value), encoding="utf-8")
    (run / "config.yaml").write_text(f"data: {{source: {json.dumps(HOSTILE[5])}}}\n", encoding="utf-8")
    records = [
        {"kind": "training", "step": 4, "loss": 0.7},
        {"kind": "evaluation", "split": "validation", "step": 8, "accuracy": 0.5, "loss": 0.6},
    ]
    (run / "metrics.jsonl").write_text("".join(json.dumps(record) + "\n" for record in records), encoding="utf-8")
    table = {
        "id": [1, 2, 3, 4],
        "label": labels * 2,
        "prediction": labels[:1] * 4,
        f"score_{labels[0]}": [0.9, 0.6, 0.7, 0.8],
        f"score_{labels[1]}": [0.1, 0.4, 0.3, 0.2],
    }
    pyarrow.parquet.write_table(pa.table(table), run / "predictions" / "validation.parquet")
    return run


def _split() -> dict[str, Any]:
    lengths = {"median": 5.0, "percentile_95": 7.0, "longest_before_truncation": 9, "truncated_rows": 0}
    histogram = {"edges": [5, 6, 7], "rows": [3, 1]}
    return {"rows": 4, "lengths": lengths, "length_histogram": histogram, "padding_share": 0.2}


def _analysis(labels: list[str]) -> dict[str, Any]:
    interval = [0.2, 0.8]
    return {
        "rows": 4,
        "metric": "accuracy",
        "value": 0.5,
        "interval": interval,
        "confusion": [{"label": label, "prediction": labels[0], "rows": 2} for label in labels],
        "mistakes": [
            {
                "row": row, "id": text, "text": text, "text_pair": text, "label": labels[1], "prediction": labels[0],
                "confidence": 0.9, "scores": dict.fromkeys(labels, 0.5),
            }
            for row, text in enumerate(HOSTILE, start=1)
        ],
        "slices": [
            {
                "kind": f"column {text}", "name": text, "rows": 2, "value": 0.5, "interval": interval,
                "differs": False,
            }
            for text in HOSTILE
        ],
        "words": [
            {"word": text, "rows": 5, "errors": 4, "error_rate": 0.8, "interval": interval, "p_value": 0.01}
            for text in HOSTILE
        ],
    }  # fmt: skip
