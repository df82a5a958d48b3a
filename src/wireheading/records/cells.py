"""Whether the records of a cell, a model and a task, may be compared."""

from __future__ import annotations

from collections.abc import Mapping

from wireheading.study.config import Run

_NAMED = 3
"""Records of a cell that are named before the rest is counted."""


def differing_inputs(inputs: Mapping[Run, Mapping[str, str]]) -> dict[tuple[str, str], str]:
    """Finds the cells whose records were not all made of the same files, so that they must not be compared.

    Args:
        inputs: What each valid record states of its inputs. Imported records state none and are left out.

    Returns:
        For each such model and task, in one line, which files differ and which records are fewer.
    """
    cells: dict[tuple[str, str], dict[tuple[tuple[str, str], ...], list[Run]]] = {}
    for run, stated in inputs.items():
        # A commit may move on without a change of the files that are read.
        if files := tuple(sorted((name, sha) for name, sha in stated.items() if not name.endswith("_commit"))):
            cells.setdefault((run.model, run.task), {}).setdefault(files, []).append(run)
    problems = {}
    for cell, kinds in cells.items():
        if len(kinds) > 1:
            sets: list[set[tuple[str, str]]] = [set(files) for files in kinds]
            names = sorted({name for name, _ in sets[0].union(*sets) - sets[0].intersection(*sets)})
            fewer = sorted(kinds.values(), key=len)[:-1]
            listed = [str(run) for runs in fewer for run in runs]
            more = f" and {len(listed) - _NAMED} more" if len(listed) > _NAMED else ""
            problems[cell] = (
                f"its records were made of different files ({', '.join(names)}): {', '.join(listed[:_NAMED])}{more} of "
                "others than the rest; remove those of one kind to run them again"
            )
    return problems
