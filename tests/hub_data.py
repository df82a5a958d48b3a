"""Data sets in the hub's layout, shaped like those of the study."""

from __future__ import annotations

from pathlib import Path

import datasets

REVIEWS = [f"This film is number {index} and it is {'fine' if index % 2 else 'dull'}." for index in range(40)]


def save_imdb(folder: Path, **columns: str) -> None:
    """A data set with the columns and splits of IMDB, as Parquet in the hub's layout."""
    features = datasets.Features({"text": datasets.Value("string"), "label": datasets.ClassLabel(names=["neg", "pos"])})
    # The same review twice in one split, with other spaces; and one of the other split's.
    splits = {
        "train": [*range(30), 3],
        "test": [*range(30, 40), 31, 4],
    }
    for split, indices in splits.items():
        texts = [REVIEWS[index] for index in indices]
        texts[-1] = texts[-1].replace(" ", "  ")
        rows = datasets.Dataset.from_dict(
            {"text": texts, "label": [index % 2 for index in indices]}, features=features
        ).rename_columns(columns)
        (folder / "plain_text").mkdir(parents=True, exist_ok=True)
        rows.to_parquet(folder / "plain_text" / f"{split}-00000-of-00001.parquet")


def save_cnn(folder: Path) -> None:
    """A data set with the columns, subsets and splits of CNN/DailyMail."""
    lines = ["---", "configs:"]
    for subset in ("1.0.0", "3.0.0"):
        lines += [f"- config_name: {subset}", "  data_files:"]
        for split in ("train", "validation", "test"):
            lines += [f"  - split: {split}", f"    path: {subset}/{split}-*"]
            articles = [f"In {split} of {subset}, {index} men bit dogs." for index in range(12)] + [""]
            rows = {"article": articles, "highlights": [f"{index} bites." for index in range(13)]}
            (folder / subset).mkdir(parents=True, exist_ok=True)
            datasets.Dataset.from_dict(rows).to_parquet(folder / subset / f"{split}-00000-of-00001.parquet")
    (folder / "README.md").write_text("\n".join([*lines, "---", ""]))
