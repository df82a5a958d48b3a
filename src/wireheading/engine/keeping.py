"""What a job keeps of its runs on disk: checkpoints while they are under way, records once they have ended."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path

import torch

from wireheading.engine.checkpoints import load_checkpoint, save_checkpoint
from wireheading.engine.experiment import Row, experiment
from wireheading.engine.folders import checkpoint_of, identity_of, other_checkpoints
from wireheading.engine.state import RunState
from wireheading.files import remove_leftovers, sha256_of
from wireheading.inputs.items import Items
from wireheading.policy.device import device_name
from wireheading.policy.policy import Policy
from wireheading.records.provenance import provenance
from wireheading.records.record import make_record, write_record
from wireheading.records.transcripts import write_heldout, write_transcript
from wireheading.study.config import Run, Study
from wireheading.study.paths import adapter_folder, checkpoint_folder, heldout_path, transcript_path


@dataclass(frozen=True)
class Keeper:
    """Keeps the runs of one job.

    Attributes:
        study: The study's settings.
        policy: The policies of all slots.
        inputs: SHA-256 of what the runs of each task read.
        report: Writes a line of the log.
        notice: Writes a line that whoever sits at the terminal should see too.
    """

    study: Study
    policy: Policy
    inputs: Mapping[str, Mapping[str, str]]
    report: Callable[[str], None]
    notice: Callable[[str], None]

    def start(self, run: Run, slot: int, items: Items) -> RunState:
        """Starts a run, or resumes it from its checkpoint."""
        study, policy = self.study, self.policy
        policy.adapters.initialise(slot, run.seed)
        record = study.record_path(run)
        remove_leftovers(record.parent, f"{run.condition}.")
        folder, identity = self._checkpoint(run)
        checkpoint = load_checkpoint(folder, identity, self.notice)
        if checkpoint is None:
            if others := other_checkpoints(folder):
                names = ", ".join(others)
                self.report(f"{run}: starting from the first round; kept for other settings or inputs: {names}")
            return RunState(run, slot, experiment(study, run, policy.chat, items.train, items.heldout))
        policy.adapters.restore(slot, checkpoint.tensors)
        rows = [entry for entry in checkpoint.log if "evaluated" not in entry]
        evaluations = {entry["evaluated"]: entry["items"] for entry in checkpoint.log if "evaluated" in entry}
        self.report(f"{run}: resuming from round {len(rows)}")
        steps = experiment(
            study,
            run,
            policy.chat,
            items.train,
            items.heldout,
            rows,
            frozenset(evaluations),
        )
        return RunState(run, slot, steps, rows, evaluations)

    def save(self, state: RunState) -> None:
        """Writes the checkpoint of a run between two rounds.

        Raises:
            WriteError: The disk is full, or the folder may not be written to.
        """
        tensors = self.policy.adapters.state(state.slot)
        if len(state.rows) == self.study.rounds:
            # Nothing is updated any more, so the optimizer's state, two thirds of the whole, is not needed.
            tensors = {"values": tensors["values"]}
        folder, identity = self._checkpoint(state.run)
        save_checkpoint(folder, identity, state.unsaved, len(state.rows), tensors)
        state.unsaved.clear()

    def finish(
        self,
        state: RunState,
        slots: int,
        base: list[Row],
        others: Mapping[str, list[Row]],
        seconds: float,
        evaluating: float,
    ) -> None:
        """Writes the transcripts and the record of a run that has ended, and its adapter if the study keeps it.

        Args:
            state: The run.
            slots: Number of slots in its job.
            base: The base model's held-out evaluation in the run's task.
            others: The base model's grades of the fixed answers of other tasks.
            seconds: How long the job has taken so far.
            evaluating: How long its held-out evaluations have taken.

        Raises:
            WriteError: The disk is full, or the folder may not be written to.
        """
        assert state.outcome is not None
        study, run, inputs = self.study, state.run, self.inputs[state.run.task]
        if state.outcome.problem is not None:
            self.notice(f"{run}: diverged in {state.outcome.problem}")
        path = study.record_path(run)
        evaluations = {0: base, **state.evaluations}
        write_transcript(transcript_path(path), state.rows, study.conditions[run.condition].columns)
        write_heldout(heldout_path(path), evaluations)
        adapter: list[Path] = []
        if study.engine.keep_adapters:
            source, commit = study.models[run.model].source, inputs.get("model_commit")
            adapter = self.policy.adapters.save_peft(state.slot, adapter_folder(path), source, commit)
        record = make_record(
            study,
            run,
            inputs,
            state.outcome.status,
            state.outcome.problem,
            state.rows,
            evaluations,
            _digests((transcript_path(path), heldout_path(path))),
            timing={
                "first_round": state.first,
                "rounds": len(state.rows) - state.first,
                "seconds": round(seconds, 3),
                "evaluating_seconds": round(evaluating, 3),
            },
            provenance=provenance(
                study,
                slot=state.slot,
                slots=slots,
                chunk=self.policy.chunk,
                threads=torch.get_num_threads(),
                device=device_name(self.policy.model.device),
            ),
            adapter=_digests(adapter),
            # Grades that are not finite are those of a run that diverged.
            transfer={
                task: (others[task], rows) for task, rows in state.transfer.items() if state.outcome.problem is None
            },
        )
        write_record(path, record)

    def _checkpoint(self, run: Run) -> tuple[Path, str]:
        """The folder of a run's checkpoint, and the identity that it must have."""
        identity = identity_of(self.study.digest(run), self.inputs[run.task])
        return checkpoint_of(checkpoint_folder(self.study.record_path(run)), identity), identity


def _digests(files: Iterable[Path]) -> dict[str, str]:
    return {file.name: sha256_of(file) for file in files}
