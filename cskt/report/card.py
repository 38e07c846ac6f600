"""A trained model as others get it: its run's record without private paths, and the model card made
from it."""

from __future__ import annotations

from html import escape
from typing import Any

from huggingface_hub import EvalResult, ModelCardData

from cskt.files import file_name, public_name
from cskt.report.run_files import MEASURES, METHOD_NAMES
from cskt.report.tables import describe_gain, describe_run, gain_table, markdown_table

_CAUTION = """
**Synthetic data.** These figures come from drawn pedestrians (SynthPEDES); they are not comparable
with any benchmark, and the model knows drawings only.
"""
_CARD = """---
{matter}
---

# {title}
{caution}
{gain}. This folder holds the trained tensors alone; the backbone they were trained over is named in
`config.json` with its fingerprint, and no other is accepted.

```python
import cskt
from huggingface_hub import snapshot_download

model = cskt.CSKT.from_pretrained(snapshot_download("OWNER/NAME"))  # or this folder
features = model.encode_text(model.tokenize(["a woman in a red coat"]), normalize=True)
```

## Results on test, percent

{table}

## How it was made

{run}. {selection} Every setting is in `run.json`.

## Use

Finding people in pictures needs their consent or a law that allows it. The model errs, and not
equally for all people: a match is a hint for a person to check, never proof of identity. The terms
of the data set and of the backbone apply.
"""


def public_record(record: dict[str, Any]) -> dict[str, Any]:
    """A run's record without the paths of the machine that made it: of the weights' file and
    of the noise index the name is left."""
    config = {**record["config"], "data_root": None, "output": None}
    for name in ("pretrained", "noise_index"):
        config[name] = public_name(config.get(name))
    return {**record, "config": config}


def model_card(record: dict[str, Any]) -> str:
    """The README.md of a published model, from its run's record: front matter that the hub reads,
    then the story."""
    method = METHOD_NAMES.get(record["method"], record["method"])
    title = f"{method} on {record['config']['backbone']}, trained on {record['dataset']}"
    selection = f"The epoch was selected on {record['selection']}."
    if record["selection"] == "last":
        selection = "The last epoch was kept."
    return _CARD.format(
        matter=_front_matter(record, title),
        title=escape(title, quote=False),  # a record may have been edited
        caution=_CAUTION if record["synthetic"] else "",
        gain=escape(describe_gain(record), quote=False),
        table=escape(_results_markdown(record), quote=False),
        run=escape(describe_run(record), quote=False),
        selection=escape(selection, quote=False),
    )


def _front_matter(record: dict[str, Any], title: str) -> str:
    """The yaml head of the card, with the measures on test."""
    dataset = record["dataset"]
    kind = " (synthetic)" if record["synthetic"] else ""
    measured = []
    for measure in MEASURES:
        value = record["metrics"]["text_to_image"][measure]
        measured.append(
            EvalResult(
                task_type="text-to-image-retrieval",
                dataset_type=file_name(dataset).lower(),
                dataset_name=f"{dataset}{kind}",
                dataset_split="test",
                metric_type=measure.lower(),
                metric_name=measure,
                metric_value=round(value, 2),
            )
        )
    matter = ModelCardData(
        language="en",
        library_name="cskt",
        model_name=title,
        eval_results=measured,
        tags=["text-based-person-retrieval", "clip", file_name(dataset).lower()],
    )
    return matter.to_yaml()


def _results_markdown(record: dict[str, Any]) -> str:
    """Zero-shot and trained measures in both directions, as a markdown table."""
    table = gain_table(record).reset_index(names=["direction", "model"])
    return markdown_table(table)
