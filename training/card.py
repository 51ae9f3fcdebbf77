"""The model card: README.md of a version folder, for people who ask what a model is and how far to trust it (Mitchell et al. 2019)."""

from dataclasses import dataclass

from service.spec import ModelSpec


@dataclass(frozen=True, slots=True)
class CardFacts:
    """What only the recipe knows.

    Attributes:
        summary: one or two sentences: what it does, on what data.
        split: how the data was cut into training, development and held-out parts.
        results: Markdown table, the model beside its baselines.
        limits: what not to use it for.
        int8: what int8 weights cost, where there are any.
    """

    summary: str
    split: str
    results: str
    limits: str
    int8: str = ""


def model_card(spec: ModelSpec, facts: CardFacts) -> str:
    """The card as Markdown."""
    made = spec.provenance
    int8 = f"\n{facts.int8}\n" if facts.int8 else ""
    versions = ", ".join(f"{name} {version}" for name, version in sorted(made.versions.items()))
    return f"""# {spec.name}, version {spec.version}

{facts.summary}

| | |
| --- | --- |
| task | {spec.task} |
| network | {spec.cell}, {spec.layers} x {spec.hidden}, {spec.outputs} outputs |
| variants | {", ".join(spec.variants)} |

## Data
{made.data}. Licence: {made.data_licence}. sha256 of the file trained on: `{made.data_sha256}`.

{facts.split}

## Results on the held-out part
{facts.results}
{int8}
## Limits
{facts.limits}

## Made by
`{made.recipe}` at commit {made.commit}, seed {made.seed}, {made.created}; {versions}.
"""
