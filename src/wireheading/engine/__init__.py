"""How runs are computed: one run straight down (`experiment`), and the job that answers many of them in batches.

May import everything but `analysis` and `pretraining`; nothing but the workflow imports it.
"""
