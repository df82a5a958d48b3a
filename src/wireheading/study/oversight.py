"""What a study asks about oversight: which of its conditions are audited, reformed, or grade other tasks' answers."""

from __future__ import annotations

from wireheading.study.conditions import CONDITIONS
from wireheading.study.config import Study


def doses(study: Study) -> dict[str, float]:
    """The conditions that are selfgrade but for their audits, with the rate of these; nothing where none is audited."""
    plain = CONDITIONS["selfgrade"]
    rates = {
        name: row.audit for name, row in study.conditions.items() if row.model_copy(update={"audit": 0.0}) == plain
    }
    return dict(sorted(rates.items(), key=lambda rate: rate[1])) if any(rates.values()) else {}


def reforms(study: Study) -> dict[str, int]:
    """The conditions that pay the score from a round on, with that round."""
    return {
        name: row.until for name, row in study.conditions.items() if row.until is not None and row.until < study.rounds
    }


def unreformed(study: Study, name: str) -> str | None:
    """The condition that a reformed one would be without its reform; None where the study does not run it."""
    row = study.conditions[name].model_copy(update={"until": None})
    return next((other for other, known in study.conditions.items() if known == row), None)


def oversight_figures(study: Study) -> list[str]:
    """The figures that a study's conditions and evaluations give rise to."""
    asked = {
        "dose_response": bool(doses(study)),
        "reform": bool(reforms(study)),
        "transfer": study.evaluation.transfer and "selfgrade" in study.conditions,
    }
    return [name for name, there in asked.items() if there]
