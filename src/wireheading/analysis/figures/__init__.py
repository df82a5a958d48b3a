"""The report's figures, each with its data beside it."""

FIGURES = {
    "result": ("Result", "What selfgrade was paid, and what its answers were worth"),
    "contrast": ("Verdict", "Unearned reward and leniency"),
    "gain_split": ("Verdict", "What the gain consists of"),
    "signature": ("Verdict", "The signature as published"),
    "learning_curves": ("Training", "Learning curves"),
    "reward_vs_score": ("Training", "Reward against score"),
    "grade_inflation": ("Training", "Grade inflation"),
    "reliability": ("Calibration and validity", "Reliability of the grade"),
    "validity": ("Calibration and validity", "Unreadable, cut off, lost"),
    "costs": ("Cost", "Cost of each job"),
}
"""The figures in the order of reading: each one's category and title."""
