"""A trained model as others get it: its run's record without private paths, and the model card made
from it."""

from __future__ import annotations

from typing import Any

from huggingface_hub import EvalResult, ModelCardData

from cskt.backbones import public_name
from cskt.results import MEASURES, METHOD_NAMES, describe_gain, describe_run, gain_table


def public_record(record: dict[str, Any]) -> dict[str, Any]:
    """A run's record without the paths of the machine that made it: of the weights' file the name
    is left."""
    config = record["config"]
    weights = public_name(config.get("pretrained"))
    return {
        **record,
        "config": {**config, "data_root": None, "output": None, "pretrained": weights},
    }


def _selection(rule: str) -> str:
    return "The last epoch was kept." if rule == "last" else f"The epoch was selected on {rule}."


def model_card(record: dict[str, Any]) -> str:
    """The README.md of a published model, from its run's record: front matter that the hub reads,
    then the story."""
    config, method = record["config"], METHOD_NAMES.get(record["method"], record["method"])
    title = f"{method} on {config['backbone']}, trained on {record['dataset']}"
    measured = [
        EvalResult(
            task_type="text-to-image-retrieval",
            dataset_type=record["dataset"].lower(),
            dataset_name=f"{record['dataset']}{' (synthetic)' if record['synthetic'] else ''}",
            dataset_split="test",
            metric_type=name.lower(),
            metric_name=name,
            metric_value=round(record["metrics"]["text_to_image"][name], 2),
        )
        for name in MEASURES
    ]
    matter = ModelCardData(
        language="en",
        library_name="cskt",
        model_name=title,
        eval_results=measured,
        tags=["text-based-person-retrieval", "clip", record["dataset"].lower()],
    )
    rows = gain_table(record)
    figures = "\n".join(
        f"| {' | '.join((*index, *row))} |"
        for index, row in zip(rows.index, rows.values, strict=True)
    )
    caution = (
        """
**Synthetic data.** These figures come from drawn pedestrians (SynthPEDES); they are not comparable with any benchmark,
and the model knows drawings only.
"""
        if record["synthetic"]
        else ""
    )
    return f"""---
{matter.to_yaml()}
---

# {title}
{caution}
{describe_gain(record)}. This folder holds the trained tensors alone; the backbone they were trained over is named in
`config.json` with its fingerprint, and no other is accepted.

```python
import cskt
from huggingface_hub import snapshot_download

model = cskt.CSKT.from_pretrained(snapshot_download("OWNER/NAME"))  # or this folder
features = model.encode_text(model.tokenize(["a woman in a red coat"]), normalize=True)
```

## Results on test, percent

| direction | model | {" | ".join(rows.columns)} |
|---|---|{"---|" * len(rows.columns)}
{figures}

## How it was made

{describe_run(record)}. {_selection(record["selection"])} Every setting is in `run.json`.

## Use

Finding people in pictures needs their consent or a law that allows it. The model errs, and not equally for all people:
a match is a hint for a person to check, never proof of identity. The terms of the data set and of the backbone apply.
"""
