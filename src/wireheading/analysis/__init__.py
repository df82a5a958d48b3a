"""From records to tables, from tables to estimates and verdicts, from those to figures and pages.

May import `study`, `tasks` and `records`; never torch or the engine.
"""
