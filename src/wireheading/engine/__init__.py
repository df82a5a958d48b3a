"""How runs are computed: one run straight down (`experiment`), and the job that answers many of them in batches.

May import `study`, `tasks`, `inputs`, `policy` and `records`; nothing but the workflow imports it.
"""
