"""How a predictor is explained: one frozen record for the command line and Python."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Literal

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from scdrugmap.errors import UsageError

Method = Literal["auto", "gradients", "coefficients", "permutation"]
Baseline = Literal["zero", "mean"]
Image = Literal["svg", "png"]
TestUnit = Literal["auto", "sample", "cell"]


class Explaining(BaseModel):
    """Settings of an explanation; all that decides its result."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    method: Method = Field(
        "auto",
        description="gradients for embedding models, coefficients for linear estimators, else "
        "permutation",
    )
    baseline: Baseline = Field(
        "zero",
        description="what gradients compare with: no vector, or the mean vector of the cell's genes",
    )
    steps: int = Field(50, ge=2, le=5000, description="steps from the baseline to the cell")
    max_cells: int = Field(500, ge=10, description="most cells, drawn evenly over samples")
    max_genes: int = Field(
        200, ge=2, description="most genes that the method permutation looks at, by variance"
    )
    check_genes: int = Field(
        24,
        ge=0,
        description="genes that are permuted to check another method: half of them the first of "
        "its ranking, half drawn among the rest; 0: no check",
    )
    top: int = Field(50, ge=1, description="genes of the table of each sample")
    seed: int = Field(0, ge=0, description="draws the cells, and permutes")


def read_settings(given: Mapping[str, Any]) -> Explaining:
    """Return the settings of these names and values.

    Raises
    ------
    UsageError
        There is no such setting, or it cannot have the value.
    """
    try:
        return Explaining.model_validate(dict(given))
    except ValidationError as err:
        first = err.errors()[0]
        name = ".".join(map(str, first["loc"]))
        raise UsageError(
            f"{name}={first['input']!r}: {first['msg']}",
            hint=f"the settings are {', '.join(Explaining.model_fields)}",
        ) from err
